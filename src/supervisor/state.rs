//! The states of an instance, each with the data that exists only in that state.

use super::checks::Checks;
use super::event::Leftovers;
use super::measuring::MemoryState;
use super::readiness::{Lifetime, Readiness, WatchdogDeadline};
use super::record::Requester;
use super::run_result::{FailureReason, Fault};
use super::state_name::StateName;
use crate::model::plan::Hook;
use crate::model::{InstanceId, Mono, Pid, RunId, ServiceIndex};

/// The state of an instance. `instance.rs` has the table of states and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for its dependencies. At `warn_at`, if that is not over, it is said once.
    Waiting { warn_at: Option<Mono> },
    /// `Action::Spawn` has been decided. There is no process yet.
    Spawning {
        run: RunId,
        hook: Option<Hook>,
        /// The `pre_start` that has succeeded.
        prepared: Option<Process>,
    },
    /// The process exists. It has not executed its program yet.
    Executing(Process),
    /// The program runs. It is not ready yet.
    Starting { process: Process, deadline: StartDeadline },
    /// It has been ready; see [`Readiness`] for whether it is now.
    Running(Running),
    /// It is being stopped, or has reported that it exits on its own.
    Stopping(Stopping),
    /// The main process has exited. Its leftover processes are being stopped.
    CleaningUp(CleaningUp),
    /// A restart is due at `until`.
    BackingOff { until: Mono },
    /// It waits for the next run of its schedule. Why the last run has failed; `None`: it has not.
    Scheduled { failure: Option<FailureReason> },
    /// It does not run, and does not start unless an operator or a dependent requests it.
    Stopped { why: Stopped },
}

/// [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateKind {
    Waiting,
    Spawning,
    Executing,
    Starting,
    Running,
    Stopping,
    CleaningUp,
    BackingOff,
    Scheduled,
    Stopped,
}

/// The main process of a run, or its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) run: RunId,
    pub(super) pid: Pid,
    /// When it was created, or when it executed its program once it has.
    pub(super) since: Mono,
    /// It is this hook, and a run of its own.
    pub(super) hook: Option<Hook>,
}

/// What ends the start of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartDeadline {
    /// It counts as ready at this time.
    ReadyAt(Mono),
    /// It must be ready by this time, or the start has failed.
    ReadyBy(Mono),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) readiness: Readiness,
    pub(super) watchdog: Option<WatchdogDeadline>,
    /// Of a oneshot: when it must have finished. Of a service: how long it must stay ready, the new process of a reload before
    /// the old process is stopped, others before the request for their start is done.
    pub(super) min_ready_until: Option<Mono>,
    /// Its health checks.
    pub(super) checks: Option<Checks>,
    pub(super) lifetime: Lifetime,
    pub(super) memory: MemoryState,
}

impl Running {
    /// Whether it is ready now. A process that is unhealthy is not.
    pub(super) fn is_ready(&self) -> bool {
        self.readiness.is_ready() && !self.checks.is_some_and(|checks| checks.is_unhealthy())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) process: Process,
    pub(super) stage: StopStage,
    /// When the next stage begins.
    pub(super) until: Mono,
    pub(super) then: AfterStop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CleaningUp {
    /// The main process that has been reaped.
    pub(super) process: Process,
    pub(super) stage: StopStage,
    /// When the next stage begins.
    pub(super) until: Mono,
    pub(super) next: AfterRun,
    /// There are leftover processes. Without them it waits for its side run alone.
    pub(super) has_leftovers: bool,
    pub(super) has_post_stop_begun: bool,
}

/// The stage of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopStage {
    /// `stop_delay`: it is not ready any more, so that load balancers remove it, and has not been signalled yet.
    Delayed,
    /// `pre_stop` runs. The stop signal has not been sent.
    PreStop,
    /// The stop signal has been sent.
    SignalSent,
    /// SIGKILL has been sent this many times.
    Killed(u32),
    /// `post_stop` runs.
    PostStop,
}

