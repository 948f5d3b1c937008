//! The services and their instances, with counters that make it cheap to ask for the status of a service.

use std::ops::{Index, IndexMut};
use std::rc::Rc;

use super::instance::Instance;
use super::planned::Planned;
use super::run_result::{FailureReason, RunResult};
use super::state::{State, Stopped};
use crate::model::plan::{Kind, Service};
use crate::model::{InstanceId, Plan, ServiceIndex};

/// All services.
#[derive(Debug)]
pub(super) struct ServiceTable {
    services: Vec<ServiceState>,
    /// The counts of all services together.
    total: InstanceCounts,
}

/// One service.
#[derive(Debug)]
pub(super) struct ServiceState {
    /// The definition of its next runs.
    pub(super) definition: Rc<Service>,
    /// Instances 0…n−1, followed by surplus instances: these are being stopped and are removed when they have stopped.
    instances: Vec<Instance>,
    /// The surge instances: the second processes of instances that are being reloaded. There are few.
    surges: Vec<Instance>,
    /// The number of instances that there should be.
    pub(super) desired: u32,
    /// The services that depend on this one: the reverse of `depends_on`.
    pub(super) dependents: Box<[ServiceIndex]>,
    pub(super) counts: InstanceCounts,
    /// The status at the last call of `Supervisor::propagate`.
    pub(super) last_status: ServiceStatus,
    /// It is in the queue of `Supervisor::propagate`.
    pub(super) is_dirty: bool,
    /// During a shutdown: the number of dependents that are not drained.
    pub(super) live_dependents: usize,
    /// During a shutdown: it has no processes left, and neither have the services that depend on it.
    pub(super) is_drained: bool,
    pub(super) membership: Membership,
    /// Its definition has come by a reload, and has never been ready.
    pub(super) untried: Option<Untried>,
    pub(super) in_effect: InEffect,
    /// Its schedule.
    pub(super) planned: Planned,
    /// Its files have changed, and it has not been restarted since.
    pub(super) has_changed_files: bool,
}

/// A definition that has come by a reload: its failure ends nothing.
#[derive(Debug)]
pub(super) struct Untried {
    /// The definition that worked; `None`: the service is new.
    pub(super) before: Option<Rc<Service>>,
}

/// Whether a service is in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Present,
    /// Its number of instances was set to 0 while keepalive runs, which therefore does not end without them.
    ScaledToZero,
    /// It has been removed, and stops.
    Removed,
}

/// Which definition of a service is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InEffect {
    /// That of the configuration as it was loaded.
    Configured,
    /// The one before it: that of the configuration has failed.
    Previous,
}

/// Numbers of instances by state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InstanceCounts {
    /// Instances that run or will run: all that are not `Stopped`.
    pub(super) active: u32,
    /// Active instances that have a process or leftover processes, or are about to have one.
    pub(super) live: u32,
    pub(super) running: u32,
    pub(super) completed: u32,
    pub(super) failed: u32,
    /// Active and failed instances that start when their dependencies become ready.
    pub(super) waiting_on_dependency: u32,
    pub(super) stopped_by_operator: u32,
    /// Instances that were never started, or were stopped by the shutdown.
    pub(super) not_started: u32,
}

/// The status of a service, as its dependents and dependencies see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceStatus {
    /// Services that depend on it can start.
    pub(super) is_ready: bool,
    pub(super) outcome: ServiceOutcome,
    pub(super) has_no_process: bool,
}

/// Whether a service runs, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceOutcome {
    /// At least one instance runs or will run.
    Active,
    /// None is active, and at least one instance waits for an operator to start it, or there should be none.
    Inactive,
    Completed,
    Failed,
    /// Some instances have completed and the others have failed.
    Mixed,
}

/// An instance that has failed and is not restarted.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) instance: InstanceId,
    pub(super) run: Rc<RunResult>,
    pub(super) failure_reason: FailureReason,
    /// The number of this failure, counted over all instances.
    pub(super) nth: u32,
}

