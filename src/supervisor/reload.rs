//! Rolling reload: every instance gets a new process, and the number of ready instances does not drop.
//!
//! The new process starts as the surge instance, beside the old one. When it is ready, and has been ready for `soak`, the two
//! are swapped: the instance has the new process from then on, and the surge instance has the old one, which is stopped. If
//! the new process fails, it is stopped, no other instance is replaced, and the old processes continue. If the configuration
//! has changed, the instances that were replaced already are rolled back to the previous definition.
//!
//! ```text
//!                  ready for `soak`               old process gone
//!   StartingNew ─────────────────────► StoppingOld ────────────────► next instance
//!      └── the new process exits, or is not ready in time ──► the reload has failed
//! ```
//!
//! An instance that is not ready is restarted in place.
//!
//! A reload begins when the dependencies of the service are ready and their own reloads have finished. A new number of
//! instances is applied at the end, after success, so that a rollback does not have to undo it.

use std::rc::Rc;

use super::availability::Availability;
use super::core::Supervisor;
use super::event::{Action, Scope};
use super::record::{JournalEvent, Reason, Requester};
use super::request::PROOF_TIME;
use super::rollout::{ReloadFailure, Rollout, RolloutError, RolloutStage, Slot};
use super::service_table::{InEffect, ServiceOutcome, Untried};
use super::state::{AfterRun, AfterStop, CleaningUp, Running, State, Stopped, Stopping};
use super::state_name::StateName;
use crate::model::plan::{Plan, Ready, Service, Strategy};
use crate::model::{InstanceId, ServiceIndex};

/// The progress of one instance.
enum Progress {
    Ongoing,
    Done,
}

/// Whether a reload may begin.
enum RolloutGate {
    Begin,
    Wait,
    Fail(RolloutError),
}

impl Supervisor {
    /// Starts the reload of a service. `slots`: the numbers of the instances to replace. `previous`: the definition to roll
    /// back to, if it has changed. `resize`: the number of instances after success, if it changes.
    pub(super) fn start_rollout(
        &mut self,
        service: ServiceIndex,
        slots: Vec<u32>,
        previous: Option<Rc<Service>>,
        resize: Option<u32>,
        by: Requester,
    ) {
        let configured = self.services[service].definition.reload.strategy;
        let strategy = match (configured, &previous) {
            // A changed definition needs a new process, and a restart is one.
            (Strategy::Signal(_), before) if before.is_some() || by != Requester::Reload => Strategy::Restart,
            (strategy, _) => strategy,
        };
        self.record(JournalEvent::ReloadStarted { service, by });
        let in_progress = Vec::new();
        let (has_started, failure, stopped, is_failure_handled) = (false, None, None, false);
        let rollout = Rollout {
            strategy,
            by,
            remaining: slots,
            in_progress,
            previous,
            resize,
            has_started,
            failure,
            stopped,
            is_failure_handled,
        };
        self.rollouts.insert(service, rollout);
        self.mark_dirty(service);
    }

    /// An operator has changed the number of instances in the meantime.
    pub(super) fn cancel_resize(&mut self, service: ServiceIndex) {
        if let Some(rollout) = self.rollouts.get_mut(&service) {
            rollout.resize = None;
        }
    }

    /// A request stops an instance. If it is being reloaded, or is about to be, its reload is not performed. An instance that
    /// is removed needs none, unless no other remains.
    pub(super) fn note_stop_in_rollout(&mut self, id: InstanceId) {
        if (self.services.has(id) || self.services[id.service].desired == 0)
            && let Some(rollout) = self.rollouts.get_mut(&id.service)
            && (rollout.remaining.contains(&id.number)
                || rollout.in_progress.iter().any(|slot| slot.number == id.number))
        {
            rollout.stopped.get_or_insert(id);
        }
    }

    /// The stage of an instance in a reload.
    fn stage_of(&self, id: InstanceId) -> Option<RolloutStage> {
        let rollout = self.rollouts.get(&id.service)?;
        rollout.in_progress.iter().find(|slot| slot.number == id.slot().number).map(|slot| slot.stage)
    }

    /// Whether it is the new process of a reload, or reloads on a signal, and has not been ready for long enough yet.
    pub(super) fn is_unproven(&self, id: InstanceId) -> bool {
        self.is_new(id) || (self.stage_of(id) == Some(RolloutStage::ReloadSignalled) && !id.is_surge())
    }