/// What happens after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterStop {
    /// It stays stopped.
    StayStopped(Stopped),
    /// It is started again, as requested.
    Restart(Requester),
    /// It has reported `STOPPING=1`. The restart policy decides, as after any exit on its own.
    ExitOnItsOwn,
    /// It is stopped because of a fault. The restart policy decides, as after a crash.
    Fail(Fault),
}

/// What happens after a run, once its leftover processes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterRun {
    /// The next run begins at `due`.
    Restart {
        due: Mono,
    },
    /// The next run, which an operator has requested, begins when the dependencies are ready.
    Start,
    /// The next run is that of its schedule. Why this one has failed.
    AwaitSchedule {
        failure: Option<FailureReason>,
    },
    /// `pre_start` has succeeded: the main process is started.
    Proceed,
    StayStopped(Stopped),
}

/// Why an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    NotStarted,
    Operator,
    Shutdown,
    /// A surge instance that is not needed any more.
    Replaced,
    Completed,
    /// `nth` numbers the failures of all instances, so that the first and the last one are known.
    Failed {
        failure_reason: FailureReason,
        nth: u32,
    },
    Blocked {
        dependency: ServiceIndex,
    },
}

impl State {
    pub(super) const fn kind(&self) -> StateKind {
        match self {
            Self::Waiting { .. } => StateKind::Waiting,
            Self::Spawning { .. } => StateKind::Spawning,
            Self::Executing(_) => StateKind::Executing,
            Self::Starting { .. } => StateKind::Starting,
            Self::Running(_) => StateKind::Running,
            Self::Stopping(_) => StateKind::Stopping,
            Self::CleaningUp(_) => StateKind::CleaningUp,
            Self::BackingOff { .. } => StateKind::BackingOff,
            Self::Scheduled { .. } => StateKind::Scheduled,
            Self::Stopped { .. } => StateKind::Stopped,
        }
    }

    pub(super) const fn is_inactive(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }

    /// Whether an operator has stopped it, or it is being stopped for one.
    pub(super) const fn is_stopped_by_operator(&self) -> bool {
        matches!(
            self,
            Self::Stopping(Stopping { then: AfterStop::StayStopped(Stopped::Operator), .. })
                | Self::CleaningUp(CleaningUp { next: AfterRun::StayStopped(Stopped::Operator), .. })
                | Self::Stopped { why: Stopped::Operator }
        )
    }

    /// Whether it is being stopped and is not started again.
    pub(super) const fn will_stay_stopped(&self) -> bool {
        matches!(
            self,
            Self::Stopping(Stopping { then: AfterStop::StayStopped(_), .. })
                | Self::CleaningUp(CleaningUp { next: AfterRun::StayStopped(_), .. })
        )
    }

    /// Whether there is a main process that has not been reaped.
    pub(super) const fn has_process(&self) -> bool {
        self.process().is_some()
    }

    /// Whether it is ready, and has been for as long as it must.
    pub(super) fn is_proven(&self) -> bool {
        let Self::Running(running) = self else { return false };
        running.readiness == Readiness::Ready && running.is_ready() && running.min_ready_until.is_none()
    }

