//! The state as others may see it.

use super::Run;
use super::fleet::Fleet;
use super::instance::{Instance, State, Stopped};
use crate::model::{InstanceId, Pid, Plan, ServiceIndex};

/// The states that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// For what it depends on.
    Waiting,
    /// It has been started and is not ready yet.
    Starting,
    /// It is ready.
    Running,
    /// It has been told to end, or what it left is being ended.
    Stopping,
    /// It does not run and will not by itself.
    Stopped,
    /// A restart is due.
    Backoff,
    /// It has succeeded and will not run again.
    Completed,
    /// It has failed for good, or what it depends on has.
    Failed,
}

impl StateName {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl State {
    /// What users see of it.
    pub(super) const fn name(&self) -> StateName {
        match self {
            Self::Waiting => StateName::Waiting,
            Self::Spawning { .. } | Self::Executing { .. } | Self::Starting { .. } => StateName::Starting,
            Self::Running { .. } => StateName::Running,
            Self::Stopping { .. } | Self::Clearing { .. } => StateName::Stopping,
            Self::BackingOff { .. } => StateName::Backoff,
            Self::Stopped { why } => match why {
                Stopped::NotStarted | Stopped::Operator | Stopped::Shutdown => StateName::Stopped,
                Stopped::Completed => StateName::Completed,
                Stopped::Failed { .. } | Stopped::Blocked { .. } => StateName::Failed,
            },
        }
    }
}

/// Everything there is to see.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    plan: &'a Plan,
    fleet: &'a Fleet,
}

/// One service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceView<'a> {
    /// Its position in the plan.
    pub index: ServiceIndex,
    /// Its name.
    pub name: &'a str,
    /// Whether what depends on it may start: it is ready, or as a oneshot has succeeded.
    pub satisfied: bool,
    fleet: &'a Fleet,
}

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Which.
    pub id: InstanceId,
    /// Its state.
    pub state: StateName,
    /// Its main process, while that has not been reaped.
    pub pid: Option<Pid>,
    /// How often it has been started again.
    pub restarts: u32,
    /// Consecutive unstable runs.
    pub unstable: u32,
    /// How its last run was.
    pub last_run: Option<Run>,
}

impl<'a> View<'a> {
    pub(super) const fn new(plan: &'a Plan, fleet: &'a Fleet) -> Self {
        Self { plan, fleet }
    }

    /// The services, in the order of the plan.
    pub fn services(self) -> impl Iterator<Item = ServiceView<'a>> {
        let fleet = self.fleet;
        self.plan.services.iter().zip(fleet.service_indexes()).map(move |(service, index)| ServiceView {
            index,
            name: &service.name,
            satisfied: fleet[index].is_satisfied(),
            fleet,
        })
    }

    /// All instances of all services.
    pub fn instances(self) -> impl Iterator<Item = InstanceView> {
        self.services().flat_map(ServiceView::instances)
    }
}

impl ServiceView<'_> {
    /// Its instances, 0…n−1.
    pub fn instances(self) -> impl Iterator<Item = InstanceView> {
        self.fleet[self.index].instances().iter().map(Instance::view)
    }
}

impl Instance {
    fn view(&self) -> InstanceView {
        InstanceView {
            id: self.id,
            state: self.state.name(),
            pid: self.state.live_pid(),
            restarts: self.restarts,
            unstable: self.unstable,
            last_run: self.last_run,
        }
    }
}
