//! Finds the program that is meant, and reads its words.

use std::ffi::{OsStr, OsString};

use super::super::invocation::Invocation;
use super::super::words::base_name;
use super::answer::{Instead, Surroundings};
use super::{catatonit, dumb_init, tini};

/// Reads `arguments` as the program does whose name comes first. `None`: that name is no other init's.
#[must_use]
pub fn read(arguments: &[OsString], surroundings: &Surroundings<'_>) -> Option<Invocation> {
    let (program, words) = arguments.split_first()?;
    let program = program.to_string_lossy();
    let name = base_name(OsStr::new(&*program));
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
