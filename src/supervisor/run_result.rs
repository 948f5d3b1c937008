//! The result of a run, and the decision that follows from it.

use std::time::Duration;

use crate::model::plan::{ExitSet, Hook};
use crate::model::{ExitStatus, ProbeFailure, RunId, StartFailure};

/// How a process has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status.
    pub status: ExitStatus,
    /// Whether the kernel's OOM killer has killed it.
    pub oom_killed: bool,
}

/// The result of one run of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunResult {
    /// The run.
    pub id: RunId,
    /// How the main process has exited.
    pub exit: Exit,
    /// Set if it was a hook, which has failed, or has been stopped.
    pub hook: Option<Hook>,
    /// From execve to exit.
    pub uptime: Duration,
    /// Set if the process could not execute its program.
    pub failure: Option<StartFailure>,
    /// Set if keepalive has stopped it because of a fault.
    pub fault: Option<Fault>,
    /// How the last attempt of its probe has failed, if it was not ready in time, or its last health check, if unhealthy.
    pub probe_failure: Option<ProbeFailure>,
    /// It has succeeded within a second and has left processes behind, as a program that puts itself into the background.
    pub is_daemon: bool,
}

impl RunResult {
    /// A run that has exited by itself.
    #[must_use]
    pub const fn new(id: RunId, exit: Exit, uptime: Duration) -> Self {
        Self { id, exit, hook: None, uptime, failure: None, fault: None, probe_failure: None, is_daemon: false }
    }
}

impl RunResult {
    /// Whether its main process has exited by itself, with a status in `success`.
    pub(super) fn has_succeeded(&self, success: &ExitSet) -> bool {
        self.failure.is_none() && self.fault.is_none() && self.hook.is_none() && success.contains(self.exit.status)
    }
}

/// Why keepalive stops a process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was not ready within `ready_timeout`, which is given here.
    NotReady(Duration),
    /// A hook was not done within its time limit, which is given here.
    HookTimeout(Hook, Duration),
    /// The oneshot has not finished within its `ready_timeout`, which is given here.
    NotFinished(Duration),
    /// It has not sent `WATCHDOG=1` within its watchdog interval, which is given here.
    WatchdogTimeout(Duration),
    /// It has sent `WATCHDOG=trigger`.
    WatchdogTriggered,
    /// Its health checks have failed.
    Unhealthy,
}

/// Why an instance is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartCause {
    /// Its process has failed.
    Crash,
    /// Its process has exited successfully.
    Exit,
    /// It was not ready, or as a oneshot had not finished, in time.
    ReadyTimeout,
    /// It has not notified its watchdog, or has triggered it.
    Watchdog,
    /// Its health checks have failed.
    Unhealthy,
    /// An operator has stopped or restarted it.
    Operator,
    /// A reload has replaced it.
    Reload,
    /// `restart_schedule` has replaced it.
    Schedule,
    /// It was older than `max_lifetime`.
    Lifetime,
    /// It used more than `max_memory`.
    Memory,
    /// Its files have changed.
    Watch,
}

/// The number of restarts, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts([u32; RestartCause::ALL.len()]);

impl RestartCause {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::Crash,
        Self::Exit,
        Self::ReadyTimeout,
        Self::Watchdog,
        Self::Unhealthy,
        Self::Operator,
        Self::Reload,
        Self::Schedule,
        Self::Lifetime,
        Self::Memory,
        Self::Watch,
    ];

    /// The cause of the restart after `run`, which has exited by itself or because of a fault.
    pub(super) fn of(run: &RunResult, success: &ExitSet) -> Self {
        match run.fault {
            Some(Fault::NotReady(_) | Fault::NotFinished(_) | Fault::HookTimeout(..)) => Self::ReadyTimeout,
            Some(Fault::WatchdogTimeout(_) | Fault::WatchdogTriggered) => Self::Watchdog,
            Some(Fault::Unhealthy) => Self::Unhealthy,
            None if run.has_succeeded(success) => Self::Exit,
            None => Self::Crash,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Exit => "exit",
            Self::ReadyTimeout => "ready_timeout",
            Self::Watchdog => "watchdog",
            Self::Unhealthy => "unhealthy",
            Self::Operator => "operator",
            Self::Reload => "reload",
            Self::Schedule => "schedule",
            Self::Lifetime => "max_lifetime",
            Self::Memory => "max_memory",
            Self::Watch => "watch",
        }
    }
}

impl Restarts {
    /// No restart.
    pub(super) const NONE: Self = Self([0; RestartCause::ALL.len()]);

    /// The number of restarts because of `cause`.
    #[must_use]
    pub fn of(&self, cause: RestartCause) -> u32 {
        self.0.get(cause as usize).copied().unwrap_or_default()
    }

    /// The number of all restarts.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The number of restarts that nobody has requested or planned.
    #[must_use]
    pub fn automatic(&self) -> u32 {
        self.0.iter().take(RestartCause::Operator as usize).fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(super) fn count(&mut self, cause: RestartCause) {
        if let Some(count) = self.0.get_mut(cause as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// Whether an instance is restarted after its process has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// It is restarted.
    Restart {
        /// The time until the restart.
        delay: Duration,
        /// Consecutive unstable runs so far; 0 after a stable one.
        unstable: u32,
        /// `max_restarts`.
        limit: Option<u32>,
    },
    /// It has succeeded and is not restarted.
    Complete,
    /// It has failed and is not restarted.
    Fail(FailureReason),
    /// Its stop was requested.
    StayStopped,
}

/// Why a failed instance is not started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// `restart` does not allow it.
    Policy,
    /// It is a run of a schedule that has not begun, because a dependency has failed.
    DependencyFailed,
    /// The exit code or signal is in `no_restart_exit_codes`.
    Prevented,
    /// The limit `max_restarts`, which is given here, has been reached.
    RestartLimit(u32),
    /// It is a oneshot that has succeeded, and whose definition was then changed by a reload: that has failed.
    Untried,
    /// Its program has never been executed, and cannot be.
    NeverExecuted,
    /// A socket of the service cannot be bound, or a system call that the start needs is refused.
    BindFailed,
}
