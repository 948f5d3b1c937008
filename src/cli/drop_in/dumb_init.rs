//! dumb-init.

use super::super::invocation::Stream;
use super::answer::{Answer, Context, Output};
use super::getopt::{Getopt, Known, Opt, leading_number};

use crate::init::{Compat, Options, Placement, Subreaper};
use crate::model::Signal;
use std::ffi::OsString;

const VERSION: &str = "dumb-init v1.2.5\n";
const KNOWN: Known = Known {
    letters: "hvVcr:",
    names: &[("help", b'h'), ("single-child", b'c'), ("rewrite", b'r'), ("verbose", b'v'), ("version", b'V')],
    permutes: false,
};
/// What a terminal stops programs with. A session without a shell does not heed it, so that it becomes SIGSTOP there.
const STOPS: [Signal; 3] = [Signal::TSTP, Signal::TTOU, Signal::TTIN];
/// The largest signal that can be rewritten.
const LARGEST: i64 = 31;

pub(super) fn read(program: &str, words: &[OsString], context: &Context<'_>) -> Answer {
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
    while let Some(option) = getopt.next().map_err(Output::wrong)? {
        set(&mut options, &option, program)?;
    }
    let command = getopt.rest();
    if command.is_empty() {
        return Err(Output::wrong(format!(
            "Usage: {program} [option] program [args]\nTry {program} --help for full usage.\n"
        )));
    }
    heed_environment(&mut options, context);
    if options.placement == Placement::NewSession {
        let untouched = STOPS.into_iter().filter(|stop| options.rewrite.iter().all(|(from, _)| from != stop));
        let rewrites: Vec<_> = untouched.map(|stop| (stop, Some(Signal::STOP))).collect();
        options.rewrite.extend(rewrites);
    }
    Ok((options, command))
}

fn set(options: &mut Options, option: &Opt, program: &str) -> Result<(), Output> {
    match option.letter {
        b'h' => return Err(told(usage(program))),
        b'V' => return Err(told(VERSION.to_owned())),
        b'v' => options.verbosity = 1,
        b'c' => stay_in_our_session(options),
        b'r' => options.rewrite.push(rewrite(&option.value.to_string_lossy()).ok_or_else(not_a_rewrite)?),
        _ => {}
    }
    Ok(())
}

fn told(text: String) -> Output {
    Output { stream: Stream::Stderr, text, code: 0 }
}

fn stay_in_our_session(options: &mut Options) {
    options.placement = Placement::SameSession;
    options.group = false;
}

fn heed_environment(options: &mut Options, context: &Context<'_>) {
    let is = |name: &str, wanted: &str| (context.variable)(name).is_some_and(|value| value == wanted);
    if is("DUMB_INIT_DEBUG", "1") {
        options.verbosity = 1;
        options.startup_messages.push("Running in debug mode.");
    }
    if is("DUMB_INIT_SETSID", "0") {
        stay_in_our_session(options);
        options.startup_messages.push("Not running in setsid mode.");
    }
}

/// `FROM:TO` as sscanf(3) reads `%d:%d`; what comes after is of no interest.
fn rewrite(text: &str) -> Option<(Signal, Option<Signal>)> {
    let (from, rest) = number(text)?;
    let (to, _) = number(rest.strip_prefix(':')?)?;
    let signal = |number: i64| Signal::new(u8::try_from(number).ok().filter(|_| number <= LARGEST)?);
    match to {
        0 => Some((signal(from)?, None)),
        to => Some((signal(from)?, Some(signal(to)?))),
    }
}

fn number(text: &str) -> Option<(i64, &str)> {
    let (number, rest) = leading_number(text);
    (rest.len() < text.len()).then_some((number, rest))
}

fn not_a_rewrite() -> Output {
    Output::wrong(format!(
        "\
Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and {LARGEST}.
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
