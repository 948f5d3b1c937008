//! The rules for signals to processes.

use std::rc::Rc;

use keepalive::model::plan::{KillMode, Ready, Strategy};
use keepalive::model::{InstanceId, RunId, Signal};
use keepalive::supervisor::{Action, Event, Fault, Reason, Scope, StateName};

use super::hooks::PreStop;
use super::instance::ReportedStop;
use super::{Checker, Verdict, Violation, rule};
use crate::world::World;

impl Checker {
    pub(super) fn check_signal(&mut self, run: RunId, scope: Scope, signal: Signal, world: &World) -> Verdict {
        if let Some(id) = self.model.with_side_run(run) {
            return self.check_signal_to_side_run(id, scope, signal);
        }
        let Some(id) = self.model.of_run(run) else {
            return Err(Violation(format!("{signal} to run {run}, which has no process")));
        };
        let service = Rc::clone(&self.model.get(id).definition);
        let is_stop_signal = signal == service.stop.signal && scope != Scope::Leftovers;
        let is_forwarded = matches!(self.event, Some(Event::Request { .. } | Event::Signal(_)))
            && self.model.get(id).pre_stop.is_some();
        if is_stop_signal && !is_forwarded && self.model.get(id).stop_signal_may_be_late(self.now) {
            let instance = self.model.get_mut(id);
            match instance.pre_stop.take() {
                Some(stage) => rule!(stage == PreStop::Done, "{id:?} is stopped before its pre_stop is done"),
                None => instance.on_stop_signal(self.now),
            }
            instance.reported_stop = ReportedStop::No;
        }
        let instance = self.model.get(id);
        let forced = self.shutdown.is_forced();
        match scope {
            Scope::Main | Scope::Group => {
                rule!(instance.main == Some(run), "{signal} to run {run}, a former run of {id:?}");
                rule!(world.main_pid(run).is_some(), "{signal} to run {run}, which has been reaped");
                let asked = matches!(self.event, Some(Event::Request { .. } | Event::Signal(_)));
                let is_of_stop = is_stop_signal || matches!(signal, Signal::KILL | Signal::CONT);
                let is_misled = instance.hook.is_some() && asked && !is_of_stop;
                rule!(!is_misled, "{signal} to a hook of {id:?}");
                if signal == Signal::KILL && instance.state != StateName::Stopping {
                    rule!(asked, "SIGKILL to {id:?}, which is {:?}", instance.state);
                } else if signal == Signal::KILL {
                    let early = instance.kill_at.is_none_or(|at| at > self.now) && !forced && !asked;
                    rule!(!early, "SIGKILL to {id:?} before its stop_timeout");
                    self.model.get_mut(id).kills += 1;
                }
                if service.reload.strategy == Strategy::Signal(signal) {
                    self.model.get_mut(id).signal_reload(self.now);
                }
                let spares = service.stop.kill_mode == KillMode::Process;
                rule!(scope == Scope::Main || !spares, "the group is signalled although kill_mode is process");
            }
            Scope::Leftovers => {
                rule!(world.main_pid(run).is_none(), "leftovers of run {run} are signalled before it is reaped");
                rule!(instance.lingering == Some(run), "{id:?} does not wait for leftovers of run {run}");
                rule!(
                    service.stop.kill_mode != KillMode::Process,
                    "leftovers are signalled although kill_mode is process"
                );
            }
        }
        Ok(())
    }

    /// SIGCONT follows the stop signal. Both go to the main process, or to its group with `kill_mode = "group"`.
    pub(super) fn expect_stop_signal(&mut self, id: InstanceId, from: StateName, reason: &Reason) {
        if *reason == Reason::StoppingReported {
            return;
        }
        let definition = Rc::clone(&self.model.get(id).definition);
        let stop = definition.stop;
        let Some(run) = self.model.get(id).main else { return };
        let is_broken = matches!(reason, Reason::Fault(..));
        if from == StateName::Running && !stop.delay.is_zero() && !is_broken && !self.shutdown.is_forced() {
            let instance = self.model.get_mut(id);
            instance.delayed_until = Some(self.now + stop.delay);
            instance.kill_at = Some(self.now + stop.delay + stop.timeout);
            return;
        }
        if self.begins_with_pre_stop(id, from, reason) {
            self.model.get_mut(id).pre_stop = Some(PreStop::Due);
            return;
        }
        let signal = match reason {
            Reason::Fault(Fault::WatchdogTimeout(_) | Fault::WatchdogTriggered, _) => Signal::ABRT,
            _ => stop.signal,
        };
        let kills = if stop.kill_mode == KillMode::Process { Scope::Main } else { Scope::Group };
        self.expected_actions = if self.shutdown.is_forced() {
            vec![Action::Signal { run, scope: kills, signal: Signal::KILL }]
        } else {
            let mut actions = stop_signals(run, stop.kill_mode, signal);
            let is_announced = definition.process.ipc && self.model.get(id).hook.is_none();
            actions.extend(is_announced.then_some(Action::AnnounceStop { run }));
            actions
        };
        let is_late = matches!(reason, Reason::Fault(Fault::NotReady(_), _));
        if is_late && matches!(definition.ready, Ready::Probe(_)) {
            self.expected_actions.insert(0, Action::AbortProbe { run });
        }
    }

    /// For a stop that is announced after `stop_delay`, or of a process that has reported its stop.
    pub(super) fn expect_late_stop_signal(&mut self, run: RunId) -> Verdict {
        let Some(id) = self.model.with_main(run) else {
            return Err(Violation(format!("the stop of run {run} is announced, but it has ended")));
        };
        let instance = self.model.get(id);
        rule!(instance.definition.process.ipc, "{id:?} has no IPC channel");
        rule!(
            instance.stop_signal_may_be_late(self.now),
            "the stop of {id:?} is announced without a reason: {instance:?}"
        );
        let stop = instance.definition.stop;
        self.expected_actions = stop_signals(run, stop.kill_mode, stop.signal);
        Ok(())
    }
}

/// The stop signal and SIGCONT, in reverse order.
fn stop_signals(run: RunId, kill_mode: KillMode, signal: Signal) -> Vec<Action> {
    let scope = if kill_mode == KillMode::Group { Scope::Group } else { Scope::Main };
    [Signal::CONT, signal].map(|signal| Action::Signal { run, scope, signal }).into()
}
