//! The state of a rolling reload of one service, and why a reload fails.

use std::rc::Rc;

use super::requester::Requester;
use super::run_result::RunResult;
use crate::model::plan::{Service, Strategy};
use crate::model::{InstanceId, ServiceIndex};

#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) strategy: Strategy,
    pub(super) by: Requester,
    /// The numbers of the instances that have not been replaced yet, in order.
    pub(super) remaining: Vec<u32>,
    pub(super) in_progress: Vec<Slot>,
    /// The definition to return to if the reload fails; `None` if it has not changed, or if a rollback is in progress.
    pub(super) previous: Option<Rc<Service>>,
    /// The number of instances after the reload, if it changes.
    pub(super) resize: Option<u32>,
    /// Until then the reload waits for the dependencies of the service.
    pub(super) has_started: bool,
    /// The first failure.
    pub(super) failure: Option<ReloadFailure>,
    /// The first instance that was stopped by another request before the reload has ended.
    pub(super) stopped: Option<InstanceId>,
    pub(super) is_failure_handled: bool,
}

/// An instance that is being replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) stage: RolloutStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RolloutStage {
    /// The surge instance is the new process, which is not ready yet.
    StartingNew,
    /// The surge instance is the old process, which is being stopped.
    StoppingOld,
    /// The instance is restarted in place.
    Restarting,
    /// The process has been sent the reload signal and may report the result.
    ReloadSignalled,
}

/// Why a reload has failed.
#[derive(Clone, Debug, PartialEq)]
pub struct ReloadFailure {
    /// The instance whose new process has failed.
    pub instance: InstanceId,
    /// The definition of the new process.
    pub definition: Rc<Service>,
    /// The error.
    pub error: RolloutError,
}

/// Why an instance could not be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutError {
    /// The new process has exited.
    Exited(Rc<RunResult>),
    /// The new process has exited while the old one, or its leftover processes, were still there.
    ExitedBesideOld(Rc<RunResult>),
    /// The new process has exited after it had sent `STOPPING=1`.
    ExitedAfterStopping(Rc<RunResult>),
    /// The process has reported the beginning of its reload, and not the end within `ready_timeout`.
    ReloadTimedOut,
    /// The system could not create a process.
    SpawnFailed,
    /// A dependency of the service has failed.
    DependencyFailed(ServiceIndex),
    /// A dependency of the service has completed without being ready.
    DependencyCompleted(ServiceIndex),
    /// A dependency of the service is stopped, and nobody starts it.
    DependencyStopped(ServiceIndex),
    /// Another configuration was loaded before the reload began.
    Superseded,
    /// Another request has stopped the instance.
    Stopped,
}

impl RolloutError {
    /// The run of the process that has exited.
    #[must_use]
    pub const fn run(&self) -> Option<&Rc<RunResult>> {
        match self {
            Self::Exited(run) | Self::ExitedBesideOld(run) | Self::ExitedAfterStopping(run) => Some(run),
            Self::ReloadTimedOut
            | Self::SpawnFailed
            | Self::DependencyFailed(_)
            | Self::DependencyCompleted(_)
            | Self::DependencyStopped(_)
            | Self::Superseded
            | Self::Stopped => None,
        }
    }
}
