//! The ladder that a process is taken down: its stop signal, SIGKILL, then what it left.

use std::time::Duration;

use super::instance::{Next, State, Stopped};
use super::shutdown::Phase;
use super::{Action, Fault, JournalEvent, Leftovers, Reason, RestartDecision, Scope, Supervisor};
use crate::model::plan::{KillMode, Stop};
use crate::model::{InstanceId, Mono, Pid, Signal};

/// How far down the ladder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopStage {
    /// `stop_delay`: it counts as stopping already, so that others look elsewhere, and has not been told.
    Delayed,
    /// It has got its stop signal.
    Asked,
    /// It has got SIGKILL so many times.
    Killed(u32),
}

/// What a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterStop {
    /// It is to rest.
    Rest(Stopped),
    /// It is to run again: an operator wants that.
    Restart,
    /// It ends by itself, as it has said; what comes after it is the same as if it had not said so.
    Own,
    /// It is broken; what comes after it is the same as after a crash.
    Fail(Fault),
}

/// After SIGKILL: when to look again, doubled each time up to [`KILL_AGAIN_MAX`].
const KILL_AGAIN: Duration = Duration::from_millis(200);
const KILL_AGAIN_MAX: Duration = Duration::from_secs(60);
/// A main process still there after so many SIGKILLs is reported as unkillable.
const KILLS_REPORTED: u32 = 4;
/// What a main process has left is given up after so many SIGKILLs: it must not hold up the next run for ever.
const KILLS_OF_LEFTOVERS: u32 = 5;

impl Supervisor {
    fn stop_settings(&self, id: InstanceId) -> Stop {
        self.services[id].definition.stop
    }

    /// Brings an instance down, whatever state it is in.
    pub(super) fn stop(&mut self, id: InstanceId, then: AfterStop) {
        let reason = reason_of(then);
        match self.services[id].state {
            // Nothing has run yet that a restart could end.
            State::Spawning { .. } if then == AfterStop::Restart => {}
            State::Waiting | State::BackingOff { .. } | State::Spawning { .. } => {
                self.stop_without_process(id, then, reason);
            }
            State::Running { pid, since, .. } if self.may_be_delayed(id, then) => {
                let until = self.now + self.stop_settings(id).delay;
                self.enter(id, State::Stopping { pid, since, stage: StopStage::Delayed, until, then }, reason);
            }
            State::Executing { pid, since }
            | State::Starting { pid, since, .. }
            | State::Running { pid, since, .. }
            // It has not been asked.
            | State::Stopping { pid, since, stage: StopStage::Asked, then: AfterStop::Own, .. } => {
                self.ask(id, pid, since, then);
            }
            State::Stopping { pid, since, stage, until, .. } => {
                self.enter(id, State::Stopping { pid, since, stage, until, then }, reason);
            }
            State::CleaningUp { leader, stage, until, next } => {
                // What has come to rest by itself stays completed or failed.
                if !matches!((next, then), (Next::Rest(_), AfterStop::Rest(_))) {
                    let (next, _) = self.after_stop(then);
                    self.enter(id, State::CleaningUp { leader, stage, until, next }, reason);
                }
            }
            State::Stopped { .. } => {
                if then == AfterStop::Restart {
                    self.start_or_wait(id, reason);
                }
            }
        }
    }

    fn stop_without_process(&mut self, id: InstanceId, then: AfterStop, reason: Reason) {
        match then {
            AfterStop::Rest(why) => self.enter(id, State::Stopped { why }, reason),
            AfterStop::Restart => self.start_or_wait(id, reason),
            // There is no process that could be broken, or could have said it.
            AfterStop::Fail(_) | AfterStop::Own => {}
        }
    }

    /// Only what others rely on is given the time to be let go of.
    fn may_be_delayed(&self, id: InstanceId, then: AfterStop) -> bool {
        !self.is_forced() && !matches!(then, AfterStop::Fail(_)) && !self.stop_settings(id).delay.is_zero()
    }

