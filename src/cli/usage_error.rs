//! Errors in the command line.

use std::fmt;

use crate::control::EXIT_FAILURE;
use crate::model::exit_code::USAGE;

/// An invalid command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// The correct usage; may be empty.
    pub hint: String,
    /// The command whose `--help` the message refers to; empty for the general help.
    pub command: &'static str,
}

impl UsageError {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), command: "" }
    }

    /// The exit code: 2, or 1 for `health`, since Docker reserves 2 in a HEALTHCHECK.
    #[must_use]
    pub fn code(&self) -> u8 {
        if self.command == "health" { EXIT_FAILURE } else { USAGE }
    }
}

impl fmt::Display for UsageError {
    /// Writes the message, the hint and a reference to the help, each on its own line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "keepalive: {}", self.message)?;
        if !self.hint.is_empty() {
            writeln!(formatter, "  {}", self.hint.replace('\n', "\n  "))?;
        }
        let separator = if self.command.is_empty() { "" } else { " " };
        writeln!(formatter, "see keepalive {}{separator}--help", self.command)
    }
}
