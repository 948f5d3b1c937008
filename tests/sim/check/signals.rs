//! Who gets which signal, and when.

use std::rc::Rc;

use keepalive::model::plan::KillMode;
use keepalive::model::{InstanceId, Pid, Signal};
use keepalive::supervisor::{Action, Event, Fault, Reason, Scope, StateName};

use super::model::Leaving;
use super::{Checker, Verdict, Violation, rule};
use crate::world::World;

impl Checker {
    pub(super) fn sees_signal(&mut self, pid: Pid, scope: Scope, signal: Signal, world: &World) -> Verdict {
        let Some(id) = self.model.owner(pid) else {
            return Err(Violation(format!("a signal to {pid}, which was never ours")));
        };
        let service = Rc::clone(&self.model.get(id).definition);
        if self.model.get(id).delayed_until.is_some_and(|until| until <= self.now) && signal == service.stop.signal {
            let instance = self.model.get_mut(id);
            (instance.delayed_until, instance.asked_at) = (None, Some(self.now));
        }
        if self.model.get(id).leaving != Leaving::No && signal == service.stop.signal && scope != Scope::Leftovers {
            let instance = self.model.get_mut(id);
            (instance.leaving, instance.asked_at) = (Leaving::No, Some(self.now));
        }
        let instance = self.model.get(id);
        let forced = self.end.is_forced();
        match scope {
            Scope::Main | Scope::Group => {
                rule!(instance.main == Some(pid), "{signal} to {pid}, a former process of {id:?}");
                let receiver = world.serial(pid);
                rule!(receiver.is_some(), "{signal} to {pid}, which has been reaped");
                rule!(receiver == instance.process, "{signal} to {pid}, which is another process now");
                let asked = matches!(self.event, Some(Event::Request { .. } | Event::Signal(_)));
                if signal == Signal::KILL && instance.state != StateName::Stopping {
                    rule!(asked, "SIGKILL to {id:?}, which is {:?}", instance.state);
                } else if signal == Signal::KILL {
                    let due = instance.asked_at.map(|at| at + service.stop.timeout);
                    let early = due.is_none_or(|due| due > self.now) && !forced && !asked;
                    rule!(!early, "SIGKILL to {id:?} before its stop_timeout");
                    self.model.get_mut(id).kills += 1;
                }
                let spares = service.stop.kill_mode == KillMode::Process;
                rule!(scope == Scope::Main || !spares, "kill_mode is process, yet the group is signalled");
            }
            Scope::Leftovers => {
                rule!(!world.is_unreaped(pid), "what {pid} left is signalled before it was reaped");
                rule!(instance.leader == Some(pid), "{id:?} is not waiting for what {pid} left");
                rule!(service.stop.kill_mode != KillMode::Process, "kill_mode is process, yet leftovers are signalled");
                self.model.get_mut(id).kills += u32::from(signal == Signal::KILL);
            }
        }
        Ok(())
    }

    /// SIGCONT follows the stop signal; both to the main process, or with `kill_mode = "group"` to all of the group.
    pub(super) fn owe_stop_signal(&mut self, id: InstanceId, from: StateName, reason: &Reason) {
        if *reason == Reason::Leaves {
            return;
        }
        let definition = Rc::clone(&self.model.get(id).definition);
        let stop = definition.stop;
        let Some(pid) = self.model.get(id).main else { return };
        let is_broken = matches!(reason, Reason::Fault(_));
        if from == StateName::Running && !stop.delay.is_zero() && !is_broken && !self.end.is_forced() {
            let instance = self.model.get_mut(id);
            instance.delayed_until = Some(self.now + stop.delay);
            instance.asked_at = instance.delayed_until;
            return;
        }
        let signal = match reason {
            Reason::Fault(Fault::Silent(_) | Fault::WatchdogTriggered) => Signal::ABRT,
            _ => stop.signal,
        };
        let (asks, kills) = match stop.kill_mode {
            KillMode::Mixed => (Scope::Main, Scope::Group),
            KillMode::Group => (Scope::Group, Scope::Group),
            KillMode::Process => (Scope::Main, Scope::Main),
        };
        self.owed = if self.end.is_forced() {
            vec![Action::Signal { pid, scope: kills, signal: Signal::KILL }]
        } else {
            let mut owed = vec![
                Action::Signal { pid, scope: asks, signal: Signal::CONT },
                Action::Signal { pid, scope: asks, signal },
            ];
            owed.extend(definition.process.ipc.then_some(Action::Farewell { pid }));
            owed
        };
    }
}
