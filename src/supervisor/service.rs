//! Dependencies between services, and what follows when a service becomes ready, completes or fails.

use std::rc::Rc;
use std::time::Duration;

use super::availability::Availability;
use super::core::Supervisor;
use super::instance::Instance;
use super::phase::Phase;
use super::record::{Cause, JournalEvent, Outcome, Reason, Requester};
use super::rollout::{ReloadFailure, RolloutError};
use super::run_result::{FailureReason, RunResult};
use super::service_table::{Failure, Membership, ServiceOutcome};
use super::state::{AfterStop, Running, State, Stopped};
use super::state_name::StateName;
use crate::model::plan::{ExitAction, Kind};
use crate::model::{InstanceId, ServiceIndex};

/// A wait for dependencies that lasts longer is logged.
const LONG_WAIT: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Starts every service with `autostart`, and its dependencies.
    pub(super) fn on_boot(&mut self) {
        self.read_calendar();
        for service in self.services.service_indexes() {
            if self.services[service].definition.autostart && !self.services[service].is_off() {
                self.mark_waiting(service, Requester::Autostart);
            }
        }
        for service in self.services.service_indexes() {
            self.start_if_unblocked(service);
        }
    }

    /// Moves a service that was never started, and its dependencies that were never started, to the state Waiting. Returns
    /// the services that were visited.
    pub(super) fn mark_waiting(&mut self, service: ServiceIndex, by: Requester) -> Vec<ServiceIndex> {
        if self.services[service].definition.runs_on_schedule() {
            self.begin_schedule(service, by);
            return vec![service];
        }
        let is_boot = by == Requester::Autostart;
        let mut pending = vec![(service, by)];
        let mut visited = Vec::new();
        while let Some((index, by)) = pending.pop() {
            for id in self.services.ids_of(index) {
                if matches!(self.services[id].state, State::Stopped { why: Stopped::NotStarted }) {
                    self.services[id].is_established = is_boot;
                    self.wait(id, Reason::StartRequested(by));
                }
            }
            visited.push(index);
            let definition = &self.services[index].definition;
            let dependencies = definition.depends_on.iter().copied();
            let not_started = dependencies.filter(|dependency| self.services[*dependency].counts.not_started > 0);
            pending.extend(not_started.map(|dependency| (dependency, Requester::Dependent(index))));
        }
        visited
    }

    /// Starts the dependencies of a service, also indirect ones, that were never started; for an operator also those that
    /// an operator has stopped, unless other instances are ready, and those that have failed.
    pub(super) fn start_dependencies(&mut self, service: ServiceIndex, by: Requester) {
        let is_operator = by == Requester::Operator;
        let mut needing = vec![service];
        let mut is_visited = vec![false; self.plan.services.len()];
        let mut position = 0;
        while let Some(dependent) = needing.get(position).copied() {
            position += 1;
            let definition = Rc::clone(&self.services[dependent].definition);
            for dependency in definition.depends_on.iter().copied() {
                let is_new = is_visited.get_mut(dependency.position()).is_some_and(|it| !std::mem::replace(it, true));
                if !is_new {
                    continue;
                }
                let by = Requester::Dependent(dependent);
                let starts_stopped = is_operator && !self.is_available(dependency);
                let tries_again = is_operator && self.availability(dependency) == Availability::Failed;
                for id in self.services.ids_of(dependency).filter(|id| self.services.has(*id)).collect::<Vec<_>>() {
                    if let State::Stopped { why: Stopped::NotStarted } = self.services[id].state {
                        self.wait(id, Reason::StartRequested(by));
                    } else if tries_again {
                        self.try_again(id, by);
                    } else if starts_stopped {
                        self.undo_stop(id, by);
                    }
                }
                let mut states = self.services[dependency].instances().iter().map(|instance| instance.state.name());
                if states.any(|state| matches!(state, StateName::Waiting | StateName::Stopping)) {
                    needing.push(dependency);
                }
            }
        }
        for dependency in needing.into_iter().skip(1) {
            self.start_or_block(dependency);
        }
    }

    /// Starts an instance of a dependency that will not become ready on its own. What a oneshot has done is done.
    fn try_again(&mut self, id: InstanceId, by: Requester) {
        if self.state_name(id) == StateName::Failed || self.services[id.service].definition.kind == Kind::Service {
            self.services[id].on_start_requested(by);
            self.wait(id, Reason::StartRequested(by));
        }
    }

    /// Starts an instance that an operator has stopped, or wants to stop.
    fn undo_stop(&mut self, id: InstanceId, by: Requester) {
        if let Some(AfterStop::StayStopped(_)) = self.services[id].queued_stop {
            self.cancel_queued_stop(id);
        }
        let state = self.services[id].state;
        if !state.is_stopped_by_operator() {
            return;
        }
        if state.is_inactive() {
            self.services[id].on_start_requested(by);
            self.wait(id, Reason::StartRequested(by));
        } else {
            self.services[id].reset_failures();
            self.stop(id, AfterStop::Restart(by));
        }
    }

    /// Lets an instance wait for its dependencies.
    pub(super) fn wait(&mut self, id: InstanceId, reason: Reason) {
        let state = match self.services[id].state {
            state @ State::Waiting { .. } => state,
            State::Spawning { .. }
            | State::Executing(_)
            | State::Starting { .. }
            | State::Running(_)
            | State::Stopping(_)
            | State::CleaningUp(_)
            | State::BackingOff { .. }
            | State::Scheduled { .. }
            | State::Stopped { .. } => State::Waiting { warn_at: Some(self.now + LONG_WAIT) },
        };
        self.enter(id, state, reason);
    }

    /// A service has waited for long: says for what, once for all its instances.
    pub(super) fn warn_of_wait(&mut self, service: ServiceIndex) {
        for id in self.services.ids_of(service) {
            if let State::Waiting { .. } = self.services[id].state {
                self.set_state(id, State::Waiting { warn_at: None });
            }
        }
        let definition = Rc::clone(&self.services[service].definition);
        let mut dependencies = definition.depends_on.iter().copied();
        let Some(dependency) = dependencies.find(|dependency| !self.is_available(*dependency)) else { return };
        let is_awaited = |state: &State| !matches!(state, State::Stopped { why: Stopped::Completed });
        let states = self.services[dependency].instances().iter().map(|instance| instance.state);
        let Some(state) = states.filter(is_awaited).min_by_key(|state| state.name()) else { return };
        let lasts = state.process().map(|process| self.now.since(process.since));
        self.record(JournalEvent::DependencyAwaited { service, dependency, state: state.name(), lasts });
    }

    /// Starts the waiting instances if their dependencies are ready, or fails them if a dependency has failed.
    pub(super) fn start_or_block(&mut self, service: ServiceIndex) {
        match self.dependency_that_is(Availability::Failed, service) {
            Some(dependency) => self.block(service, dependency),
            None => self.start_if_unblocked(service),
        }
    }

    /// Starts the waiting instances if their dependencies are ready.
    pub(super) fn start_if_unblocked(&mut self, service: ServiceIndex) {
        if self.is_draining() || !self.dependencies_are_ready(service) {
            return;
        }
        for id in self.services.ids_of(service) {
            if matches!(self.services[id].state, State::Waiting { .. }) {
                self.start(id, Reason::DependenciesReady);
            }
        }
    }

    pub(super) fn mark_dirty(&mut self, service: ServiceIndex) {
        if !self.services[service].is_dirty {
            self.services[service].is_dirty = true;
            self.dirty.push_back(service);
        }
    }

    /// Updates the dependents, dependencies and requests of all services that have changed, until nothing changes any more.
    pub(super) fn propagate(&mut self) {
        loop {
            while let Some(service) = self.dirty.pop_front() {
                self.services[service].is_dirty = false;
                self.propagate_service(service);
            }
            self.drive_ordered_stops();
            self.drive_restarts();
            self.answer_requests();
            self.propagate_all();
            if self.dirty.is_empty() {
                break;
            }
        }
    }

    fn propagate_service(&mut self, service: ServiceIndex) {
        self.drop_stopped(service);
        self.drive_rollout(service);
        self.replace_due(service);
        self.restart_changed(service);
        self.retire_if_possible(service);
        let before = self.services[service].last_status;
        let status = self.services[service].status();
        self.services[service].last_status = status;
        if status != before {
            self.wake_rollouts(service);
        }
        // First the outcome, which may begin the shutdown: nothing should be started only to be stopped again.
        if status.outcome != before.outcome && !self.services[service].is_retiring() {
            self.on_outcome(service, status.outcome);
        }
        if self.services[service].untried.is_some() && self.has_worked(service) {
            self.services[service].untried = None;
        }
        if status.is_ready && !before.is_ready {
            self.on_service_ready(service);
        }
        // A dependency may have failed and recovered since the last call.
        if self.services[service].counts.waiting_on_dependency > 0 && !self.is_draining() {
            self.unblock(service);
            self.start_or_block(service);
        }
        if status.has_no_process && !before.has_no_process && self.is_draining() {
            self.stop_if_unneeded(service);
        }
    }

    /// Whether its definition has worked: the service is ready, and all its processes have this definition and have been
    /// ready for long enough. One that is degraded, or off, has not proved anything.
    fn has_worked(&self, service: ServiceIndex) -> bool {
        let state = &self.services[service];
        let works = |instance: &Instance| {
            instance.state.is_inactive()
                || matches!(instance.state, State::Running(Running { min_ready_until: None, .. }))
                    && instance.definition.same_process_spec(&state.definition)
        };
        state.is_ready() && !state.is_off() && state.counts.failed == 0 && state.instances().iter().all(works)
    }

    /// Whether its failure does not end keepalive: a reload has brought its definition, or a request has started it, and it
    /// has not been ready since.
    pub(super) fn is_tentative(&self, id: InstanceId) -> bool {
        let (service, instance) = (&self.services[id.service], &self.services[id]);
        let is_untried = service.untried.is_some() && instance.definition.same_process_spec(&service.definition);
        is_untried || !instance.is_established
    }

    fn on_service_ready(&mut self, service: ServiceIndex) {
        // When a service crashes and recovers, its dependents are not visited if they all run.
        if self.services.total().waiting_on_dependency == 0 {
            return;
        }
        for dependent in self.services[service].dependents.clone() {
            self.unblock(dependent);
            self.start_if_unblocked(dependent);
        }
    }

    /// Moves instances that were failed because of a dependency back to Waiting: the dependencies are ready.
    fn unblock(&mut self, service: ServiceIndex) {
        if self.is_draining() || !self.dependencies_are_ready(service) {
            return;
        }
        // Surplus instances are about to be removed.
        for id in self.services.ids_of(service).filter(|id| self.services.has(*id)).collect::<Vec<_>>() {
            if matches!(self.services[id].state, State::Stopped { why: Stopped::Blocked { .. } }) {
                self.wait(id, Reason::DependenciesReady);
            }
        }
    }

    fn on_outcome(&mut self, service: ServiceIndex, outcome: ServiceOutcome) {
        let settings = Rc::clone(&self.services[service].definition);
        match outcome {
            ServiceOutcome::Active | ServiceOutcome::Inactive => {}
            ServiceOutcome::Completed => {
                if settings.kind == Kind::Service {
                    self.block_dependents(service);
                }
                if settings.on_success == ExitAction::Shutdown {
                    self.begin_shutdown(Outcome { code: 0, cause: Cause::Completed { service } });
                }
            }
            ServiceOutcome::Mixed => self.block_dependents(service),
            ServiceOutcome::Failed => {
                self.on_service_failed(service, settings.on_failure);
                self.block_dependents(service);
            }
        }
    }

    fn on_service_failed(&mut self, service: ServiceIndex, exit_action: ExitAction) {
        if self.is_draining() {
            return;
        }
        // The last failed instance determines the exit code. A service that was only blocked has no failure.
        let Some(last) = self.services[service].failures().max_by_key(|failure| failure.nth) else { return };
        let Failure { instance, run, failure_reason, .. } = last;
        self.record(JournalEvent::ServiceFailed { service });
        // What works goes on, with the definition that has worked. A new definition stays untried until it is ready.
        if self.is_tentative(instance) {
            let before = self.services[service].untried.as_ref().and_then(|untried| untried.before.clone());
            if let Some(before) = before {
                let error = RolloutError::Exited(run);
                if self.rollouts.contains_key(&service) {
                    return self.fail_rollout(instance, error);
                }
                let definition = Rc::clone(&self.services[instance].definition);
                self.roll_back(service, before, ReloadFailure { instance, definition, error });
            }
            return;
        }
        if exit_action == ExitAction::Shutdown {
            let code = failure_code(&run);
            self.begin_shutdown(Outcome { code, cause: Cause::Failed { instance, run, failure_reason } });
        }
    }

    /// Fails the waiting instances of the services that depend on `service`.
    fn block_dependents(&mut self, service: ServiceIndex) {
        for dependent in self.services[service].dependents.clone() {
            self.block(dependent, service);
        }
    }

    fn block(&mut self, service: ServiceIndex, dependency: ServiceIndex) {
        for id in self.services.ids_of(service) {
            if matches!(self.services[id].state, State::Waiting { .. }) {
                self.block_instance(id, dependency);
            }
        }
    }

    pub(super) fn block_instance(&mut self, id: InstanceId, dependency: ServiceIndex) {
        let reason = match self.services[dependency].status().outcome {
            ServiceOutcome::Completed => Reason::DependencyCompleted { dependency },
            ServiceOutcome::Active | ServiceOutcome::Inactive | ServiceOutcome::Failed | ServiceOutcome::Mixed => {
                Reason::DependencyFailed { dependency }
            }
        };
        let state = match self.services[id.service].definition.runs_on_schedule() {
            true => self.skipped_run(id.service),
            false => State::Stopped { why: Stopped::Blocked { dependency } },
        };
        self.enter(id, state, reason);
    }

    /// Begins the shutdown if no service runs or will run, and continues it when all have stopped.
    fn propagate_all(&mut self) {
        let total = *self.services.total();
        match self.phase {
            Phase::Running if total.active == 0 && total.stopped_by_operator == 0 && !self.is_held_open() => {
                let failure = self.first_failure();
                let code = match &failure {
                    Some((_, run, _)) => failure_code(run),
                    None => u8::from(total.failed > 0),
                };
                self.begin_shutdown(Outcome { code, cause: Cause::NothingLeft { failure } });
            }
            Phase::Draining(_) if total.live == 0 => self.on_all_stopped(),
            Phase::Running | Phase::Draining(_) | Phase::Ended => {}
        }
    }

    /// Whether a request has ended the last run of a service: it was scaled to 0, or what the request has started has failed.
    /// Or it is started again when its files change.
    fn is_held_open(&self) -> bool {
        self.services.service_indexes().map(|index| &self.services[index]).any(|service| {
            service.membership == Membership::ScaledToZero
                || (service.definition.watch.is_some() && service.counts.failed + service.counts.completed > 0)
                || service.failures().any(|failure| self.is_tentative(failure.instance))
        })
    }

    /// The instance that failed first.
    fn first_failure(&self) -> Option<(InstanceId, Rc<RunResult>, FailureReason)> {
        let failures = self.services.service_indexes().flat_map(|service| self.services[service].failures());
        failures
            .min_by_key(|failure| failure.nth)
            .map(|failure| (failure.instance, failure.run, failure.failure_reason))
    }
}

/// The exit code after a failure: that of the process, and never 0. If keepalive has stopped the process because of a fault,
/// the number of a signal says nothing about it, also as the exit code 128+N of a program that handles the signal.
fn failure_code(run: &RunResult) -> u8 {
    match run.exit.status.code() {
        0 => 1,
        129.. if run.fault.is_some() => 1,
        code => code,
    }
}
