//! How an instance is stopped: its stop signal, SIGKILL, then its leftover processes.

use std::time::Duration;

use super::core::Supervisor;
use super::event::{Action, Leftovers, Scope};
use super::group_at_death::GroupAtDeath;
use super::phase::Phase;
use super::record::{JournalEvent, Reason};
use super::run_result::{Fault, RestartDecision};
use super::state::{AfterStop, CleaningUp, Ended, Next, Process, State, StopStage, Stopped, Stopping};
use crate::model::plan::{KillMode, Stop};
use crate::model::{InstanceId, RunId, Signal};

/// After SIGKILL: when to look again, doubled each time up to [`MAX_KILL_INTERVAL`].
const KILL_INTERVAL: Duration = Duration::from_millis(200);
const MAX_KILL_INTERVAL: Duration = Duration::from_secs(60);
/// A main process that is still there after so many SIGKILLs is reported as unkillable.
const KILLS_UNTIL_REPORT: u32 = 4;
/// Leftover processes are given up after so many SIGKILLs: they must not hold up the next run for ever.
const MAX_KILLS_OF_LEFTOVERS: u32 = 5;

impl Supervisor {
    fn stop_settings(&self, id: InstanceId) -> Stop {
        self.services[id].definition.stop
    }

    /// Brings an instance down, whatever state it is in.
    pub(super) fn stop(&mut self, id: InstanceId, then: AfterStop) {
        match self.services[id].state {
            // Nothing has run yet that a restart could end.
            State::Spawning { .. } if then == AfterStop::Restart => {}
            State::Waiting | State::BackingOff { .. } | State::Spawning { .. } => {
                self.stop_without_process(id, then);
            }
            State::Executing(process) | State::Starting { process, .. } => self.ask(id, process, then),
            State::Running(running) if self.may_be_delayed(id, then) => {
                let until = self.now + self.stop_settings(id).delay;
                let stopping = Stopping { process: running.process, stage: StopStage::Delayed, until, then };
                self.enter(id, State::Stopping(stopping), reason_of(then));
            }
            State::Running(running) => self.ask(id, running.process, then),
            // It has announced its end and has not been sent anything.
            State::Stopping(Stopping { process, stage: StopStage::Asked, then: AfterStop::Own, .. }) => {
                self.ask(id, process, then);
            }
            State::Stopping(stopping) => {
                self.set_state(id, State::Stopping(Stopping { then, ..stopping }));
            }
            State::CleaningUp(cleaning_up) => self.stop_cleaning_up(id, cleaning_up, then),
            State::Stopped { .. } => {
                if then == AfterStop::Restart {
                    self.start_or_wait(id, reason_of(then));
                }
            }
        }
    }

    fn stop_without_process(&mut self, id: InstanceId, then: AfterStop) {
        match then {
            AfterStop::Rest(why) => self.enter(id, State::Stopped { why }, reason_of(then)),
            AfterStop::Restart => self.start_or_wait(id, reason_of(then)),
            // There is no process that could be broken, or could have announced its end.
            AfterStop::Fail(_) | AfterStop::Own => {}
        }
    }

    fn stop_cleaning_up(&mut self, id: InstanceId, cleaning_up: CleaningUp, then: AfterStop) {
        // What has come to rest by itself stays completed or failed.
        if matches!((cleaning_up.next, then), (Next::Rest(_), AfterStop::Rest(_))) {
            return;
        }
        let (next, _) = self.after_stop(then);
        self.set_state(id, State::CleaningUp(CleaningUp { next, ..cleaning_up }));
    }

    /// Only a process that others use is given `stop_delay`.
    fn may_be_delayed(&self, id: InstanceId, then: AfterStop) -> bool {
        !self.is_forced() && !matches!(then, AfterStop::Fail(_)) && !self.stop_settings(id).delay.is_zero()
    }

    /// Sends the stop signal, and SIGCONT, since a suspended process must act on it.
    fn ask(&mut self, id: InstanceId, process: Process, then: AfterStop) {
        let reason = reason_of(then);
        let stop = self.stop_settings(id);
        let run = process.run;
        if self.is_forced() {
            let until = self.now + KILL_INTERVAL;
            let stopping = Stopping { process, stage: StopStage::Killed(1), until, then };
            self.enter(id, State::Stopping(stopping), reason);
            return self.kill(run, stop.kill_mode);
        }
        let until = self.now + stop.timeout;
        let stopping = Stopping { process, stage: StopStage::Asked, until, then };
        self.enter(id, State::Stopping(stopping), reason);
        let scope = match stop.kill_mode {
            KillMode::Group => Scope::Group,
            KillMode::Mixed | KillMode::Process => Scope::Main,
        };
        let signal = match then {
            // As in systemd: a core dump shows where it hangs.
            AfterStop::Fail(Fault::Silent(_) | Fault::WatchdogTriggered) => Signal::ABRT,
            AfterStop::Fail(Fault::NotReady(_)) | AfterStop::Rest(_) | AfterStop::Restart | AfterStop::Own => {
                stop.signal
            }
        };
        if self.services[id].definition.process.ipc {
            self.act(Action::AnnounceStop { run });
        }
        self.act(Action::Signal { run, scope, signal });
        self.act(Action::Signal { run, scope, signal: Signal::CONT });
    }

