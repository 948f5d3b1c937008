//! Health checks: when the next one begins, and what follows from its result.
//!
//! The words mean what they mean in Docker's HEALTHCHECK. The checks of a process begin when it is ready, and end when it is
//! being stopped: a stop aborts a check that is in progress.

use std::rc::Rc;

use super::checks::{CheckStage, Checks, HealthStatus};
use super::core::Supervisor;
use super::event::Action;
use super::measuring::MemoryState;
use super::readiness::Lifetime;
use super::record::{Cause, JournalEvent, Outcome};
use super::run_result::Fault;
use super::state::{AfterStop, Running, State};
use crate::model::plan::{OnUnhealthy, Service};
use crate::model::{InstanceId, ProbeFailure, RunId};

/// The exit code after `on_unhealthy = "shutdown"`.
const UNHEALTHY_CODE: u8 = 1;

impl Supervisor {
    /// The checks of a process that is ready from now on.
    pub(super) fn checks_of(&self, service: &Service) -> Option<Checks> {
        let health = service.health.as_ref().filter(|_| !self.is_draining())?;
        Some(Checks::new(health, self.now))
    }

    pub(super) fn start_check(&mut self, id: InstanceId, running: Running) {
        let (Some(checks), Some(health)) = (running.checks, self.services[id].definition.health.clone()) else {
            return;
        };
        let checks = Some(Checks { stage: CheckStage::InProgress { since: self.now }, ..checks });
        self.set_state(id, State::Running(Running { checks, ..running }));
        self.act(Action::StartCheck { run: running.process.run, health });
    }

    /// A check has ended. `failure`: `None` if it has succeeded.
    pub(super) fn on_checked(&mut self, run: RunId, failure: Option<ProbeFailure>) {
        let Some(id) = self.instance_of(run) else { return };
        let State::Running(running) = self.services[id].state else { return };
        let (Some(mut checks), Some(health)) = (running.checks, self.services[id].definition.health.clone()) else {
            return;
        };
        let CheckStage::InProgress { since } = checks.stage else { return };
        let was_unhealthy = checks.is_unhealthy();
        checks.stage = CheckStage::Due(self.now + health.interval);
        let instance = &mut self.services[id];
        if let Some(failure) = failure {
            instance.failed_checks = instance.failed_checks.saturating_add(1);
            instance.check_failure = Some(failure);
            checks.failures = checks.failures.saturating_add(u32::from(since >= checks.counts_from));
            if checks.failures >= health.retries {
                checks.status = HealthStatus::Unhealthy;
            }
        } else {
            (checks.status, checks.failures, checks.counts_from) = (HealthStatus::Healthy, 0, since);
            // It has worked for long enough: what comes later is a new failure.
            if self.now.since(running.process.since) >= instance.definition.restart.min_uptime {
                instance.unstable = 0;
            }
        }
        self.set_state(id, State::Running(Running { checks: Some(checks), ..running }));
        match (was_unhealthy, checks.is_unhealthy()) {
            (false, true) => self.on_unhealthy(id, health.on_unhealthy),
            (true, false) => self.record(JournalEvent::Healthy { instance: id }),
            (false, false) | (true, true) => {}
        }
    }

    fn on_unhealthy(&mut self, id: InstanceId, action: OnUnhealthy) {
        let failure = self.services[id].check_failure.clone();
        match action {
            // The new process of a reload has not shown that it works: the old one stays.
            OnUnhealthy::Mark | OnUnhealthy::Shutdown if self.is_new(id) => {
                self.stop(id, AfterStop::Fail(Fault::Unhealthy));
            }
            OnUnhealthy::Shutdown if self.is_tentative(id) => self.stop(id, AfterStop::Fail(Fault::Unhealthy)),
            OnUnhealthy::Restart => self.stop(id, AfterStop::Fail(Fault::Unhealthy)),
            OnUnhealthy::Mark => self.record(JournalEvent::Unhealthy { instance: id, failure }),
            OnUnhealthy::Shutdown => {
                let cause = Cause::Unhealthy { instance: id, failure };
                self.begin_shutdown(Outcome { code: UNHEALTHY_CODE, cause });
            }
        }
    }

    /// It is not running any more, or its checks are others: aborts the check that is in progress.
    pub(super) fn abort_check(&mut self, before: &State) {
        if let Some(process) = before.process().filter(|_| before.is_being_checked()) {
            self.act(Action::AbortCheck { run: process.run });
        }
    }

    /// The definition of an instance that keeps its process has changed.
    pub(super) fn redefine_instance(&mut self, id: InstanceId, definition: &Rc<Service>) {
        let before = std::mem::replace(&mut self.services[id].definition, Rc::clone(definition));
        if before.max_lifetime != definition.max_lifetime
            && let State::Running(running) = self.services[id].state
        {
            let lifetime = self.lifetime_from(running.process.since, definition.max_lifetime);
            self.update_running(id, |running| running.lifetime = lifetime);
        }
        self.measure_memory_of(id);
        if before.health == definition.health {
            return;
        }
        let state = self.services[id].state;
        self.abort_check(&state);
        let checks = self.checks_of(definition);
        self.update_running(id, |running| running.checks = checks);
    }

    /// keepalive is shutting down: checks and replaces nothing any more.
    pub(super) fn end_checks(&mut self) {
        for id in self.services.ids_with_surges() {
            let state = self.services[id].state;
            self.abort_check(&state);
            self.update_running(id, |running| {
                (running.lifetime, running.memory) = (Lifetime::Unlimited, MemoryState::Below);
                running.checks = running.checks.map(|checks| Checks { stage: CheckStage::Ended, ..checks });
            });
        }
    }
}
