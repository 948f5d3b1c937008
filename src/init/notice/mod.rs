//! What there is to tell, in the words of each [`Compat`]: keepalive's own here, a file for each other. Nothing is
//! decided here.

mod catatonit;
mod dumb_init;
mod tini;

use nix::errno::Errno;

use super::{Compat, Options, Placement, describe};
use crate::model::{Pid, Signal, errno};
use crate::sys::terminal;
use crate::sys::wait::Ended;

/// Something that has happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice<'a> {
    /// What the reading of the options has found worth telling.
    Opening(&'static str),
    /// We have let go of our terminal; `leader`: and with us our session, which is told so by SIGHUP and SIGCONT.
    Detached {
        /// We are the session's leader.
        leader: bool,
    },
    /// We have no terminal, or it is not on stdin.
    CannotDetach(Errno),
    /// Nor has the command.
    CannotAttach(Errno),
    /// The command has a session of its own.
    InSession,
    /// We are neither PID 1 nor to be a subreaper.
    NoReaper,
    /// We cannot be a subreaper.
    CannotAdopt(Errno),
    /// We cannot be told of our parent's death.
    CannotHearOfParent(Errno),
    /// No process can be made.
    CannotStart(Errno),
    /// The command runs.
    Started(&'a str, Pid),
    /// This process, which was to be the command, has found that our session has no terminal to open.
    NoSessionTerminal(Pid, Errno),
    /// The same has found that there is none on stdin.
    NoTerminal(Pid, Errno),
    /// It could not be executed by this process.
    CannotExecute(&'a str, Pid, Errno),
    /// It has come.
    Received(Signal),
    /// It has come because we let go of our terminal, and is for nobody.
    HandedOff(Signal),
    /// The second is sent in place of the first, if any.
    Rewritten(Signal, Option<Signal>),
    /// It is not sent on.
    Dropped,
    /// We stop ourselves, as the command has been told to stop.
    Suspending,
    /// The first was received, the second sent.
    Forwarded(Signal, Signal, Pid),
    /// It could not be sent.
    CannotSend(Signal, Pid, Errno),
    /// The command has ended.
    ChildEnded(Ended),
    /// So has somebody who had lost his parent.
    OrphanEnded(Ended),
    /// We are a subreaper.
    Adopting,
    /// The command has ended, and nobody else is left.
    Childless,
    /// We end, with this code.
    Leaving(u8),
}

impl Notice<'_> {
    /// The id of the process that was to be the command, if it is that one that tells it.
    const fn said_by_child(self) -> Option<Pid> {
        if let Self::CannotExecute(_, child, _) | Self::NoSessionTerminal(child, _) | Self::NoTerminal(child, _) = self
        {
            return Some(child);
        }
        None
    }
}

/// Tells it, to those who want to know.
pub(super) fn tell(options: &Options, notice: Notice<'_>) {
    match options.compat {
        Compat::Native => tell_native(options, notice),
        Compat::Tini => tini::tell(options, notice),
        Compat::DumbInit => dumb_init::tell(options, notice),
        Compat::Catatonit => catatonit::tell(options, notice),
    }
}

/// The command runs, or could not be executed by this process.
pub(super) fn tell_of_start(options: &Options, program: &str, child: Pid, failed: Option<Errno>) {
    if options.compat != Compat::Native || failed.is_none() {
        tell(options, Notice::Started(program, child));
    }
    if options.placement == Placement::Foreground {
        tell_of_terminal(options, child);
    }
    if options.placement == Placement::OwnSession {
        if let Err(errno) = terminal::check_stdin_terminal() {
            tell(options, Notice::CannotAttach(errno));
        }
        tell(options, Notice::InSession);
    }
    if let Some(errno) = failed {
        tell(options, Notice::CannotExecute(program, child, errno));
    }
}

/// What the child has found, asked again for those alone who want to know.
fn tell_of_terminal(options: &Options, child: Pid) {
    match options.compat {
        Compat::Tini if tini::tells_of_terminal(options) => {}
        Compat::Catatonit if options.verbosity > 0 => match terminal::check_session_terminal() {
            Ok(()) => return,
            Err(errno) => tell(options, Notice::NoSessionTerminal(child, errno)),
        },
        Compat::Native | Compat::Tini | Compat::DumbInit | Compat::Catatonit => return,
    }
    if let Err(errno) = terminal::check_stdin_terminal() {
        tell(options, Notice::NoTerminal(child, errno));
    }
}

/// Whether it is told that nobody is left, which has to be asked for.
pub(super) const fn tells_of_childless(options: &Options) -> bool {
    match options.compat {
        Compat::Tini => tini::tells_of_childless(options),
        Compat::Catatonit => options.verbosity > 0,
        Compat::Native | Compat::DumbInit => false,
    }
}

fn tell_native(options: &Options, notice: Notice<'_>) {
    match notice {
        Notice::CannotAdopt(errno) => {
            log::warn!(
                "cannot become a child subreaper, orphaned processes will not be reaped: {}",
                errno::words(errno)
            );
        }
        Notice::CannotHearOfParent(errno) => {
            log::warn!("cannot set the parent death signal: {}", errno::words(errno));
        }
        Notice::CannotStart(errno) => log::error!("cannot create a process: {}", errno::words(errno)),
        Notice::CannotExecute(program, _, errno) => log::error!("cannot run `{program}`: {}", describe(errno)),
        Notice::Forwarded(received, sent, child) => log::debug!("received {received}, sent {sent} to pid {child}"),
        Notice::CannotSend(signal, child, errno) => {
            log::warn!("cannot send {signal} to pid {child}: {}", errno::words(errno))
        }
        Notice::ChildEnded(ended) => log::debug!("pid {} {}", ended.pid, ended.status),
        Notice::OrphanEnded(ended) if options.warn_on_reap => {
            log::warn!("reaped orphaned process {} ({})", ended.pid, ended.status);
        }
        Notice::OrphanEnded(ended) => log::debug!("reaped orphaned process {} ({})", ended.pid, ended.status),
        Notice::NoReaper
        | Notice::Opening(_)
        | Notice::Detached { .. }
        | Notice::CannotDetach(_)
        | Notice::CannotAttach(_)
        | Notice::InSession
        | Notice::Started(..)
        | Notice::NoSessionTerminal(..)
        | Notice::NoTerminal(..)
        | Notice::Received(_)
        | Notice::HandedOff(_)
        | Notice::Rewritten(..)
        | Notice::Dropped
        | Notice::Suspending
        | Notice::Adopting
        | Notice::Childless
        | Notice::Leaving(_) => {}
    }
}

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
