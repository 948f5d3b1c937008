//! What tini says, and at which of its levels.

use super::{Notice, description};
use crate::init::Options;
use crate::model::{ExitStatus, Pid, Signal, errno};
use crate::sys::wait::Ended;
use crate::sys::{StandardError, process};
use nix::errno::Errno;

/// Tells it, to those who want to know.
pub(super) fn tell(options: &Options, notice: Notice<'_>) {
    if let Notice::ChildEnded(ended) = notice
        && options.verbosity >= Severity::Debug.least_verbosity()
    {
        write(Severity::Debug, process::id(), &format!("Reaped child with pid: '{}'", ended.pid));
    }
    let Some((severity, text)) = in_words(options, notice) else { return };
    if options.verbosity < severity.least_verbosity() {
        return;
    }
    let id = notice.said_by_child().unwrap_or_else(process::id);
    write(severity, id, &text);
}

/// Whether it is told that there is no terminal.
pub(super) const fn tells_of_terminal(options: &Options) -> bool {
    options.verbosity >= Severity::Debug.least_verbosity()
}

/// Whether it is told that nobody is left.
pub(super) const fn tells_of_childless(options: &Options) -> bool {
    options.verbosity >= Severity::Trace.least_verbosity()
}

fn write(severity: Severity, id: Pid, text: &str) {
    StandardError.write_line(format!("[{} tini ({id})] {text}", severity.name()).as_bytes());
}

/// tini's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Fatal,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Severity {
    const fn least_verbosity(self) -> u8 {
        match self {
            Self::Fatal => 0,
            Self::Warn => 1,
            Self::Info => 2,
            Self::Debug => 3,
            Self::Trace => 4,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Warn => "WARN ",
            Self::Info => "INFO ",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

fn in_words(options: &Options, notice: Notice<'_>) -> Option<(Severity, String)> {
    Some(match notice {
        Notice::NoReaper => (Severity::Warn, NO_REAPER.to_owned()),
        Notice::CannotAdopt(errno) => {
            (Severity::Fatal, format!("Failed to register as child subreaper: {}", errno::words(errno)))
        }
        Notice::CannotHearOfParent(_) => (Severity::Fatal, "Failed to set up parent death signal".to_owned()),
        Notice::Adopting => (Severity::Trace, "Registered as child subreaper".to_owned()),
        Notice::Leaving(_) => (Severity::Trace, "Exiting: child has exited".to_owned()),
        Notice::CannotStart(errno) => (Severity::Fatal, format!("fork failed: {}", errno::words(errno))),
        Notice::Started(program, child) => {
            (Severity::Info, format!("Spawned child process '{program}' with pid '{child}'"))
        }
        Notice::CannotExecute(program, _, errno) => {
            (Severity::Fatal, format!("exec {program} failed: {}", errno::words(errno)))
        }
        Notice::NoTerminal(..) => (Severity::Debug, "tcsetpgrp failed: no tty (ok to proceed)".to_owned()),
        Notice::Childless => (Severity::Trace, "No child to wait".to_owned()),
        Notice::Forwarded(_, sent, _) => (Severity::Debug, format!("Passing signal: '{}'", description(sent))),
        Notice::CannotSend(_, _, Errno::ESRCH) => (Severity::Warn, "Child was dead when forwarding signal".to_owned()),
        Notice::CannotSend(_, _, errno) => {
            (Severity::Warn, format!("Unexpected error when forwarding signal: '{}'", errno::words(errno)))
        }
        Notice::ChildEnded(Ended { status: ExitStatus::Code(code), .. }) => {
            (Severity::Info, format!("Main child exited normally (with status '{code}')"))
        }
        Notice::ChildEnded(Ended { status: ExitStatus::Signal(signal), .. }) => {
            (Severity::Info, format!("Main child exited with signal (with signal '{}')", description(signal)))
        }
        Notice::OrphanEnded(ended) if options.warn_on_reap => {
            (Severity::Warn, format!("Reaped zombie process with pid={}", ended.pid))
        }
        Notice::OrphanEnded(ended) => (Severity::Debug, format!("Reaped child with pid: '{}'", ended.pid)),
        Notice::Received(Signal::CHLD) => (Severity::Debug, "Received SIGCHLD".to_owned()),
        Notice::Opening(_)
        | Notice::Detached { .. }
        | Notice::CannotDetach(_)
        | Notice::CannotAttach(_)
        | Notice::InSession
        | Notice::Received(_)
        | Notice::HandedOff(_)
        | Notice::Rewritten(..)
        | Notice::Dropped
        | Notice::Suspending
        | Notice::NoSessionTerminal(..) => return None,
    })
}

const NO_REAPER: &str = "\
Tini is not running as PID 1 and isn't registered as a child subreaper.
Zombie processes will not be re-parented to Tini, so zombie reaping won't work.
To fix the problem, use the -s option or set the environment variable TINI_SUBREAPER to register Tini as a child \
                         subreaper, or run Tini as PID 1.";
