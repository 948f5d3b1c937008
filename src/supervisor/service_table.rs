//! All services and their instances, and the counts that make questions about a service cheap.

use std::ops::{Index, IndexMut};
use std::rc::Rc;

use super::instance::Instance;
use super::run_result::{FailureReason, RunResult};
use super::state::{State, Stopped};
use crate::model::plan::{Kind, Service};
use crate::model::{InstanceId, Plan, ServiceIndex};

#[derive(Debug)]
pub(super) struct ServiceTable {
    services: Vec<ServiceState>,
    /// Over all services.
    total: InstanceCounts,
}

#[derive(Debug)]
pub(super) struct ServiceState {
    /// What its next run is made of.
    pub(super) definition: Rc<Service>,
    /// 0…n−1, and perhaps more that are surplus: they are on their way down, and go when they have come to rest.
    instances: Vec<Instance>,
    /// The second processes that instances have during a rolling reload. There are few.
    surges: Vec<Instance>,
    /// How many there are to be.
    pub(super) wanted: u32,
    /// Who waits for this service; the reverse of `depends_on`.
    pub(super) dependents: Box<[ServiceIndex]>,
    pub(super) counts: InstanceCounts,
    /// What `Supervisor::propagate` found when it last looked.
    pub(super) seen: ServiceStatus,
    /// Whether it is in the queue of what `Supervisor::propagate` has to look at.
    pub(super) queued: bool,
    /// How many of its dependents are not released.
    pub(super) live_dependents: usize,
    /// While everything is being stopped: nothing is left of it, nor of anything that depends on it.
    pub(super) released: bool,
    /// It is no longer in the configuration.
    pub(super) is_retiring: bool,
}

/// How many instances are in which kind of state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InstanceCounts {
    /// They run, or will by themselves: everything that is not stopped.
    pub(super) active: u32,
    /// Those of the active ones that have a process, or whose process has left others.
    pub(super) live: u32,
    pub(super) running: u32,
    pub(super) completed: u32,
    pub(super) failed: u32,
    /// Those of the active and of the failed ones that start once something else is there.
    pub(super) waiting_on_dependency: u32,
    /// Stopped by an operator, who may start them again.
    pub(super) stopped_by_operator: u32,
    /// Never started, or stopped because everything is.
    pub(super) idle: u32,
}

/// What a service means to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceStatus {
    /// What depends on it may start.
    pub(super) satisfied: bool,
    pub(super) outcome: ServiceOutcome,
    /// No process of it is left.
    pub(super) down: bool,
}

/// Whether, and how, it has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceOutcome {
    /// It runs, or will by itself.
    Open,
    /// It rests until an operator starts it.
    Held,
    Completed,
    Failed,
    /// Some instances have completed, the others have failed.
    Mixed,
}

/// One instance that has failed for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) instance: InstanceId,
    pub(super) run: RunResult,
    pub(super) failure_reason: FailureReason,
    /// Counted over all instances.
    pub(super) nth: u32,
}