    /// SIGKILL to a main process that has not been reaped, and to its group if `kill_mode` includes that.
    fn kill(&mut self, run: RunId, kill_mode: KillMode) {
        let scope = match kill_mode {
            KillMode::Mixed | KillMode::Group => Scope::Group,
            KillMode::Process => Scope::Main,
        };
        self.act(Action::Signal { run, scope, signal: Signal::KILL });
    }

    /// The time of a stage is over: `stop_delay`, `stop_timeout`, or SIGKILL has had no effect yet.
    pub(super) fn escalate(&mut self, id: InstanceId) {
        let State::Stopping(stopping) = self.services[id].state else { return };
        let Stopping { process, stage, then, .. } = stopping;
        let (pid, stop) = (process.pid, self.stop_settings(id));
        let kills = match stage {
            StopStage::Delayed => return self.ask(id, process, then),
            StopStage::Asked => {
                self.record(JournalEvent::StopTimedOut { instance: id, pid, after: stop.timeout });
                1
            }
            StopStage::Killed(kills) => kills.saturating_add(1),
        };
        if kills == KILLS_UNTIL_REPORT {
            self.record(JournalEvent::Unkillable { instance: id, pid });
        }
        let until = self.now + kill_interval(kills);
        self.set_state(id, State::Stopping(Stopping { stage: StopStage::Killed(kills), until, ..stopping }));
        self.kill(process.run, stop.kill_mode);
    }

    /// What becomes of an instance once the process that was stopped has ended.
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

    /// The main process is gone. Its leftover processes are ended before anything else happens, if `kill_mode` includes
    /// them.
    pub(super) fn end_run(&mut self, ended: Ended, next: Next, reason: Reason) {
        let Ended { id, process, leftovers, stopping } = ended;
        let stop = self.stop_settings(id);
        if leftovers == Leftovers::None
            || GroupAtDeath::of(stop.kill_mode) == GroupAtDeath::LeftAlone
            || self.is_forced()
        {
            return self.conclude(id, next, reason);
        }
        self.record(JournalEvent::LeftBehind { instance: id, pid: process.pid });
        // During `stop_delay` nobody has been signalled.
        let stopping = stopping.filter(|(stage, _)| *stage != StopStage::Delayed);
        let (stage, until) = match (stop.kill_mode, stopping) {
            (KillMode::Group, Some((StopStage::Asked, until))) => (StopStage::Asked, until),
            (KillMode::Group, None) => (StopStage::Asked, self.now + stop.timeout),
            (KillMode::Group | KillMode::Mixed | KillMode::Process, _) => {
                (StopStage::Killed(1), self.now + KILL_INTERVAL)
            }
        };
        self.enter(id, State::CleaningUp(CleaningUp { process, stage, until, next }), reason);
        match (stage, stopping) {
            (StopStage::Killed(_), _) => self.signal_leftovers(process.run, Signal::KILL),
            (StopStage::Asked, None) => {
                self.signal_leftovers(process.run, stop.signal);
                self.signal_leftovers(process.run, Signal::CONT);
            }
            // They have been sent the stop signal together with the main process.
            (StopStage::Delayed | StopStage::Asked, Some(_)) | (StopStage::Delayed, None) => {}
        }
    }

    fn signal_leftovers(&mut self, run: RunId, signal: Signal) {
        self.act(Action::Signal { run, scope: Scope::Leftovers, signal });
    }

    pub(super) fn on_leftovers_gone(&mut self, run: RunId) {
        if let Some(id) = self.instance_of(run) {
            self.finish_cleanup(id);
        }
    }

    fn finish_cleanup(&mut self, id: InstanceId) {
        if let State::CleaningUp(CleaningUp { next, .. }) = self.services[id].state {
            self.conclude(id, next, Reason::Cleared);
        }
    }

    /// Leftover processes are still there.
    pub(super) fn escalate_cleanup(&mut self, id: InstanceId) {
        let State::CleaningUp(cleaning_up) = self.services[id].state else { return };
        let Process { run, pid, .. } = cleaning_up.process;
        let kills = match cleaning_up.stage {
            StopStage::Delayed | StopStage::Asked => 1,
            StopStage::Killed(kills) => kills.saturating_add(1),
        };
        if kills > MAX_KILLS_OF_LEFTOVERS {
            self.record(JournalEvent::Unkillable { instance: id, pid });
            return self.finish_cleanup(id);
        }
        let until = self.now + kill_interval(kills);
        self.set_state(id, State::CleaningUp(CleaningUp { stage: StopStage::Killed(kills), until, ..cleaning_up }));
        self.signal_leftovers(run, Signal::KILL);
    }

    /// Everything has been killed: the leftovers of single runs are not waited for any more.
    pub(super) fn finish_all_cleanups(&mut self) {
        for id in self.services.ids_with_surges() {
            self.finish_cleanup(id);
        }
    }

    pub(super) const fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining(_))
    }

    pub(super) fn is_forced(&self) -> bool {
        matches!(&self.phase, Phase::Draining(drain) if drain.is_forced())
    }
}

fn kill_interval(kills: u32) -> Duration {
    let doubled = 1_u32.checked_shl(kills.saturating_sub(1)).unwrap_or(u32::MAX);
    KILL_INTERVAL.saturating_mul(doubled).min(MAX_KILL_INTERVAL)
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
