//! `ExecStart=` and lists of words. systemd.service(5), "Command lines"

use super::specifiers::{UnitName, expand};
use crate::import::text::{Piece, Text};
use crate::import::words::{name_length, quoted};

/// A command line.
#[derive(Debug)]
pub(super) struct CommandLine {
    pub(super) words: Vec<Text>,
    /// `-`: a failure counts as success.
    pub(super) is_forgiven: bool,
    /// `+`, `!`: not as the user of the service.
    pub(super) has_privileges: bool,
}

/// Parses the value of `ExecStart=`.
///
/// # Errors
/// What is not understood.
pub(super) fn command_line(text: &str, name: &UnitName) -> Result<CommandLine, String> {
    let program = text.trim_start_matches(['@', '-', ':', '+', '!', '|']);
    let prefixes = text.get(..text.len() - program.len()).unwrap_or_default();
    let expands = !prefixes.contains(':');
    let mut words = Vec::new();
    for word in split(program)? {
        let word = expand(&word, name)?;
        words.push(if expands { with_variables(&word) } else { word });
    }
    // `@`: the second word is what the program sees as its name.
    if prefixes.contains('@') && words.len() > 1 {
        words.remove(1);
    }
    if words.is_empty() {
        return Err("the command is empty".to_owned());
    }
    let has_privileges = prefixes.contains(['+', '!']);
    Ok(CommandLine { words, is_forgiven: prefixes.contains('-'), has_privileges })
}

/// Words as systemd splits them: with quotes around words and escape sequences of C.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (_, '\\') => {
                let escaped = escape(&mut letters).ok_or("a backslash is followed by no escape sequence")?;
                word.get_or_insert_default().push_str(&escaped);
            }
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if letter == open => quote = None,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

/// The letter of an escape sequence, after its backslash.
fn escape(letters: &mut std::str::Chars<'_>) -> Option<String> {
    let letter = match letters.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        's' => ' ',
        'x' => {
            let digits: String = letters.by_ref().take(2).collect();
            char::from(u8::from_str_radix(&digits, 16).ok()?)
        }
        letter @ ('\\' | '"' | '\'') => letter,
        // A `;` or `$` for a shell.
        other => return Some(format!("\\{other}")),
    };
    Some(letter.to_string())
}

/// `${NAME}` anywhere, `$NAME` as a word of its own; `$$` is a dollar sign.
fn with_variables(word: &Text) -> Text {
    let mut result = Text::default();
    for piece in &word.0 {
        let Piece::Literal(text) = piece else {
            result.0.push(piece.clone());
            continue;
        };
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                result.push('$');
                rest = after;
                continue;
            }
            let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let is_name = |name: &str| !name.is_empty() && name_length(name) == name.len();
            match braced.filter(|(name, _)| is_name(name)) {
                Some((name, after)) => {
                    result.0.push(Piece::Variable(name.to_owned(), Some(String::new())));
                    rest = after;
                }
                None if before.is_empty() && is_name(after) && word.0.len() == 1 && text.len() == after.len() + 1 => {
                    result.0.push(Piece::Variable(after.to_owned(), Some(String::new())));
                    rest = "";
                }
                None => {
                    result.push('$');
                    rest = after;
                }
            }
        }
        result.push_str(rest);
    }
    result
}

/// The words for a shell: variables stay its own.
pub(super) fn for_shell(words: &[Text]) -> Text {
    let mut script = Text::default();
    for (number, word) in words.iter().enumerate() {
        if number > 0 {
            script.push(' ');
        }
        if word.0.is_empty() {
            script.push_str("''");
        }
        for piece in &word.0 {
            match piece {
                Piece::Literal(text) => script.push_str(&quoted(text)),
                Piece::Variable(name, _) => script.push_str(&format!("\"${{{name}}}\"")),
                Piece::Placeholder(_) => script.0.push(piece.clone()),
            }
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn command_lines_are_split_and_expanded_as_by_systemd() {
        let name = UnitName::of(Path::new("/etc/systemd/system/app@.service"));
        let words = |text: &str| -> Vec<String> {
            command_line(text, &name).unwrap().words.iter().map(Text::written).collect()
        };
        assert_eq!(words("-/bin/a 'b c' \"d\\te\" %i-%p 100%%"), ["/bin/a", "b c", "d\te", "{instance}-app", "100%"]);
        assert_eq!(words("/bin/a $X ${Y}z a$X $$HOME"), ["/bin/a", "${X:-}", "${Y:-}z", "a$X", "$HOME"]);
        assert_eq!(words("@/bin/a -a b"), ["/bin/a", "b"]);
        assert!(command_line("/bin/a 'b", &name).is_err());
        let line = command_line("/bin/a 'b c' ${X}", &name).unwrap();
        assert_eq!(for_shell(&line.words).fixed().unwrap(), "/bin/a 'b c' \"${X}\"");
    }
}
