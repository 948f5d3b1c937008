//! The states of an instance, each with what is known only in that state.

use super::event::Leftovers;
use super::readiness::{Readiness, WatchdogDeadline};
use super::run_result::{FailureReason, Fault};
use super::state_name::StateName;
use crate::model::{InstanceId, Mono, Pid, RunId, ServiceIndex};

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for its dependencies.
    Waiting,
    /// `Action::Spawn` is queued; there is no process yet.
    Spawning { run: RunId },
    /// The process exists and has not executed its program yet.
    Executing(Process),
    /// The program runs and is not ready yet.
    Starting { process: Process, deadline: StartDeadline },
    /// It is ready, or has been.
    Running(Running),
    /// It has been told to end, or ends by itself.
    Stopping(Stopping),
    /// The main process has ended; its leftover processes are being ended.
    CleaningUp(CleaningUp),
    /// A restart is due at `until`.
    BackingOff { until: Mono },
    /// It does not run and is not started without a new reason.
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
    Stopped,
}

/// The main process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) run: RunId,
    pub(super) pid: Pid,
    /// When it was made; from its execve on, the time of that.
    pub(super) since: Mono,
}

/// What makes a started process ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartDeadline {
    /// The time: it is ready at this moment.
    ReadyAt(Mono),
    /// A report; if none has come by this moment, the start has failed.
    ReadyBy(Mono),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) readiness: Readiness,
    pub(super) watchdog: Option<WatchdogDeadline>,
    /// As the new process of a reload: how long it has to stay ready before the old one is stopped.
    pub(super) min_ready_until: Option<Mono>,
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
    pub(super) next: Next,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopStage {
    /// `stop_delay`: it counts as stopping, so that load balancers let go of it, and has not been signalled yet.
    Delayed,
    /// It has been sent its stop signal.
    Asked,
    /// It has been sent SIGKILL so many times.
    Killed(u32),
}

/// What a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterStop {
    /// It is to rest.
    Rest(Stopped),
    /// It is to run again: an operator has requested that.
    Restart,
    /// It ends by itself and has announced it; what follows is the same as without the announcement.
    Own,
    /// It is broken; what follows is the same as after a crash.
    Fail(Fault),
}

/// What follows when nothing of a run is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another run, not before `due`.
    Restart {
        due: Mono,
    },
    /// Another run that an operator has requested, once the dependencies are ready.
    Start,
    Rest(Stopped),
}

/// Why an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    NotStarted,
    Operator,
    Shutdown,
    /// A surge instance whose instance has, or keeps, another process.
    Replaced,
    Completed,
    /// `nth` counts the failures of all instances, so that the first and the last one are known.
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
            Self::Waiting => StateKind::Waiting,
            Self::Spawning { .. } => StateKind::Spawning,
            Self::Executing(_) => StateKind::Executing,
            Self::Starting { .. } => StateKind::Starting,
            Self::Running(_) => StateKind::Running,
            Self::Stopping(_) => StateKind::Stopping,
            Self::CleaningUp(_) => StateKind::CleaningUp,
            Self::BackingOff { .. } => StateKind::BackingOff,
            Self::Stopped { .. } => StateKind::Stopped,
        }
    }

    pub(super) const fn is_resting(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }

    /// Whether it has a main process that has not been reaped.
    pub(super) const fn has_process(&self) -> bool {
        self.process().is_some()
    }

    /// The main process that has not been reaped.
    pub(super) const fn process(&self) -> Option<Process> {
        match self {
            Self::Executing(process) | Self::Starting { process, .. } => Some(*process),
            Self::Running(running) => Some(running.process),
            Self::Stopping(stopping) => Some(stopping.process),
            Self::Waiting
            | Self::Spawning { .. }
            | Self::CleaningUp(_)
            | Self::BackingOff { .. }
            | Self::Stopped { .. } => None,
        }
    }

    /// The main process, reaped or not, of a run that has not ended.
    pub(super) const fn last_process(&self) -> Option<Process> {
        if let Self::CleaningUp(cleaning_up) = self { Some(cleaning_up.process) } else { self.process() }
    }

    /// The run that has begun and of which something is left.
    pub(super) fn run(&self) -> Option<RunId> {
        if let Self::Spawning { run } = self { Some(*run) } else { self.last_process().map(|process| process.run) }
    }

    /// When it changes without any event.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match self {
            Self::Starting { deadline: StartDeadline::ReadyAt(until) | StartDeadline::ReadyBy(until), .. }
            | Self::Stopping(Stopping { until, .. })
            | Self::CleaningUp(CleaningUp { until, .. })
            | Self::BackingOff { until } => Some(*until),
            Self::Running(Running { readiness, watchdog, min_ready_until, .. }) => {
                let deadlines = [readiness.until(), watchdog.map(|watchdog| watchdog.by), *min_ready_until];
                deadlines.into_iter().flatten().min()
            }
            Self::Waiting | Self::Spawning { .. } | Self::Executing(_) | Self::Stopped { .. } => None,
        }
    }

    /// The same with another main process.
    pub(super) const fn with_pid(mut self, pid: Pid) -> Self {
        match &mut self {
            Self::Executing(process)
            | Self::Starting { process, .. }
            | Self::Running(Running { process, .. })
            | Self::Stopping(Stopping { process, .. }) => process.pid = pid,
            Self::Waiting
            | Self::Spawning { .. }
            | Self::CleaningUp(_)
            | Self::BackingOff { .. }
            | Self::Stopped { .. } => {}
        }
        self
    }
}

impl State {
    /// What users see of it.
    pub(super) const fn name(&self) -> StateName {
        match self {
            Self::Waiting => StateName::Waiting,
            Self::Spawning { .. } | Self::Executing(_) | Self::Starting { .. } => StateName::Starting,
            Self::Running(_) => StateName::Running,
            Self::Stopping(_) | Self::CleaningUp(_) => StateName::Stopping,
            Self::BackingOff { .. } => StateName::Backoff,
            Self::Stopped { why } => match why {
                Stopped::NotStarted | Stopped::Operator | Stopped::Shutdown | Stopped::Replaced => StateName::Stopped,
                Stopped::Completed => StateName::Completed,
                Stopped::Failed { .. } | Stopped::Blocked { .. } => StateName::Failed,
            },
        }
    }
}

/// A main process that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) id: InstanceId,
    pub(super) process: Process,
    pub(super) leftovers: Leftovers,
    /// How far its stop had come, and when the next stage was due.
    pub(super) stopping: Option<(StopStage, Mono)>,
}
