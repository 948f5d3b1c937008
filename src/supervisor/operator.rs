//! What an operator can request, and why a request is refused.

use std::rc::Rc;

use super::rollout::ReloadFailure;
use crate::model::instance_limit::TooManyInstances;
use crate::model::{InstanceId, ServiceIndex, Signal};

/// Tells one request from another; chosen by whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Something about one service or instance.
    About(Target, Verb),
    /// Another number of instances, at least 1: done when these are ready and the surplus is gone. Not of a oneshot.
    Scale(ServiceIndex, u32),
    /// Read the configuration again; done when it is in force.
    Configure,
    /// The ordered stop of everything. Answered at once, also if it has begun already.
    Shutdown,
}

/// Whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All instances of all services.
    All,
    /// All instances of it.
    Service(ServiceIndex),
    /// This one alone.
    Instance(InstanceId),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Run it; done when it is ready, a oneshot when it has succeeded. Forgets its failures.
    Start,
    /// Stop it; done when nothing of it is left.
    Stop,
    /// Stop it and run it again; done when a start would be. Forgets its failures.
    Restart,
    /// Replace its processes one by one, so that there are never fewer ready ones; done when each has another.
    Reload,
    /// Send a signal to its main processes; not possible if there is none.
    Signal(Signal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Everything is being stopped.
    ShuttingDown,
    /// It does not run.
    NotRunning(InstanceId),
    /// It was started and has failed for good.
    Failed(InstanceId),
    /// Another request has taken it elsewhere meanwhile.
    Overtaken(InstanceId),
    /// There is no such instance, or no more.
    Unknown(InstanceId),
    /// It is being reloaded already.
    Reloading(ServiceIndex),
    /// A reload has failed; what was there before goes on.
    ReloadFailed(ReloadFailure),
    /// There cannot be so many instances that this is the last.
    TooMany(InstanceId, TooManyInstances),
    /// It is a oneshot: it has as many instances as its configuration says, and runs once.
    Oneshot(ServiceIndex),
    /// The configuration cannot be read or is invalid, for this reason.
    ConfigLoadFailed(Rc<str>),
}

/// A request whose answer is still out.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: RequestId,
    pub(super) up: Vec<InstanceId>,
    pub(super) down: Vec<InstanceId>,
    /// Services whose reload it waits for.
    pub(super) reloads: Vec<ServiceIndex>,
    /// What has gone wrong with one of these.
    pub(super) failure: Option<ReloadFailure>,
    /// The configuration is being loaded for it.
    pub(super) is_loading: bool,
}

impl Pending {
    /// Done when these are ready, those are down, and the services have been reloaded.
    pub(super) const fn new(
        id: RequestId,
        up: Vec<InstanceId>,
        down: Vec<InstanceId>,
        reloads: Vec<ServiceIndex>,
    ) -> Self {
        Self { id, up, down, reloads, failure: None, is_loading: false }
    }

    /// Nothing can be said before the configuration has been loaded.
    pub(super) fn config_load(id: RequestId) -> Self {
        Self { is_loading: true, ..Self::new(id, Vec::new(), Vec::new(), Vec::new()) }
    }
}