impl ServiceTable {
    /// Nothing has been started.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut services = Self { services: Vec::new(), total: InstanceCounts::default() };
        services.adopt(plan);
        services
    }

    /// Takes on the definitions of `plan`, whose services are those that there are, in their order, and perhaps more.
    /// Nothing happens to the instances that there are; those of new services are made, and have not been started.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        let known = self.services.len();
        for (position, definition) in plan.services.iter().enumerate().skip(known) {
            self.services.push(ServiceState::new(index_at(position), definition));
            self.total.idle += definition.instances;
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

    /// The service is to go.
    pub(super) fn retire(&mut self, index: ServiceIndex) {
        self[index].is_retiring = true;
    }

    /// It is to stay after all, or is there again.
    pub(super) fn revive(&mut self, index: ServiceIndex) {
        self[index].is_retiring = false;
    }

    pub(super) fn service_indexes(&self) -> impl Iterator<Item = ServiceIndex> + use<> {
        (0..self.services.len()).map(index_at)
    }

    /// The instances of one service, surplus ones too. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn ids_of(&self, service: ServiceIndex) -> impl Iterator<Item = InstanceId> + use<> {
        let count = u32::try_from(self[service].instances.len()).unwrap_or(u32::MAX);
        (0..count).map(move |number| InstanceId { service, number })
    }

    /// The surges of one service's instances. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn surges_of(&self, service: ServiceIndex) -> Vec<InstanceId> {
        self[service].surges.iter().map(|surge| surge.id).collect()
    }

    /// All instances. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn ids(&self) -> impl Iterator<Item = InstanceId> + use<> {
        let counts: Vec<_> = self.service_indexes().map(|index| (index, self.ids_of(index))).collect();
        counts.into_iter().flat_map(|(_, ids)| ids)
    }

    /// All instances and surges.
    pub(super) fn ids_with_surges(&self) -> impl Iterator<Item = InstanceId> + use<> {
        let surges: Vec<_> = self.service_indexes().flat_map(|index| self.surges_of(index)).collect();
        self.ids().chain(surges)
    }

    /// `None`: there is no such instance, or no more.
    pub(super) fn find(&self, id: InstanceId) -> Option<&Instance> {
        let service = self.services.get(id.service.position())?;
        if id.is_surge() {
            return service.surges.iter().find(|surge| surge.id == id);
        }
        service.instances.get(id.number as usize)
    }

    /// Whether it is one of the service's, and no surplus.
    pub(super) fn has(&self, id: InstanceId) -> bool {
        self.services.get(id.service.position()).is_some_and(|service| id.number < service.wanted)
    }

    /// From now on there are to be so many; those that are missing are made, and have not been started.
    pub(super) fn resize(&mut self, index: ServiceIndex, wanted: u32) {
        let service = &mut self[index];
        service.wanted = wanted;
        let first = u32::try_from(service.instances.len()).unwrap_or(u32::MAX);
        let definition = &service.definition;
        let new = |number| Instance::new(InstanceId { service: index, number }, Rc::clone(definition));
        service.instances.extend((first..wanted).map(new));
        let made = InstanceCounts { idle: wanted.saturating_sub(first), ..InstanceCounts::default() };
        service.counts = service.counts.changed(&InstanceCounts::default(), &made);
        self.total = self.total.changed(&InstanceCounts::default(), &made);
    }

    /// Lets go of surplus instances that have come to rest, and gives them back.
    pub(super) fn drop_surplus(&mut self, index: ServiceIndex) -> Vec<InstanceId> {
        let service = &mut self[index];
        let mut removed = Vec::new();
        let mut gone = InstanceCounts::default();
        while service.instances.len() > service.wanted as usize
            && let Some(last) = service.instances.pop_if(|last| last.state.is_resting())
        {
            gone = gone.changed(&InstanceCounts::default(), &InstanceCounts::of(&last.state));
            removed.push(last.id);
        }
        service.counts = service.counts.changed(&gone, &InstanceCounts::default());
        self.total = self.total.changed(&gone, &InstanceCounts::default());
        removed
    }

    /// Gives an instance a surge, which has not been started and goes on counting where the instance is.
    pub(super) fn add_surge(&mut self, id: InstanceId) {
        let surge = self[id].surge();
        self[id.service].surges.push(surge);
    }

    /// Lets go of surges that have come to rest; whether there were any.
    pub(super) fn drop_surges(&mut self, index: ServiceIndex) -> bool {
        let surges = &mut self[index].surges;
        let before = surges.len();
        // At rest they are in no count.
        surges.retain(|surge| !surge.state.is_resting());
        surges.len() < before
    }

    /// An instance and its surge, which there is, change places.
    pub(super) fn exchange(&mut self, id: InstanceId) {
        let service = &mut self[id.service];
        let surge = service.surges.iter_mut().find(|surge| surge.id == id.surge());
        let (Some(instance), Some(surge)) = (service.instances.get_mut(id.number as usize), surge) else { return };
        let before = InstanceCounts::of(&instance.state).and(&InstanceCounts::of_surge(&surge.state));
        std::mem::swap(instance, surge);
        (instance.id, surge.id) = (id, id.surge());
        let after = InstanceCounts::of(&instance.state).and(&InstanceCounts::of_surge(&surge.state));
        service.counts = service.counts.changed(&before, &after);
        self.total = self.total.changed(&before, &after);
    }

    pub(super) const fn total(&self) -> &InstanceCounts {
        &self.total
    }

    /// Replaces the state of one instance and gives back the one before.
    pub(super) fn replace_state(&mut self, id: InstanceId, state: State) -> State {
        let before = std::mem::replace(&mut self[id].state, state);
        let tally_of = if id.is_surge() { InstanceCounts::of_surge } else { InstanceCounts::of };
        let (gone, come) = (tally_of(&before), tally_of(&self[id].state));
        let service = &mut self[id.service];
        service.counts = service.counts.changed(&gone, &come);
        self.total = self.total.changed(&gone, &come);
        before
    }
}

