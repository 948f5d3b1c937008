//! The options of init mode.

use std::time::Duration;

use nix::errno::Errno;

use crate::model::exit_code::OS_ERROR;
use crate::model::plan::ExitSet;
use crate::model::{ExitStatus, Signal};
use crate::sys::terminal::TerminalLookup;

/// The options of init mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-g`: signals are sent to the child's process group.
    pub group: bool,
    /// `-r`: the second signal is sent instead of the first; `None`: no signal. The last entry for a signal applies.
    pub rewrite: Vec<(Signal, Option<Signal>)>,
    /// `-e`: exit codes that are reported as 0.
    pub remap_exit: ExitSet,
    /// `-p`: the signal that keepalive gets when its parent dies.
    pub parent_death_signal: Option<Signal>,
    /// `--grace`: the time between the first SIGTERM, SIGINT or SIGQUIT and SIGKILL.
    pub grace: Option<Duration>,
    /// `--linger`: how long to wait for leftover processes after the child has exited.
    pub linger: Option<Duration>,
    /// `-w`: log a line for each orphan that is reaped.
    pub warn_on_reap: bool,
    /// `-v`: the verbosity. For [`Compat::Native`], the caller of [`super::run`] sets up the logger accordingly.
    pub verbosity: u8,
    /// The init whose messages and exit codes are used.
    pub compat: Compat,
    /// Whether to become a child subreaper if keepalive is not PID 1.
    pub subreaper: Subreaper,
    /// The session and process group of the command.
    pub placement: Placement,
    /// Whether keepalive stops itself after SIGTSTP, SIGTTIN or SIGTTOU. (The kernel does not stop PID 1.)
    pub suspends: bool,
    /// The signal that the child's process group gets when the child has exited. [`Self::rewrite`] applies to it.
    pub final_signal: Option<Signal>,
    /// Messages about the options, logged at the start by inits that do so.
    pub startup_messages: Vec<&'static str>,
}

/// The init with which keepalive is compatible: its messages, and its exit codes for a command that cannot be executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// keepalive itself.
    #[default]
    Native,
    /// tini.
    Tini,
    /// dumb-init.
    DumbInit,
    /// catatonit.
    Catatonit,
}

impl Compat {
    /// The exit status to report for a process that could not execute the command and exited with `status`.
    #[must_use]
    pub const fn exec_failure_status(self, errno: Errno, status: ExitStatus) -> ExitStatus {
        match (self, errno) {
            (Self::Native, _) => status,
            (Self::Tini, Errno::ENOENT) => ExitStatus::Code(127),
            (Self::Tini, Errno::EACCES) => ExitStatus::Code(126),
            (Self::Tini, _) => ExitStatus::Code(1),
            (Self::DumbInit, _) => ExitStatus::Code(2),
            (Self::Catatonit, _) => ExitStatus::Code(1),
        }
    }

    /// The exit code if the system refuses something that init mode cannot work without.
    pub(super) const fn os_error_code(self) -> u8 {
        match self {
            Self::Native => OS_ERROR,
            Self::Tini | Self::DumbInit | Self::Catatonit => 1,
        }
    }

    /// How to find the terminal that the command gets at its start.
    pub(super) const fn terminal_lookup(self) -> TerminalLookup {
        match self {
            Self::Catatonit => TerminalLookup::StdinOrSession,
            Self::Native | Self::Tini | Self::DumbInit => TerminalLookup::Stdin,
        }
    }
}

/// Whether keepalive becomes a child subreaper if it is not PID 1. prctl(2) `PR_SET_CHILD_SUBREAPER`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subreaper {
    /// Yes.
    #[default]
    Yes,
    /// No, with a warning.
    NoWithWarning,
    /// No, without a warning.
    No,
}

/// The session and process group of the command, and its terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// A new process group in keepalive's session. If keepalive is in the foreground of the terminal, the group takes its
    /// place, with job control as described in `job`.
    #[default]
    Foreground,
    /// A new session, with the terminal on stdin as its controlling terminal. keepalive detaches from the terminal.
    NewSession,
    /// keepalive's session and process group.
    SameSession,
    /// There is no command: keepalive reaps orphans until SIGTERM or SIGINT, then exits with 0.
    NoCommand,
}
