//! What processes say of themselves, sd_notify(3), or what is found out about them.

use std::time::Duration;

use super::instance::{Presence, StartDeadline, State, WatchdogDeadline};
use super::stop::{AfterStop, StopStage};
use super::{Action, Fault, Process, Reason, RolloutError, Run, Scope, Supervisor};
use crate::model::{InstanceId, Mono, Pid, Signal};

/// A process that has got the signal to reload says within this that it does, if it ever says so.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// A point in time as it is said.
const fn micros(time: Mono) -> u64 {
    time.as_nanos() / 1000
}

impl Supervisor {
    /// The instance of a main process.
    pub(super) fn instance_of(&self, pid: Pid) -> Option<InstanceId> {
        self.processes.get(&pid).map(|process| process.instance)
    }

    pub(super) fn on_ready(&mut self, pid: Pid) {
        let Some(id) = self.instance_of(pid) else { return };
        if let State::Executing { .. } = self.services[id].state {
            // Whoever says that it is ready has been executed, though nobody has told us yet.
            self.on_executed(pid);
        }
        match self.services[id].state {
            State::Starting { pid, since, deadline: StartDeadline::By(_) } => self.begin_running(id, pid, since),
            State::Running { presence: Presence::NotReady | Presence::Reloading { .. }, .. } => {
                self.set_presence(id, Presence::Ready);
            }
            State::Running { presence: Presence::ReloadSignalled { at, until, .. }, .. } => {
                self.set_presence(id, Presence::ReloadSignalled { at, until, is_ready: true });
            }
            // It is ready when its time has come, is so already, or will not be any more.
            State::Starting { deadline: StartDeadline::At(_), .. }
            | State::Running { presence: Presence::Ready, .. }
            | State::Waiting
            | State::Spawning { .. }
            | State::Executing { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// `since`: when it has begun, as far as it says.
    pub(super) fn on_reloading(&mut self, pid: Pid, since: Option<Mono>) {
        let Some(id) = self.instance_of(pid) else { return };
        let State::Running { presence, .. } = self.services[id].state else { return };
        let presence = match presence {
            // As systemd has it: another reload may have been under way when the signal was sent.
            Presence::ReloadSignalled { at, .. } if since.is_some_and(|since| micros(since) >= micros(at)) => {
                Presence::Reloading { until: at + self.services[id].definition.ready_timeout }
            }
            Presence::ReloadSignalled { at, until, .. } => Presence::ReloadSignalled { at, until, is_ready: false },
            Presence::Ready | Presence::NotReady => Presence::NotReady,
            Presence::Reloading { .. } => presence,
        };
        self.set_presence(id, presence);
    }

    /// It ends by itself, and has the time for it that it would have if it had been told to.
    pub(super) fn on_leaving(&mut self, pid: Pid) {
        let Some(id) = self.instance_of(pid) else { return };
        let State::Running { pid, since, .. } = self.services[id].state else { return };
        let until = self.now + self.services[id].definition.stop.timeout;
        let state = State::Stopping { pid, since, stage: StopStage::Asked, until, then: AfterStop::Own };
        self.enter(id, state, Reason::Leaves);
    }

    /// It gets the signal by which it is to reload; what comes of it, it says if it knows how to.
    pub(super) fn call(&mut self, id: InstanceId, signal: Signal) {
        let State::Running { pid, presence, .. } = self.services[id].state else { return };
        self.act(Action::Signal { pid, scope: Scope::Main, signal });
        let (at, is_ready) = (self.now, presence.is_ready());
        let patience = HEARD_WITHIN.min(self.services[id].definition.ready_timeout);
        self.set_presence(id, Presence::ReloadSignalled { at, until: at + patience, is_ready });
    }

    /// What it has been told to do, it has not said that it does, or that it has done it.
    pub(super) fn on_unanswered(&mut self, id: InstanceId) {
        let State::Running { presence, .. } = self.services[id].state else { return };
        if let Presence::Reloading { .. } = presence {
            self.fail_rollout(id, RolloutError::Late);
        }
        if presence.is_reload_signalled() {
            self.set_presence(id, presence.settled());
        }
    }

    /// Its process has ended, and nobody wanted that. A reload that waits for it has failed.
    pub(super) fn end_unproven(&mut self, id: InstanceId, run: Run) {
        if self.is_unproven(id) {
            let has_said_so = matches!(self.services[id].state, State::Stopping { then: AfterStop::Own, .. });
            let obstacle = if has_said_so { RolloutError::StoppedItself(run) } else { RolloutError::Ended(run) };
            self.fail_rollout(id, obstacle);
        }
    }

    /// Its unstable runs so far are forgotten.
    pub(super) fn on_forgiven(&mut self, pid: Pid) {
        if let Some(id) = self.instance_of(pid) {
            self.services[id].forgive();
        }
    }

    fn set_presence(&mut self, id: InstanceId, presence: Presence) {
        let State::Running { pid, since, watch, min_ready_until, .. } = self.services[id].state else { return };
        let state = if presence == Presence::NotReady && self.is_new(id) {
            // A reload does not wait for it without end, and it may still show that it is no good.
            let (now, instance) = (self.now, &mut self.services[id]);
            instance.has_been_ready = false;
            let until = now + instance.definition.ready_timeout;
            let back_by = *instance.back_by.get_or_insert(until + instance.definition.reload.soak);
            State::Starting { pid, since, deadline: StartDeadline::By(until.min(back_by)) }
        } else {
            State::Running { pid, since, presence, watch, min_ready_until }
        };
        self.enter(id, state, Reason::Ready);
    }

    pub(super) fn on_alive(&mut self, pid: Pid) {
        let Some(id) = self.instance_of(pid) else { return };
        if let State::Running { watch: Some(WatchdogDeadline { every, .. }), .. } = self.services[id].state {
            self.set_watch(id, Some(WatchdogDeadline { every, by: self.now + every }));
        }
    }

    pub(super) fn on_watchdog_every(&mut self, pid: Pid, every: Duration) {
        if let Some(id) = self.instance_of(pid) {
            self.services[id].watchdog = Some(every).filter(|every| !every.is_zero());
            self.set_watch(id, (!every.is_zero()).then(|| WatchdogDeadline { every, by: self.now + every }));
        }
    }

    fn set_watch(&mut self, id: InstanceId, watch: Option<WatchdogDeadline>) {
        if let State::Running { pid, since, presence, min_ready_until, .. } = self.services[id].state {
            self.enter(id, State::Running { pid, since, presence, watch, min_ready_until }, Reason::Ready);
        }
    }

    pub(super) fn on_trouble(&mut self, pid: Pid) {
        let Some(id) = self.instance_of(pid) else { return };
        if let State::Executing { .. } | State::Starting { .. } | State::Running { .. } = self.services[id].state {
            self.stop(id, AfterStop::Fail(Fault::WatchdogTriggered));
        }
    }

    pub(super) fn on_extended(&mut self, pid: Pid, by: Duration) {
        let Some(id) = self.instance_of(pid) else { return };
        let extended = self.now + by;
        match self.services[id].state {
            State::Starting { pid, since, deadline: StartDeadline::By(until) } => {
                let deadline = StartDeadline::By(until.max(extended));
                let instance = &mut self.services[id];
                let soak = instance.definition.reload.soak;
                instance.back_by = instance.back_by.map(|by| by.max(extended + soak));
                self.enter(id, State::Starting { pid, since, deadline }, Reason::Unblocked);
            }
            State::Stopping { pid, since, stage: StopStage::Asked, until, then } => {
                let until = until.max(extended);
                self.enter(
                    id,
                    State::Stopping { pid, since, stage: StopStage::Asked, until, then },
                    Reason::StopRequested,
                );
            }
            State::Running { presence: Presence::Reloading { until }, .. } => {
                self.set_presence(id, Presence::Reloading { until: until.max(extended) });
            }
            // Nothing of theirs is limited that it could extend.
            State::Starting { deadline: StartDeadline::At(_), .. }
            | State::Running { .. }
            | State::Waiting
            | State::Spawning { .. }
            | State::Executing { .. }
            | State::Stopping { stage: StopStage::Delayed | StopStage::Killed(_), .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// Another process is the main one from now on. The one before may go when it likes.
    pub(super) fn on_succeeded(&mut self, pid: Pid, successor: Pid) {
        let Some(process) = self.processes.get(&pid).copied() else { return };
        if self.processes.contains_key(&successor) {
            return;
        }
        let id = process.instance;
        if let State::Executing { .. } = self.services[id].state {
            self.on_executed(pid);
        }
        let state = match self.services[id].state {
            State::Starting { since, deadline, .. } => State::Starting { pid: successor, since, deadline },
            State::Running { since, presence, watch, min_ready_until, .. } => {
                State::Running { pid: successor, since, presence, watch, min_ready_until }
            }
            State::Stopping { since, stage, until, then, .. } => {
                State::Stopping { pid: successor, since, stage, until, then }
            }
            State::Waiting
            | State::Spawning { .. }
            | State::Executing { .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. }
            | State::Stopped { .. } => return,
        };
        self.processes.remove(&pid);
        self.processes.insert(successor, Process { instance: id, from: self.outbox.end() });
        self.enter(id, state, Reason::Ready);
    }
}
