//! The rules for the shutdown and its exit code.

use std::time::Duration;

use keepalive::model::plan::{ExitAction, OnUnhealthy, SignalAction};
use keepalive::model::{Mono, Plan, Signal};
use keepalive::supervisor::{Cause, Event, Leftovers, Outcome, Request, StateName};

use super::model::{Model, is_active, is_live};
use super::{Verdict, Violation, rule};

/// The minimum time from SIGKILL to all until keepalive exits despite remaining processes.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);
/// A second SIGINT this long after the first one is a person's.
const SECOND_INTERRUPT_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    drain: Option<Drain>,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Drain {
    deadline: Mono,
    cause: Cause,
    code: u8,
    /// The time of the first SIGINT, which may have started the shutdown.
    first_interrupt: Option<Mono>,
    /// A person does not want to wait any longer, or a signal means SIGKILL to all.
    must_kill: bool,
    forced: bool,
    killed: Killed,
    has_cancelled_config_load: bool,
}

/// Whether all processes have been sent SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    No,
    /// The reason is still to be recorded.
    WithoutReason,
    At(Mono),
}

/// The progress of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShutdownStage {
    Up,
    Draining,
    Forced,
}

impl Shutdown {
    pub(crate) fn stage(&self) -> ShutdownStage {
        match &self.drain {
            None => ShutdownStage::Up,
            Some(drain) if drain.forced => ShutdownStage::Forced,
            Some(_) => ShutdownStage::Draining,
        }
    }

    pub(crate) const fn has_begun(&self) -> bool {
        self.drain.is_some()
    }

