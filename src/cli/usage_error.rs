//! A command line that is wrong.

use std::fmt;

use crate::control::EXIT_FAILURE;
use crate::model::exit_code::USAGE;

/// The words make no sense; exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub remedy: String,
    /// The command whose help says more; empty: the general one.
    pub command: &'static str,
}

impl UsageError {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into(), command: "" }
    }

    /// The exit code: 2, but for a probe 1, as HEALTHCHECK has no other for no.
    #[must_use]
    pub fn code(&self) -> u8 {
        if self.command == "health" { EXIT_FAILURE } else { USAGE }
    }
}

impl fmt::Display for UsageError {
    /// The message, the remedy, where to read more; each on a line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "keepalive: {}", self.message)?;
        if !self.remedy.is_empty() {
            writeln!(formatter, "  {}", self.remedy.replace('\n', "\n  "))?;
        }
        let blank = if self.command.is_empty() { "" } else { " " };
        writeln!(formatter, "see keepalive {}{blank}--help", self.command)
    }
}
