//! JSON, written as it comes: the output of `check` needs no tree.

use std::fmt::Write as _;

/// A JSON text in the making. It puts the commas; brackets are the caller's business.
#[derive(Debug, Default)]
pub(super) struct Json {
    text: String,
    wants_comma: bool,
}

impl Json {
    pub(super) fn finish(mut self) -> String {
        self.text.push('\n');
        self.text
    }

    /// `{` or `[`.
    pub(super) fn open(&mut self, bracket: char) -> &mut Self {
        self.separate();
        self.text.push(bracket);
        self.wants_comma = false;
        self
    }

    /// `}` or `]`.
    pub(super) fn close(&mut self, bracket: char) -> &mut Self {
        self.text.push(bracket);
        self.wants_comma = true;
        self
    }

    pub(super) fn key(&mut self, name: &str) -> &mut Self {
        self.string(name);
        self.text.push(':');
        self.wants_comma = false;
        self
    }

    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        self.separate();
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                control if control < ' ' => {
                    // A String takes every write.
                    let _ = write!(self.text, "\\u{:04x}", u32::from(control));
                }
                other => self.text.push(other),
            }
        }
        self.text.push('"');
        self
    }

    /// A number, `true`, `false` or `null`.
    pub(super) fn word(&mut self, value: &dyn std::fmt::Display) -> &mut Self {
        self.separate();
        // As above.
        let _ = write!(self.text, "{value}");
        self
    }

    /// `null` for `None`.
    pub(super) fn optional(&mut self, value: Option<&dyn std::fmt::Display>) -> &mut Self {
        self.word(value.unwrap_or(&"null"))
    }

    fn separate(&mut self) {
        if self.wants_comma {
            self.text.push(',');
        }
        self.wants_comma = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_escapes_are_where_they_belong() {
        let mut json = Json::default();
        json.open('{').key("a\"\\").open('[').word(&1).string("x\ny\u{1b}ü").open('[').close(']').close(']');
        json.key("b").optional(None).key("c").word(&true).close('}');
        assert_eq!(json.finish(), "{\"a\\\"\\\\\":[1,\"x\\u000ay\\u001bü\",[]],\"b\":null,\"c\":true}\n");
    }
}
