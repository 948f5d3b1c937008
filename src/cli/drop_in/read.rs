//! Selects the init by the name of the program, and parses its arguments.

use std::ffi::{OsStr, OsString};

use super::super::invocation::Invocation;
use super::super::words::base_name;
use super::parsed::{Context, Output};
use super::{catatonit, dumb_init, tini};

/// Parses `arguments` as the init that `arguments[0]` names; `None` if it names none.
#[must_use]
pub fn read(arguments: &[OsString], context: &Context<'_>) -> Option<Invocation> {
    let (program, words) = arguments.split_first()?;
    let program = program.to_string_lossy();
    let name = base_name(OsStr::new(&*program));
    let parsed = match name.as_str() {
        "docker-init" | "podman-init" => tini::read(&program, words, context),
        "catatonit" => catatonit::read(&program, words, context),
        "dumb-init" => dumb_init::read(&program, words, context),
        name if name.starts_with("tini") => tini::read(&program, words, context),
        _ => return None,
    };
    Some(match parsed {
        Ok((options, command)) => Invocation::Init { options, command },
        Err(Output { stream, text, code }) => Invocation::Print { stream, text, code },
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
