//! The rules for journal entries: each transition and each event needs a reason.

use keepalive::model::plan::Strategy;
use keepalive::model::{InstanceId, ServiceIndex};
use keepalive::supervisor::{Action, Event, Fault, JournalEvent, Reason, Request, Requester, StateName, Verb};

use super::requests::{self, Config};
use super::{Checker, Verdict, Violation, rule};

impl Checker {
    /// It is loaded again when the reload has ended.
    fn defer_config_load(&mut self) -> Verdict {
        let Some(Event::ConfigLoaded { id, .. }) = self.event else {
            return Err(Violation("no configuration has been loaded".into()));
        };
        self.requests.on_config_load_finished(id, Config::Loading);
        Ok(())
    }

    pub(super) fn check_journal_event(&mut self, event: &JournalEvent) -> Verdict {
        match event {
            JournalEvent::Transition { instance, from, to, reason, pid: _ } => {
                self.check_transition(*instance, *from, *to, reason)
            }
            JournalEvent::ShutdownStarted { cause } => {
                self.model.forget_reloads();
                self.expected_actions.push(Action::CancelConfigLoad);
                self.shutdown.check_started(cause, self.event.as_ref(), &self.model, &self.plan, self.now)
            }
            JournalEvent::HookFailed { instance, run, .. } => self.check_hook_failure(*instance, run),
            JournalEvent::ShutdownForced { signal } => {
                self.forget_hooks();
                self.shutdown.check_forced(*signal, self.event.as_ref(), self.now)
            }
            JournalEvent::LeftoverProcessesKilled => self.shutdown.check_leftovers_killed(&self.model, self.now),
            JournalEvent::ServiceFailed { service } => {
                rule!(self.model.has_failed(*service), "{service:?} has not failed");
                Ok(())
            }
            JournalEvent::DependencyAwaited { service, dependency, .. } => self.check_long_wait(*service, *dependency),
            JournalEvent::Scaled { service, to, .. } => self.check_scaled(*service, *to),
            JournalEvent::ReloadStarted { service, by } => self.check_reload_started(*service, *by),
            JournalEvent::ReloadFinished { service, failure } => {
                self.requests.on_reload_finished(*service, failure.as_ref());
                self.model.on_reload_finished(*service, failure.as_ref())
            }
            JournalEvent::ConfigReloadDeferred { service } => {
                rule!(self.model.is_reloading(*service), "{service:?} is not being reloaded");
                self.defer_config_load()
            }
            JournalEvent::ConfigReloadFailed { .. } => {
                let failed = matches!(self.event, Some(Event::ConfigLoadFailed { .. }));
                rule!(failed && !self.shutdown.has_begun(), "no configuration load has failed");
                Ok(())
            }
            JournalEvent::InstanceReplaced { instance, .. } => self.model.on_replaced(*instance, self.now),
            JournalEvent::StopTimedOut { instance, .. } => {
                rule!(self.model.get(*instance).state == StateName::Stopping, "{instance:?} is not being stopped");
                Ok(())
            }
            JournalEvent::Unkillable { instance, .. } => self.model.on_unkillable(*instance, self.now),
            JournalEvent::Unhealthy { instance, .. } => self.check_marked(*instance),
            JournalEvent::RunSkipped { service, why } => self.check_skipped(*service, *why),
            // It was expected.
            JournalEvent::Healthy { .. }
            | JournalEvent::LeftoverProcessesFound { .. }
            | JournalEvent::SignalForwarded { .. }
            | JournalEvent::SignalIgnored { .. }
            | JournalEvent::ConfigReloadRequested { .. }
            | JournalEvent::ConfigReloaded(_)
            | JournalEvent::ReloadRolledBack { .. }
            | JournalEvent::ProcessesAbandoned => Ok(()),
        }
    }

    fn check_scaled(&mut self, service: ServiceIndex, to: u32) -> Verdict {
        let is_asked =
            matches!(self.event, Some(Event::Request { request: Request::Scale(which, _), .. }) if which == service);
        if !is_asked {
            // By a configuration, or at the end of the reload that follows from it.
            let wanted = self.plan.services[service.position()].instances;
            rule!(to == wanted, "{service:?} is scaled to {to} without a reason");
            self.requests.on_configured_scale(self.event.as_ref(), service, to, &mut self.model);
        }
        rule!(self.model.desired(service) == to, "{service:?} is not scaled to {to}");
        Ok(())
    }