    /// The first stage: the stop signal, and SIGCONT, because a stopped process must hear it.
    fn ask(&mut self, id: InstanceId, pid: Pid, since: Mono, then: AfterStop) {
        let reason = reason_of(then);
        let stop = self.stop_settings(id);
        if self.is_forced() {
            let until = self.now + KILL_AGAIN;
            self.enter(id, State::Stopping { pid, since, stage: StopStage::Killed(1), until, then }, reason);
            return self.kill(pid, stop.kill_mode);
        }
        let until = self.now + stop.timeout;
        self.enter(id, State::Stopping { pid, since, stage: StopStage::Asked, until, then }, reason);
        let scope = match stop.kill_mode {
            KillMode::Group => Scope::Group,
            KillMode::Mixed | KillMode::Process => Scope::Main,
        };
        let signal = match then {
            // As systemd does it: with a core dump it can be found out where it hangs.
            AfterStop::Fail(Fault::Silent(_) | Fault::WatchdogTriggered) => Signal::ABRT,
            AfterStop::Fail(Fault::NotReady(_)) | AfterStop::Rest(_) | AfterStop::Restart | AfterStop::Own => {
                stop.signal
            }
        };
        if self.services[id].definition.process.ipc {
            self.act(Action::Farewell { pid });
        }
        self.act(Action::Signal { pid, scope, signal });
        self.act(Action::Signal { pid, scope, signal: Signal::CONT });
    }

    /// SIGKILL to a main process that has not been reaped, and to its group unless that is to be left alone.
    fn kill(&mut self, pid: Pid, kill_mode: KillMode) {
        let scope = match kill_mode {
            KillMode::Mixed | KillMode::Group => Scope::Group,
            KillMode::Process => Scope::Main,
        };
        self.act(Action::Signal { pid, scope, signal: Signal::KILL });
    }

    /// `stop_timeout` is over, or SIGKILL has had no effect yet.
    pub(super) fn escalate(&mut self, id: InstanceId) {
        let State::Stopping { pid, since, stage, then, .. } = self.services[id].state else { return };
        let stop = self.stop_settings(id);
        let kills = match stage {
            StopStage::Delayed => return self.ask(id, pid, since, then),
            StopStage::Asked => {
                self.record(JournalEvent::StopTimedOut { instance: id, pid, after: stop.timeout });
                1
            }
            StopStage::Killed(kills) => kills.saturating_add(1),
        };
        if kills == KILLS_REPORTED {
            self.record(JournalEvent::Unkillable { instance: id, pid });
        }
        let until = self.now + kill_again_after(kills);
        let reason = reason_of(then);
        self.enter(id, State::Stopping { pid, since, stage: StopStage::Killed(kills), until, then }, reason);
        self.kill(pid, stop.kill_mode);
    }

    /// What becomes of an instance once the process that it was told to end has.
    pub(super) fn after_stop(&self, then: AfterStop) -> (Next, RestartDecision) {
        match then {
            AfterStop::Rest(why) => (Next::Rest(why), RestartDecision::Stay),
            AfterStop::Restart if self.is_draining() => (Next::Rest(Stopped::Shutdown), RestartDecision::Stay),
            AfterStop::Restart => {
                let decision = RestartDecision::Restart { delay: Duration::ZERO, unstable: 0, limit: None };
                (Next::Start, decision)
            }
            // How it has ended decides, in `on_crash`.
            AfterStop::Fail(_) | AfterStop::Own => (Next::Rest(Stopped::Operator), RestartDecision::Stay),
        }
    }

