//! Specifiers of systemd and supervisord, which keepalive does not expand: what to write instead. systemd.unit(5)

use std::ops::Range;

use super::decoder::{Decoder, Value};

impl Decoder<'_> {
    /// Warns of specifiers in `text`, a part of `value`. `place`: where in `value` a part of it is.
    pub(super) fn warn_of_specifiers(
        &mut self,
        value: &Value<'_>,
        text: &str,
        place: impl Fn(&Range<usize>) -> Range<usize>,
    ) {
        for (at, hint) in specifiers(text) {
            let message = format!("`{}` is not expanded", text.get(at.clone()).unwrap_or_default());
            self.warning(self.span_of_part(value, &place(&at)), &message, &hint);
        }
    }
}

/// Each specifier, and what to write instead.
fn specifiers(text: &str) -> impl Iterator<Item = (Range<usize>, String)> {
    // Scripts and formats of logs have `%i` and `%h` with another meaning.
    let is_word = !text.contains(char::is_whitespace);
    text.match_indices('%').filter_map(move |(start, _)| {
        let rest = text.get(start + 1..)?;
        if let Some((name, conversion)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            let hint = match name {
                "process_num" => "write `{instance}`".to_owned(),
                "program_name" | "group_name" => "write `{service}`".to_owned(),
                _ => format!("write `${{{}}}`", name.strip_prefix("ENV_")?),
            };
            // `%(process_num)02d`
            let end = conversion.find(|letter: char| !letter.is_ascii_digit())? + 1;
            return Some((start..start + name.len() + 3 + end, hint));
        }
        let hint = match rest.as_bytes() {
            [b'h', b'/', ..] => "write `${HOME}`",
            [b'i', after @ ..] if after.first().is_none_or(|byte| !byte.is_ascii_alphanumeric()) => {
                "write `{instance}`"
            }
            _ => return None,
        };
        is_word.then(|| (start..start + 2, hint.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_are_found_with_what_to_write() {
        let found = |text: &str| {
            let found = specifiers(text).map(|(at, hint)| format!("{} {hint}", &text[at]));
            found.collect::<Vec<_>>().join("; ")
        };
        for (text, expect) in [
            ("/run/app-%i.sock", "%i write `{instance}`"),
            ("300%i", "%i write `{instance}`"),
            ("%h/app", "%h write `${HOME}`"),
            ("a-%(process_num)02d", "%(process_num)02d write `{instance}`"),
            (
                "%(program_name)s_%(process_num)d",
                "%(program_name)s write `{service}`; %(process_num)d write `{instance}`",
            ),
            ("%(ENV_HOME)s/x", "%(ENV_HOME)s write `${HOME}`"),
            ("%(h)s %(l)s", ""),
            ("%h %l %u %t", ""),
            ("printf %i\\n 5", ""),
            ("50%", ""),
            ("%if", ""),
            ("a%20b%(", ""),
        ] {
            assert_eq!(found(text), expect, "{text}");
        }
    }
}