impl ServiceTable {
    /// The services of `plan`, not started.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut services = Self { services: Vec::new(), total: InstanceCounts::default() };
        services.apply_config(plan);
        services
    }

    /// Replaces the definitions by those of `plan`, which contains the known services at their positions and possibly more.
    /// Existing instances do not change. The instances of new services are created, not started.
    pub(super) fn apply_config(&mut self, plan: &Plan) {
        let known = self.services.len();
        for (position, definition) in plan.services.iter().enumerate().skip(known) {
            self.services.push(ServiceState::new(index_at(position), definition));
            self.total.not_started += definition.instances;
        }
        let mut dependents = vec![Vec::new(); plan.services.len()];
        for (position, service) in plan.services.iter().enumerate() {
            for dependency in &service.depends_on {
                if let Some(list) = dependents.get_mut(dependency.position()) {
                    list.push(index_at(position));
                }
            }
        }
        for ((service, definition), dependents) in self.services.iter_mut().zip(&plan.services).zip(dependents) {
            service.definition = Rc::clone(definition);
            service.live_dependents = dependents.len();
            service.dependents = dependents.into_boxed_slice();
        }
    }

    pub(super) fn service_indexes(&self) -> impl Iterator<Item = ServiceIndex> + use<> {
        (0..self.services.len()).map(index_at)
    }

    /// The instances of a service, including surplus ones. Does not borrow the table, so that it can be changed meanwhile.
    pub(super) fn ids_of(&self, service: ServiceIndex) -> impl Iterator<Item = InstanceId> + use<> {
        let count = u32::try_from(self[service].instances.len()).unwrap_or(u32::MAX);
        (0..count).map(move |number| InstanceId { service, number })
    }

    /// The surge instances of a service.
    pub(super) fn surges_of(&self, service: ServiceIndex) -> Vec<InstanceId> {
        self[service].surges.iter().map(|surge| surge.id).collect()
    }

    /// All instances. Does not borrow the table, so that it can be changed meanwhile.
    pub(super) fn ids(&self) -> Vec<InstanceId> {
        let mut ids = Vec::new();
        self.service_indexes().for_each(|index| ids.extend(self.ids_of(index)));
        ids
    }

    /// All instances and surge instances.
    pub(super) fn ids_with_surges(&self) -> Vec<InstanceId> {
        let mut ids = self.ids();
        self.service_indexes().for_each(|index| ids.extend(self.surges_of(index)));
        ids
    }

    pub(super) fn find(&self, id: InstanceId) -> Option<&Instance> {
        let service = self.services.get(id.service.position())?;
        if id.is_surge() {
            return service.surges.iter().find(|surge| surge.id == id);
        }
        service.instances.get(id.number as usize)
    }

    /// Whether there should be such an instance: surplus ones are not counted.
    pub(super) fn has(&self, id: InstanceId) -> bool {
        self.services.get(id.service.position()).is_some_and(|service| id.number < service.desired)
    }

    /// Sets the number of instances that there should be. Missing ones are created, not started; surplus ones stay until
    /// [`Self::drop_surplus`].
    pub(super) fn resize(&mut self, index: ServiceIndex, desired: u32) {
        let service = &mut self[index];
        match (service.membership, desired) {
            (Membership::Present, 0) if service.desired > 0 => service.membership = Membership::ScaledToZero,
            (Membership::ScaledToZero, 1..) => service.membership = Membership::Present,
            (Membership::Present | Membership::ScaledToZero | Membership::Removed, _) => {}
        }
        service.desired = desired;
        let first = u32::try_from(service.instances.len()).unwrap_or(u32::MAX);
        let definition = &service.definition;
        let new = |number| Instance::new(InstanceId { service: index, number }, Rc::clone(definition));
        service.instances.extend((first..desired).map(new));
        let made = InstanceCounts { not_started: desired.saturating_sub(first), ..InstanceCounts::default() };
        service.counts = service.counts.changed(&InstanceCounts::default(), &made);
        self.total = self.total.changed(&InstanceCounts::default(), &made);
    }

    /// Removes surplus instances that have stopped, and returns them.
    pub(super) fn drop_surplus(&mut self, index: ServiceIndex) -> Vec<InstanceId> {
        let service = &mut self[index];
        let mut removed = Vec::new();
        let mut counts = InstanceCounts::default();
        while service.instances.len() > service.desired as usize
            && let Some(last) = service.instances.pop_if(|last| last.state.is_inactive())
        {
            counts = counts.changed(&InstanceCounts::default(), &InstanceCounts::of(&last.state));
            removed.push(last.id);
        }
        service.counts = service.counts.changed(&counts, &InstanceCounts::default());
        self.total = self.total.changed(&counts, &InstanceCounts::default());
        removed
    }

    /// Creates the surge instance of `id`. It is not started, and takes over the number of restarts.
    pub(super) fn add_surge(&mut self, id: InstanceId) {
        let surge = self[id].surge();
        self[id.service].surges.push(surge);
    }

    /// Removes surge instances that have stopped. Returns whether there were any.
    pub(super) fn drop_surges(&mut self, index: ServiceIndex) -> bool {
        let surges = &mut self[index].surges;
        let before = surges.len();
        // Surge instances that have stopped are in no count.
        surges.retain(|surge| !surge.state.is_inactive());
        surges.len() < before
    }

    /// Swaps an instance and its surge instance.
    pub(super) fn swap_with_surge(&mut self, id: InstanceId) {
        let service = &mut self[id.service];
        let surge = service.surges.iter_mut().find(|surge| surge.id == id.surge());
        let (Some(instance), Some(surge)) = (service.instances.get_mut(id.number as usize), surge) else { return };
        let before = InstanceCounts::of(&instance.state).and(&InstanceCounts::of_surge(&surge.state));
        std::mem::swap(instance, surge);
        (instance.id, surge.id) = (id, id.surge());
        std::mem::swap(&mut instance.queued_stop, &mut surge.queued_stop);
        let after = InstanceCounts::of(&instance.state).and(&InstanceCounts::of_surge(&surge.state));
        service.counts = service.counts.changed(&before, &after);
        self.total = self.total.changed(&before, &after);
    }

    pub(super) const fn total(&self) -> &InstanceCounts {
        &self.total
    }

    /// Replaces the state of one instance and returns the old one.
    pub(super) fn replace_state(&mut self, id: InstanceId, state: State) -> State {
        let before = std::mem::replace(&mut self[id].state, state);
        let counts_of = if id.is_surge() { InstanceCounts::of_surge } else { InstanceCounts::of };
        let (removed, added) = (counts_of(&before), counts_of(&self[id].state));
        let service = &mut self[id.service];
        service.counts = service.counts.changed(&removed, &added);
        self.total = self.total.changed(&removed, &added);
        before
    }
}

