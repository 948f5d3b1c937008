//! The messages of tini, with its levels.

use super::strsignal::strsignal;
use crate::init::event::Event;
use crate::init::options::Options;
use crate::model::{ExitStatus, Pid, Signal, errno};
use crate::sys::wait::Ended;
use crate::sys::{StandardError, process};
use nix::errno::Errno;

/// Reports an event, if the verbosity asks for it.
pub(super) fn report(options: &Options, event: Event<'_>) {
    if let Event::ChildExited(ended) = event
        && options.verbosity >= Severity::Debug.min_verbosity()
    {
        write(Severity::Debug, process::id(), &format!("Reaped child with pid: '{}'", ended.pid));
    }
    let Some((severity, text)) = format_event(options, event) else { return };
    if options.verbosity < severity.min_verbosity() {
        return;
    }
    let id = event.reporting_child().unwrap_or_else(process::id);
    write(severity, id, &text);
}

/// Whether a missing terminal is reported.
pub(super) const fn reports_terminal(options: &Options) -> bool {
    options.verbosity >= Severity::Debug.min_verbosity()
}

/// Whether [`Event::NoChildren`] is reported.
pub(super) const fn reports_no_children(options: &Options) -> bool {
    options.verbosity >= Severity::Trace.min_verbosity()
}

fn write(severity: Severity, id: Pid, text: &str) {
    StandardError.write_line(format!("[{} tini ({id})] {text}", severity.name()).as_bytes());
}

/// The log levels of tini.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Fatal,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Severity {
    const fn min_verbosity(self) -> u8 {
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

fn format_event(options: &Options, event: Event<'_>) -> Option<(Severity, String)> {
    Some(match event {
        Event::NotSubreaper => (Severity::Warn, NO_REAPER.to_owned()),
        Event::CannotBecomeSubreaper(errno) => {
            (Severity::Fatal, format!("Failed to register as child subreaper: {}", errno::words(errno)))
        }
        Event::CannotSetParentDeathSignal(_) => (Severity::Fatal, "Failed to set up parent death signal".to_owned()),
        Event::BecameSubreaper => (Severity::Trace, "Registered as child subreaper".to_owned()),
        Event::Exiting(_) => (Severity::Trace, "Exiting: child has exited".to_owned()),
        Event::CannotStart(errno) => (Severity::Fatal, format!("fork failed: {}", errno::words(errno))),
        Event::Started(program, child) => {
            (Severity::Info, format!("Spawned child process '{program}' with pid '{child}'"))
        }
        Event::CannotExecute(program, _, failure) => {
            (Severity::Fatal, format!("exec {program} failed: {}", errno::words(failure.errno)))
        }
        Event::NoStdinTerminal(..) => (Severity::Debug, "tcsetpgrp failed: no tty (ok to proceed)".to_owned()),
        Event::NoChildren => (Severity::Trace, "No child to wait".to_owned()),
        Event::Forwarded(_, sent, _) => (Severity::Debug, format!("Passing signal: '{}'", strsignal(sent))),
        Event::CannotSend(_, _, Errno::ESRCH) => (Severity::Warn, "Child was dead when forwarding signal".to_owned()),
        Event::CannotSend(_, _, errno) => {
            (Severity::Warn, format!("Unexpected error when forwarding signal: '{}'", errno::words(errno)))
        }
        Event::ChildExited(Ended { status: ExitStatus::Code(code), .. }) => {
            (Severity::Info, format!("Main child exited normally (with status '{code}')"))
        }
        Event::ChildExited(Ended { status: ExitStatus::Signal(signal), .. }) => {
            (Severity::Info, format!("Main child exited with signal (with signal '{}')", strsignal(signal)))
        }
        Event::OrphanReaped(ended) if options.warn_on_reap => {
            (Severity::Warn, format!("Reaped zombie process with pid={}", ended.pid))
        }
        Event::OrphanReaped(ended) => (Severity::Debug, format!("Reaped child with pid: '{}'", ended.pid)),
        Event::Received(Signal::CHLD) => (Severity::Debug, "Received SIGCHLD".to_owned()),
        Event::StartupMessage(_)
        | Event::Detached { .. }
        | Event::CannotDetach(_)
        | Event::CannotAttach(_)
        | Event::SessionCreated
        | Event::Received(_)
        | Event::HandOffIgnored(_)
        | Event::Rewritten(..)
        | Event::Dropped
        | Event::Suspending
        | Event::NoSessionTerminal(..) => return None,
    })
}

const NO_REAPER: &str = "\
Tini is not running as PID 1 and isn't registered as a child subreaper.
Zombie processes will not be re-parented to Tini, so zombie reaping won't work.
To fix the problem, use the -s option or set the environment variable TINI_SUBREAPER to register Tini as a child \
                         subreaper, or run Tini as PID 1.";
