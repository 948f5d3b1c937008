//! Who gets which signal, and when.

use std::rc::Rc;

use keepalive::model::plan::{KillMode, Ready};
use keepalive::model::{InstanceId, RunId, Signal};
use keepalive::supervisor::{Action, Event, Fault, Reason, Scope, StateName};

use super::instance::OwnStop;
use super::{Checker, Verdict, Violation, rule};
use crate::world::World;

impl Checker {
    pub(super) fn sees_signal(&mut self, run: RunId, scope: Scope, signal: Signal, world: &World) -> Verdict {
        let Some(id) = self.model.of_run(run) else {
            return Err(Violation(format!("{signal} to run {run}, of which nothing is left")));
        };
        let service = Rc::clone(&self.model.get(id).definition);
        let is_stop_signal = signal == service.stop.signal && scope != Scope::Leftovers;
        if is_stop_signal && self.model.get(id).may_be_asked_late(self.now) {
            let instance = self.model.get_mut(id);
            instance.is_asked(self.now);
            instance.own_stop = OwnStop::No;
        }
        let instance = self.model.get(id);
        let forced = self.end.is_forced();
        match scope {
            Scope::Main | Scope::Group => {
                rule!(instance.main == Some(run), "{signal} to run {run}, a former run of {id:?}");
                rule!(world.main_pid(run).is_some(), "{signal} to run {run}, which has been reaped");
                let asked = matches!(self.event, Some(Event::Request { .. } | Event::Signal(_)));
                if signal == Signal::KILL && instance.state != StateName::Stopping {
                    rule!(asked, "SIGKILL to {id:?}, which is {:?}", instance.state);
                } else if signal == Signal::KILL {
                    let early = instance.kill_at.is_none_or(|at| at > self.now) && !forced && !asked;
                    rule!(!early, "SIGKILL to {id:?} before its stop_timeout");
                    self.model.get_mut(id).kills += 1;
                }
                let spares = service.stop.kill_mode == KillMode::Process;
                rule!(scope == Scope::Main || !spares, "kill_mode is process, yet the group is signalled");
            }
            Scope::Leftovers => {
                rule!(world.main_pid(run).is_none(), "what run {run} left is signalled before it was reaped");
                rule!(instance.lingering == Some(run), "{id:?} is not waiting for what run {run} left");
                rule!(service.stop.kill_mode != KillMode::Process, "kill_mode is process, yet leftovers are signalled");
            }
        }
        Ok(())
    }

    /// SIGCONT follows the stop signal; both to the main process, or with `kill_mode = "group"` to all of the group.
    pub(super) fn owe_stop_signal(&mut self, id: InstanceId, from: StateName, reason: &Reason) {
        if *reason == Reason::StoppingReported {
            return;
        }
        let definition = Rc::clone(&self.model.get(id).definition);
        let stop = definition.stop;
        let Some(run) = self.model.get(id).main else { return };
        let is_broken = matches!(reason, Reason::Fault(_));
        if from == StateName::Running && !stop.delay.is_zero() && !is_broken && !self.end.is_forced() {
            let instance = self.model.get_mut(id);
            instance.delayed_until = Some(self.now + stop.delay);
            instance.kill_at = Some(self.now + stop.delay + stop.timeout);
            return;
        }
        let signal = match reason {
            Reason::Fault(Fault::WatchdogTimeout(_) | Fault::WatchdogTriggered) => Signal::ABRT,
            _ => stop.signal,
        };
        let kills = if stop.kill_mode == KillMode::Process { Scope::Main } else { Scope::Group };
        self.owed = if self.end.is_forced() {
            vec![Action::Signal { run, scope: kills, signal: Signal::KILL }]
        } else {
            let mut owed = asking(run, stop.kill_mode, signal);
            owed.extend(definition.process.ipc.then_some(Action::AnnounceStop { run }));
            owed
        };
        let is_late = matches!(reason, Reason::Fault(Fault::NotReady(_)));
        if is_late && matches!(definition.ready, Ready::Probe(_)) {
            self.owed.insert(0, Action::AbortProbe { run });
        }
    }

    /// The announcement of a stop that `stop_delay` has put off, or of one of a process that goes by itself.
    pub(super) fn owe_late_stop_signal(&mut self, run: RunId) -> Verdict {
        let Some(id) = self.model.with_main(run) else {
            return Err(Violation(format!("the stop of run {run} is announced, which has ended")));
        };
        let instance = self.model.get(id);
        rule!(instance.definition.process.ipc, "{id:?} has no channel");
        rule!(instance.may_be_asked_late(self.now), "the stop of {id:?} is announced, for no reason: {instance:?}");
        let stop = instance.definition.stop;
        self.owed = asking(run, stop.kill_mode, stop.signal);
        Ok(())
    }
}

/// The stop signal and SIGCONT, the last one first.
fn asking(run: RunId, kill_mode: KillMode, signal: Signal) -> Vec<Action> {
    let scope = if kill_mode == KillMode::Group { Scope::Group } else { Scope::Main };
    [Signal::CONT, signal].map(|signal| Action::Signal { run, scope, signal }).into()
}
