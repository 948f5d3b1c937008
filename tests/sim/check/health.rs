//! The rules for health checks: only a process that runs is checked, by one check at a time; it is unhealthy after `retries`
//! consecutive failures outside `start_period`, and not before; a stop waits for no check.

use std::rc::Rc;

use keepalive::model::plan::{Health, OnUnhealthy};
use keepalive::model::{InstanceId, Mono, ProbeFailure, RunId};
use keepalive::supervisor::{Action, Event, Fault, JournalEntry, JournalEvent, Reason, StateName};

use super::instance::Instance;
use super::{Checker, Verdict, Violation, rule};
use crate::world::World;

/// The health checks of a process that runs.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    health: Rc<Health>,
    /// When the next check begins.
    pub(super) due: Option<Mono>,
    /// When the check that is in progress began.
    since: Option<Mono>,
    counts_from: Mono,
    failures: u32,
    pub(super) is_unhealthy: bool,
    /// The check of other checks, in whose place these have come, goes on.
    must_abort: bool,
    /// It may go on, or its start was dropped.
    may_abort: bool,
}

impl Checks {
    fn new(health: &Rc<Health>, now: Mono) -> Self {
        Self {
            health: Rc::clone(health),
            due: Some(now + health.interval),
            since: None,
            counts_from: now + health.start_period,
            failures: 0,
            is_unhealthy: false,
            must_abort: false,
            may_abort: false,
        }
    }

    /// A start that was decided may have been dropped, and its end is decided nevertheless.
    fn may_be_aborted(&self, now: Mono) -> bool {
        self.since.is_some() || self.due.is_some_and(|due| due <= now)
    }
}

impl Instance {
    /// Its definition has changed, and its process stays.
    pub(super) fn on_redefined(&mut self, before: Option<&Rc<Health>>, now: Mono) {
        if self.definition.health.as_ref() == before || self.state != StateName::Running {
            return;
        }
        let must_abort = self.checks.as_ref().is_some_and(|checks| checks.since.is_some());
        let may_abort = self.checks.as_ref().is_some_and(|checks| checks.may_be_aborted(now));
        let new = self.definition.health.as_ref().map(|health| Checks::new(health, now));
        self.checks = new.map(|new| Checks { must_abort, may_abort, ..new });
    }
}

impl Checker {
    pub(super) fn check_start_of_check(&mut self, run: RunId, health: &Rc<Health>, world: &World) -> Verdict {
        rule!(!self.shutdown.has_begun(), "run {run} is checked during the shutdown");
        rule!(world.main_pid(run).is_some(), "run {run} is checked, but its main process has been reaped");
        let now = self.now;
        let Some(id) = self.model.with_main(run) else { return Err(Violation(format!("run {run} is checked"))) };
        let instance = self.model.get_mut(id);
        rule!(instance.state == StateName::Running, "{id:?} is checked while {:?}", instance.state);
        let Some(checks) = &mut instance.checks else { return Err(Violation(format!("{id:?} has no checks"))) };
        rule!(checks.health == *health, "{id:?} is checked by {health:?}, not by {:?}", checks.health);
        rule!(checks.since.is_none(), "{id:?} is checked twice at a time");
        rule!(checks.due.is_some_and(|due| due <= now), "{id:?} is checked before {:?}", checks.due);
        (checks.due, checks.since) = (None, Some(now));
        Ok(())
    }

    pub(super) fn check_abort_of_check(&mut self, run: RunId) -> Verdict {
        let now = self.now;
        let Some(id) = self.model.with_main(run) else { return Err(Violation(format!("run {run} is not checked"))) };
        // The last check of a service that is not checked any more.
        let Some(checks) = &mut self.model.get_mut(id).checks else { return Ok(()) };
        checks.must_abort = false;
        if std::mem::take(&mut checks.may_abort) {
            return Ok(());
        }
        let is_due = checks.may_be_aborted(now);
        rule!(is_due, "the check of {id:?} is aborted, but there is none: {checks:?}");
        (checks.due, checks.since) = (None, None);
        Ok(())
    }

    pub(super) fn on_checked(&mut self, run: RunId, failure: Option<&ProbeFailure>) {
        let now = self.now;
        let Some(id) = self.model.with_main(run) else { return };
        let instance = self.model.get_mut(id);
        if instance.state != StateName::Running {
            return;
        }
        let min_uptime = instance.definition.restart.min_uptime;
        let uptime = now.since(instance.since);
        let Some(checks) = &mut instance.checks else { return };
        let Some(since) = checks.since.take() else { return };
        checks.due = Some(now + checks.health.interval);
        if failure.is_none() {
            checks.failures = 0;
            checks.counts_from = since;
            if std::mem::take(&mut checks.is_unhealthy) {
                let event = JournalEvent::Healthy { instance: id };
                self.expected_actions = vec![Action::WriteJournal(JournalEntry { at: now, event })];
            }
            if uptime >= min_uptime {
                instance.unstable = 0;
            }
        } else if since >= checks.counts_from {
            checks.failures += 1;
            checks.is_unhealthy = checks.failures >= checks.health.retries;
        }
    }

    /// A process that stays is marked.
    pub(super) fn check_marked(&self, id: InstanceId) -> Verdict {
        let checks = self.model.get(id).checks.as_ref();
        let is_marked = checks.is_some_and(|checks| {
            checks.is_unhealthy
                && checks.failures == checks.health.retries
                && checks.health.on_unhealthy == OnUnhealthy::Mark
        });
        let has_failed = matches!(self.event, Some(Event::Checked { failure: Some(_), .. }));
        rule!(is_marked && has_failed, "{id:?} is not unhealthy: {checks:?}");
        Ok(())
    }

    /// The checks begin with the state `running`, and end with it.
    pub(super) fn apply_transition_to_checks(
        &mut self,
        id: InstanceId,
        from: StateName,
        to: StateName,
        reason: &Reason,
    ) -> Verdict {
        let (now, may_check) = (self.now, !self.shutdown.has_begun());
        let Some(instance) = self.model.find_any_mut(id) else { return Ok(()) };
        if to == StateName::Running && from != to {
            let health = instance.definition.health.as_ref().filter(|_| may_check);
            instance.checks = health.map(|health| Checks::new(health, now));
        } else if to != StateName::Running
            && let Some(checks) = instance.checks.take()
        {
            let is_aborted = checks.since.is_none() || instance.main.is_none();
            rule!(is_aborted, "{id:?} is {to:?}, but its check goes on: {reason:?}");
        }
        Ok(())
    }

    /// What must have followed from the results, at the end of a step.
    pub(super) fn check_health(&self) -> Verdict {
        for (id, instance) in self.model.all().chain(self.model.surges()) {
            let Some(checks) = &instance.checks else { continue };
            rule!(!checks.must_abort, "the check of {id:?} goes on, though others take its place");
            if self.shutdown.has_begun() {
                rule!(checks.since.is_none(), "the check of {id:?} goes on during the shutdown");
                continue;
            }
            rule!(checks.due.is_some() || checks.since.is_some(), "{id:?} is not checked any more: {checks:?}");
            let stays = checks.health.on_unhealthy == OnUnhealthy::Mark;
            rule!(!checks.is_unhealthy || stays, "{id:?} is unhealthy, and nothing follows");
        }
        Ok(())
    }
}

/// Whether the instance may be stopped because of its health.
pub(super) fn is_justified(instance: &Instance, from: StateName, fault: Fault) -> bool {
    let is_unhealthy = instance.checks.as_ref().is_some_and(|checks| checks.is_unhealthy);
    fault == Fault::Unhealthy && from == StateName::Running && is_unhealthy
}