    /// Whether it is the new process of a reload, and has not been ready for long enough yet.
    pub(super) fn is_new(&self, id: InstanceId) -> bool {
        match self.stage_of(id) {
            Some(RolloutStage::StartingNew) => id.is_surge(),
            Some(RolloutStage::Restarting) => !id.is_surge(),
            Some(RolloutStage::StoppingOld | RolloutStage::ReloadSignalled) | None => false,
        }
    }

    /// The new process of a reload has failed, or could not be created.
    pub(super) fn fail_rollout(&mut self, instance: InstanceId, error: RolloutError) {
        let definition = Rc::clone(&self.services[instance].definition);
        if let Some(rollout) = self.rollouts.get_mut(&instance.service) {
            let instance = instance.slot();
            if rollout.is_failure_handled {
                // The definition that it has returned to fails too: there is nothing to wait for.
                let is_it = |slot: &Slot| slot.number == instance.number && slot.stage == RolloutStage::Restarting;
                rollout.in_progress.retain(|slot| !is_it(slot));
            }
            rollout.failure.get_or_insert(ReloadFailure { instance, definition, error });
            self.mark_dirty(instance.service);
        }
    }

    /// The old process has exited on its own: the new one takes its place, although it is not ready yet.
    pub(super) fn promote_surge(&mut self, id: InstanceId) {
        if id.is_surge() || self.stage_of(id) != Some(RolloutStage::StartingNew) {
            return;
        }
        if let Some(surge) = self.services.find(id.surge())
            && matches!(surge.state.name(), StateName::Starting | StateName::Running)
        {
            self.swap_with_surge(id);
            if let Some(rollout) = self.rollouts.get_mut(&id.service)
                && let Some(slot) = rollout.in_progress.iter_mut().find(|slot| slot.number == id.number)
            {
                slot.stage = RolloutStage::Restarting;
            }
        }
    }

    /// Stops the surge instance: it is not needed any more.
    pub(super) fn cancel_surge(&mut self, id: InstanceId, why: Stopped) {
        let surge = id.surge();
        if self.services.find(surge).is_some_and(|surge| !surge.state.is_inactive()) {
            self.stop(surge, AfterStop::StayStopped(why));
        }
    }

    /// keepalive is shutting down.
    pub(super) fn cancel_rollouts(&mut self) {
        self.deferred_loads.clear();
        for (service, _) in std::mem::take(&mut self.rollouts).into_entries() {
            self.mark_all_proven(service);
        }
        for service in self.services.service_indexes() {
            for surge in self.services.surges_of(service) {
                if !self.services[surge].state.is_inactive() {
                    self.stop(surge, AfterStop::StayStopped(Stopped::Shutdown));
                }
            }
        }
    }

    /// The reload has ended: does not wait for `soak` any more.
    fn mark_all_proven(&mut self, service: ServiceIndex) {
        for id in self.services.ids_of(service).filter(|id| !self.is_proof_awaited(*id)).collect::<Vec<_>>() {
            self.mark_proven(id);
        }
    }

    /// Continues the reload of a service as far as possible.
    pub(super) fn drive_rollout(&mut self, service: ServiceIndex) {
        let Some(mut rollout) = self.rollouts.remove(&service) else { return };
        rollout.in_progress.retain_mut(|slot| matches!(self.advance(service, slot), Progress::Ongoing));
        if !rollout.has_started {
            match self.rollout_gate(service, &rollout) {
                RolloutGate::Wait => {
                    self.rollouts.insert(service, rollout);
                    return;
                }
                RolloutGate::Begin => {}
                RolloutGate::Fail(error) => {
                    rollout.failure = Some(self.failure_before_start(service, &rollout, error));
                }
            }
            rollout.has_started = true;
        }
        if let Some(failure) = rollout.failure.clone()
            && !std::mem::replace(&mut rollout.is_failure_handled, true)
        {
            self.on_failure(service, &mut rollout, failure);
            rollout.in_progress.retain_mut(|slot| matches!(self.advance(service, slot), Progress::Ongoing));
        }
        let surge = match rollout.strategy {
            Strategy::Signal(_) => usize::MAX,
            Strategy::Rolling if rollout.by == Requester::Reload => {
                self.services[service].definition.reload.max_surge as usize
            }
            Strategy::Rolling | Strategy::Restart => 1,
        };
        // A surge instance of an earlier reload may still be there: wait until it is gone.
        let is_free =
            |this: &Self, number: &u32| this.services.find(InstanceId { service, number: *number }.surge()).is_none();
        while rollout.in_progress.len() < surge
            && let Some(position) = rollout.remaining.iter().position(|number| is_free(self, number))
        {
            let number = rollout.remaining.remove(position);
            if let Some(stage) = self.start_slot(InstanceId { service, number }, rollout.strategy, rollout.by) {
                rollout.in_progress.push(Slot { number, stage });
            }
        }
        if rollout.in_progress.is_empty() && rollout.remaining.is_empty() {
            return self.end_rollout(service, rollout);
        }
        self.rollouts.insert(service, rollout);
    }

