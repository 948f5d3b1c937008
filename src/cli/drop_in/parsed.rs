//! The input of a drop-in besides its arguments, and its result.

use std::ffi::OsString;

use super::super::invocation::Stream;
use crate::init::Options;

/// The environment of a drop-in.
#[derive(Clone, Copy)]
pub struct Context<'s> {
    /// Returns the value of an environment variable.
    pub variable: &'s dyn Fn(&str) -> Option<OsString>,
    /// The process id of keepalive, which error messages contain.
    pub id: i32,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A text to print instead of running a command, and the exit code.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stream: Stream,
    pub(super) text: String,
    pub(super) code: u8,
}

impl Output {
    /// A text that the user has requested, such as the version.
    pub(super) fn requested(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stdout, text: text.into(), code: 0 }
    }

    /// The same for a program that prints it to stderr.
    pub(super) fn requested_on_stderr(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stderr, text: text.into(), code: 0 }
    }

    pub(super) fn error(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stderr, text: text.into(), code: 1 }
    }
}

/// The options and the command, or the text to print instead.
pub(super) type Parsed = Result<(Options, Vec<OsString>), Output>;

/// The licence of keepalive, which it prints under every name.
pub(super) const LICENCE: &str = include_str!("../../../LICENSE");
