//! The events that inits report.

use nix::errno::Errno;

use crate::model::{Pid, Signal, StartFailure};
use crate::sys::wait::Ended;

/// An event that some of the inits report.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// A message about the options.
    StartupMessage(&'static str),
    /// keepalive has detached from its terminal.
    Detached {
        /// Whether keepalive is the session leader. Then the whole session loses the terminal and gets SIGHUP and SIGCONT.
        is_session_leader: bool,
    },
    /// keepalive has no terminal, or it is not on stdin.
    CannotDetach(Errno),
    /// The command cannot get a terminal.
    CannotAttach(Errno),
    /// The command has a session of its own.
    SessionCreated,
    /// keepalive is neither PID 1 nor a subreaper.
    NotSubreaper,
    /// keepalive cannot become a subreaper.
    CannotBecomeSubreaper(Errno),
    /// keepalive cannot request a signal for the death of its parent.
    CannotSetParentDeathSignal(Errno),
    /// The child process cannot be created.
    CannotStart(Errno),
    /// The command has been executed.
    Started(&'a str, Pid),
    /// The child finds that the session has no terminal that can be opened.
    NoSessionTerminal(Pid, Errno),
    /// The child finds that stdin is not a terminal.
    NoStdinTerminal(Pid, Errno),
    /// The child cannot execute the command.
    CannotExecute(&'a str, Pid, StartFailure),
    /// A signal was received.
    Received(Signal),
    /// The signal results from detaching from the terminal and is not forwarded.
    HandOffIgnored(Signal),
    /// The second signal is sent instead of the first; `None`: no signal.
    Rewritten(Signal, Option<Signal>),
    /// The signal is not forwarded.
    Dropped,
    /// keepalive stops itself, because the command has been sent a stop signal.
    Suspending,
    /// The first signal was received, the second sent.
    Forwarded(Signal, Signal, Pid),
    /// The signal could not be sent.
    CannotSend(Signal, Pid, Errno),
    /// The command has exited.
    ChildExited(Ended),
    /// An orphan has been reaped.
    OrphanReaped(Ended),
    /// keepalive has become a subreaper.
    BecameSubreaper,
    /// The command has exited and there are no other children.
    NoChildren,
    /// keepalive exits with this code.
    Exiting(u8),
}

impl Event<'_> {
    /// The id of the child, if the other inits report this event from the child.
    pub(super) const fn reporting_child(self) -> Option<Pid> {
        if let Self::CannotExecute(_, child, _) | Self::NoSessionTerminal(child, _) | Self::NoStdinTerminal(child, _) =
            self
        {
            return Some(child);
        }
        None
    }
}