    fn end_rollout(&mut self, service: ServiceIndex, rollout: Rollout) {
        self.mark_all_proven(service);
        let (started, stopped) = match rollout.resize.filter(|_| rollout.failure.is_none()) {
            Some(desired) => self.resize(service, desired),
            None => (Vec::new(), Vec::new()),
        };
        let failure = rollout.failure.or_else(|| {
            let definition = Rc::clone(&self.services[service].definition);
            let instance = rollout.stopped?;
            Some(ReloadFailure { instance, definition, error: RolloutError::Stopped })
        });
        self.record(JournalEvent::ReloadFinished { service, failure: failure.clone() });
        self.on_reload_finished(service, failure, &started, &stopped);
        self.load_deferred_config();
        self.wake_rollouts(service);
        for dependency in rollout.previous.iter().flat_map(|before| &before.depends_on) {
            self.mark_dirty(*dependency);
        }
    }

    /// Whether a service that is being reloaded depends on it after a rollback.
    pub(super) fn is_needed_for_rollback(&self, service: ServiceIndex) -> bool {
        let needs = |before: &Rc<Service>| before.depends_on.contains(&service);
        self.rollouts.values().any(|rollout| rollout.previous.as_ref().is_some_and(needs))
    }

    /// Wakes the reloads that wait for `service`.
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

    /// Whether the dependencies of the service are ready for its reload.
    fn rollout_gate(&self, service: ServiceIndex, rollout: &Rollout) -> RolloutGate {
        let dependencies = &self.services[service].definition.depends_on;
        if dependencies.iter().any(|dependency| self.rollouts.contains_key(dependency)) {
            return RolloutGate::Wait;
        }
        // A signal needs no dependency. A new process would take the place of one that works.
        if !matches!(rollout.strategy, Strategy::Signal(_)) {
            if let Some(dependency) = self.dependency_that_is(Availability::Failed, service) {
                let has_completed = self.services[dependency].status().outcome == ServiceOutcome::Completed;
                return RolloutGate::Fail(match has_completed {
                    true => RolloutError::DependencyCompleted(dependency),
                    false => RolloutError::DependencyFailed(dependency),
                });
            }
            if let Some(dependency) = self.dependency_that_is(Availability::Stopped, service) {
                return RolloutGate::Fail(RolloutError::DependencyStopped(dependency));
            }
        }
        let is_active = |number: &u32| {
            self.services
                .find(InstanceId { service, number: *number })
                .is_some_and(|instance| !instance.state.is_inactive())
        };
        if !rollout.remaining.iter().any(is_active) {
            // No process is replaced: failed instances start as usual.
            return RolloutGate::Begin;
        }
        match self.dependency_that_is(Availability::Coming, service) {
            Some(_) => RolloutGate::Wait,
            None => RolloutGate::Begin,
        }
    }

    /// The failure of a reload that has not begun.
    fn failure_before_start(&self, service: ServiceIndex, rollout: &Rollout, error: RolloutError) -> ReloadFailure {
        let number = rollout.remaining.first().copied().unwrap_or_default();
        let definition = Rc::clone(&self.services[service].definition);
        ReloadFailure { instance: InstanceId { service, number }, definition, error }
    }

    /// A service whose reload has begun.
    pub(super) fn active_rollout(&self) -> Option<ServiceIndex> {
        self.rollouts.iter().find(|(_, rollout)| rollout.has_started).map(|(service, _)| *service)
    }

