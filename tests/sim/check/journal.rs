//! The rules for what the supervisor records: each transition and each other event has its reason.

use keepalive::model::InstanceId;
use keepalive::model::plan::Strategy;
use keepalive::supervisor::{Action, Event, Fault, JournalEvent, Reason, Request, StateName, Verb};

use super::{Checker, Verdict, Violation, rule};

impl Checker {
    pub(super) fn sees_fact(&mut self, fact: &JournalEvent) -> Verdict {
        match fact {
            JournalEvent::Transition { instance, from, to, reason, pid: _ } => {
                self.sees_transition(*instance, *from, *to, reason)
            }
            JournalEvent::ShutdownStarted { cause } => {
                self.model.forget_reloads();
                self.owed.push(Action::CancelConfigLoad);
                self.end.sees_draining(cause, self.event.as_ref(), &self.model, &self.plan, self.now)
            }
            JournalEvent::ShutdownForced { signal } => self.end.sees_forced(*signal, self.event.as_ref(), self.now),
            JournalEvent::LeftoverProcessesKilled => self.end.sees_leftovers_killed(&self.model, self.now),
            JournalEvent::ServiceFailed { service } => {
                rule!(self.model.has_failed(*service), "{service:?} has not failed");
                Ok(())
            }
            JournalEvent::Scaled { service, to, .. } => {
                let asked = matches!(self.event, Some(Event::Request { request: Request::Scale(which, _), .. }) if which == *service);
                rule!(asked && self.model.wanted(*service) == *to, "{service:?} is scaled to {to}, for no reason");
                Ok(())
            }
            JournalEvent::ReloadStarted { service } => {
                match self.event {
                    Some(Event::Request { id, request: Request::Control(_, Verb::Reload) }) => {
                        self.requests.reload_begins(id, *service);
                    }
                    Some(Event::ConfigLoaded { id, .. }) => {
                        id.into_iter().for_each(|id| self.requests.reload_begins(id, *service));
                    }
                    _ => return Err(Violation(format!("{service:?} is reloaded, and nobody wants that"))),
                }
                let target = match self.event {
                    Some(Event::Request { request: Request::Control(target, _), .. }) => Some(target),
                    _ => None,
                };
                self.model.reload_begins(*service, target)
            }
            JournalEvent::ReloadFinished { service, failure } => {
                self.requests.reload_ends(*service, failure.as_ref());
                self.model.reload_ends(*service, failure.as_ref())
            }
            JournalEvent::ConfigReloadFailed { .. } => {
                let failed = matches!(self.event, Some(Event::ConfigLoadFailed { .. }));
                rule!(failed && !self.end.begun(), "no configuration is invalid");
                Ok(())
            }
            JournalEvent::InstanceReplaced { instance, .. } => self.model.replaced(*instance, self.now),
            JournalEvent::StopTimedOut { instance, .. } => {
                rule!(self.model.get(*instance).state == StateName::Stopping, "{instance:?} is not being stopped");
                Ok(())
            }
            JournalEvent::Unkillable { instance, .. } => {
                self.model.get_mut(*instance).cannot_be_killed(*instance, self.now)
            }
            JournalEvent::LeftoverProcessesFound { .. }
            | JournalEvent::SignalForwarded { .. }
            | JournalEvent::SignalIgnored { .. }
            | JournalEvent::ConfigReloadRequested { .. }
            | JournalEvent::ConfigReloaded(_)
            | JournalEvent::ConfigReloadRejected { .. }
            | JournalEvent::ReloadRolledBack { .. }
            | JournalEvent::ProcessesAbandoned => Ok(()),
        }
    }

    fn sees_transition(&mut self, id: InstanceId, from: StateName, to: StateName, reason: &Reason) -> Verdict {
        if id.is_surge() && from == StateName::Stopped {
            self.model.add_surge(id)?;
        }
        let last = self.model.get(id).state;
        rule!(last == from, "{id:?} goes from {from:?} to {to:?}, but it was {last:?}");
        let at_rest =
            matches!(from, StateName::Waiting | StateName::Stopped | StateName::Completed | StateName::Failed);
        if to == StateName::Starting && !id.is_surge() && (at_rest || self.model.get(id).wanted) {
            rule!(self.model.dependencies_are_satisfied(id.service), "{id:?} starts before what it depends on");
        }
        if self.event == Some(Event::Boot) {
            rule!(self.model.starts_by_itself(id.service), "{id:?} starts, and nobody wants it");
        }
        self.has_been_reported(id, reason)?;
        if let Reason::DependencyCompleted { dependency } | Reason::DependencyFailed { dependency } = reason {
            rule!(
                self.model.cannot_become_ready(*dependency),
                "{id:?} is blocked by {dependency:?}, which may still come"
            );
        }
        if from == StateName::Running && *reason == Reason::RestartRequested && self.model.is_reloading(id.service) {
            let rolls = self.plan.services[id.service.position()].reload.strategy == Strategy::Rolling;
            let asked = matches!(self.event, Some(Event::Request { request: Request::Control(_, Verb::Restart), .. }));
            rule!(!rolls || asked, "{id:?} is stopped before there is another");
        }
        if to == StateName::Stopping && *reason == Reason::Shutdown && !id.is_surge() && !self.end.is_forced() {
            let dependent = self.model.live_dependent(id.service);
            rule!(dependent.is_none(), "{id:?} is stopped before {dependent:?}, which depends on it");
        }
        self.model.reload_goes_on(id.service, to);
        self.model.follow(id, to, reason, self.now, self.end.stage())?;
        if to == StateName::Stopping && self.model.get(id).main.is_some() {
            self.owe_stop_signal(id, from, reason);
        }
        if to.is_inactive() && !id.is_surge() {
            self.owed.push(Action::ReleaseInstance { instance: id });
        }
        Ok(())
    }

    /// What is said to follow from a report follows from this one.
    fn has_been_reported(&self, id: InstanceId, reason: &Reason) -> Verdict {
        let run = self.model.get(id).main;
        let report = match reason {
            Reason::StoppingReported => run.map(|run| Event::StoppingReported { run }),
            Reason::ReloadingReported => {
                let is_report = matches!(self.event, Some(Event::Reloading { run: by, .. }) if Some(by) == run);
                rule!(is_report, "{id:?}: {reason:?} follows from {:?}", self.event);
                return Ok(());
            }
            Reason::Fault(Fault::WatchdogTriggered) => run.map(|run| Event::WatchdogTriggered { run }),
            _ => return Ok(()),
        };
        rule!(report.is_some() && report == self.event, "{id:?}: {reason:?} follows from {:?}", self.event);
        Ok(())
    }

    /// What has to follow from a report has followed.
    pub(super) fn report_has_been_followed(&self) -> Verdict {
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
