//! All services and their instances, and the counts that make questions about a service cheap.

use std::ops::{Index, IndexMut};
use std::rc::Rc;

use super::instance::{Instance, State, Stopped};
use super::{GaveUp, Run};
use crate::model::plan::{Kind, Service};
use crate::model::{InstanceId, Plan, ServiceIndex};

#[derive(Debug)]
pub(super) struct Fleet {
    services: Vec<ServiceState>,
    /// Over all services.
    total: Tally,
}

#[derive(Debug)]
pub(super) struct ServiceState {
    /// What its next run is made of.
    pub(super) definition: Rc<Service>,
    /// 0…n−1, and perhaps more that are surplus: they are on their way down, and go when they have come to rest.
    instances: Vec<Instance>,
    /// The second processes that instances have during a rolling reload. There are few.
    twins: Vec<Instance>,
    /// How many there are to be.
    pub(super) wanted: u32,
    /// Who waits for this service; the reverse of `depends_on`.
    pub(super) dependents: Box<[ServiceIndex]>,
    pub(super) tally: Tally,
    /// What `Supervisor::settle` found when it last looked.
    pub(super) seen: Standing,
    /// Whether it is in the queue of what `Supervisor::settle` has to look at.
    pub(super) queued: bool,
    /// How many of its dependents are not released.
    pub(super) holders: usize,
    /// While everything is being stopped: nothing is left of it, nor of anything that depends on it.
    pub(super) released: bool,
    /// It is no longer in the configuration.
    pub(super) is_retiring: bool,
}

/// How many instances are in which kind of state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// They run, or will by themselves: everything that is not stopped.
    pub(super) active: u32,
    /// Those of the active ones that have a process, or whose process has left others.
    pub(super) live: u32,
    pub(super) running: u32,
    pub(super) completed: u32,
    pub(super) failed: u32,
    /// Those of the active and of the failed ones that start once something else is there.
    pub(super) hopeful: u32,
    /// Stopped by an operator, who may start them again.
    pub(super) held: u32,
    /// Never started, or stopped because everything is.
    pub(super) idle: u32,
}

/// What a service means to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// What depends on it may start.
    pub(super) satisfied: bool,
    pub(super) fate: Fate,
    /// No process of it is left.
    pub(super) down: bool,
}

/// Whether, and how, it has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
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
    pub(super) run: Run,
    pub(super) gave_up: GaveUp,
    /// Counted over all instances.
    pub(super) nth: u32,
}

impl Fleet {
    /// Nothing has been started.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut fleet = Self { services: Vec::new(), total: Tally::default() };
        fleet.adopt(plan);
        fleet
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
            service.holders = dependents.len();
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