    /// Cancels reloads that have not begun: a new configuration must be compared with the processes that run.
    pub(super) fn cancel_waiting_rollouts(&mut self) {
        let waiting: Vec<_> =
            self.rollouts.iter().filter(|(_, rollout)| !rollout.has_started).map(|(service, _)| *service).collect();
        for service in waiting {
            let Some(rollout) = self.rollouts.remove(&service) else { continue };
            let failure = Some(self.failure_before_start(service, &rollout, RolloutError::Superseded));
            if let Some(before) = rollout.previous {
                self.redefine(service, before);
            }
            self.record(JournalEvent::ReloadFinished { service, failure: failure.clone() });
            self.on_reload_finished(service, failure, &[], &[]);
        }
    }

    /// Begins to replace one instance. `None`: the reload does not have to wait for it.
    fn start_slot(&mut self, id: InstanceId, strategy: Strategy, by: Requester) -> Option<RolloutStage> {
        if !self.services.has(id) {
            return None;
        }
        if matches!((strategy, self.services[id].state), (Strategy::Signal(_), State::Running(_))) {
            // A signal that it does not survive is a failed reload, which does not end keepalive.
            self.services[id].is_established = false;
        }
        match (strategy, self.services[id].state) {
            (Strategy::Signal(signal), State::Running(_)) if self.services[id].definition.ready == Ready::Notify => {
                self.signal_reload(id, signal);
                Some(RolloutStage::ReloadSignalled)
            }
            // Only a running process is signalled: before, it may not have installed its handler, and the signal would kill
            // it.
            (Strategy::Signal(signal), State::Running(Running { process, .. })) => {
                self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
                // A process without a handler dies of it.
                let until = self.now + PROOF_TIME;
                self.update_running(id, |running| running.min_ready_until = Some(until));
                Some(RolloutStage::ReloadSignalled)
            }
            (Strategy::Rolling, State::Running(_)) => {
                self.services.add_surge(id);
                self.services[id.surge()].ended_by = Some(by.restart_cause());
                self.start(id.surge(), Reason::StartRequested(by));
                Some(RolloutStage::StartingNew)
            }
            // These stay stopped.
            (
                _,
                State::Stopping(Stopping { then: AfterStop::StayStopped(_), .. })
                | State::CleaningUp(CleaningUp { next: AfterRun::StayStopped(_), .. }),
            ) => None,
            (_, State::Stopped { why: Stopped::Failed { .. } } | State::Scheduled { .. }) => {
                self.services[id].reset_failures();
                self.services[id].is_established = false;
                self.start_or_wait(id, Reason::StartRequested(by));
                Some(RolloutStage::Restarting)
            }
            (_, State::Stopped { .. } | State::Waiting { .. }) => None,
            // It is restarted already.
            (_, State::Stopping(_) | State::CleaningUp(_)) => Some(RolloutStage::Restarting),
            (_, State::Spawning { .. }) => {
                self.respawn(id);
                Some(RolloutStage::Restarting)
            }
            (_, State::Executing(_) | State::Starting { .. } | State::Running(_) | State::BackingOff { .. }) => {
                self.services[id].reset_failures();
                self.stop(id, AfterStop::Restart(by));
                Some(RolloutStage::Restarting)
            }
        }
    }

    fn advance(&mut self, service: ServiceIndex, slot: &mut Slot) -> Progress {
        let id = InstanceId { service, number: slot.number };
        if slot.stage == RolloutStage::StartingNew {
            if !self.state_of_surge(id).is_proven() {
                return if self.services.find(id.surge()).is_some() { Progress::Ongoing } else { Progress::Done };
            }
            self.swap_with_surge(id);
            self.stop(id.surge(), AfterStop::StayStopped(Stopped::Replaced));
            slot.stage = RolloutStage::StoppingOld;
        }
        let is_over = match (slot.stage, self.services.find(id).map(|instance| instance.state)) {
            (RolloutStage::StartingNew, _) => false,
            (RolloutStage::ReloadSignalled, Some(State::Running(running))) => {
                !running.readiness.is_reload_pending() && running.min_ready_until.is_none()
            }
            // It exits on its own or because of a fault: wait for the result. A stop by an operator is no failure.
            (
                RolloutStage::ReloadSignalled,
                Some(State::Stopping(Stopping { then: AfterStop::ExitOnItsOwn | AfterStop::Fail(_), .. })),
            ) => false,
            (RolloutStage::ReloadSignalled, _) => true,
            (RolloutStage::StoppingOld, _) => self.state_of_surge(id).is_inactive(),
            // The surge instance of a process that has exited may have leftover processes.
            (RolloutStage::Restarting, _) if !self.state_of_surge(id).is_inactive() => false,
            (RolloutStage::Restarting, state) => state.is_none_or(|state| state.is_inactive() || state.is_proven()),
        };
        if is_over { Progress::Done } else { Progress::Ongoing }
    }

