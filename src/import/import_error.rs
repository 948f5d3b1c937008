//! Why nothing is imported.

use std::fmt;
use std::path::Path;

use crate::model::exit_code::INVALID_CONFIG;

/// An error in a source, or in writing the result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImportError {
    /// `FILE:LINE`, `FILE` or the part of it that is meant.
    pub(super) place: String,
    pub(super) message: String,
    /// What to do.
    pub(super) remedy: String,
    pub(super) code: u8,
}

impl ImportError {
    pub(super) fn new(place: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), remedy: remedy.into(), code: INVALID_CONFIG }
    }

    pub(super) fn at(path: &Path, line: usize, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(format!("{}:{line}", path.display()), message, remedy)
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "keepalive import: {}: {}", self.place, self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { writeln!(formatter, "  {}", self.remedy) }
    }
}