fn index_at(position: usize) -> ServiceIndex {
    ServiceIndex(u32::try_from(position).unwrap_or(u32::MAX))
}

impl ServiceState {
    /// The instances are not started. `dependents` is filled in by [`ServiceTable::apply_config`].
    fn new(index: ServiceIndex, definition: &Rc<Service>) -> Self {
        let instance = |number| Instance::new(InstanceId { service: index, number }, Rc::clone(definition));
        Self {
            definition: Rc::clone(definition),
            instances: (0..definition.instances).map(instance).collect(),
            surges: Vec::new(),
            desired: definition.instances,
            dependents: Box::default(),
            counts: InstanceCounts { not_started: definition.instances, ..InstanceCounts::default() },
            last_status: ServiceStatus { is_ready: false, outcome: ServiceOutcome::Inactive, has_no_process: true },
            is_dirty: false,
            live_dependents: 0,
            is_drained: false,
            membership: Membership::Present,
            untried: None,
            in_effect: InEffect::Configured,
            planned: Planned::default(),
            has_changed_files: false,
        }
    }

    /// The definition that has worked; `old`: the one before the current one. What has never worked, or has not succeeded, is
    /// retried as if it was new.
    pub(super) fn worked_before(&self, old: &Rc<Service>) -> Option<Rc<Service>> {
        if let Some(untried) = &self.untried {
            return untried.before.clone();
        }
        let has_worked = match old.kind {
            Kind::Service => self.counts.not_started < self.counts.instances(),
            Kind::Oneshot => self.is_ready(),
        };
        (has_worked || self.in_effect == InEffect::Previous).then(|| Rc::clone(old))
    }

    /// Whether it is in the configuration and there should be no instances: nothing waits for it.
    pub(super) const fn is_off(&self) -> bool {
        self.desired == 0 && !self.is_retiring()
    }

    /// Whether it has been removed from the configuration.
    pub(super) const fn is_retiring(&self) -> bool {
        matches!(self.membership, Membership::Removed)
    }

    /// Whether it has been removed from the configuration and has no instances left.
    pub(super) fn is_gone(&self) -> bool {
        self.is_retiring() && self.instances.is_empty() && self.surges.is_empty()
    }

    pub(super) fn surges(&self) -> &[Instance] {
        &self.surges
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instances that have failed, without those that were only blocked by a dependency.
    pub(super) fn failures(&self) -> impl Iterator<Item = Failure> {
        self.instances.iter().filter_map(|instance| {
            let State::Stopped { why: Stopped::Failed { failure_reason, nth } } = instance.state else { return None };
            Some(Failure { instance: instance.id, run: instance.last_run.clone()?, failure_reason, nth })
        })
    }

    /// Whether services that depend on it can start.
    ///
    /// A service is ready when at least one instance is ready and all active ones are; a oneshot when all instances have
    /// completed. If there should be none, there is nothing to wait for, and nothing waits for one that runs on a schedule.
    pub(super) fn is_ready(&self) -> bool {
        let is_up = match self.definition.kind {
            Kind::Service => self.counts.running > 0 && self.counts.running == self.counts.active,
            Kind::Oneshot => self.counts.completed as usize == self.instances.len(),
        };
        is_up || self.is_off() || self.definition.runs_on_schedule()
    }

    pub(super) fn status(&self) -> ServiceStatus {
        ServiceStatus { is_ready: self.is_ready(), outcome: self.outcome(), has_no_process: self.counts.live == 0 }
    }

    fn outcome(&self) -> ServiceOutcome {
        let counts = &self.counts;
        if counts.active > 0 {
            ServiceOutcome::Active
        } else if counts.stopped_by_operator + counts.not_started > 0 || self.is_off() {
            ServiceOutcome::Inactive
        } else if counts.failed == 0 {
            ServiceOutcome::Completed
        } else if counts.completed == 0 || self.definition.kind == Kind::Oneshot {
            ServiceOutcome::Failed
        } else {
            ServiceOutcome::Mixed
        }
    }
}

impl InstanceCounts {
    /// The number of all instances.
    pub(super) const fn instances(&self) -> u32 {
        self.active + self.completed + self.failed + self.stopped_by_operator + self.not_started
    }