    /// The twins of one service's instances. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn twins_of(&self, service: ServiceIndex) -> Vec<InstanceId> {
        self[service].twins.iter().map(|twin| twin.id).collect()
    }

    /// All instances. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn ids(&self) -> impl Iterator<Item = InstanceId> + use<> {
        let counts: Vec<_> = self.service_indexes().map(|index| (index, self.ids_of(index))).collect();
        counts.into_iter().flat_map(|(_, ids)| ids)
    }

    /// All instances and twins.
    pub(super) fn ids_with_twins(&self) -> impl Iterator<Item = InstanceId> + use<> {
        let twins: Vec<_> = self.service_indexes().flat_map(|index| self.twins_of(index)).collect();
        self.ids().chain(twins)
    }

    /// `None`: there is no such instance, or no more.
    pub(super) fn find(&self, id: InstanceId) -> Option<&Instance> {
        let service = self.services.get(id.service.position())?;
        if id.is_twin() {
            return service.twins.iter().find(|twin| twin.id == id);
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
        let made = Tally { idle: wanted.saturating_sub(first), ..Tally::default() };
        service.tally = service.tally.changed(&Tally::default(), &made);
        self.total = self.total.changed(&Tally::default(), &made);
    }

    /// Lets go of surplus instances that have come to rest.
    pub(super) fn drop_surplus(&mut self, index: ServiceIndex) {
        let service = &mut self[index];
        let mut gone = Tally::default();
        while service.instances.len() > service.wanted as usize
            && let Some(last) = service.instances.pop_if(|last| matches!(last.state, State::Stopped { .. }))
        {
            gone = gone.changed(&Tally::default(), &Tally::of(&last.state));
        }
        service.tally = service.tally.changed(&gone, &Tally::default());
        self.total = self.total.changed(&gone, &Tally::default());
    }

    /// Gives an instance a twin, which has not been started and goes on counting where the instance is.
    pub(super) fn add_twin(&mut self, id: InstanceId) {
        let twin = self[id].twin();
        self[id.service].twins.push(twin);
    }

    /// Lets go of twins that have come to rest.
    pub(super) fn drop_twins(&mut self, index: ServiceIndex) {
        // At rest they are in no count.
        self[index].twins.retain(|twin| !matches!(twin.state, State::Stopped { .. }));
    }

    /// An instance and its twin, which there is, change places.
    pub(super) fn exchange(&mut self, id: InstanceId) {
        let service = &mut self[id.service];
        let twin = service.twins.iter_mut().find(|twin| twin.id == id.twin());
        let (Some(instance), Some(twin)) = (service.instances.get_mut(id.number as usize), twin) else { return };
        let before = Tally::of(&instance.state).and(&Tally::of_twin(&twin.state));
        std::mem::swap(instance, twin);
        (instance.id, twin.id) = (id, id.twin());
        let after = Tally::of(&instance.state).and(&Tally::of_twin(&twin.state));
        service.tally = service.tally.changed(&before, &after);
        self.total = self.total.changed(&before, &after);
    }

    pub(super) const fn total(&self) -> &Tally {
        &self.total
    }

    /// Replaces the state of one instance and gives back the one before.
    pub(super) fn replace_state(&mut self, id: InstanceId, state: State) -> State {
        let before = std::mem::replace(&mut self[id].state, state);
        let tally_of = if id.is_twin() { Tally::of_twin } else { Tally::of };
        let (gone, come) = (tally_of(&before), tally_of(&self[id].state));
        let service = &mut self[id.service];
        service.tally = service.tally.changed(&gone, &come);
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
            twins: Vec::new(),
            wanted: definition.instances,
            dependents: Box::default(),
            tally: Tally { idle: definition.instances, ..Tally::default() },
            seen: Standing { satisfied: false, fate: Fate::Held, down: true },
            queued: false,
            holders: 0,
            released: false,
            is_retiring: false,
        }
    }

    /// It is no longer in the configuration, and nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.is_retiring && self.instances.is_empty() && self.twins.is_empty()
    }

    /// The second processes of its instances.
    pub(super) fn twins(&self) -> &[Instance] {
        &self.twins
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instances that rest because they have failed, those not counted that were only blocked.
    pub(super) fn failures(&self) -> impl Iterator<Item = Failure> {
        self.instances.iter().filter_map(|instance| {
            let State::Stopped { why: Stopped::Failed { gave_up, nth } } = instance.state else { return None };
            Some(Failure { instance: instance.id, run: instance.last_run?, gave_up, nth })
        })
    }

    /// Whether what depends on it may start.
    ///
    /// A service is ready when at least one instance runs and none is still on its way; a oneshot has to have
    /// succeeded in each.
    pub(super) fn is_satisfied(&self) -> bool {
        match self.definition.kind {
            Kind::Service => self.tally.running > 0 && self.tally.running == self.tally.active,
            Kind::Oneshot => self.tally.completed as usize == self.instances.len(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { satisfied: self.is_satisfied(), fate: self.fate(), down: self.tally.live == 0 }
    }

    fn fate(&self) -> Fate {
        let tally = &self.tally;
        if tally.active > 0 {
            Fate::Open
        } else if tally.held + tally.idle > 0 {
            Fate::Held
        } else if tally.failed == 0 {
            Fate::Completed
        } else if tally.completed == 0 || self.definition.kind == Kind::Oneshot {
            Fate::Failed
        } else {
            Fate::Mixed
        }
    }
}

impl Tally {
    /// All of them.
    pub(super) const fn instances(&self) -> u32 {
        self.active + self.completed + self.failed + self.held + self.idle
    }

    /// The counts of a single instance.
    fn of(state: &State) -> Self {
        let mut tally = Self::default();
        match state {
            State::Waiting => (tally.active, tally.hopeful) = (1, 1),
            State::BackingOff { .. } => tally.active = 1,
            State::Spawning { .. }
            | State::Executing { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Clearing { .. } => (tally.active, tally.live) = (1, 1),
            State::Running { presence, .. } => {
                (tally.active, tally.live, tally.running) = (1, 1, presence.is_ready().into());
            }
            State::Stopped { why: Stopped::Completed } => tally.completed = 1,
            State::Stopped { why: Stopped::Failed { .. } } => tally.failed = 1,
            State::Stopped { why: Stopped::Blocked { .. } } => (tally.failed, tally.hopeful) = (1, 1),
            State::Stopped { why: Stopped::Operator } => tally.held = 1,
            State::Stopped { why: Stopped::NotStarted | Stopped::Shutdown | Stopped::Replaced } => tally.idle = 1,
        }
        tally
    }

    /// A twin only counts in that it has a process: what its service comes to is its instance's affair.
    fn of_twin(state: &State) -> Self {
        Self { live: Self::of(state).live, ..Self::default() }
    }

    const fn and(self, other: &Self) -> Self {
        self.changed(
            &Self { active: 0, live: 0, running: 0, completed: 0, failed: 0, hopeful: 0, held: 0, idle: 0 },
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
            hopeful: self.hopeful - gone.hopeful + come.hopeful,
            held: self.held - gone.held + come.held,
            idle: self.idle - gone.idle + come.idle,
        }
    }
}

// Services are those of the plan that the fleet was made of. Of instances only those at rest ever go, and what may still
// name one of these asks `find` first.
#[expect(clippy::indexing_slicing, reason = "the only place; see above")]
mod by_index {
    use super::{Fleet, Index, IndexMut, Instance, InstanceId, ServiceIndex, ServiceState};

    impl Index<ServiceIndex> for Fleet {
        type Output = ServiceState;

        fn index(&self, index: ServiceIndex) -> &ServiceState {
            &self.services[index.position()]
        }
    }

    impl IndexMut<ServiceIndex> for Fleet {
        fn index_mut(&mut self, index: ServiceIndex) -> &mut ServiceState {
            &mut self.services[index.position()]
        }
    }

    impl Index<InstanceId> for Fleet {
        type Output = Instance;

        fn index(&self, id: InstanceId) -> &Instance {
            let service = &self.services[id.service.position()];
            if id.is_twin() {
                let position = service.twins.iter().position(|twin| twin.id == id);
                return &service.twins[position.unwrap_or(usize::MAX)];
            }
            &service.instances[id.number as usize]
        }
    }

    impl IndexMut<InstanceId> for Fleet {
        fn index_mut(&mut self, id: InstanceId) -> &mut Instance {
            let service = &mut self.services[id.service.position()];
            if id.is_twin() {
                let position = service.twins.iter().position(|twin| twin.id == id);
                return &mut service.twins[position.unwrap_or(usize::MAX)];
            }
            &mut service.instances[id.number as usize]
        }
    }
}
