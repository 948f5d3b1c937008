//! What the instances of a service mean to the service, and the service to its neighbours.

use std::rc::Rc;

use super::core::Supervisor;
use super::phase::Phase;
use super::record::{Cause, JournalEvent, Outcome, Reason};
use super::run_result::{FailureReason, RunResult};
use super::service_table::{Failure, ServiceOutcome};
use super::state::{State, Stopped};
use crate::model::plan::{ExitAction, Kind};
use crate::model::{InstanceId, ServiceIndex};

impl Supervisor {
    /// Starts every service that starts by itself, and whatever those depend on.
    pub(super) fn on_boot(&mut self) {
        for service in self.services.service_indexes() {
            if self.services[service].definition.autostart {
                self.want(service);
            }
        }
        for service in self.services.service_indexes() {
            self.start_if_unblocked(service);
        }
    }

    /// Makes a service that has never been started, and everything of that kind that it depends on, wait for their
    /// start; gives back all that were looked at.
    pub(super) fn want(&mut self, service: ServiceIndex) -> Vec<ServiceIndex> {
        let mut pending = vec![service];
        let mut wanted = Vec::new();
        while let Some(index) = pending.pop() {
            for id in self.services.ids_of(index) {
                if matches!(self.services[id].state, State::Stopped { why: Stopped::NotStarted }) {
                    self.enter(id, State::Waiting, Reason::Requested);
                }
            }
            wanted.push(index);
            let definition = &self.services[index].definition;
            pending
                .extend(definition.depends_on.iter().filter(|dependency| self.services[**dependency].counts.idle > 0));
        }
        wanted
    }

    /// Starts the waiting instances if there is nothing to wait for any more, or says that this will never be.
    pub(super) fn start_or_block(&mut self, service: ServiceIndex) {
        match self.failed_dependency(service) {
            Some(dependency) => self.block(service, dependency),
            None => self.start_if_unblocked(service),
        }
    }

    pub(super) fn dependencies_are_satisfied(&self, service: ServiceIndex) -> bool {
        let definition = &self.services[service].definition;
        definition.depends_on.iter().all(|dependency| self.services[*dependency].is_satisfied())
    }

    /// Something that `service` depends on and that will never be ready by itself.
    pub(super) fn failed_dependency(&self, service: ServiceIndex) -> Option<ServiceIndex> {
        let definition = &self.services[service].definition;
        definition.depends_on.iter().copied().find(|dependency| {
            let state = &self.services[*dependency];
            match state.status().outcome {
                ServiceOutcome::Open | ServiceOutcome::Held => false,
                ServiceOutcome::Completed | ServiceOutcome::Failed | ServiceOutcome::Mixed => !state.is_satisfied(),
            }
        })
    }

    /// Starts the waiting instances if there is nothing to wait for any more.
    pub(super) fn start_if_unblocked(&mut self, service: ServiceIndex) {
        if self.is_draining() || !self.dependencies_are_satisfied(service) {
            return;
        }
        for id in self.services.ids_of(service) {
            if matches!(self.services[id].state, State::Waiting) {
                self.start(id, Reason::Unblocked);
            }
        }
    }

    pub(super) fn mark_dirty(&mut self, service: ServiceIndex) {
        if !self.services[service].queued {
            self.services[service].queued = true;
            self.dirty.push_back(service);
        }
    }