    /// Whether there is a process that is not being stopped, or one was requested.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self, Self::Spawning { .. } | Self::Executing(_) | Self::Starting { .. } | Self::Running(_))
    }

    /// Whether a health check is in progress.
    pub(super) fn is_being_checked(&self) -> bool {
        matches!(self, Self::Running(Running { checks: Some(checks), .. }) if checks.is_in_progress())
    }

    /// The main process that has not been reaped.
    pub(super) const fn process(&self) -> Option<Process> {
        match self {
            Self::Executing(process) | Self::Starting { process, .. } => Some(*process),
            Self::Running(running) => Some(running.process),
            Self::Stopping(stopping) => Some(stopping.process),
            Self::Waiting { .. }
            | Self::Spawning { .. }
            | Self::CleaningUp(_)
            | Self::BackingOff { .. }
            | Self::Scheduled { .. }
            | Self::Stopped { .. } => None,
        }
    }

    /// The main process of the current run, even if it has been reaped.
    pub(super) const fn last_process(&self) -> Option<Process> {
        if let Self::CleaningUp(cleaning_up) = self {
            Some(cleaning_up.process)
        } else if let Self::Spawning { prepared, .. } = self {
            *prepared
        } else {
            self.process()
        }
    }

    /// The main process of the instance that has not been reaped, and no hook.
    pub(super) fn main_process(&self) -> Option<Process> {
        self.process().filter(|process| process.hook.is_none())
    }

    /// The hook that is about to run, or runs, or whose leftover processes are being stopped.
    pub(super) fn hook(&self) -> Option<Hook> {
        if let Self::Spawning { hook, .. } = self {
            *hook
        } else if let Self::Stopping(Stopping { stage: StopStage::PreStop, .. }) = self {
            Some(Hook::PreStop)
        } else if let Self::CleaningUp(CleaningUp { stage: StopStage::PostStop, .. }) = self {
            Some(Hook::PostStop)
        } else {
            self.last_process()?.hook
        }
    }

    /// The current run: it has begun, and its processes are not all gone.
    pub(super) fn run(&self) -> Option<RunId> {
        if let Self::Spawning { run, .. } = self { Some(*run) } else { self.last_process().map(|process| process.run) }
    }

    /// When the state changes without an event.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match self {
            Self::Starting { deadline: StartDeadline::ReadyAt(until) | StartDeadline::ReadyBy(until), .. }
            | Self::Stopping(Stopping { until, .. })
            | Self::CleaningUp(CleaningUp { until, .. })
            | Self::BackingOff { until } => Some(*until),
            Self::Running(Running { readiness, watchdog, min_ready_until, checks, lifetime, .. }) => {
                let watchdog = watchdog.map(|watchdog| watchdog.by);
                let due = checks.and_then(|checks| checks.due());
                let deadlines = [readiness.until(), watchdog, *min_ready_until, due, lifetime.until()];
                deadlines.into_iter().flatten().min()
            }
            Self::Waiting { warn_at } => *warn_at,
            Self::Spawning { .. } | Self::Executing(_) | Self::Scheduled { .. } | Self::Stopped { .. } => None,
        }
    }

    /// The same state with another main process.
    pub(super) const fn with_pid(mut self, pid: Pid) -> Self {
        match &mut self {
            Self::Executing(process)
            | Self::Starting { process, .. }
            | Self::Running(Running { process, .. })
            | Self::Stopping(Stopping { process, .. }) => process.pid = pid,
            Self::Waiting { .. }
            | Self::Spawning { .. }
            | Self::CleaningUp(_)
            | Self::BackingOff { .. }
            | Self::Scheduled { .. }
            | Self::Stopped { .. } => {}
        }
        self
    }

    /// The state that users see.
    pub(super) const fn name(&self) -> StateName {
        match self {
            Self::Waiting { .. } => StateName::Waiting,
            Self::Spawning { .. }
            | Self::Executing(_)
            | Self::Starting { .. }
            | Self::CleaningUp(CleaningUp { next: AfterRun::Proceed, .. }) => StateName::Starting,
            Self::Running(_) => StateName::Running,
            Self::Stopping(_) | Self::CleaningUp(_) => StateName::Stopping,
            Self::BackingOff { .. } => StateName::Backoff,
            Self::Scheduled { .. } => StateName::Scheduled,
            Self::Stopped { why } => match why {
                Stopped::NotStarted | Stopped::Operator | Stopped::Shutdown | Stopped::Replaced => StateName::Stopped,
                Stopped::Completed => StateName::Completed,
                Stopped::Failed { .. } | Stopped::Blocked { .. } => StateName::Failed,
            },
        }
    }
}

/// A main process that has exited.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExitedProcess {
    pub(super) id: InstanceId,
    pub(super) process: Process,
    pub(super) leftovers: Leftovers,
    /// The stage of its stop, and when the next stage was due.
    pub(super) stopping: Option<(StopStage, Mono)>,
}
