//! Rolling reload: every instance gets a new process, and there are never fewer ready ones meanwhile.
//!
//! A new process starts as the surge of its instance, beside the old one. When it is ready, and has stayed so for `soak`, the
//! two change places: the instance is the new process from then on, the surge is the old one, which is stopped. If it does
//! not get that far it is stopped, nothing else is replaced, and the old ones go on; with a changed configuration, what had
//! been replaced already goes back to what it was made of before.
//!
//! ```text
//!            start            ready, min_ready_until             gone
//!   Surging ───────► surge runs ────────────► Retiring ───────► next instance
//!      └── surge ends, or is not ready in time ──► the reload has failed
//! ```
//!
//! What is not ready at the moment has nothing to lose: it is restarted in its place.
//!
//! It begins when what the service depends on is there, and has been reloaded itself. Another number of instances comes
//! when all has gone well, so that there is nothing to take back if it has not.

use std::collections::VecDeque;
use std::rc::Rc;

use super::core::Supervisor;
use super::event::{Action, Scope};
use super::readiness::Readiness;
use super::record::JournalEvent;
use super::rollout::{ReloadFailure, Rollout, RolloutError, RolloutStage, Slot};
use super::service_table::ServiceOutcome;
use super::state::{AfterStop, CleaningUp, Next, Running, State, Stopped, Stopping};
use crate::model::plan::{Plan, Ready, Service, Strategy};
use crate::model::{InstanceId, ServiceIndex};

/// How far one instance has come.
enum Progress {
    Underway,
    Done,
}

/// Whether a reload may begin.
enum RolloutGate {
    Begin,
    Wait,
    /// Because of this.
    Never(ServiceIndex),
}

impl Supervisor {
    /// `slots`: numbers of instances. `before`: what the service was before its definition has changed. `resize`: how
    /// many instances there are to be when all has gone well.
    pub(super) fn begin_rollout(
        &mut self,
        service: ServiceIndex,
        slots: Vec<u32>,
        before: Option<Rc<Service>>,
        resize: Option<u32>,
    ) {
        let configured = self.services[service].definition.reload.strategy;
        let strategy = match (configured, &before) {
            // A process that is made of something else has to be another one.
            (Strategy::Signal(_), Some(_)) => Strategy::Restart,
            (strategy, _) => strategy,
        };
        self.record(JournalEvent::ReloadBegun { service });
        let todo = slots.into();
        let underway = Vec::new();
        let (has_begun, failure, is_failure_handled) = (false, None, false);
        let rollout = Rollout { strategy, todo, underway, before, resize, has_begun, failure, is_failure_handled };
        self.rollouts.insert(service, rollout);
        self.mark_dirty(service);
    }

    /// An operator wants another number of instances meanwhile.
    pub(super) fn forget_resize(&mut self, service: ServiceIndex) {
        if let Some(rollout) = self.rollouts.get_mut(&service) {
            rollout.resize = None;
        }
    }

    /// The stage of an instance in a reload.
    fn stage_of(&self, id: InstanceId) -> Option<RolloutStage> {
        let rollout = self.rollouts.get(&id.service)?;
        rollout.underway.iter().find(|slot| slot.number == id.slot().number).map(|slot| slot.stage)
    }

    /// Whether it is the new process of a reload, or one that reloads itself, and has not proved itself.
    pub(super) fn is_unproven(&self, id: InstanceId) -> bool {
        self.is_new(id) || (self.stage_of(id) == Some(RolloutStage::ReloadSignalled) && !id.is_surge())
    }

    /// Whether it is the new process of a reload that has not proved itself.
    pub(super) fn is_new(&self, id: InstanceId) -> bool {
        match self.stage_of(id) {
            Some(RolloutStage::Surging) => id.is_surge(),
            Some(RolloutStage::InPlace) => !id.is_surge(),
            Some(RolloutStage::Retiring | RolloutStage::ReloadSignalled) | None => false,
        }
    }

    /// The new process of a reload has ended, or could not be made, before it had proved itself.
    pub(super) fn fail_rollout(&mut self, instance: InstanceId, error: RolloutError) {
        let definition = Rc::clone(&self.services[instance].definition);
        if let Some(rollout) = self.rollouts.get_mut(&instance.service) {
            let instance = instance.slot();
            rollout.failure.get_or_insert(ReloadFailure { instance, definition, error });
            self.mark_dirty(instance.service);
        }
    }