    /// Draws the conclusions from all state changes since the last time, until there are none left to draw.
    pub(super) fn propagate(&mut self) {
        loop {
            while let Some(service) = self.dirty.pop_front() {
                self.services[service].queued = false;
                self.propagate_service(service);
            }
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
        self.retire_if_possible(service);
        let seen = self.services[service].seen;
        let now = self.services[service].status();
        self.services[service].seen = now;
        if now != seen {
            self.wake_rollouts(service);
        }
        // First what may end everything: nothing is to be started only to be stopped again.
        if now.outcome != seen.outcome && !self.services[service].is_retiring {
            self.on_fate(service, now.outcome);
        }
        if now.satisfied && !seen.satisfied {
            self.on_satisfied(service);
        }
        // What it waits for may have gone and come again before anyone looked.
        if self.services[service].counts.waiting_on_dependency > 0 && !self.is_draining() {
            self.start_or_block(service);
        }
        if now.down && !seen.down && self.is_draining() {
            self.stop_unneeded(service);
        }
    }

    fn on_satisfied(&mut self, service: ServiceIndex) {
        // A crash of what a thousand others depend on costs no more than any other once they run.
        if self.services.total().waiting_on_dependency == 0 {
            return;
        }
        for dependent in self.services[service].dependents.clone() {
            self.revive_blocked(dependent);
            self.start_if_unblocked(dependent);
        }
    }

    /// A dependency that had failed is there after all: what never was to start waits again.
    fn revive_blocked(&mut self, service: ServiceIndex) {
        if self.is_draining() || !self.dependencies_are_satisfied(service) {
            return;
        }
        for id in self.services.ids_of(service) {
            if matches!(self.services[id].state, State::Stopped { why: Stopped::Blocked { .. } }) {
                self.enter(id, State::Waiting, Reason::Requested);
            }
        }
    }

    fn on_fate(&mut self, service: ServiceIndex, outcome: ServiceOutcome) {
        let settings = Rc::clone(&self.services[service].definition);
        match outcome {
            ServiceOutcome::Open | ServiceOutcome::Held => {}
            ServiceOutcome::Completed => {
                if settings.kind == Kind::Service {
                    self.block_dependents(service);
                }
                if settings.on_success == ExitAction::Shutdown {
                    self.shut_down(Outcome { code: 0, cause: Cause::Completed { service } });
                }
            }
            ServiceOutcome::Mixed => self.block_dependents(service),
            ServiceOutcome::Failed => {
                self.on_service_failed(service, settings.on_failure);
                self.block_dependents(service);
            }
        }
    }

    fn on_service_failed(&mut self, service: ServiceIndex, consequence: ExitAction) {
        if self.is_draining() {
            return;
        }
        // Of several failed instances the last one decides; a service that was only blocked decides nothing.
        let Some(last) = self.services[service].failures().max_by_key(|failure| failure.nth) else { return };
        let Failure { instance, run, failure_reason, .. } = last;
        self.record(JournalEvent::ServiceFailed { service });
        if consequence == ExitAction::Shutdown {
            let code = failure_code(run.exit.status.code());
            self.shut_down(Outcome { code, cause: Cause::Failed { instance, run, failure_reason } });
        }
    }

    /// What depends on `service` and has not started never will, and says so.
    fn block_dependents(&mut self, service: ServiceIndex) {
        for dependent in self.services[service].dependents.clone() {
            self.block(dependent, service);
        }
    }

    fn block(&mut self, service: ServiceIndex, dependency: ServiceIndex) {
        for id in self.services.ids_of(service) {
            if matches!(self.services[id].state, State::Waiting) {
                self.block_instance(id, dependency);
            }
        }
    }

    pub(super) fn block_instance(&mut self, id: InstanceId, dependency: ServiceIndex) {
        let reason = match self.services[dependency].status().outcome {
            ServiceOutcome::Completed => Reason::DependencyCompleted { dependency },
            ServiceOutcome::Open | ServiceOutcome::Held | ServiceOutcome::Failed | ServiceOutcome::Mixed => {
                Reason::DependencyFailed { dependency }
            }
        };
        self.enter(id, State::Stopped { why: Stopped::Blocked { dependency } }, reason);
    }

    /// Looks at the whole: whether anything is left to run, or to stop.
    fn propagate_all(&mut self) {
        let total = *self.services.total();
        match self.phase {
            Phase::Up if total.active == 0 && total.stopped_by_operator == 0 => {
                let failure = self.first_failure();
                let code = match failure {
                    Some((_, run, _)) => failure_code(run.exit.status.code()),
                    None => u8::from(total.failed > 0),
                };
                self.shut_down(Outcome { code, cause: Cause::NothingLeft { failure } });
            }
            Phase::Draining(_) if total.live == 0 => self.on_all_down(),
            Phase::Up | Phase::Draining(_) | Phase::Over => {}
        }
    }

    /// Of the instances that rest because they have failed, the one that did so first.
    fn first_failure(&self) -> Option<(InstanceId, RunResult, FailureReason)> {
        let failures = self.services.service_indexes().flat_map(|service| self.services[service].failures());
        failures
            .min_by_key(|failure| failure.nth)
            .map(|failure| (failure.instance, failure.run, failure.failure_reason))
    }
}

/// A failure never looks like a success.
const fn failure_code(code: u8) -> u8 {
    if code == 0 { 1 } else { code }
}
