//! tini, and docker-init and podman-init, which are tini by another name.
//!
//! On purpose it stops at the first word that is no option, so that `tini ls -l` runs `ls -l` whatever libc tini was
//! built with.

use std::ffi::OsString;

use super::answer::{Answer, Context, LICENCE, Output};
use super::getopt::{Getopt, Known, Opt, leading_number};

use crate::init::{Compat, Options, Subreaper};
use crate::model::{ExitStatus, Signal};

/// What it says to be, which `docker info` reads.
const VERSION: &str = "tini version 0.19.0";
const SUBREAPER: &str = "TINI_SUBREAPER";
const VERBOSITY: &str = "TINI_VERBOSITY";
const GROUP: &str = "TINI_KILL_PROCESS_GROUP";
const KNOWN: Known = Known { letters: "p:hvwgle:s", names: &[], permutes: false };
/// Warnings are told, nothing else.
const DEFAULT_VERBOSITY: u8 = 1;

pub(super) fn read(program: &str, words: &[OsString], context: &Context<'_>) -> Answer {
    if let [only] = words
        && only == "--version"
    {
        return Err(Output::asked_for(format!("{VERSION}\n")));
    }
    let mut options = Options {
        compat: Compat::Tini,
        subreaper: Subreaper::NoWithWarning,
        verbosity: DEFAULT_VERBOSITY,
        ..Options::default()
    };
    let mut getopt = Getopt::new(program, KNOWN, words);
    while let Some(option) = getopt.next().map_err(|line| Output::wrong(line + &usage(program)))? {
        set(&mut options, &option, program, context)?;
    }
    let command = getopt.rest();
    if command.is_empty() {
        return Err(Output::wrong(usage(program)));
    }
    heed_environment(&mut options, context);
    Ok((options, command))
}

fn set(options: &mut Options, option: &Opt, program: &str, context: &Context<'_>) -> Result<(), Output> {
    let value = option.value.to_string_lossy();
    let not_valid = |letter: char| {
        Output::wrong(format!("[FATAL tini ({})] Not a valid option for -{letter}: {value}\n", context.id))
    };
    match option.letter {
        b'h' => return Err(Output::asked_for(usage(program))),
        b'l' => return Err(Output::asked_for(LICENCE)),
        b's' => options.subreaper = Subreaper::Yes,
        b'v' => options.verbosity = options.verbosity.saturating_add(1),
        b'w' => options.warn_on_reap = true,
        b'g' => options.group = true,
        b'p' => options.parent_death_signal = Some(signal(&value).ok_or_else(|| not_valid('p'))?),
        b'e' => options.remap_exit.insert(ExitStatus::Code(exit_code(&value).ok_or_else(|| not_valid('e'))?)),
        _ => {}
    }
    Ok(())
}

/// It comes after the options and wins.
fn heed_environment(options: &mut Options, context: &Context<'_>) {
    let variable = context.variable;
    if variable(SUBREAPER).is_some() {
        options.subreaper = Subreaper::Yes;
    }
    if variable(GROUP).is_some() {
        options.group = true;
    }
    if let Some(wish) = variable(VERBOSITY) {
        let (number, _) = leading_number(&wish.to_string_lossy());
        // Below zero is as much as there is.
        options.verbosity = u8::try_from(number).unwrap_or(u8::MAX);
    }
}

/// Names in capitals with `SIG`, of the signals that POSIX knows.
fn signal(text: &str) -> Option<Signal> {
    const UNKNOWN: [&str; 3] = ["SIGSTKFLT", "SIGIO", "SIGPWR"];
    let signal = Signal::parse(text).filter(|signal| signal.to_string() == text)?;
    (signal.number() <= 31 && !UNKNOWN.contains(&text)).then_some(signal)
}

/// As strtol(3) reads it, so that nothing at all is 0.
fn exit_code(text: &str) -> Option<u8> {
    let (number, rest) = leading_number(text);
    if rest.is_empty() { u8::try_from(number).ok() } else { None }
}

fn usage(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or_default();
    format!(
        "\
{name} ({VERSION})
Usage: {name} [OPTIONS] PROGRAM -- [ARGS] | --version

Execute a program under the supervision of a valid init process ({name})

Command line options:

  --version: Show version and exit.
  -h: Show this help message and exit.
  -s: Register as a process subreaper (requires Linux >= 3.4).
  -p SIGNAL: Trigger SIGNAL when parent dies, e.g. \"-p SIGKILL\".
  -v: Generate more verbose output. Repeat up to 3 times.
  -w: Print a warning when processes are getting reaped.
  -g: Send signals to the child's process group.
  -e EXIT_CODE: Remap EXIT_CODE (from 0 to 255) to 0.
  -l: Show license and exit.

Environment variables:

  {SUBREAPER}: Register as a process subreaper (requires Linux >= 3.4).
  {VERBOSITY}: Set the verbosity level (default: {DEFAULT_VERBOSITY}).
  {GROUP}: Send signals to the child's process group.

"
    )
}
