//! `$VAR` in values. https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md

use crate::import::node::Node;
use crate::import::text::{Piece, Text};
use crate::import::words::name_length;

/// The text of a scalar with its variables.
pub(super) fn text_of(node: &Node) -> Option<Text> {
    node.text().map(|text| interpolate(&text))
}

/// An unset variable is the empty text, unless the file says `${VAR:?}`.
pub(super) fn interpolate(text: &str) -> Text {
    let mut result = Text::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_at_checked(closing(inner)?));
        if let Some((inner, after)) = braced {
            push_variable(&mut result, inner);
            rest = after.get(1..).unwrap_or_default();
        } else {
            let (name, after) = after.split_at_checked(name_length(after)).unwrap_or_default();
            if name.is_empty() {
                result.push('$');
            } else {
                result.0.push(Piece::Variable(name.to_owned(), Some(String::new())));
            }
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// The position of the brace that closes the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (position, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(position),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `VAR`, `VAR:-default`, `VAR-default`, `VAR:?error`, `VAR?error`; of `VAR:+text` the variable alone.
fn push_variable(result: &mut Text, inner: &str) {
    let (name, operation) = inner.split_at_checked(name_length(inner)).unwrap_or_default();
    let default = match operation.strip_prefix(':').unwrap_or(operation).split_at_checked(1) {
        Some(("-", default)) => Some(default.to_owned()),
        Some(("?", _)) => None,
        _ => Some(String::new()),
    };
    result.0.push(Piece::Variable(name.to_owned(), default));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_the_defaults_of_compose() {
        for (text, written) in [
            ("a$B-${C}", "a${B:-}-${C:-}"),
            ("${A:-x}${B-y}${C:?no}${D?}", "${A:-x}${B:-y}${C}${D}"),
            ("$$A $${A} 5$", "$A $${A} 5$"),
            ("http://${H:-[::1]}:80", "http://${H:-[::1]}:80"),
        ] {
            assert_eq!(interpolate(text).written(), written, "{text}");
        }
    }
}
