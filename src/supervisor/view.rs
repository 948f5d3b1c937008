//! The state as others may see it.

use super::instance::Instance;
use super::record::Reason;
use super::run_result::RunResult;
use super::service_table::ServiceTable;
use super::state::{Running, State};
use super::state_name::StateName;
use crate::model::{InstanceId, Mono, Pid, Plan, RunId, ServiceIndex};

/// Everything there is to see.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) plan: &'a Plan,
    pub(super) table: &'a ServiceTable,
    /// Everything is being stopped.
    pub is_stopping: bool,
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
    /// How many instances there are to be.
    pub wanted: u32,
    table: &'a ServiceTable,
}

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceView<'a> {
    /// Which.
    pub id: InstanceId,
    /// Its state.
    pub state: StateName,
    /// It runs and is ready, and has not said otherwise since.
    pub ready: bool,
    /// Its present run, until nothing of that is left.
    pub run: Option<RunId>,
    /// Its main process, while that has not been reaped.
    pub pid: Option<Pid>,
    /// How often it has been started again.
    pub restarts: u32,
    /// Consecutive unstable runs.
    pub unstable: u32,
    /// How its last run was.
    pub last_run: Option<RunResult>,
    /// Since when its main process exists, while that has not been reaped.
    pub since: Option<Mono>,
    /// Why it is in this state; `None`: it has never been in another.
    pub reason: Option<&'a Reason>,
}

impl<'a> View<'a> {
    /// The services, in the order of the plan.
    pub fn services(self) -> impl Iterator<Item = ServiceView<'a>> {
        let table = self.table;
        let services = self.plan.services.iter().zip(table.service_indexes());
        // What is no longer in the configuration is there as long as something of it is.
        let is_there = move |(_, index): &(_, ServiceIndex)| !table[*index].is_gone();
        services.filter(is_there).map(move |(service, index)| ServiceView {
            index,
            name: &service.name,
            satisfied: table[index].is_satisfied(),
            wanted: table[index].wanted,
            table,
        })
    }

    /// All instances of all services.
    pub fn instances(self) -> impl Iterator<Item = InstanceView<'a>> {
        self.services().flat_map(ServiceView::instances)
    }
}

impl<'a> ServiceView<'a> {
    /// Its instances, 0…n−1, and those above that are on their way down since there are to be fewer.
    pub fn instances(self) -> impl Iterator<Item = InstanceView<'a>> {
        self.table[self.index].instances().iter().map(Instance::view)
    }
}

impl<'a> ServiceView<'a> {
    /// The second processes that some of its instances have while it is being reloaded.
    pub fn surges(self) -> impl Iterator<Item = InstanceView<'a>> {
        self.table[self.index].surges().iter().map(Instance::view)
    }
}

impl Instance {
    fn view(&self) -> InstanceView<'_> {
        let process = self.state.process();
        InstanceView {
            id: self.id,
            state: self.state.name(),
            ready: matches!(self.state, State::Running(Running { readiness, .. }) if readiness.is_ready()),
            run: self.state.run(),
            pid: process.map(|process| process.pid),
            restarts: self.restarts,
            unstable: self.unstable,
            last_run: self.last_run,
            since: process.map(|process| process.since),
            reason: self.reason.as_ref(),
        }
    }
}
