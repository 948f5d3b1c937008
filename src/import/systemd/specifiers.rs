//! `%i`, `%n`, … in values. systemd.unit(5), "Specifiers"

use std::path::Path;

use crate::import::text::{Piece, Text};

/// The name of a unit: `NAME@INSTANCE.service`.
#[derive(Clone, Debug)]
pub(super) struct UnitName {
    pub(super) full: String,
    pub(super) prefix: String,
    /// `None`: no template. Empty: a template itself, whose instances are those of keepalive.
    pub(super) instance: Option<String>,
}

impl UnitName {
    pub(super) fn of(path: &Path) -> Self {
        let full = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = full.rsplit_once('.').map_or(full.as_str(), |(name, _)| name);
        let (prefix, instance) = match name.split_once('@') {
            Some((prefix, instance)) => (prefix.to_owned(), Some(instance.to_owned())),
            None => (name.to_owned(), None),
        };
        Self { full, prefix, instance }
    }

    /// The name of the service.
    pub(super) fn service(&self) -> String {
        match self.instance.as_deref() {
            None | Some("") => self.prefix.clone(),
            Some(instance) => format!("{}-{instance}", self.prefix),
        }
    }
}

/// `text` with its specifiers expanded.
///
/// # Errors
/// What is not known.
pub(super) fn expand(text: &str, name: &UnitName) -> Result<Text, String> {
    let mut result = Text::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        result.push_str(before);
        let Some(letter) = after.chars().next() else {
            return Err("`%` stands at the end: a literal one is `%%`".to_owned());
        };
        match letter {
            '%' => result.push('%'),
            'i' | 'I' => match name.instance.as_deref() {
                Some("") => result.0.push(Piece::Placeholder("{instance}")),
                instance => result.push_str(instance.unwrap_or_default()),
            },
            'n' => result.push_str(&name.full),
            'N' => result.push_str(name.full.rsplit_once('.').map_or(&name.full, |(name, _)| name)),
            'p' => result.push_str(&name.prefix),
            'j' => result.push_str(name.prefix.rsplit('-').next().unwrap_or_default()),
            't' => result.push_str("/run"),
            'S' => result.push_str("/var/lib"),
            'C' => result.push_str("/var/cache"),
            'L' => result.push_str("/var/log"),
            'E' => result.push_str("/etc"),
            'T' => result.push_str("/tmp"),
            'V' => result.push_str("/var/tmp"),
            'h' => result.0.push(Piece::Variable("HOME".to_owned(), None)),
            'u' => result.0.push(Piece::Variable("USER".to_owned(), None)),
            'H' | 'l' | 'q' => result.0.push(Piece::Variable("HOSTNAME".to_owned(), None)),
            other => return Err(format!("the specifier `%{other}` has no counterpart")),
        }
        rest = after.get(letter.len_utf8()..).unwrap_or_default();
    }
    result.push_str(rest);
    Ok(result)
}
