//! How a run has ended, and what comes of it.

use std::time::Duration;

use crate::model::{ExitStatus, StartFailure};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether it was the kernel's OOM killer.
    pub oom_killed: bool,
}

/// How one run of an instance was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunResult {
    /// How its main process ended.
    pub exit: Exit,
    /// From execve to the end.
    pub uptime: Duration,
    /// Set if it never got to run its program.
    pub failure: Option<StartFailure>,
    /// Set if it had to end because of this.
    pub fault: Option<Fault>,
}

/// Why a process that runs is taken for broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was not ready within `ready_timeout`, this long.
    NotReady(Duration),
    /// It has not shown that it is alive for so long: `watchdog`.
    Silent(Duration),
    /// It has said so itself.
    WatchdogTriggered,
}

/// What comes of an instance after its process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// It starts again.
    Restart {
        /// After this delay.
        delay: Duration,
        /// Consecutive unstable runs so far; 0 after a stable one.
        unstable: u32,
        /// `max_restarts`.
        limit: Option<u32>,
    },
    /// It has succeeded and will not run again.
    Complete,
    /// It has failed for good.
    Fail(FailureReason),
    /// It was to be stopped and has.
    Stay,
}

/// Why a failed instance is not started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// The policy is `never`.
    Policy,
    /// The exit code or signal is one of `no_restart_exit_codes`.
    Prevented,
    /// `max_restarts` consecutive unstable restarts, this many, have been used up.
    Limit(u32),
    /// It cannot be started: a socket cannot be bound.
    Unbound,
}