    /// The old process has ended by itself while the new one was still on trial, which takes its place as it is.
    pub(super) fn promote_surge_of_dead(&mut self, id: InstanceId) {
        if id.is_surge() || self.stage_of(id) != Some(RolloutStage::Surging) {
            return;
        }
        if let Some(surge) = self.services.find(id.surge())
            && !matches!(surge.state, State::Stopping(_) | State::CleaningUp(_) | State::Stopped { .. })
        {
            self.swap(id);
            if let Some(rollout) = self.rollouts.get_mut(&id.service)
                && let Some(slot) = rollout.underway.iter_mut().find(|slot| slot.number == id.number)
            {
                slot.stage = RolloutStage::InPlace;
            }
        }
    }

    /// Ends the new process that an instance has beside its old one: it is not wanted any more.
    pub(super) fn cancel_surge(&mut self, id: InstanceId, why: Stopped) {
        let surge = id.surge();
        if self.services.find(surge).is_some_and(|surge| !surge.state.is_resting()) {
            self.stop(surge, AfterStop::Rest(why));
        }
    }

    /// Everything is being stopped.
    pub(super) fn cancel_rollouts(&mut self) {
        for (service, _) in std::mem::take(&mut self.rollouts).into_entries() {
            self.mark_all_proven(service);
        }
        for service in self.services.service_indexes() {
            for surge in self.services.surges_of(service) {
                if !self.services[surge].state.is_resting() {
                    self.stop(surge, AfterStop::Rest(Stopped::Shutdown));
                }
            }
        }
    }

    /// Nobody waits any more for what runs to have run for a while.
    fn mark_all_proven(&mut self, service: ServiceIndex) {
        for id in self.services.ids_of(service) {
            self.mark_proven(id);
        }
    }

    /// Goes on with the reload of a service as far as it can.
    pub(super) fn drive_rollout(&mut self, service: ServiceIndex) {
        let Some(mut rollout) = self.rollouts.remove(&service) else { return };
        rollout.underway.retain_mut(|slot| matches!(self.advance(service, slot), Progress::Underway));
        if !rollout.has_begun {
            match self.rollout_gate(service, &rollout.todo) {
                RolloutGate::Wait => {
                    self.rollouts.insert(service, rollout);
                    return;
                }
                RolloutGate::Begin => {}
                RolloutGate::Never(dependency) => {
                    rollout.failure = Some(self.obstruct(service, &rollout, RolloutError::Dependency(dependency)));
                }
            }
            rollout.has_begun = true;
        }
        if let Some(failure) = rollout.failure.clone()
            && !std::mem::replace(&mut rollout.is_failure_handled, true)
        {
            self.on_failure(service, &mut rollout, failure);
            rollout.underway.retain_mut(|slot| matches!(self.advance(service, slot), Progress::Underway));
        }
        let surge = match rollout.strategy {
            Strategy::Rolling => self.services[service].definition.reload.max_surge as usize,
            Strategy::Signal(_) => usize::MAX,
            Strategy::Restart => 1,
        };
        // One that still has a second process from before waits until that is gone.
        let is_free =
            |this: &Self, number: &u32| this.services.find(InstanceId { service, number: *number }.surge()).is_none();
        while rollout.underway.len() < surge
            && let Some(position) = rollout.todo.iter().position(|number| is_free(self, number))
            && let Some(number) = rollout.todo.remove(position)
        {
            if let Some(stage) = self.begin_slot(InstanceId { service, number }, rollout.strategy) {
                rollout.underway.push(Slot { number, stage });
            }
        }
        if rollout.underway.is_empty() && rollout.todo.is_empty() {
            return self.end_rollout(service, rollout);
        }
        self.rollouts.insert(service, rollout);
    }

    fn end_rollout(&mut self, service: ServiceIndex, rollout: Rollout) {
        self.mark_all_proven(service);
        let failure = rollout.failure;
        let (up, down) = match rollout.resize.filter(|_| failure.is_none()) {
            Some(wanted) => self.resize(service, wanted),
            None => (Vec::new(), Vec::new()),
        };
        self.record(JournalEvent::ReloadEnded { service, failure: failure.clone() });
        self.reload_is_over(service, failure, &up, &down);
        self.wake_rollouts(service);
        for dependency in rollout.before.iter().flat_map(|before| &before.depends_on) {
            self.mark_dirty(*dependency);
        }
    }

    /// A service that is being reloaded depends on it if it goes back to what it was.
    pub(super) fn may_be_needed_again(&self, service: ServiceIndex) -> bool {
        let needs = |before: &Rc<Service>| before.depends_on.contains(&service);
        self.rollouts.values().any(|rollout| rollout.before.as_ref().is_some_and(needs))
    }