fn index_at(position: usize) -> ServiceIndex {
    ServiceIndex(u32::try_from(position).unwrap_or(u32::MAX))
}

impl ServiceState {
    /// None of its instances has been started; who depends on it is not known yet.
    fn new(index: ServiceIndex, definition: &Rc<Service>) -> Self {
        let instance = |number| Instance::new(InstanceId { service: index, number }, Rc::clone(definition));
        Self {
            definition: Rc::clone(definition),
            instances: (0..definition.instances).map(instance).collect(),
            surges: Vec::new(),
            wanted: definition.instances,
            dependents: Box::default(),
            counts: InstanceCounts { idle: definition.instances, ..InstanceCounts::default() },
            seen: ServiceStatus { satisfied: false, outcome: ServiceOutcome::Held, down: true },
            queued: false,
            live_dependents: 0,
            released: false,
            is_retiring: false,
        }
    }

    /// It is no longer in the configuration, and nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.is_retiring && self.instances.is_empty() && self.surges.is_empty()
    }

    /// The second processes of its instances.
    pub(super) fn surges(&self) -> &[Instance] {
        &self.surges
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instances that rest because they have failed, those not counted that were only blocked.
    pub(super) fn failures(&self) -> impl Iterator<Item = Failure> {
        self.instances.iter().filter_map(|instance| {
            let State::Stopped { why: Stopped::Failed { failure_reason, nth } } = instance.state else { return None };
            Some(Failure { instance: instance.id, run: instance.last_run?, failure_reason, nth })
        })
    }

    /// Whether what depends on it may start.
    ///
    /// A service is ready when at least one instance runs and none is still on its way; a oneshot has to have
    /// succeeded in each.
    pub(super) fn is_satisfied(&self) -> bool {
        match self.definition.kind {
            Kind::Service => self.counts.running > 0 && self.counts.running == self.counts.active,
            Kind::Oneshot => self.counts.completed as usize == self.instances.len(),
        }
    }

    pub(super) fn status(&self) -> ServiceStatus {
        ServiceStatus { satisfied: self.is_satisfied(), outcome: self.outcome(), down: self.counts.live == 0 }
    }

    fn outcome(&self) -> ServiceOutcome {
        let counts = &self.counts;
        if counts.active > 0 {
            ServiceOutcome::Open
        } else if counts.stopped_by_operator + counts.idle > 0 {
            ServiceOutcome::Held
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
    /// All of them.
    pub(super) const fn instances(&self) -> u32 {
        self.active + self.completed + self.failed + self.stopped_by_operator + self.idle
    }

    /// The counts of a single instance.
    fn of(state: &State) -> Self {
        let mut counts = Self::default();
        match state {
            State::Waiting => (counts.active, counts.waiting_on_dependency) = (1, 1),
            State::BackingOff { .. } => counts.active = 1,
            State::Spawning { .. }
            | State::Executing(_)
            | State::Starting { .. }
            | State::Stopping(_)
            | State::CleaningUp(_) => (counts.active, counts.live) = (1, 1),
            State::Running(running) => {
                (counts.active, counts.live, counts.running) = (1, 1, running.readiness.is_ready().into());
            }
            State::Stopped { why: Stopped::Completed } => counts.completed = 1,
            State::Stopped { why: Stopped::Failed { .. } } => counts.failed = 1,
            State::Stopped { why: Stopped::Blocked { .. } } => (counts.failed, counts.waiting_on_dependency) = (1, 1),
            State::Stopped { why: Stopped::Operator } => counts.stopped_by_operator = 1,
            State::Stopped { why: Stopped::NotStarted | Stopped::Shutdown | Stopped::Replaced } => counts.idle = 1,
        }
        counts
    }

    /// A surge only counts in that it has a process: what its service comes to is its instance's affair.
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
                idle: 0,
            },
            other,
        )
    }

    const fn changed(self, gone: &Self, come: &Self) -> Self {
        Self {
            active: self.active - gone.active + come.active,
            live: self.live - gone.live + come.live,
            running: self.running - gone.running + come.running,
            completed: self.completed - gone.completed + come.completed,
            failed: self.failed - gone.failed + come.failed,
            waiting_on_dependency: self.waiting_on_dependency - gone.waiting_on_dependency + come.waiting_on_dependency,
            stopped_by_operator: self.stopped_by_operator - gone.stopped_by_operator + come.stopped_by_operator,
            idle: self.idle - gone.idle + come.idle,
        }
    }
}

// Services are those of the plan that the services was made of. Of instances only those at rest ever go, and what may still
// name one of these asks `find` first.
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
