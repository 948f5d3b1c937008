//! tini, docker-init and podman-init; all three are tini.
//!
//! Options end at the first operand, so that `tini ls -l` always runs `ls -l`. The original does so only with musl; with
//! glibc it parses `-l` as its own option.

use std::ffi::OsString;

use super::getopt::{Getopt, KnownOptions, Opt, leading_number};
use super::parsed::{Context, LICENCE, Output, Parsed};

use crate::init::{Compat, Options, Subreaper};
use crate::model::{ExitStatus, Signal};

/// `docker info` parses it.
const VERSION: &str = "tini version 0.19.0";
const SUBREAPER: &str = "TINI_SUBREAPER";
const VERBOSITY: &str = "TINI_VERBOSITY";
const GROUP: &str = "TINI_KILL_PROCESS_GROUP";
const KNOWN: KnownOptions = KnownOptions { letters: "p:hvwgle:s", names: &[], permutes: false };
/// Errors and warnings.
const DEFAULT_VERBOSITY: u8 = 1;

pub(super) fn read(program: &str, words: &[OsString], context: &Context<'_>) -> Parsed {
    if let [only] = words
        && only == "--version"
    {
        return Err(Output::requested(format!("{VERSION}\n")));
    }
    let mut options = Options {
        compat: Compat::Tini,
        subreaper: Subreaper::NoWithWarning,
        verbosity: DEFAULT_VERBOSITY,
        ..Options::default()
    };
    let mut getopt = Getopt::new(program, KNOWN, words);
    while let Some(option) = getopt.next().map_err(|line| Output::error(line + &usage(program)))? {
        set(&mut options, &option, program, context)?;
    }
    let command = getopt.operands();
    if command.is_empty() {
        return Err(Output::error(usage(program)));
    }
    apply_environment(&mut options, context);
    Ok((options, command))
}

fn set(options: &mut Options, option: &Opt, program: &str, context: &Context<'_>) -> Result<(), Output> {
    let value = option.value.to_string_lossy();
    let invalid = |letter: char| {
        Output::error(format!("[FATAL tini ({})] Not a valid option for -{letter}: {value}\n", context.id))
    };
    match option.letter {
        b'h' => return Err(Output::requested(usage(program))),
        b'l' => return Err(Output::requested(LICENCE)),
        b's' => options.subreaper = Subreaper::Yes,
        b'v' => options.verbosity = options.verbosity.saturating_add(1),
        b'w' => options.warn_on_reap = true,
        b'g' => options.group = true,
        b'p' => options.parent_death_signal = Some(signal(&value).ok_or_else(|| invalid('p'))?),
        b'e' => options.remap_exit.insert(ExitStatus::Code(exit_code(&value).ok_or_else(|| invalid('e'))?)),
        _ => {}
    }
    Ok(())
}

/// Environment variables take precedence over options.
fn apply_environment(options: &mut Options, context: &Context<'_>) {
    let variable = context.variable;
    if variable(SUBREAPER).is_some() {
        options.subreaper = Subreaper::Yes;
    }
    if variable(GROUP).is_some() {
        options.group = true;
    }
    if let Some(level) = variable(VERBOSITY) {
        let (number, _) = leading_number(&level.to_string_lossy());
        // tini treats a negative number as the maximum.
        options.verbosity = u8::try_from(number).unwrap_or(u8::MAX);
    }
}

/// Parses the name of a POSIX signal: upper case, with `SIG`.
fn signal(text: &str) -> Option<Signal> {
    const NOT_IN_POSIX: [&str; 3] = ["SIGSTKFLT", "SIGIO", "SIGPWR"];
    let signal = Signal::parse(text).filter(|signal| signal.to_string() == text)?;
    (signal.number() <= 31 && !NOT_IN_POSIX.contains(&text)).then_some(signal)
}

/// Parses an exit code as strtol(3) does: an empty string is 0.
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