    /// Each wait is told once.
    fn check_long_wait(&mut self, service: ServiceIndex, dependency: ServiceIndex) -> Verdict {
        let is_awaited = self.model.depends_on(service).contains(&dependency) && !self.model.is_available(dependency);
        rule!(is_awaited, "{service:?} does not wait for {dependency:?}");
        let is_long = self.model.take_long_wait(service, self.now);
        rule!(is_long, "{service:?} has not waited for long, or that has been told");
        Ok(())
    }

    fn check_reload_started(&mut self, service: ServiceIndex, by: Requester) -> Verdict {
        if let Requester::Memory(used) = by {
            self.check_too_large(service, used)?;
            return self.model.on_reload_started(service, None);
        }
        match self.event {
            Some(Event::WallClock(_)) if by == Requester::Schedule => {}
            _ if by == Requester::Lifetime => self.check_expired(service)?,
            _ if by == Requester::Watch => {
                rule!(!self.model.is_reloading(service), "{service:?} is being reloaded already");
                self.changes.check_restart(service)?;
            }
            Some(Event::Request { id, request: Request::Control(_, Verb::Reload) }) => {
                self.requests.on_reload_started(id, service);
            }
            Some(Event::ConfigLoaded { id, .. }) => {
                id.into_iter().for_each(|id| self.requests.on_reload_started(id, service));
            }
            _ => return Err(Violation(format!("{service:?} is reloaded without a reason"))),
        }
        let target = match self.event {
            Some(Event::Request { request: Request::Control(target, _), .. }) => Some(target),
            _ => None,
        };
        self.model.on_reload_started(service, target)
    }

    fn check_transition(&mut self, id: InstanceId, from: StateName, to: StateName, reason: &Reason) -> Verdict {
        if id.is_surge() && from == StateName::Stopped {
            self.model.add_surge(id)?;
        }
        let last = self.model.get(id).state;
        rule!(last == from, "{id:?} changes from {from:?} to {to:?}, but it was {last:?}");
        let at_rest =
            matches!(from, StateName::Waiting | StateName::Stopped | StateName::Completed | StateName::Failed);
        if to == StateName::Starting && !id.is_surge() && (at_rest || self.model.get(id).start_requested) {
            let is_free = self.model.dependencies_are_satisfied(id.service) || self.requests.has_begun_deferred;
            rule!(is_free, "{id:?} starts before its dependencies are ready");
        }
        if self.event == Some(Event::Boot) {
            rule!(self.model.starts_by_itself(id.service), "{id:?} starts at boot without autostart");
        }
        let is_operator = matches!(
            reason,
            Reason::StopRequested(Requester::Operator) | Reason::RestartRequested(Requester::Operator)
        );
        let is_watch =
            matches!(reason, Reason::StartRequested(Requester::Watch) | Reason::RestartRequested(Requester::Watch));
        if is_watch && !self.model.is_reloading(id.service) {
            self.changes.check_restart(id.service)?;
        }
        // The restart of a dependency comes before what waits until it is ready.
        if matches!(reason, Reason::StartRequested(_) | Reason::RestartRequested(_)) && !is_watch {
            self.requests.begin_deferred(&mut self.model);
        }
        let queued = self.model.get(id).queued.filter(|_| is_operator);
        if let Some(verb) = queued {
            let dependent = self.model.stopping_dependent(id.service);
            let is_up = self.model.get(id).is_up();
            rule!(!is_up || dependent.is_none(), "{id:?} is stopped before its dependent {dependent:?}");
            requests::apply(id, verb, &mut self.model);
            self.model.get_mut(id).stops_in_order = true;
        }
        let may_be_due = is_operator || matches!(reason, Reason::StartRequested(Requester::Operator));
        let is_due = may_be_due && std::mem::take(&mut self.model.get_mut(id).stop_is_due);
        if queued.is_none() && !is_due {
            self.check_cause(id, reason)?;
        }
        if let Reason::DependencyCompleted { dependency } | Reason::DependencyFailed { dependency } = reason {
            rule!(
                self.model.cannot_become_ready(*dependency),
                "{id:?} is blocked by {dependency:?}, which may still become ready"
            );
        }
        if from == StateName::Running
            && matches!(reason, Reason::RestartRequested(_))
            && self.model.is_reloading(id.service)
        {
            let rolls = self.plan.services[id.service.position()].reload.strategy == Strategy::Rolling;
            let asked = queued == Some(Verb::Restart);
            rule!(!rolls || asked, "{id:?} is stopped before it is replaced");
        }
        if to == StateName::Stopping && *reason == Reason::Shutdown && !id.is_surge() && !self.shutdown.is_forced() {
            // After `pre_start` there is nothing yet that a dependent could use.
            let dependent = self.model.live_dependent(id.service).filter(|_| self.model.get(id).main.is_some());
            rule!(dependent.is_none(), "{id:?} is stopped before its dependent {dependent:?}");
        }
        self.model.on_reload_transition(id.service, to);
        self.model.apply_transition(id, to, reason, self.now, self.shutdown.stage())?;
        self.update_trial(id, reason);
        self.apply_transition_to_checks(id, from, to, reason)?;
        self.update_after_transition(id, to);
        if to == StateName::Stopping && self.model.get(id).main.is_some() {
            self.expect_stop_signal(id, from, reason);
        }
        if to.is_inactive() && !id.is_surge() {
            self.expected_actions.push(Action::ReleaseInstance { instance: id });
        }
        Ok(())
    }

