//! All services and their instances, and the counts that make questions about a service cheap.

use std::ops::{Index, IndexMut};

use super::instance::{Instance, State, Stopped};
use super::{GaveUp, Run};
use crate::model::plan::Kind;
use crate::model::{InstanceId, Plan, ServiceIndex};

#[derive(Debug)]
pub(super) struct Fleet {
    services: Vec<ServiceState>,
    /// Over all services.
    total: Tally,
}

#[derive(Debug)]
pub(super) struct ServiceState {
    pub(super) kind: Kind,
    /// 0…n−1, and perhaps more that are surplus: they are on their way down, and go when they have come to rest.
    instances: Vec<Instance>,
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
        let mut dependents = vec![Vec::new(); plan.services.len()];
        for (position, service) in plan.services.iter().enumerate() {
            for dependency in &service.depends_on {
                if let Some(list) = dependents.get_mut(dependency.position()) {
                    list.push(index_at(position));
                }
            }
        }
        let mut total = Tally::default();
        let services = plan.services.iter().zip(dependents).enumerate().map(|(position, (service, dependents))| {
            let index = index_at(position);
            let instances: Vec<_> =
                (0..service.instances).map(|number| Instance::new(InstanceId { service: index, number })).collect();
            let tally = Tally { idle: service.instances, ..Tally::default() };
            total.idle += service.instances;
            let seen = Standing { satisfied: false, fate: Fate::Held, down: true };
            ServiceState {
                kind: service.kind,
                instances,
                wanted: service.instances,
                holders: dependents.len(),
                dependents: dependents.into_boxed_slice(),
                tally,
                seen,
                queued: false,
                released: false,
            }
        });
        Self { services: services.collect(), total }
    }

    pub(super) fn service_indexes(&self) -> impl Iterator<Item = ServiceIndex> + use<> {
        (0..self.services.len()).map(index_at)
    }

    /// The instances of one service, surplus ones too. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn ids_of(&self, service: ServiceIndex) -> impl Iterator<Item = InstanceId> + use<> {
        let count = u32::try_from(self[service].instances.len()).unwrap_or(u32::MAX);
        (0..count).map(move |number| InstanceId { service, number })
    }

    /// All instances. Holds no borrow, so that they can be changed meanwhile.
    pub(super) fn ids(&self) -> impl Iterator<Item = InstanceId> + use<> {
        let counts: Vec<_> = self.service_indexes().map(|index| (index, self.ids_of(index))).collect();
        counts.into_iter().flat_map(|(_, ids)| ids)
    }

    /// `None`: there is no such instance, or no more.
    pub(super) fn find(&self, id: InstanceId) -> Option<&Instance> {
        self.services.get(id.service.position())?.instances.get(id.number as usize)
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
        service.instances.extend((first..wanted).map(|number| Instance::new(InstanceId { service: index, number })));
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

    pub(super) const fn total(&self) -> &Tally {
        &self.total
    }

    /// Replaces the state of one instance and gives back the one before.
    pub(super) fn replace_state(&mut self, id: InstanceId, state: State) -> State {
        let before = std::mem::replace(&mut self[id].state, state);
        let (gone, come) = (Tally::of(&before), Tally::of(&self[id].state));
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
        match self.kind {
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
        } else if tally.completed == 0 || self.kind == Kind::Oneshot {
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
            State::Running { .. } => (tally.active, tally.live, tally.running) = (1, 1, 1),
            State::Stopped { why: Stopped::Completed } => tally.completed = 1,
            State::Stopped { why: Stopped::Failed { .. } } => tally.failed = 1,
            State::Stopped { why: Stopped::Blocked { .. } } => (tally.failed, tally.hopeful) = (1, 1),
            State::Stopped { why: Stopped::Operator } => tally.held = 1,
            State::Stopped { why: Stopped::NotStarted | Stopped::Shutdown } => tally.idle = 1,
        }
        tally
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
            &self.services[id.service.position()].instances[id.number as usize]
        }
    }

    impl IndexMut<InstanceId> for Fleet {
        fn index_mut(&mut self, id: InstanceId) -> &mut Instance {
            &mut self.services[id.service.position()].instances[id.number as usize]
        }
    }
}