    /// The main process is gone. What it has left in its group and session goes before anything else happens, unless
    /// `kill_mode` leaves it alone. `stopping`: how far a stop had come, and until when that stage was to last.
    pub(super) fn end_run(
        &mut self,
        id: InstanceId,
        pid: Pid,
        left: Leftovers,
        next: Next,
        reason: Reason,
        stopping: Option<(StopStage, Mono)>,
    ) {
        let stop = self.stop_settings(id);
        // While a stop is delayed nobody has been told of it.
        let stopping = stopping.filter(|(stage, _)| *stage != StopStage::Delayed);
        if left == Leftovers::None || stop.kill_mode == KillMode::Process || self.is_forced() {
            return self.conclude(id, next, reason);
        }
        self.record(JournalEvent::LeftBehind { instance: id, pid });
        let (stage, until) = match (stop.kill_mode, stopping) {
            (KillMode::Group, Some((StopStage::Asked, until))) => (StopStage::Asked, until),
            (KillMode::Group, None) => (StopStage::Asked, self.now + stop.timeout),
            (KillMode::Group | KillMode::Mixed | KillMode::Process, _) => (StopStage::Killed(1), self.now + KILL_AGAIN),
        };
        self.enter(id, State::CleaningUp { leader: pid, stage, until, next }, reason);
        match (stage, stopping) {
            (StopStage::Killed(_), _) => {
                self.act(Action::Signal { pid, scope: Scope::Leftovers, signal: Signal::KILL })
            }
            (StopStage::Asked, None) => {
                self.act(Action::Signal { pid, scope: Scope::Leftovers, signal: stop.signal });
                self.act(Action::Signal { pid, scope: Scope::Leftovers, signal: Signal::CONT });
            }
            // They have had the stop signal together with the main process.
            (StopStage::Delayed | StopStage::Asked, Some(_)) | (StopStage::Delayed, None) => {}
        }
    }

    pub(super) fn on_cleared(&mut self, leader: Pid) {
        if let Some(id) = self.leaders.get(&leader) {
            self.finish_clearing(*id);
        }
    }

    fn finish_clearing(&mut self, id: InstanceId) {
        if let State::CleaningUp { next, .. } = self.services[id].state {
            self.conclude(id, next, Reason::Cleared);
        }
    }

    /// What the main process left is still there.
    pub(super) fn climb_clearing(&mut self, id: InstanceId) {
        let State::CleaningUp { leader, stage, next, .. } = self.services[id].state else { return };
        let kills = match stage {
            StopStage::Delayed | StopStage::Asked => 1,
            StopStage::Killed(kills) => kills.saturating_add(1),
        };
        if kills > KILLS_OF_LEFTOVERS {
            self.record(JournalEvent::Unkillable { instance: id, pid: leader });
            return self.finish_clearing(id);
        }
        let until = self.now + kill_again_after(kills);
        self.enter(id, State::CleaningUp { leader, stage: StopStage::Killed(kills), until, next }, Reason::Cleared);
        self.act(Action::Signal { pid: leader, scope: Scope::Leftovers, signal: Signal::KILL });
    }

    /// Everything has been killed: what is left of ended runs is no longer waited for one by one.
    pub(super) fn stop_clearing(&mut self) {
        for id in self.services.ids_with_surges() {
            if matches!(self.services[id].state, State::CleaningUp { .. }) {
                self.finish_clearing(id);
            }
        }
    }

    pub(super) const fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining(_))
    }

    pub(super) fn is_forced(&self) -> bool {
        matches!(&self.phase, Phase::Draining(drain) if drain.is_forced())
    }
}

pub(super) const fn reason_of(then: AfterStop) -> Reason {
    match then {
        AfterStop::Restart => Reason::RestartRequested,
        AfterStop::Fail(fault) => Reason::Fault(fault),
        AfterStop::Own => Reason::Leaves,
        AfterStop::Rest(Stopped::Operator) => Reason::StopRequested,
        AfterStop::Rest(Stopped::Replaced) => Reason::Replaced,
        AfterStop::Rest(
            Stopped::NotStarted
            | Stopped::Shutdown
            | Stopped::Completed
            | Stopped::Failed { .. }
            | Stopped::Blocked { .. },
        ) => Reason::Shutdown,
    }
}

fn kill_again_after(kills: u32) -> Duration {
    let doubled = 1_u32.checked_shl(kills.saturating_sub(1)).unwrap_or(u32::MAX);
    KILL_AGAIN.saturating_mul(doubled).min(KILL_AGAIN_MAX)
}