    /// What waits for `service` looks again.
    pub(super) fn wake_rollouts(&mut self, service: ServiceIndex) {
        if self.rollouts.is_empty() {
            return;
        }
        for dependent in self.services[service].dependents.clone() {
            if self.rollouts.contains_key(&dependent) {
                self.mark_dirty(dependent);
            }
        }
    }

    /// Whether what the service depends on lets it begin.
    fn rollout_gate(&self, service: ServiceIndex, todo: &VecDeque<u32>) -> RolloutGate {
        let runs = |number: &u32| {
            self.services
                .find(InstanceId { service, number: *number })
                .is_some_and(|instance| !instance.state.is_resting())
        };
        if !todo.iter().any(runs) {
            // What fails or rests starts as anything else does.
            return RolloutGate::Begin;
        }
        let definition = &self.services[service].definition;
        if let Some(dependency) = self.failed_dependency(service) {
            return RolloutGate::Never(dependency);
        }
        let is_coming = |dependency: &ServiceIndex| {
            let state = &self.services[*dependency];
            self.rollouts.contains_key(dependency)
                || (!state.is_satisfied() && state.status().outcome == ServiceOutcome::Open)
        };
        if definition.depends_on.iter().any(is_coming) { RolloutGate::Wait } else { RolloutGate::Begin }
    }

    /// It has not begun and will not.
    fn obstruct(&self, service: ServiceIndex, rollout: &Rollout, error: RolloutError) -> ReloadFailure {
        let number = rollout.todo.front().copied().unwrap_or_default();
        let definition = Rc::clone(&self.services[service].definition);
        ReloadFailure { instance: InstanceId { service, number }, definition, error }
    }

    /// A reload that has begun.
    pub(super) fn rollout_underway(&self) -> Option<ServiceIndex> {
        self.rollouts.iter().find(|(_, rollout)| rollout.has_begun).map(|(service, _)| *service)
    }

    /// Ends reloads that have not begun: another configuration is there, which is to be compared with what runs.
    pub(super) fn cancel_waiting_rollouts(&mut self) {
        let waiting: Vec<_> =
            self.rollouts.iter().filter(|(_, rollout)| !rollout.has_begun).map(|(service, _)| *service).collect();
        for service in waiting {
            let Some(rollout) = self.rollouts.remove(&service) else { continue };
            let failure = Some(self.obstruct(service, &rollout, RolloutError::Overtaken));
            if let Some(before) = rollout.before {
                self.redefine(service, before);
            }
            self.record(JournalEvent::ReloadEnded { service, failure: failure.clone() });
            self.reload_is_over(service, failure, &[], &[]);
        }
    }

    /// `None`: nothing has to be waited for.
    fn begin_slot(&mut self, id: InstanceId, strategy: Strategy) -> Option<RolloutStage> {
        if !self.services.has(id) {
            return None;
        }
        match (strategy, self.services[id].state) {
            (Strategy::Signal(signal), State::Running(_)) if self.services[id].definition.ready == Ready::Notify => {
                self.signal_reload(id, signal);
                Some(RolloutStage::ReloadSignalled)
            }
            // Whoever is not ready may not have made ready for the signal either, and would die of it.
            (Strategy::Signal(signal), State::Running(Running { process, .. })) => {
                self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
                None
            }
            (Strategy::Rolling, State::Running(_)) => {
                self.services.add_surge(id);
                self.start(id.surge(), super::Reason::Requested);
                Some(RolloutStage::Surging)
            }
            // Nobody waits for these to run.
            (
                _,
                State::Stopping(Stopping { then: AfterStop::Rest(_), .. })
                | State::CleaningUp(CleaningUp { next: Next::Rest(_), .. }),
            )
            | (Strategy::Signal(_), State::Stopping(_) | State::CleaningUp(_)) => None,
            (_, State::Stopped { why: Stopped::Failed { .. } }) => {
                self.services[id].reset_failures();
                self.start_or_wait(id, super::Reason::Requested);
                Some(RolloutStage::InPlace)
            }
            // These start, when they do, as they are to be.
            (_, State::Stopped { .. } | State::Waiting | State::Spawning { .. } | State::BackingOff { .. })
                if matches!(strategy, Strategy::Signal(_)) =>
            {
                None
            }
            (_, State::Stopped { .. } | State::Waiting) => None,
            // It starts again by itself.
            (_, State::Stopping(_) | State::CleaningUp(_)) => Some(RolloutStage::InPlace),
            (_, State::Spawning { .. }) => {
                self.respawn(id);
                Some(RolloutStage::InPlace)
            }
            (_, State::Executing(_) | State::Starting { .. } | State::Running(_) | State::BackingOff { .. }) => {
                self.services[id].reset_failures();
                self.stop(id, AfterStop::Restart);
                Some(RolloutStage::InPlace)
            }
        }
    }

