//! Specifiers of systemd and supervisord, which keepalive does not expand: what to write instead. systemd.unit(5)

use super::decoder::{Decoder, Value};

/// What a specifier looks like, and what to write instead. Scripts and formats of logs have a bare `%i` and `%h` with
/// another meaning.
const SPECIFIERS: [(&str, &str); 8] = [
    ("%(process_num)", "write `{instance}`"),
    ("%(program_name)", "write `{service}`"),
    ("%(group_name)", "write `{service}`"),
    ("%(ENV_", "write `${NAME}` instead of `%(ENV_NAME)s`"),
    ("%h/", "write `${HOME}/`"),
    ("%i.", "write `{instance}.`"),
    ("%i/", "write `{instance}/`"),
    (AT_END, "write `{instance}`"),
];

/// Only at the end of a text.
const AT_END: &str = "%i";

impl Decoder<'_> {
    /// Warns of specifiers in `text`, which is at `offset` in the text of `value`; `None`: somewhere.
    pub(super) fn warn_of_specifiers(&mut self, value: &Value<'_>, text: &str, offset: Option<usize>) {
        for (specifier, hint) in SPECIFIERS {
            let is_meant = specifier != AT_END || text.ends_with(AT_END);
            if let Some(start) = text.rfind(specifier).filter(|_| is_meant) {
                let start = offset.map(|offset| offset + start);
                let span = match start {
                    Some(start) => self.span_of_part(value, &(start..start + specifier.len())),
                    None => value.span(),
                };
                let shown = specifier.strip_prefix("%(").map_or(specifier, |name| name.trim_end_matches(')'));
                self.warning(span, format!("`{shown}` is not expanded: it is a specifier of another program"), hint);
            }
        }
    }
}
