//! Text with variables, written so that keepalive expands these, and nothing else.

/// A part of a [`Text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    /// `${NAME}`, or `${NAME:-default}`.
    Variable(String, Option<String>),
    /// `{instance}`.
    Placeholder(&'static str),
}

/// Text of a command, a variable or a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) Vec<Piece>);

impl Text {
    pub(super) fn literal(text: impl Into<String>) -> Self {
        Self(vec![Piece::Literal(text.into())])
    }

    pub(super) fn push(&mut self, letter: char) {
        match self.0.last_mut() {
            Some(Piece::Literal(text)) => text.push(letter),
            _ => self.0.push(Piece::Literal(letter.to_string())),
        }
    }

    pub(super) fn push_str(&mut self, text: &str) {
        text.chars().for_each(|letter| self.push(letter));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Literal(text) if text.is_empty()))
    }

    /// The text, if it has no variables.
    pub(super) fn fixed(&self) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Literal(text) => Some(text.clone()),
            Piece::Variable(..) | Piece::Placeholder(_) => None,
        };
        self.0.iter().map(text).collect()
    }

    /// Whether literal text looks like a placeholder of keepalive. There is no way to write it otherwise.
    pub(super) fn has_foreign_placeholder(&self) -> bool {
        let is_one =
            |text: &str| ["{instance}", "{instances}", "{service}", "{fd."].iter().any(|name| text.contains(name));
        self.0.iter().any(|piece| matches!(piece, Piece::Literal(text) if is_one(text)))
    }

    /// The text as keepalive expands it: a `$` before `$` or `{` is doubled.
    pub(super) fn written(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut next = ' ';
        for piece in self.0.iter().rev() {
            let part = match piece {
                Piece::Variable(name, None) => format!("${{{name}}}"),
                Piece::Variable(name, Some(default)) => format!("${{{name}:-{}}}", Self::literal(default).written()),
                Piece::Placeholder(name) => (*name).to_owned(),
                Piece::Literal(text) => escaped(text, next),
            };
            next = part.chars().next().unwrap_or(next);
            parts.push(part);
        }
        parts.reverse();
        parts.concat()
    }
}

/// `text` before `next`.
fn escaped(text: &str, mut next: char) -> String {
    let mut letters = Vec::new();
    for letter in text.chars().rev() {
        letters.push(letter);
        if letter == '$' && matches!(next, '$' | '{') {
            letters.push('$');
        }
        next = letter;
    }
    letters.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_dollar_stays_one() {
        for (text, written) in [("a$b", "a$b"), ("${A}", "$${A}"), ("$$", "$$$"), ("$", "$"), ("$$a$${", "$$$a$$$${")] {
            assert_eq!(Text::literal(text).written(), written, "{text}");
        }
        let variable = Piece::Variable("A".to_owned(), Some("1".to_owned()));
        assert_eq!(Text(vec![Piece::Literal("5$".to_owned()), variable]).written(), "5$$${A:-1}");
    }
}
