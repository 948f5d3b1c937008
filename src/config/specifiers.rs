//! Specifiers of systemd and supervisord, which keepalive does not expand: what to write instead. systemd.unit(5)

use super::decoder::{Decoder, Value};

/// What a specifier looks like, and what to write instead. Scripts and formats of logs have a bare `%i` and `%h` with
/// another meaning.
const SPECIFIERS: [(&str, &str); 8] = [
    ("%(process_num)", "write `{instance}`"),
    ("%(program_name)", "write `{service}`"),
    ("%(group_name)", "write `{service}`"),
    (OF_ENVIRONMENT, "write `${NAME}`"),
    ("%h/", "write `${HOME}/`"),
    ("%i.", "write `{instance}.`"),
    ("%i/", "write `{instance}/`"),
    (AT_END, "write `{instance}`"),
];

/// A variable of the environment: `%(ENV_NAME)s`.
const OF_ENVIRONMENT: &str = "%(ENV_";
/// Only at the end of a text.
const AT_END: &str = "%i";

impl Decoder<'_> {
    /// Warns of specifiers in `text`, which is at `offset` in the text of `value`; `None`: somewhere.
    pub(super) fn warn_of_specifiers(&mut self, value: &Value<'_>, text: &str, offset: Option<usize>) {
        for (specifier, hint) in SPECIFIERS {
            let is_meant = specifier != AT_END || text.ends_with(AT_END);
            if let Some(start) = text.rfind(specifier).filter(|_| is_meant) {
                let rest = text.get(start..).unwrap_or_default();
                let shown = rest.get(..length_of(specifier, rest)).unwrap_or(specifier);
                let at = offset.map(|offset| offset + start..offset + start + shown.len());
                let span = at.map_or_else(|| value.span(), |at| self.span_of_part(value, &at));
                let variable = shown.strip_prefix(OF_ENVIRONMENT).and_then(|rest| rest.split_once(')'));
                let hint = variable.map_or_else(|| hint.to_owned(), |(name, _)| format!("write `${{{name}}}`"));
                self.warning(span, format!("`{shown}` is not expanded: it is a specifier of another program"), hint);
            }
        }
    }
}

/// The length of a specifier at the start of `text`: `%(NAME)02d` ends with the letter after its parenthesis.
fn length_of(specifier: &str, text: &str) -> usize {
    let close = text.find(')').filter(|_| specifier.starts_with("%("));
    let letter = close.and_then(|close| {
        let rest = text.get(close + 1..)?;
        Some(close + 2 + rest.find(|letter: char| letter.is_ascii_alphabetic()).filter(|digits| *digits < 3)?)
    });
    letter.unwrap_or(specifier.len())
}