    pub(crate) const fn has_exited(&self) -> bool {
        self.outcome.is_some()
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.forced)
    }

    pub(crate) const fn may_spawn(&self) -> bool {
        !self.has_begun()
    }

    /// The latest time at which the supervisor must wake up.
    pub(crate) fn latest(&self) -> Option<Mono> {
        let drain = self.drain.as_ref()?;
        let Killed::At(at) = drain.killed else { return Some(drain.deadline) };
        Some(at + KILL_TIMEOUT)
    }

    pub(crate) fn on_signal(&mut self, signal: Signal, plan: &Plan, now: Mono) {
        let Some(drain) = &mut self.drain else { return };
        drain.must_kill |= plan.signals.of(signal) == SignalAction::Kill;
        if signal == Signal::INT && plan.signals.of(signal) == SignalAction::Shutdown {
            match drain.first_interrupt {
                Some(first) if first + SECOND_INTERRUPT_AFTER <= now => drain.must_kill = true,
                Some(_) => {}
                None => drain.first_interrupt = Some(now),
            }
        }
    }

    pub(crate) fn check_started(
        &mut self,
        cause: &Cause,
        event: Option<&Event>,
        model: &Model,
        plan: &Plan,
        now: Mono,
    ) -> Verdict {
        rule!(self.drain.is_none(), "the shutdown has begun already");
        let code = match cause {
            Cause::Signal(signal) => {
                let sent = event == Some(&Event::Signal(*signal));
                let action = plan.signals.of(*signal);
                let is_shutdown_signal = sent && matches!(action, SignalAction::Shutdown | SignalAction::Kill);
                let has_terminal_closed = event == Some(&Event::TerminalClosed) && *signal == Signal::HUP;
                let matters = plan.signals.of(Signal::HUP) != SignalAction::Ignore;
                rule!(is_shutdown_signal || has_terminal_closed && matters, "nobody sent {signal}");
                0
            }
            Cause::Requested => {
                let asked = matches!(event, Some(Event::Request { request: Request::Shutdown, .. }));
                rule!(asked, "there is no shutdown request");
                0
            }
            Cause::Unhealthy { instance, .. } => {
                let health = model.get(*instance).definition.health.as_ref();
                let is_wanted = health.is_some_and(|health| health.on_unhealthy == OnUnhealthy::Shutdown);
                rule!(is_wanted && model.get(*instance).is_not_ready(), "{instance:?} is not unhealthy");
                1
            }
            Cause::Completed { service } => {
                let wanted = plan.services[service.position()].on_success == ExitAction::Shutdown;
                rule!(wanted && is_completed(model, *service), "{service:?} does not cause a shutdown");
                0
            }
            Cause::Failed { instance, run, .. } => {
                let service = &plan.services[instance.service.position()];
                rule!(service.on_failure == ExitAction::Shutdown, "{instance:?} does not cause a shutdown");
                rule!(model.has_failed(instance.service), "the service of {instance:?} has not failed");
                let last = model.of(instance.service).iter().filter_map(|other| other.failed).max();
                let failed = model.get(*instance);
                rule!(failed.failed == last, "{instance:?} is not the last failed instance");
                rule!(failed.last_exit == Some(run.exit), "the run is not the last run of {instance:?}");
                rule!(failed.may_end, "{instance:?} has not been ready since a request has started it");
                failed.failure_code()
            }
            Cause::NothingLeft { .. } => {
                rule!(nothing_is_left(model), "a service is active or stopped by an operator");
                let holds = model.all().find(|(_, instance)| instance.failed.is_some() && !instance.may_end);
                rule!(holds.is_none(), "a request has started {holds:?}, which has not been ready since");
                code_when_nothing_is_left(model)
            }
        };
        let deadline = now + plan.shutdown_timeout;
        let cause = cause.clone();
        let first_interrupt = (event == Some(&Event::Signal(Signal::INT))).then_some(now);
        let must_kill = matches!(event, Some(Event::Signal(signal)) if plan.signals.of(*signal) == SignalAction::Kill);
        let (forced, killed, has_cancelled_config_load) = (false, Killed::No, false);
        self.drain = Some(Drain {
            deadline,
            cause,
            code,
            first_interrupt,
            must_kill,
            forced,
            killed,
            has_cancelled_config_load,
        });
        Ok(())
    }

    pub(crate) fn check_config_load_cancelled(&mut self) -> Verdict {
        let Some(drain) = &mut self.drain else {
            return Err(Violation("the load is cancelled without a shutdown".into()));
        };
        rule!(!std::mem::replace(&mut drain.has_cancelled_config_load, true), "the load is cancelled twice");
        Ok(())
    }

    pub(crate) fn check_forced(&mut self, signal: Option<Signal>, event: Option<&Event>, now: Mono) -> Verdict {
        let Some(drain) = &mut self.drain else { return Err(Violation("forced without a shutdown".into())) };
        match signal {
            Some(signal) => {
                rule!(event == Some(&Event::Signal(signal)), "nobody sent {signal}");
                rule!(drain.must_kill, "{signal} forces the shutdown");
            }
            None => rule!(drain.deadline <= now, "the shutdown is forced before shutdown_timeout"),
        }
        rule!(!drain.forced, "the shutdown is forced twice");
        rule!(drain.killed == Killed::WithoutReason, "forced without SIGKILL to all");
        drain.forced = true;
        drain.killed = Killed::At(now);
        if matches!(drain.cause, Cause::Signal(_) | Cause::Requested) {
            drain.code = 137;
        }
        Ok(())
    }

    pub(crate) fn check_leftovers_killed(&mut self, model: &Model, now: Mono) -> Verdict {
        rule!(!model.any_left(), "services still have processes");
        let Some(drain) = &mut self.drain else {
            return Err(Violation("leftovers are killed without a shutdown".into()));
        };
        rule!(now < drain.deadline, "shutdown_timeout is over, but the shutdown is not forced");
        rule!(drain.killed == Killed::WithoutReason, "leftovers are killed without SIGKILL to all");
        drain.killed = Killed::At(now);
        Ok(())
    }

    pub(crate) fn check_signal_all(&mut self, signal: Signal, model: &Model) -> Verdict {
        let Some(drain) = &mut self.drain else { return Err(Violation(format!("{signal} to all without a shutdown"))) };
        if signal == Signal::KILL {
            drain.killed = Killed::WithoutReason;
        } else {
            rule!(!model.any_left(), "{signal} to all while services still have processes");
        }
        Ok(())
    }

    pub(crate) fn check_exit(&mut self, outcome: &Outcome, model: &Model, left: Leftovers, now: Mono) -> Verdict {
        let Some(drain) = &self.drain else { return Err(Violation("an exit without a shutdown".into())) };
        rule!(outcome.cause == drain.cause, "the cause has changed: {:?}", outcome.cause);
        rule!(outcome.code == drain.code, "the exit code is {}, not {}", outcome.code, drain.code);
        if left == Leftovers::Some || model.any_left() {
            let patient = matches!(drain.killed, Killed::At(at) if at + KILL_TIMEOUT <= now);
            rule!(patient, "keepalive exits while processes are left");
        }
        self.outcome = Some(outcome.clone());
        Ok(())
    }

    /// During a shutdown, every instance without a live dependent is stopping.
    pub(crate) fn check_all_stopping(&self, model: &Model) -> Verdict {
        let Some(drain) = &self.drain else { return Ok(()) };
        rule!(drain.killed != Killed::WithoutReason, "SIGKILL to all without a reason");
        rule!(
            !drain.must_kill || drain.killed != Killed::No,
            "the second SIGINT, or a signal to kill, has not caused SIGKILL"
        );
        for (id, instance) in model.all().filter(|(_, instance)| is_active(instance.state)) {
            let is_stopping = instance.state == StateName::Stopping;
            let needed = is_live(instance.state) && model.live_dependent(id.service).is_some();
            rule!(is_stopping || (needed && !drain.forced), "{id:?} is {:?} and has not been stopped", instance.state);
        }
        Ok(())
    }

    /// Without a shutdown, there is no reason for one.
    pub(crate) fn check_no_reason_to_begin(&self, model: &Model, plan: &Plan) -> Verdict {
        rule!(!nothing_is_left(model) || is_held_open(model), "nothing runs or will run, but there is no shutdown");
        for (service, index) in plan.services.iter().zip(model.services()) {
            let last = model.of(index).iter().max_by_key(|instance| instance.failed);
            let is_tried = !model.untried.contains_key(&index)
                && !model.doubtful.contains(&index)
                && last.is_some_and(|last| last.must_end);
            let failed = service.on_failure == ExitAction::Shutdown && model.has_failed(index) && is_tried;
            rule!(!failed, "{index:?} has failed, but there is no shutdown");
            let completed = service.on_success == ExitAction::Shutdown && is_completed(model, index);
            rule!(!completed, "{index:?} has completed, but there is no shutdown");
        }
        Ok(())
    }
}

fn is_completed(model: &Model, service: keepalive::model::ServiceIndex) -> bool {
    let instances = model.of(service);
    !instances.is_empty() && instances.iter().all(|instance| instance.state == StateName::Completed)
}

fn nothing_is_left(model: &Model) -> bool {
    !model.any_active()
        && !model.services().any(|service| model.is_stopped_by_operator(service) || model.awaits_changes(service))
}

/// Whether a failure of what a request has started may keep keepalive running, although nothing else does.
fn is_held_open(model: &Model) -> bool {
    model.all().any(|(id, instance)| {
        instance.failed.is_some() && (!instance.must_end || model.untried.contains_key(&id.service))
    })
}

/// The code of the first failure that is not repaired; 1 if instances are only blocked; else 0.
fn code_when_nothing_is_left(model: &Model) -> u8 {
    let failed = model.all().filter(|(_, instance)| instance.state == StateName::Failed);
    let Some((_, first)) = failed.min_by_key(|(_, instance)| instance.failed.unwrap_or(u32::MAX)) else {
        return 0;
    };
    if first.failed.is_some() { first.failure_code() } else { 1 }
}
