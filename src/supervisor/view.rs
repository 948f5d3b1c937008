//! Read-only access to the state of the supervisor, for the status, the metrics and tests.

use std::iter;

use super::checks::HealthStatus;
use super::instance::Instance;
use super::planned::Runs;
use super::record::Reason;
use super::run_result::{Restarts, RunResult};
use super::service_table::{InEffect, ServiceTable};
use super::state::{CleaningUp, Running, State, StopStage, Stopping};
use super::state_name::StateName;
use crate::model::plan::{Hook, Service};
use crate::model::{InstanceId, Mono, Pid, Plan, ProbeFailure, RunId, ServiceIndex};

/// The state of the supervisor.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) plan: &'a Plan,
    pub(super) table: &'a ServiceTable,
    /// keepalive is shutting down.
    pub is_stopping: bool,
}

/// One service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceView<'a> {
    /// The position in the plan.
    pub index: ServiceIndex,
    /// The name.
    pub name: &'a str,
    /// Services that depend on it can start: all instances that have not failed are ready, or as a oneshot it has succeeded.
    pub available: bool,
    /// It is available, and none of its instances has failed.
    pub ready: bool,
    /// An instance of it runs, or will.
    pub is_active: bool,
    /// The number of instances that there should be.
    pub desired: u32,
    /// The definition of its next runs.
    pub definition: &'a Service,
    /// When it runs next, or is restarted, as Unix time in seconds; `None`: it has no schedule, or that is suspended.
    pub next_run: Option<i64>,
    /// The runs of its schedule.
    pub runs: Runs,
    table: &'a ServiceTable,
}

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceView<'a> {
    /// The id.
    pub id: InstanceId,
    /// The state.
    pub state: StateName,
    /// It runs and is ready now.
    pub ready: bool,
    /// The current run, until its processes are all gone.
    pub run: Option<RunId>,
    /// What the current run is, if it is a hook.
    pub hook: Option<Hook>,
    /// The main process, until it has been reaped.
    pub pid: Option<Pid>,
    /// The number of restarts, by cause.
    pub restarts: Restarts,
    /// The number of consecutive unstable runs.
    pub unstable: u32,
    /// The result of the last run.
    pub last_run: Option<&'a RunResult>,
    /// When the main process was started, until it has been reaped.
    pub since: Option<Mono>,
    /// Why it is in this state; `None` if it has never been started.
    pub reason: Option<&'a Reason>,
    /// When its restart is due, during a backoff.
    pub due: Option<Mono>,
    /// The stage of its stop, and when the next one begins.
    pub stop: Option<(StopStage, Mono)>,
    /// What its health checks have found; `None`: it is not checked.
    pub health: Option<HealthStatus>,
    /// The number of failed health checks.
    pub failed_checks: u64,
    /// How the last failed health check of the current or last run has failed.
    pub check_failure: Option<&'a ProbeFailure>,
    /// The definition of the current or last run.
    pub definition: &'a Service,
}

impl<'a> View<'a> {
    /// The services, in the order of the plan.
    pub fn services(self) -> impl Iterator<Item = ServiceView<'a>> {
        // A removed service is shown until its last instance is gone.
        let mut shown = self.table.service_indexes().filter(move |index| !self.table[*index].is_gone());
        iter::from_fn(move || self.service(shown.next()?))
    }

    /// One service.
    pub fn service(self, index: ServiceIndex) -> Option<ServiceView<'a>> {
        let service = self.plan.services.get(index.position())?;
        Some(ServiceView::new(&service.name, index, self.table))
    }

    /// All instances of all services.
    pub fn instances(self) -> impl Iterator<Item = InstanceView<'a>> {
        let mut instances = self.services().flat_map(ServiceView::instances);
        iter::from_fn(move || instances.next())
    }
}

impl<'a> ServiceView<'a> {
    fn new(name: &'a str, index: ServiceIndex, table: &'a ServiceTable) -> Self {
        let state = &table[index];
        let (available, counts) = (state.is_ready(), &state.counts);
        let (ready, is_active) = (available && counts.failed == 0, counts.active > 0);
        Self {
            index,
            name,
            available,
            ready,
            is_active,
            desired: state.desired,
            definition: &state.definition,
            next_run: state.planned.next().filter(|_| is_active),
            runs: state.planned.runs,
            table,
        }
    }

    /// The instances 0…n−1, followed by surplus instances that are being stopped.
    pub fn instances(self) -> impl Iterator<Item = InstanceView<'a>> {
        views_of(self.table[self.index].instances())
    }

    /// Whether the definition of the configuration has failed, and the one before it is in effect.
    #[must_use]
    pub fn is_rolled_back(self) -> bool {
        self.table[self.index].in_effect == InEffect::Previous
    }

    /// The surge instances: the second processes of instances that are being reloaded.
    pub fn surges(self) -> impl Iterator<Item = InstanceView<'a>> {
        views_of(self.table[self.index].surges())
    }

    /// The instances, followed by the surge instances.
    pub fn instances_and_surges(self) -> impl Iterator<Item = InstanceView<'a>> {
        let mut all = self.instances().chain(self.surges());
        iter::from_fn(move || all.next())
    }
}

/// As all iterators here, it has only `next`: every other function would be a copy for each caller, of 200 bytes.
fn views_of(instances: &[Instance]) -> impl Iterator<Item = InstanceView<'_>> {
    let mut instances = instances.iter();
    iter::from_fn(move || instances.next().map(Instance::view))
}

impl Instance {
    fn view(&self) -> InstanceView<'_> {
        let process = self.state.main_process();
        InstanceView {
            id: self.id,
            state: self.state.name(),
            ready: matches!(self.state, State::Running(running) if running.is_ready()),
            run: self.state.run(),
            hook: self.state.hook(),
            pid: process.map(|process| process.pid),
            restarts: self.restarts,
            unstable: self.unstable,
            last_run: self.last_run.as_deref(),
            since: process.map(|process| process.since),
            reason: self.reason.as_ref(),
            due: if let State::BackingOff { until } = self.state { Some(until) } else { None },
            stop: match self.state {
                State::Stopping(Stopping { stage, until, .. }) | State::CleaningUp(CleaningUp { stage, until, .. }) => {
                    Some((stage, until))
                }
                State::Waiting { .. }
                | State::Spawning { .. }
                | State::Executing(_)
                | State::Starting { .. }
                | State::Running(_)
                | State::BackingOff { .. }
                | State::Scheduled { .. }
                | State::Stopped { .. } => None,
            },
            health: if let State::Running(Running { checks, .. }) = self.state {
                checks.map(|checks| checks.status)
            } else {
                None
            },
            failed_checks: self.failed_checks,
            check_failure: self.check_failure.as_ref(),
            definition: &self.definition,
        }
    }
}