    fn advance(&mut self, service: ServiceIndex, slot: &mut Slot) -> Progress {
        let id = InstanceId { service, number: slot.number };
        if slot.stage == RolloutStage::Surging {
            if !is_proven(self.state_of_surge(id)) {
                return if self.services.find(id.surge()).is_some() { Progress::Underway } else { Progress::Done };
            }
            self.swap(id);
            self.stop(id.surge(), AfterStop::Rest(Stopped::Replaced));
            slot.stage = RolloutStage::Retiring;
        }
        let is_over = match (slot.stage, self.services.find(id).map(|instance| instance.state)) {
            (RolloutStage::Surging, _) => false,
            (RolloutStage::ReloadSignalled, Some(State::Running(running))) => !running.readiness.is_reload_pending(),
            // It goes by itself, or is broken: how it ends is to be told. What somebody else wants of it is no failure.
            (
                RolloutStage::ReloadSignalled,
                Some(State::Stopping(Stopping { then: AfterStop::Own | AfterStop::Fail(_), .. })),
            ) => false,
            (RolloutStage::ReloadSignalled, _) => true,
            (RolloutStage::Retiring, _) => self.state_of_surge(id).is_resting(),
            // The surge of a dead one may have left something that is still being ended.
            (RolloutStage::InPlace, _) if !self.state_of_surge(id).is_resting() => false,
            (RolloutStage::InPlace, state) => state.is_none_or(|state| state.is_resting() || is_proven(state)),
        };
        if is_over { Progress::Done } else { Progress::Underway }
    }

    fn state_of_surge(&self, id: InstanceId) -> State {
        let none = State::Stopped { why: Stopped::Replaced };
        self.services.find(id.surge()).map_or(none, |surge| surge.state)
    }

    /// The instance and its surge change places.
    fn swap(&mut self, id: InstanceId) {
        let surge = id.surge();
        let (Some(old), Some(new)) = (self.services.find(id), self.services.find(surge)) else { return };
        let (old, new) = (old.state, new.state);
        self.services.exchange(id);
        for (owner, before, after) in [(id, old, new), (surge, new, old)] {
            self.timers.change(owner, before.deadline(), after.deadline());
            if let Some(run) = after.run() {
                self.runs.insert(run, owner);
            }
        }
        let pid_of = |state: State| state.process().map(|process| process.pid);
        self.record(JournalEvent::Replaced { instance: id, old: pid_of(old), new: pid_of(new) });
        if let State::Spawning { .. } = new {
            // The process that has been asked for would be the surge's.
            self.respawn(id);
        }
        self.mark_dirty(id.service);
    }

    /// Nothing more is replaced, and what has been goes back.
    fn on_failure(&mut self, service: ServiceIndex, rollout: &mut Rollout, failure: ReloadFailure) {
        rollout.todo.clear();
        for slot in &mut rollout.underway {
            if std::mem::replace(&mut slot.stage, RolloutStage::Retiring) == RolloutStage::Surging {
                self.cancel_surge(InstanceId { service, number: slot.number }, Stopped::Replaced);
            }
        }
        let Some(before) = rollout.before.take() else { return };
        self.record(JournalEvent::RolledBack { service, failure });
        self.redefine(service, Rc::clone(&before));
        rollout.strategy = match before.reload.strategy {
            Strategy::Signal(_) => Strategy::Restart,
            strategy @ (Strategy::Rolling | Strategy::Restart) => strategy,
        };
        let has_changed = |id: &InstanceId| !self.services[*id].definition.same_process_spec(&before);
        rollout.todo = self.services.ids_of(service).filter(has_changed).map(|id| id.number).collect();
    }

    /// Replaces the definition of a service.
    pub(super) fn redefine(&mut self, service: ServiceIndex, definition: Rc<Service>) {
        let mut plan = Plan::clone(&self.plan);
        if let Some(place) = plan.services.get_mut(service.position()) {
            *place = definition;
        }
        self.plan = Rc::new(plan);
        // What depends on what may be another matter, too.
        self.services.adopt(&self.plan);
        self.act(Action::Adopt(Rc::clone(&self.plan)));
    }
}

/// Whether the new process of a reload may take the place of the old one.
const fn is_proven(state: State) -> bool {
    matches!(state, State::Running(Running { readiness: Readiness::Ready, min_ready_until: None, .. }))
}