    fn state_of_surge(&self, id: InstanceId) -> State {
        let none = State::Stopped { why: Stopped::Replaced };
        self.services.find(id.surge()).map_or(none, |surge| surge.state)
    }

    /// Swaps the instance and its surge instance.
    fn swap_with_surge(&mut self, id: InstanceId) {
        let surge = id.surge();
        let (Some(old), Some(new)) = (self.services.find(id), self.services.find(surge)) else { return };
        let (old, new) = (old.state, new.state);
        self.services.swap_with_surge(id);
        for (owner, before, after) in [(id, old, new), (surge, new, old)] {
            self.timers.change(owner, before.deadline(), after.deadline());
            let side_run = self.services[owner].side_run.map(|side_run| side_run.run);
            for run in after.run().into_iter().chain(side_run) {
                self.runs.insert(run, owner);
            }
        }
        let pid_of = |state: State| state.main_process().map(|process| process.pid);
        self.record(JournalEvent::InstanceReplaced { instance: id, old: pid_of(old), new: pid_of(new) });
        if let State::Spawning { .. } = new {
            // The process was requested for the surge instance.
            self.respawn(id);
        }
        self.mark_dirty(id.service);
    }

    /// Stops replacing instances, and rolls back those that have been replaced.
    fn on_failure(&mut self, service: ServiceIndex, rollout: &mut Rollout, failure: ReloadFailure) {
        rollout.remaining.clear();
        for slot in &mut rollout.in_progress {
            if std::mem::replace(&mut slot.stage, RolloutStage::StoppingOld) == RolloutStage::StartingNew {
                self.cancel_surge(InstanceId { service, number: slot.number }, Stopped::Replaced);
            }
        }
        let Some(old) = rollout.previous.take() else { return };
        let Some(before) = self.services[service].worked_before(&old) else {
            // The old definition has never worked: the service keeps the new one, and does not need what the old one did.
            old.depends_on.iter().for_each(|dependency| self.mark_dirty(*dependency));
            return;
        };
        self.roll_back(service, Rc::clone(&before), failure);
        rollout.strategy = match before.reload.strategy {
            Strategy::Signal(_) => Strategy::Restart,
            strategy @ (Strategy::Rolling | Strategy::Restart) => strategy,
        };
        let has_changed = |id: &InstanceId| !self.services[*id].definition.same_process_spec(&before);
        rollout.remaining = self.services.ids_of(service).filter(has_changed).map(|id| id.number).collect();
    }

    /// Returns to the definition that has worked.
    pub(super) fn roll_back(&mut self, service: ServiceIndex, before: Rc<Service>, failure: ReloadFailure) {
        self.record(JournalEvent::ReloadRolledBack { service, failure });
        self.redefine(service, before);
        self.services[service].in_effect = InEffect::Previous;
    }

    /// Replaces the definition of a service.
    pub(super) fn redefine(&mut self, service: ServiceIndex, definition: Rc<Service>) {
        let mut plan = Plan::clone(&self.plan);
        let untried = &mut self.services[service].untried;
        let has_worked = |untried: &mut Untried| untried.before.as_ref().is_some_and(|it| Rc::ptr_eq(it, &definition));
        untried.take_if(has_worked);
        if let Some(entry) = plan.services.get_mut(service.position()) {
            *entry = definition;
        }
        self.plan = Rc::new(plan);
        self.services.apply_config(&self.plan);
        self.read_calendar();
        self.act(Action::ApplyConfig(Rc::clone(&self.plan)));
    }
}
