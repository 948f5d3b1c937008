//! What a drop-in is given, and what it makes of its words.

use std::ffi::OsString;

use super::super::invocation::Stream;
use crate::init::Options;

/// What a drop-in knows of the world besides its words.
#[derive(Clone, Copy)]
pub struct Context<'s> {
    /// A variable of the environment.
    pub variable: &'s dyn Fn(&str) -> Option<OsString>,
    /// Our own id, which stands in messages.
    pub id: i32,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is said instead of running a command.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stream: Stream,
    pub(super) text: String,
    pub(super) code: u8,
}

impl Output {
    pub(super) fn asked_for(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stdout, text: text.into(), code: 0 }
    }

    pub(super) fn wrong(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stderr, text: text.into(), code: 1 }
    }
}

/// Options and a command that is not empty, or what is said instead.
pub(super) type Answer = Result<(Options, Vec<OsString>), Output>;

/// keepalive's own licence, whatever it is called.
pub(super) const LICENCE: &str = include_str!("../../../LICENSE");
