//! Splits a command into words as a shell does.

use super::text::{Piece, Text};

/// What a backslash escapes in double quotes.
const OF_SHELL: &[char] = &['"', '\\', '$', '`', '\n'];
/// As Python's `shlex.split`.
pub(super) const OF_PYTHON: &[char] = &['"', '\\'];

/// The words of `text`, without any expansion; `None`: a quote is not closed, or a backslash ends it. A variable never splits.
pub(super) fn split(text: &Text) -> Option<Vec<Text>> {
    split_escaping(text, OF_SHELL)
}

/// As [`split`]. `escaped`: what a backslash escapes in double quotes.
pub(super) fn split_escaping(text: &Text, escaped: &[char]) -> Option<Vec<Text>> {
    let mut words = Vec::new();
    let mut word: Option<Text> = None;
    let mut quote = None;
    let mut is_escaped = false;
    for piece in &text.0 {
        let Piece::Literal(literal) = piece else {
            word.get_or_insert_default().0.push(piece.clone());
            continue;
        };
        for letter in literal.chars() {
            if is_escaped {
                is_escaped = false;
                if quote == Some('"') && !escaped.contains(&letter) {
                    word.get_or_insert_default().push('\\');
                }
                // A backslash before a newline joins lines.
                if letter != '\n' {
                    word.get_or_insert_default().push(letter);
                }
                continue;
            }
            match (quote, letter) {
                (None | Some('"'), '\\') => is_escaped = true,
                (None, '\'' | '"') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (Some(open), _) if letter == open => quote = None,
                (None, _) if letter.is_ascii_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
    }
    words.extend(word);
    (quote.is_none() && !is_escaped).then_some(words)
}

/// `text` with `$NAME` and `${NAME}` outside of single quotes as variables, each the empty text if it is not set.
pub(super) fn with_shell_variables(text: &str) -> Text {
    let mut result = Text::default();
    let mut is_single = false;
    let mut is_double = false;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        match letter {
            '\\' if !is_single => {
                let length = letter.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8);
                result.push_str(rest.get(..length).unwrap_or(rest));
                rest = rest.get(length..).unwrap_or_default();
                continue;
            }
            '\'' if !is_double => is_single = !is_single,
            '"' if !is_single => is_double = !is_double,
            '$' if !is_single => {
                if let Some((name, after)) = variable(rest) {
                    result.0.push(Piece::Variable(name.to_owned(), Some(String::new())));
                    rest = after;
                    continue;
                }
            }
            _ => {}
        }
        result.push(letter);
        rest = rest.get(letter.len_utf8()..).unwrap_or_default();
    }
    result
}

/// The name of `$NAME` or `${NAME}` at the start of `text`, and what follows.
pub(super) fn variable(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix('$')?;
    let braced = rest.strip_prefix('{');
    let rest = braced.unwrap_or(rest);
    let length = name_length(rest);
    let (name, after) = rest.split_at_checked(length).filter(|_| length > 0)?;
    let after = if braced.is_some() { after.strip_prefix('}')? } else { after };
    Some((name, after))
}

/// The length of the name of a variable at the start of `text`.
pub(super) fn name_length(text: &str) -> usize {
    let is_first = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    let length = text.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    if is_first { length.unwrap_or(text.len()) } else { 0 }
}

/// One word for a shell script.
pub(super) fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_by_a_shell() {
        let words =
            |text: &str| split(&Text::literal(text)).map(|words| words.iter().map(Text::written).collect::<Vec<_>>());
        let expect = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words("a  'b c' \"d \\\" \\e\" f\\ g '' #h"), expect(&["a", "b c", "d \" \\e", "f g", "", "#h"]));
        assert_eq!(words("a 'b"), None);
        assert_eq!(words("a\\"), None);
        let text = with_shell_variables("a -p $PORT '$X' \"${Y}z\" \\$W $1");
        let words: Vec<_> = split(&text).unwrap().iter().map(Text::written).collect();
        assert_eq!(words, ["a", "-p", "${PORT:-}", "$X", "${Y:-}z", "$W", "$1"]);
    }
}