    /// The counts of a single instance.
    fn of(state: &State) -> Self {
        let mut counts = Self::default();
        match state {
            State::Waiting { .. } => (counts.active, counts.waiting_on_dependency) = (1, 1),
            State::BackingOff { .. } | State::Scheduled { .. } => counts.active = 1,
            State::Spawning { .. }
            | State::Executing(_)
            | State::Starting { .. }
            | State::Stopping(_)
            | State::CleaningUp(_) => (counts.active, counts.live) = (1, 1),
            State::Running(running) => {
                (counts.active, counts.live, counts.running) = (1, 1, running.is_ready().into());
            }
            State::Stopped { why: Stopped::Completed } => counts.completed = 1,
            State::Stopped { why: Stopped::Failed { .. } } => counts.failed = 1,
            State::Stopped { why: Stopped::Blocked { .. } } => (counts.failed, counts.waiting_on_dependency) = (1, 1),
            State::Stopped { why: Stopped::Operator } => counts.stopped_by_operator = 1,
            State::Stopped { why: Stopped::NotStarted | Stopped::Shutdown | Stopped::Replaced } => {
                counts.not_started = 1
            }
        }
        counts
    }

    /// Of a surge instance only the process counts. The status of the service depends on the instance.
    fn of_surge(state: &State) -> Self {
        Self { live: Self::of(state).live, ..Self::default() }
    }

    const fn and(self, other: &Self) -> Self {
        self.changed(
            &Self {
                active: 0,
                live: 0,
                running: 0,
                completed: 0,
                failed: 0,
                waiting_on_dependency: 0,
                stopped_by_operator: 0,
                not_started: 0,
            },
            other,
        )
    }

    const fn changed(self, removed: &Self, added: &Self) -> Self {
        Self {
            active: self.active - removed.active + added.active,
            live: self.live - removed.live + added.live,
            running: self.running - removed.running + added.running,
            completed: self.completed - removed.completed + added.completed,
            failed: self.failed - removed.failed + added.failed,
            waiting_on_dependency: self.waiting_on_dependency - removed.waiting_on_dependency
                + added.waiting_on_dependency,
            stopped_by_operator: self.stopped_by_operator - removed.stopped_by_operator + added.stopped_by_operator,
            not_started: self.not_started - removed.not_started + added.not_started,
        }
    }
}

// Services are never removed from the table. Instances are removed only when they have stopped; code that may hold the id of
// such an instance calls `find` first.
#[expect(clippy::indexing_slicing, reason = "the only place; see above")]
mod by_index {
    use super::{Index, IndexMut, Instance, InstanceId, ServiceIndex, ServiceState, ServiceTable};

    impl Index<ServiceIndex> for ServiceTable {
        type Output = ServiceState;

        fn index(&self, index: ServiceIndex) -> &ServiceState {
            &self.services[index.position()]
        }
    }

    impl IndexMut<ServiceIndex> for ServiceTable {
        fn index_mut(&mut self, index: ServiceIndex) -> &mut ServiceState {
            &mut self.services[index.position()]
        }
    }

    impl Index<InstanceId> for ServiceTable {
        type Output = Instance;

        fn index(&self, id: InstanceId) -> &Instance {
            let service = &self.services[id.service.position()];
            if id.is_surge() {
                let position = service.surges.iter().position(|surge| surge.id == id);
                return &service.surges[position.unwrap_or(usize::MAX)];
            }
            &service.instances[id.number as usize]
        }
    }

    impl IndexMut<InstanceId> for ServiceTable {
        fn index_mut(&mut self, id: InstanceId) -> &mut Instance {
            let service = &mut self.services[id.service.position()];
            if id.is_surge() {
                let position = service.surges.iter().position(|surge| surge.id == id);
                return &mut service.surges[position.unwrap_or(usize::MAX)];
            }
            &mut service.instances[id.number as usize]
        }
    }
}
