//! What the supervisor records: the journal turns each event into a log line, counters and a public event.
//!
//! The variants of [`JournalEvent`] are named after the public events; see docs/events.md. To add an event, add a variant
//! here, record it where it happens, and follow the compiler to `runtime::wording` and `runtime::journal`.
#![allow(missing_docs, reason = "a field has a comment where its name and type do not say everything")]

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::planned::SkipReason;
pub use super::requester::Requester;
use super::rollout::ReloadFailure;
use super::run_result::{FailureReason, Fault, RestartDecision, RunResult};
use super::state_name::StateName;
use crate::model::plan::Service;
use crate::model::{InstanceId, Mono, Pid, ProbeFailure, ServiceIndex, Signal};

/// An event with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    pub at: Mono,
    pub event: JournalEvent,
}

/// An event that users can see.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalEvent {
    /// An instance has changed its state.
    Transition {
        instance: InstanceId,
        from: StateName,
        to: StateName,
        /// The current or the last main process.
        pid: Option<Pid>,
        reason: Reason,
    },
    /// A process did not exit within `stop_timeout`. SIGKILL follows.
    StopTimedOut {
        instance: InstanceId,
        pid: Pid,
        /// `stop_timeout`.
        after: Duration,
    },
    /// A main process has left processes behind. They are stopped before the next run.
    LeftoverProcessesFound {
        instance: InstanceId,
        /// The main process that has exited.
        pid: Pid,
        /// It has succeeded at once, as a program that puts itself into the background, daemon(7).
        is_daemon: bool,
    },
    /// A `pre_stop` or `post_stop` has failed, which changes nothing.
    HookFailed {
        instance: InstanceId,
        run: Rc<RunResult>,
        /// The definition of this run.
        definition: Rc<Service>,
    },
    /// A process, or its leftover processes, are still there after SIGKILL.
    Unkillable {
        instance: InstanceId,
        /// The main process.
        pid: Pid,
    },
    /// A process that stays is not ready any more, because its health checks have failed.
    Unhealthy {
        instance: InstanceId,
        /// How the last check has failed.
        failure: Option<ProbeFailure>,
    },
    /// A process that was unhealthy is healthy again.
    Healthy { instance: InstanceId },
    /// A run of a schedule was due, or a restart, and has not begun.
    RunSkipped { service: ServiceIndex, why: SkipReason },
    /// The number of instances has changed.
    Scaled { service: ServiceIndex, from: u32, to: u32 },
    /// All instances of a service have failed, or a oneshot has not succeeded.
    ServiceFailed { service: ServiceIndex },
    /// A service has waited for a dependency for long.
    DependencyAwaited {
        service: ServiceIndex,
        dependency: ServiceIndex,
        /// The state of the dependency, and how long its process runs.
        state: StateName,
        lasts: Option<Duration>,
    },
    /// keepalive has forwarded a signal to the main processes.
    SignalForwarded {
        signal: Signal,
        /// The number of processes.
        receivers: u32,
    },
    /// keepalive has ignored a signal, as configured.
    SignalIgnored { signal: Signal },
    /// A signal has requested a reload of the configuration.
    ConfigReloadRequested { signal: Signal },
    /// A new configuration is in effect.
    ConfigReloaded(Changes),
    /// A configuration has been loaded while this service was being reloaded. It is loaded again when that has ended.
    ConfigReloadDeferred { service: ServiceIndex },
    /// The configuration could not be read, or is invalid.
    ConfigReloadFailed {
        /// One or more lines.
        reason: Rc<str>,
    },
    /// The reload of a service has begun, or a restart that is performed in the same way.
    ReloadStarted { service: ServiceIndex, by: Requester },
    /// A new process has taken the place of the old one.
    InstanceReplaced {
        instance: InstanceId,
        /// `None` if the old process has exited.
        old: Option<Pid>,
        /// `None` if the new process does not exist yet.
        new: Option<Pid>,
    },
    /// A reload has failed. The service returns to its previous definition.
    ReloadRolledBack { service: ServiceIndex, failure: ReloadFailure },
    /// A reload has ended.
    ReloadFinished {
        service: ServiceIndex,
        /// `None` if all processes have been replaced.
        failure: Option<ReloadFailure>,
    },
    /// keepalive has begun to shut down.
    ShutdownStarted { cause: Cause },
    /// keepalive sends SIGKILL to all processes instead of waiting for the services to stop.
    ShutdownForced {
        /// The second SIGINT, or a signal with the action `kill`; `None` if `shutdown_timeout` has elapsed.
        signal: Option<Signal>,
    },
    /// All services have stopped. SIGKILL is sent to leftover processes that have ignored SIGTERM.
    LeftoverProcessesKilled,
    /// keepalive exits although some processes are still there after SIGKILL.
    ProcessesAbandoned,
}

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: u32,
    pub removed: u32,
    /// Services that get new processes.
    pub reloaded: u32,
    /// Services that have changed and keep their processes.
    pub adjusted: u32,
    pub unchanged: u32,
    /// Services that do not run: their new definition is used at the next start.
    pub not_running: Vec<ServiceIndex>,
    /// Services that the reload starts and that must work, without those whose own reload follows.
    pub awaited: Vec<ServiceIndex>,
}

