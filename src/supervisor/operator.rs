//! The requests of operators, and why a request is refused.

use std::rc::Rc;

use super::rollout::ReloadFailure;
use crate::model::instance_limit::TooManyInstances;
use crate::model::{InstanceId, ServiceIndex, Signal};

/// Identifies a request; chosen by the client of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An operation on services or instances.
    Control(Target, Verb),
    /// A start, stop or restart of several: stopped in the reverse order of their dependencies, started in that order.
    Several(Rc<[Target]>, Verb),
    /// Change the number of instances. Done when these are ready and the surplus is gone. Refused for
    /// a oneshot.
    Scale(ServiceIndex, u32),
    /// Load the configuration again. Done when it is in effect.
    ReloadConfig,
    /// Shut keepalive down. Answered at once.
    Shutdown,
}

/// The instances that a request applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All instances of all services.
    All,
    /// All instances of one service.
    Service(ServiceIndex),
    /// One instance.
    Instance(InstanceId),
}

impl Target {
    /// Whether `id` belongs to it.
    #[must_use]
    pub fn includes(self, id: InstanceId) -> bool {
        match self {
            Self::All => true,
            Self::Service(service) => id.service == service,
            Self::Instance(instance) => id == instance,
        }
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start it and reset its failures. Done when it is ready, or when the oneshot has succeeded.
    Start,
    /// Stop it. Done when it has no processes left.
    Stop,
    /// Stop it and start it again. Done when a start would be.
    Restart,
    /// Replace its processes one after the other, so that the number of ready instances does not drop. Done when all are
    /// replaced.
    Reload,
    /// Send a signal to its main processes. Refused if there are none.
    Signal(Signal),
}

/// Why a request was refused, or has failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// keepalive is shutting down.
    ShuttingDown,
    /// The instance is not running.
    NotRunning(InstanceId),
    /// The instance was started and has failed.
    Failed(InstanceId),
    /// The instance was started, and its process has exited too early.
    Died(InstanceId),
    /// Another request has changed the instance in the meantime.
    Superseded(InstanceId),
    /// There is no such instance.
    UnknownInstance(InstanceId),
    /// The service is being reloaded already.
    Reloading(ServiceIndex),
    /// A reload has failed. The old processes continue.
    ReloadFailed(Box<ReloadFailure>),
    /// The reload of the first one begins when the second one, which has failed and is restarted, is ready.
    ReloadAwaits(ServiceIndex, ServiceIndex),
    /// The number of this instance is above the maximum.
    TooMany(InstanceId, TooManyInstances),
    /// The first one runs, and depends on the second one, which is stopped or has failed.
    DependencyUnavailable(ServiceIndex, ServiceIndex),
    /// The service has no instances.
    NoInstances(ServiceIndex),
    /// The service is a oneshot, which can be neither scaled nor reloaded.
    Oneshot(ServiceIndex),
    /// The configuration cannot be read, or is invalid, for this reason.
    ConfigLoadFailed(Rc<str>),
    /// Several instances or reloads have failed.
    Several(Rc<[Self]>),
}

impl Refusal {
    /// The instances that have failed, or were not replaced because their new process has.
    #[must_use]
    pub fn failed_instances(&self) -> Vec<InstanceId> {
        match self {
            Self::Failed(instance) | Self::Died(instance) => vec![instance.slot()],
            Self::ReloadFailed(failure) if failure.error.run().is_some() => vec![failure.instance.slot()],
            Self::Several(refusals) => refusals.iter().flat_map(Self::failed_instances).collect(),
            Self::ReloadFailed(_)
            | Self::ShuttingDown
            | Self::NotRunning(_)
            | Self::Superseded(_)
            | Self::UnknownInstance(_)
            | Self::Reloading(_)
            | Self::ReloadAwaits(..)
            | Self::TooMany(..)
            | Self::DependencyUnavailable(..)
            | Self::NoInstances(_)
            | Self::Oneshot(_)
            | Self::ConfigLoadFailed(_) => Vec::new(),
        }
    }
}

/// A request that has not been answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: RequestId,
    /// Instances that must become ready.
    pub(super) awaiting_ready: Vec<InstanceId>,
    /// Instances that must stop.
    pub(super) awaiting_stop: Vec<InstanceId>,
    /// Instances that are restarted when the dependencies of those that run are ready.
    pub(super) restarts: Vec<InstanceId>,
    /// Services whose reload must finish.
    pub(super) reloads: Vec<ServiceIndex>,
    /// The failures of these reloads.
    pub(super) failures: Vec<Refusal>,
    /// The instances that must become ready whose processes have exited.
    pub(super) died: Vec<InstanceId>,
    /// It waits for the configuration to be loaded.
    pub(super) is_loading: bool,
}

impl Pending {
    /// Done when all of these have been reached.
    pub(super) const fn new(
        id: RequestId,
        awaiting_ready: Vec<InstanceId>,
        awaiting_stop: Vec<InstanceId>,
        reloads: Vec<ServiceIndex>,
    ) -> Self {
        Self {
            id,
            awaiting_ready,
            awaiting_stop,
            restarts: Vec::new(),
            reloads,
            failures: Vec::new(),
            died: Vec::new(),
            is_loading: false,
        }
    }

    /// Cannot be done before the configuration has been loaded.
    pub(super) fn config_load(id: RequestId) -> Self {
        Self { is_loading: true, ..Self::new(id, Vec::new(), Vec::new(), Vec::new()) }
    }
}