    /// What a request starts has to be ready before its failure can end keepalive.
    fn update_trial(&mut self, id: InstanceId, reason: &Reason) {
        // A planned restart changes nothing about what has worked.
        let is_trial = match reason {
            Reason::StartRequested(_) => true,
            Reason::RestartRequested(by) => !by.is_planned(),
            _ => false,
        };
        if is_trial && let Some(instance) = self.model.find_any_mut(id) {
            let is_boot = self.event == Some(Event::Boot);
            if is_boot { instance.establish() } else { instance.put_to_test() }
        }
    }

    fn update_after_transition(&mut self, id: InstanceId, to: StateName) {
        // A surplus instance that has stopped is gone.
        if self.model.find(id).is_some() {
            let instance = self.model.get_mut(id);
            instance.waits_since = (to == StateName::Waiting).then_some(self.now);
            instance.stops_in_order &= to == StateName::Stopping;
            let is_up = instance.is_up();
            if let Some(verb) = instance.queued.filter(|_| !is_up && !self.shutdown.has_begun()) {
                requests::apply(id, verb, &mut self.model);
                let instance = self.model.get_mut(id);
                (instance.stop_is_due, instance.stops_in_order) = (true, to == StateName::Stopping);
            }
        }
    }

    /// Checks that a transition that a report causes follows from the current event.
    fn check_cause(&self, id: InstanceId, reason: &Reason) -> Verdict {
        let run = self.model.get(id).main;
        let report = match reason {
            Reason::StoppingReported => run.map(|run| Event::StoppingReported { run }),
            Reason::ReloadingReported => {
                let is_report = matches!(self.event, Some(Event::Reloading { run: by, .. }) if Some(by) == run);
                rule!(is_report, "{id:?}: {reason:?} follows from {:?}", self.event);
                return Ok(());
            }
            Reason::Fault(Fault::WatchdogTriggered, _) => run.map(|run| Event::WatchdogTriggered { run }),
            Reason::StartRequested(Requester::Operator)
            | Reason::StopRequested(Requester::Operator)
            | Reason::RestartRequested(Requester::Operator) => {
                let asked = matches!(
                    self.event,
                    Some(Event::Request {
                        request: Request::Control(..) | Request::Several(..) | Request::Scale(..),
                        ..
                    })
                );
                rule!(asked, "{id:?}: no operator has requested {reason:?}");
                return Ok(());
            }
            Reason::RestartRequested(Requester::Reload) => {
                rule!(self.model.is_reloading(id.service), "{id:?} is restarted by a reload, and there is none");
                return Ok(());
            }
            _ => return Ok(()),
        };
        rule!(report.is_some() && report == self.event, "{id:?}: {reason:?} does not follow from {:?}", self.event);
        Ok(())
    }

    /// Checks that a report has had its effect.
    pub(super) fn check_effect_of_report(&self) -> Verdict {
        let (run, is_followed): (_, fn(StateName) -> bool) = match self.event {
            Some(Event::StoppingReported { run }) => (run, |state| state != StateName::Running),
            Some(Event::WatchdogTriggered { run }) => (run, |state| state == StateName::Stopping),
            _ => return Ok(()),
        };
        if let Some(id) = self.model.with_main(run) {
            let state = self.model.get(id).state;
            rule!(is_followed(state), "{id:?} is {state:?} after {:?}", self.event);
        }
        Ok(())
    }
}
