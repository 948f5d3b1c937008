//! dumb-init.

use std::ffi::OsString;

use super::getopt::{Getopt, KnownOptions, Opt, leading_number};
use super::parsed::{Context, Output, Parsed};

use crate::init::{Compat, Options, Placement, Subreaper};
use crate::model::Signal;

const VERSION: &str = "dumb-init v1.2.5\n";
const KNOWN: KnownOptions = KnownOptions {
    letters: "hvVcr:",
    names: &[("help", b'h'), ("single-child", b'c'), ("rewrite", b'r'), ("verbose", b'v'), ("version", b'V')],
    permutes: false,
};
/// The stop signals of a terminal. The kernel discards them in an orphaned process group, which a new session is, so
/// SIGSTOP replaces them there.
const TERMINAL_STOPS: [Signal; 3] = [Signal::TSTP, Signal::TTOU, Signal::TTIN];
/// The largest signal number that can be rewritten.
const MAX_SIGNAL: i64 = 31;

pub(super) fn read(program: &str, words: &[OsString], context: &Context<'_>) -> Parsed {
    let mut options = Options {
        compat: Compat::DumbInit,
        subreaper: Subreaper::No,
        placement: Placement::NewSession,
        group: true,
        suspends: true,
        final_signal: Some(Signal::TERM),
        ..Options::default()
    };
    let mut getopt = Getopt::new(program, KNOWN, words);
    while let Some(option) = getopt.next().map_err(Output::error)? {
        set(&mut options, &option, program)?;
    }
    let command = getopt.operands();
    if command.is_empty() {
        return Err(Output::error(format!(
            "Usage: {program} [option] program [args]\nTry {program} --help for full usage.\n"
        )));
    }
    apply_environment(&mut options, context);
    if options.placement == Placement::NewSession {
        let untouched = TERMINAL_STOPS.into_iter().filter(|stop| options.rewrite.iter().all(|(from, _)| from != stop));
        let rewrites: Vec<_> = untouched.map(|stop| (stop, Some(Signal::STOP))).collect();
        options.rewrite.extend(rewrites);
    }
    Ok((options, command))
}

fn set(options: &mut Options, option: &Opt, program: &str) -> Result<(), Output> {
    match option.letter {
        b'h' => return Err(Output::requested_on_stderr(usage(program))),
        b'V' => return Err(Output::requested_on_stderr(VERSION)),
        b'v' => options.verbosity = 1,
        b'c' => use_same_session(options),
        b'r' => options.rewrite.push(rewrite(&option.value.to_string_lossy()).ok_or_else(invalid_rewrite)?),
        _ => {}
    }
    Ok(())
}

fn use_same_session(options: &mut Options) {
    options.placement = Placement::SameSession;
    options.group = false;
}

fn apply_environment(options: &mut Options, context: &Context<'_>) {
    let is = |name: &str, expected: &str| (context.variable)(name).is_some_and(|value| value == expected);
    if is("DUMB_INIT_DEBUG", "1") {
        options.verbosity = 1;
        options.startup_messages.push("Running in debug mode.");
    }
    if is("DUMB_INIT_SETSID", "0") {
        use_same_session(options);
        options.startup_messages.push("Not running in setsid mode.");
    }
}

/// Parses `FROM:TO` as sscanf(3) reads `%d:%d`; the rest of `text` is ignored.
fn rewrite(text: &str) -> Option<(Signal, Option<Signal>)> {
    let (from, rest) = number(text)?;
    let (to, _) = number(rest.strip_prefix(':')?)?;
    let signal = |number: i64| Signal::new(u8::try_from(number).ok().filter(|_| number <= MAX_SIGNAL)?);
    match to {
        0 => Some((signal(from)?, None)),
        to => Some((signal(from)?, Some(signal(to)?))),
    }
}

fn number(text: &str) -> Option<(i64, &str)> {
    let (number, rest) = leading_number(text);
    (rest.len() < text.len()).then_some((number, rest))
}

fn invalid_rewrite() -> Output {
    Output::error(format!(
        "\
Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and {MAX_SIGNAL}.
This option can be specified multiple times.
Use --help for full usage.
"
    ))
}

fn usage(program: &str) -> String {
    format!(
        "\
{VERSION}Usage: {program} [option] command [[arg] ...]

dumb-init is a simple process supervisor that forwards signals to children.
It is designed to run as PID1 in minimal container environments.

Optional arguments:
   -c, --single-child   Run in single-child mode.
                        In this mode, signals are only proxied to the
                        direct child and not any of its descendants.
   -r, --rewrite s:r    Rewrite received signal s to new signal r before proxying.
                        To ignore (not proxy) a signal, rewrite it to 0.
                        This option can be specified multiple times.
   -v, --verbose        Print debugging information to stderr.
   -h, --help           Print this help message and exit.
   -V, --version        Print the current version and exit.

Full help is available online at https://github.com/Yelp/dumb-init
"
    )
}
