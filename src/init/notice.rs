//! What there is to tell, in the words of each [`Dialect`]. Nothing is decided here.

use nix::errno::Errno;

use super::{Dialect, Options, describe};
use crate::model::{ExitStatus, Pid, Signal};
use crate::sys::wait::Ended;
use crate::sys::{StandardError, process};

/// Something that has happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice<'a> {
    /// We are neither PID 1 nor to be a subreaper.
    NoReaper,
    /// No process can be made.
    CannotStart(Errno),
    /// The command runs.
    Started(&'a str, Pid),
    /// It could not be executed by this process.
    CannotExecute(&'a str, Pid, Errno),
    /// The first was received, the second sent.
    Forwarded(Signal, Signal, Pid),
    /// It could not be sent.
    CannotSend(Signal, Pid, Errno),
    /// The command has ended.
    ChildEnded(Ended),
    /// So has somebody who had lost his parent.
    OrphanEnded(Ended),
}

/// Tells it, to those who want to know.
pub(super) fn tell(options: &Options, notice: Notice<'_>) {
    match options.dialect {
        Dialect::Native => tell_native(options, notice),
        Dialect::Tini => {
            let Some((severity, text)) = in_tini_words(options, notice) else { return };
            if options.verbosity < severity.least_verbosity() {
                return;
            }
            // That a command cannot be executed is said by the process that was to be it.
            let id = if let Notice::CannotExecute(_, child, _) = notice { child } else { process::id() };
            StandardError.write_line(format!("[{} tini ({id})] {text}", severity.name()).as_bytes());
        }
    }
}

fn tell_native(options: &Options, notice: Notice<'_>) {
    match notice {
        Notice::NoReaper | Notice::Started(..) => {}
        Notice::CannotStart(errno) => log::error!("cannot start a process: {}", errno.desc()),
        Notice::CannotExecute(program, _, errno) => log::error!("cannot run `{program}`: {}", describe(errno)),
        Notice::Forwarded(received, sent, child) => log::debug!("{received} received, {sent} sent to `{child}`"),
        Notice::CannotSend(signal, child, errno) => log::warn!("cannot send {signal} to `{child}`: {}", errno.desc()),
        Notice::ChildEnded(ended) => log::debug!("`{}` has ended: {}", ended.pid, ended.status),
        Notice::OrphanEnded(ended) if options.warn_on_reap => {
            log::warn!("reaped zombie process {} ({})", ended.pid, ended.status);
        }
        Notice::OrphanEnded(ended) => log::debug!("reaped zombie process {} ({})", ended.pid, ended.status),
    }
}

/// tini's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Fatal,
    Warn,
    Info,
    Debug,
}

impl Severity {
    const fn least_verbosity(self) -> u8 {
        match self {
            Self::Fatal => 0,
            Self::Warn => 1,
            Self::Info => 2,
            Self::Debug => 3,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Warn => "WARN ",
            Self::Info => "INFO ",
            Self::Debug => "DEBUG",
        }
    }
}

fn in_tini_words(options: &Options, notice: Notice<'_>) -> Option<(Severity, String)> {
    Some(match notice {
        Notice::NoReaper => (Severity::Warn, NO_REAPER.to_owned()),
        Notice::CannotStart(errno) => (Severity::Fatal, format!("fork failed: {}", errno.desc())),
        Notice::Started(program, child) => {
            (Severity::Info, format!("Spawned child process '{program}' with pid '{child}'"))
        }
        Notice::CannotExecute(program, _, errno) => {
            (Severity::Fatal, format!("exec {program} failed: {}", errno.desc()))
        }
        Notice::Forwarded(_, sent, _) => (Severity::Debug, format!("Passing signal: '{}'", description(sent))),
        Notice::CannotSend(_, _, Errno::ESRCH) => (Severity::Warn, "Child was dead when forwarding signal".to_owned()),
        Notice::CannotSend(_, _, errno) => {
            (Severity::Warn, format!("Unexpected error when forwarding signal: '{}'", errno.desc()))
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
    })
}

const NO_REAPER: &str = "\
Tini is not running as PID 1 and isn't registered as a child subreaper.
Zombie processes will not be re-parented to Tini, so zombie reaping won't work.
To fix the problem, use the -s option or set the environment variable TINI_SUBREAPER to register Tini as a child \
                         subreaper, or run Tini as PID 1.";

/// What strsignal(3) of glibc says; position = number − 1.
const DESCRIPTIONS: [&str; 31] = [
    "Hangup",
    "Interrupt",
    "Quit",
    "Illegal instruction",
    "Trace/breakpoint trap",
    "Aborted",
    "Bus error",
    "Floating point exception",
    "Killed",
    "User defined signal 1",
    "Segmentation fault",
    "User defined signal 2",
    "Broken pipe",
    "Alarm clock",
    "Terminated",
    "Stack fault",
    "Child exited",
    "Continued",
    "Stopped (signal)",
    "Stopped",
    "Stopped (tty input)",
    "Stopped (tty output)",
    "Urgent I/O condition",
    "CPU time limit exceeded",
    "File size limit exceeded",
    "Virtual timer expired",
    "Profiling timer expired",
    "Window changed",
    "I/O possible",
    "Power failure",
    "Bad system call",
];

fn description(signal: Signal) -> String {
    let number = signal.number();
    match DESCRIPTIONS.get(usize::from(number) - 1) {
        Some(text) => (*text).to_owned(),
        None if number >= 34 => format!("Real-time signal {}", number - 34),
        None => format!("Unknown signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_described_as_glibc_does() {
        assert_eq!(description(Signal::HUP), "Hangup");
        assert_eq!(description(Signal::USR1), "User defined signal 1");
        assert_eq!(Signal::new(31).map(description).as_deref(), Some("Bad system call"));
        assert_eq!(Signal::new(33).map(description).as_deref(), Some("Unknown signal 33"));
        assert_eq!(Signal::new(37).map(description).as_deref(), Some("Real-time signal 3"));
    }
}
