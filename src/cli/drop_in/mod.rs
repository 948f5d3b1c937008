//! Drop-ins: started by the name of another init, keepalive takes that program's words.
//!
//! It reads words and the variables that it is given, and prints nothing. The texts are those that scripts match;
//! what they say of options, variables and exit codes is that program's. A file for each; how all of
//! them read options is in `getopt.rs`.

mod catatonit;
mod dumb_init;
mod getopt;
mod tini;

use std::ffi::{OsStr, OsString};

use super::{Invocation, Stream};
use crate::init::Options;

/// What a drop-in knows of the world besides its words.
#[derive(Clone, Copy)]
pub struct Surroundings<'s> {
    /// A variable of the environment.
    pub variable: &'s dyn Fn(&str) -> Option<OsString>,
    /// Our own id, which stands in messages.
    pub id: i32,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Surroundings").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads `arguments` as the program does whose name comes first. `None`: that name is no other init's.
#[must_use]
pub fn read(arguments: &[OsString], surroundings: &Surroundings<'_>) -> Option<Invocation> {
    let (program, words) = arguments.split_first()?;
    let program = program.to_string_lossy();
    let name = super::base_name(OsStr::new(&*program));
    let answer = match name.as_str() {
        "docker-init" | "podman-init" => tini::read(&program, words, surroundings),
        "catatonit" => catatonit::read(&program, words, surroundings),
        "dumb-init" => dumb_init::read(&program, words, surroundings),
        name if name.starts_with("tini") => tini::read(&program, words, surroundings),
        _ => return None,
    };
    Some(match answer {
        Ok((options, command)) => Invocation::Init { options, command },
        Err(Instead { stream, text, code }) => Invocation::Print { stream, text, code },
    })
}

/// What is said instead of running a command.
#[derive(Debug)]
struct Instead {
    stream: Stream,
    text: String,
    code: u8,
}

impl Instead {
    fn asked_for(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stdout, text: text.into(), code: 0 }
    }

    fn wrong(text: impl Into<String>) -> Self {
        Self { stream: Stream::Stderr, text: text.into(), code: 1 }
    }
}

/// Options and a command that is not empty, or what is said instead.
type Answer = Result<(Options, Vec<OsString>), Instead>;

/// keepalive's own licence, whatever it is called.
const LICENCE: &str = include_str!("../../../LICENSE");

#[cfg(test)]
mod tests;