/// Why an instance has changed its state.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Its dependencies are ready, or it has none.
    DependenciesReady,
    /// Its start has been requested.
    StartRequested(Requester),
    /// The delay before its restart has elapsed.
    BackoffElapsed,
    /// It is ready.
    Ready,
    /// The new process of a reload has sent `RELOADING=1` after it was ready.
    ReloadingReported,
    /// It has sent `STOPPING=1`.
    StoppingReported,
    /// It is stopped because of a fault. How the last attempt of its probe has failed, if it was not ready in time, or its last
    /// health check, if it is unhealthy.
    Fault(Fault, Option<ProbeFailure>),
    /// Its surge instance has taken its place, or has not been able to.
    Replaced,
    /// Its main process has exited.
    Exited {
        run: Rc<RunResult>,
        decision: RestartDecision,
        /// The definition of this run. The service may have another one when this is read.
        definition: Rc<Service>,
    },
    /// The leftover processes of its last run, which has ended like this, are gone.
    CleanedUp { run: Rc<RunResult>, decision: RestartDecision, definition: Rc<Service> },
    /// The system could not create a process for it.
    SpawnFailed {
        errno: Errno,
        retry_in: Duration,
        /// The number of consecutive failures, from 1.
        attempt: u32,
    },
    /// Its stop has been requested.
    StopRequested(Requester),
    /// Its restart has been requested.
    RestartRequested(Requester),
    /// keepalive is shutting down.
    Shutdown,
    /// A dependency has completed, is not ready, and will not run again.
    DependencyCompleted { dependency: ServiceIndex },
    /// A dependency has failed and will not be restarted.
    DependencyFailed { dependency: ServiceIndex },
}

/// Why keepalive shuts down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal.
    Signal(Signal),
    /// A request of an operator.
    Requested,
    /// A service with `on_failure = "shutdown"` has failed.
    Failed {
        /// The instance that failed last.
        instance: InstanceId,
        run: Rc<RunResult>,
        failure_reason: FailureReason,
    },
    /// An instance of a service with `on_unhealthy = "shutdown"` is unhealthy.
    Unhealthy {
        instance: InstanceId,
        /// How the last check has failed.
        failure: Option<ProbeFailure>,
    },
    /// A service with `on_success = "shutdown"` has completed.
    Completed { service: ServiceIndex },
    /// No service is running or will run again.
    NothingLeft {
        /// The first failure of a service with `on_failure = "ignore"`.
        failure: Option<(InstanceId, Rc<RunResult>, FailureReason)>,
    },
}

impl Cause {
    /// The instance whose failure is the cause.
    #[must_use]
    pub const fn failed_instance(&self) -> Option<InstanceId> {
        match self {
            Self::Failed { instance, .. }
            | Self::Unhealthy { instance, .. }
            | Self::NothingLeft { failure: Some((instance, ..)) } => Some(*instance),
            Self::Signal(_) | Self::Requested | Self::Completed { .. } | Self::NothingLeft { failure: None } => None,
        }
    }
}

/// How keepalive exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code.
    pub code: u8,
    pub cause: Cause,
}
