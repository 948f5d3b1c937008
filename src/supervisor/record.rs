//! What is told: one fact for each thing that happened, from which the journal makes the line, the counter and the
//! event.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::rollout::ReloadFailure;
use super::run_result::{FailureReason, Fault, RestartDecision, RunResult};
use super::state_name::StateName;
use crate::model::plan::Service;
use crate::model::{InstanceId, Mono, Pid, ServiceIndex, Signal};

/// One fact and when it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// When.
    pub at: Mono,
    /// What.
    pub fact: JournalEvent,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalEvent {
    /// An instance has gone from one state to another.
    Transition {
        /// Which.
        instance: InstanceId,
        /// From this state,
        from: StateName,
        /// to this one,
        to: StateName,
        /// Its main process, or the one that it had.
        pid: Option<Pid>,
        /// for this reason.
        reason: Reason,
    },
    /// It did not end within `stop_timeout`; SIGKILL follows.
    StopTimedOut {
        /// Which.
        instance: InstanceId,
        /// Its main process.
        pid: Pid,
        /// How long it was given.
        after: Duration,
    },
    /// It has left processes behind in its group or session, which are being ended before anything else.
    LeftBehind {
        /// Which.
        instance: InstanceId,
        /// The main process that has ended.
        pid: Pid,
    },
    /// A process, or what it has left, is still there after SIGKILL.
    Unkillable {
        /// Which.
        instance: InstanceId,
        /// The main process.
        pid: Pid,
    },
    /// An operator wants another number of instances.
    Scaled {
        /// Of which service.
        service: ServiceIndex,
        /// How many there were to be,
        from: u32,
        /// and how many now.
        to: u32,
    },
    /// Each of a service's instances has failed, or for a oneshot: it has not succeeded and will not.
    ServiceFailed {
        /// Which.
        service: ServiceIndex,
    },
    /// A signal went to the main processes.
    SignalForwarded {
        /// Which.
        signal: Signal,
        /// To how many.
        receivers: u32,
    },
    /// A signal was ignored as configured.
    SignalIgnored {
        /// Which.
        signal: Signal,
    },
    /// A signal asks for the configuration to be read again.
    ConfigReloadRequested {
        /// Which.
        signal: Signal,
    },
    /// Another configuration is in force.
    ConfigReloaded(Changes),
    /// Another configuration was not taken, because this service is being reloaded.
    ConfigReloadRejected {
        /// Which.
        service: ServiceIndex,
    },
    /// Another configuration could not be read, or is invalid.
    ConfigLoadFailed {
        /// Why, in one or more lines.
        reason: Rc<str>,
    },
    /// The processes of a service are being replaced.
    ReloadBegun {
        /// Which.
        service: ServiceIndex,
    },
    /// An instance has another process.
    Replaced {
        /// Which.
        instance: InstanceId,
        /// The one it had, if it still runs,
        old: Option<Pid>,
        /// and the one that it has.
        new: Option<Pid>,
    },
    /// A reload has failed, and the service goes back to what it was before.
    RolledBack {
        /// Which.
        service: ServiceIndex,
        /// Why.
        failure: ReloadFailure,
    },
    /// A reload is over.
    ReloadEnded {
        /// Of which service.
        service: ServiceIndex,
        /// `None`: all processes have been replaced.
        failure: Option<ReloadFailure>,
    },
    /// The ordered stop has begun.
    Draining {
        /// Why.
        cause: Cause,
    },
    /// The ordered stop ends here: SIGKILL to all.
    Forced {
        /// `None`: `shutdown_timeout` is over.
        signal: Option<Signal>,
    },
    /// All services are down, but what they left running did not end when asked to: SIGKILL to all.
    LeftoversKilled,
    /// keepalive ends although some processes are still there after SIGKILL.
    Abandoned,
}

/// In what a configuration differs from the one before it: how many services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub added: u32,
    /// Those that there are no more.
    pub removed: u32,
    /// Those that need other processes.
    pub reloaded: u32,
    /// Those whose processes stay.
    pub adjusted: u32,
    /// The others.
    pub unchanged: u32,
}

/// Why an instance has changed its state.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// What it depends on is ready, or there is nothing to wait for.
    Unblocked,
    /// Its start was asked for by an operator.
    Requested,
    /// The delay before its restart is over.
    Due,
    /// It is ready.
    Ready,
    /// It has said that it ends by itself.
    Leaves,
    /// It has to end because of this.
    Fault(Fault),
    /// Another process has its place, or has kept it.
    Replaced,
    /// A process of it has ended.
    Ended {
        /// How that run was.
        run: RunResult,
        /// What comes of it.
        decision: RestartDecision,
        /// What it was made of: the service may be another one when this is read.
        definition: Rc<Service>,
    },
    /// What its last run left in its process group and session is gone.
    Cleared,
    /// No process could be made for it.
    Refused {
        /// What the kernel said.
        errno: Errno,
        /// When it is tried again.
        retry_in: Duration,
        /// Consecutive refusals, from 1.
        attempt: u32,
    },
    /// An operator wants it stopped.
    StopRequested,
    /// An operator wants it restarted.
    RestartRequested,
    /// Everything is being stopped.
    Shutdown,
    /// What it depends on has completed without being ready now, and will not run again.
    DependencyCompleted {
        /// Which.
        dependency: ServiceIndex,
    },
    /// What it depends on has failed for good.
    DependencyFailed {
        /// Which.
        dependency: ServiceIndex,
    },
}

/// Why keepalive ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was told to by a signal.
    Signal(Signal),
    /// An operator wants it.
    Requested,
    /// A service with `on_failure = "shutdown"` has failed.
    Failed {
        /// The instance that failed last.
        instance: InstanceId,
        /// Its last run.
        run: RunResult,
        /// Why there is no other.
        failure_reason: FailureReason,
    },
    /// A service with `on_success = "shutdown"` has completed.
    Completed {
        /// Which.
        service: ServiceIndex,
    },
    /// Nothing is left that runs or ever will.
    NothingLeft {
        /// The first failure among those that were to be ignored.
        failure: Option<(InstanceId, RunResult, FailureReason)>,
    },
}

/// How keepalive ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code.
    pub code: u8,
    /// Why.
    pub cause: Cause,
}
