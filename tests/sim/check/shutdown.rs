//! How the end has to go, and with which code.

use std::time::Duration;

use keepalive::model::plan::{ExitAction, SignalAction};
use keepalive::model::{Mono, Plan, Signal};
use keepalive::supervisor::{Cause, Event, Leftovers, Outcome, Request, StateName};

use super::model::{Model, is_active, is_live};
use super::{Verdict, Violation, rule};

/// The shortest patience after SIGKILL to all before keepalive ends regardless.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct End {
    drain: Option<Drain>,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Drain {
    deadline: Mono,
    cause: Cause,
    code: u8,
    /// Signals to shut down since it began, the one that began it included.
    signals: u32,
    forced: bool,
    /// When everything got SIGKILL.
    killed_at: Option<Mono>,
    has_cancelled_config_load: bool,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Up,
    Draining,
    Forced,
}

impl End {
    pub(crate) fn stage(&self) -> Stage {
        match &self.drain {
            None => Stage::Up,
            Some(drain) if drain.forced => Stage::Forced,
            Some(_) => Stage::Draining,
        }
    }

    pub(crate) const fn begun(&self) -> bool {
        self.drain.is_some()
    }

    pub(crate) const fn exited(&self) -> bool {
        self.outcome.is_some()
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.forced)
    }

    pub(crate) const fn may_spawn(&self) -> bool {
        !self.begun()
    }

    /// When the supervisor has to look again at the latest.
    pub(crate) fn latest(&self) -> Option<Mono> {
        let drain = self.drain.as_ref()?;
        Some(drain.killed_at.map_or(drain.deadline, |at| at + KILL_TIMEOUT))
    }

    pub(crate) fn hears_signal(&mut self, signal: Signal, plan: &Plan) {
        if let Some(drain) = self.drain.as_mut().filter(|_| plan.signals.of(signal) == SignalAction::Shutdown) {
            drain.signals += 1;
        }
    }

    /// Unless SIGHUP is to be ignored, the loss of the terminal is a signal to end.
    pub(crate) fn hears_terminal_closed(&mut self, plan: &Plan) {
        if let Some(drain) = self.drain.as_mut().filter(|_| plan.signals.of(Signal::HUP) != SignalAction::Ignore) {
            drain.signals += 1;
        }
    }

    pub(crate) fn sees_draining(
        &mut self,
        cause: &Cause,
        event: Option<&Event>,
        model: &Model,
        plan: &Plan,
        now: Mono,
    ) -> Verdict {
        rule!(self.drain.is_none(), "it is draining already");
        let (code, signals) = match cause {
            Cause::Signal(signal) => {
                let sent = event == Some(&Event::Signal(*signal));
                let heard = sent && plan.signals.of(*signal) == SignalAction::Shutdown;
                let has_terminal_closed = event == Some(&Event::TerminalClosed) && *signal == Signal::HUP;
                let matters = plan.signals.of(Signal::HUP) != SignalAction::Ignore;
                rule!(heard || has_terminal_closed && matters, "nobody sent {signal}");
                (0, 1)
            }
            Cause::Requested => {
                let asked = matches!(event, Some(Event::Request { request: Request::Shutdown, .. }));
                rule!(asked, "nobody asked for the end");
                (0, 0)
            }
            Cause::Completed { service } => {
                let wanted = plan.services[service.position()].on_success == ExitAction::Shutdown;
                rule!(wanted && is_completed(model, *service), "{service:?} does not end it all");
                (0, 0)
            }
            Cause::Failed { instance, run, .. } => {
                let service = &plan.services[instance.service.position()];
                rule!(service.on_failure == ExitAction::Shutdown, "{instance:?} does not end it all");
                rule!(model.has_failed(instance.service), "{instance:?} is not all of its service");
                let last = model.of(instance.service).iter().filter_map(|other| other.failed).max();
                let failed = model.get(*instance);
                rule!(failed.failed == last, "{instance:?} was not the last to fail");
                rule!(failed.last_exit == Some(run.exit), "that was not the last run of {instance:?}");
                (failed.failure_code(), 0)
            }
            Cause::NothingLeft { .. } => {
                rule!(nothing_is_left(model), "something is left");
                (model.code_when_nothing_is_left(), 0)
            }
        };
        let deadline = now + plan.shutdown_timeout;
        let cause = cause.clone();
        let (forced, killed_at, has_cancelled_config_load) = (false, None, false);
        self.drain = Some(Drain { deadline, cause, code, signals, forced, killed_at, has_cancelled_config_load });
        Ok(())
    }

    pub(crate) fn sees_config_load_cancelled(&mut self) -> Verdict {
        let Some(drain) = &mut self.drain else { return Err(Violation("called off, and no drain".into())) };
        rule!(!std::mem::replace(&mut drain.has_cancelled_config_load, true), "it is called off again");
        Ok(())
    }

    pub(crate) fn sees_forced(&mut self, signal: Option<Signal>, event: Option<&Event>, now: Mono) -> Verdict {
        let Some(drain) = &mut self.drain else { return Err(Violation("forced, and no drain".into())) };
        match signal {
            Some(signal) => {
                let has_terminal_closed = event == Some(&Event::TerminalClosed) && signal == Signal::HUP;
                rule!(has_terminal_closed || event == Some(&Event::Signal(signal)), "nobody sent {signal}");
                rule!(drain.signals >= 2, "it is forced by the first signal");
            }
            None => rule!(drain.deadline <= now, "it is forced before shutdown_timeout is over"),
        }
        rule!(!drain.forced, "it is forced again");
        drain.forced = true;
        drain.killed_at = Some(now);
        if matches!(drain.cause, Cause::Signal(_) | Cause::Requested) {
            drain.code = 137;
        }
        Ok(())
    }

    pub(crate) fn sees_leftovers_killed(&mut self, model: &Model, now: Mono) -> Verdict {
        rule!(!model.any_left(), "services are still there");
        let Some(drain) = &mut self.drain else {
            return Err(Violation("leftovers are killed without a drain".into()));
        };
        rule!(now < drain.deadline, "shutdown_timeout is over, and that counts as in time");
        drain.killed_at = Some(now);
        Ok(())
    }

    pub(crate) fn sees_signal_all(&self, signal: Signal, model: &Model) -> Verdict {
        let Some(drain) = &self.drain else { return Err(Violation(format!("{signal} to all without a drain"))) };
        if signal == Signal::KILL {
            rule!(drain.killed_at.is_some(), "SIGKILL to all, for no reason");
        } else {
            rule!(!model.any_left(), "{signal} to all while services are still there");
        }
        Ok(())
    }

    pub(crate) fn sees_exit(&mut self, outcome: &Outcome, model: &Model, left: Leftovers, now: Mono) -> Verdict {
        let Some(drain) = &self.drain else { return Err(Violation("an exit without a drain".into())) };
        rule!(outcome.cause == drain.cause, "the cause has changed: {:?}", outcome.cause);
        rule!(outcome.code == drain.code, "it ends with {}, not {}", outcome.code, drain.code);
        if left == Leftovers::Some || model.any_left() {
            let patient = drain.killed_at.is_some_and(|at| at + KILL_TIMEOUT <= now);
            rule!(patient, "it ends while processes are still there");
        }
        self.outcome = Some(outcome.clone());
        Ok(())
    }

    /// While everything is being stopped: whatever nobody with a process depends on has been told to.
    pub(crate) fn everything_unneeded_is_stopped(&self, model: &Model) -> Verdict {
        let Some(drain) = &self.drain else { return Ok(()) };
        rule!(drain.signals < 2 || drain.killed_at.is_some(), "a second signal has not killed");
        for (id, instance) in model.all().filter(|(_, instance)| is_active(instance.state)) {
            let told = instance.state == StateName::Stopping;
            let needed = is_live(instance.state) && model.live_dependent(id.service).is_some();
            rule!(told || (needed && !drain.forced), "{id:?} is {:?} and has not been stopped", instance.state);
        }
        Ok(())
    }

    /// While nothing is being stopped: there is no reason to.
    pub(crate) fn ought_not_to_have_begun(&self, model: &Model, plan: &Plan) -> Verdict {
        rule!(!nothing_is_left(model), "nothing is left that runs or ever will, and it goes on");
        for (service, index) in plan.services.iter().zip(model.services()) {
            let failed = service.on_failure == ExitAction::Shutdown && model.has_failed(index);
            rule!(!failed, "{index:?} has failed, and it goes on");
            let completed = service.on_success == ExitAction::Shutdown && is_completed(model, index);
            rule!(!completed, "{index:?} has completed, and it goes on");
        }
        Ok(())
    }
}

fn is_completed(model: &Model, service: keepalive::model::ServiceIndex) -> bool {
    model.of(service).iter().all(|instance| instance.state == StateName::Completed)
}

fn nothing_is_left(model: &Model) -> bool {
    !model.any_active() && !model.services().any(|service| model.is_stopped_by_operator(service))
}
