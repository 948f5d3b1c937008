//! Stops an instance: `stop_delay`, the stop signal, SIGKILL after `stop_timeout`, then its leftover processes.
//!
//! Why a process was killed: the reason of the transition to `stopping` says why it was stopped.
//! [`JournalEvent::StopTimedOut`] means that SIGKILL followed; [`Supervisor::escalate`] sends it.

use std::rc::Rc;
use std::time::Duration;

use super::core::Supervisor;
use super::event::{Action, Leftovers, Scope};
use super::phase::Phase;
use super::record::{JournalEvent, Reason, Requester};
use super::run_result::{Exit, Fault, RestartDecision, RunResult};
use super::state::{AfterRun, AfterStop, CleaningUp, ExitedProcess, Process, State, StopStage, Stopped, Stopping};
use crate::model::plan::{KillMode, Stop};
use crate::model::{ExitStatus, InstanceId, Mono, ProbeFailure, RunId, Signal};

/// The time between the first SIGKILL and the second. It doubles each time, up to [`MAX_KILL_INTERVAL`].
const KILL_INTERVAL: Duration = Duration::from_millis(200);
const MAX_KILL_INTERVAL: Duration = Duration::from_secs(60);
/// The number of SIGKILLs after which a main process is reported as unkillable.
const KILLS_BEFORE_REPORT: u32 = 4;
/// The time that the leftover processes of a main process that was not being stopped have for the stop signal, at most
/// `stop_timeout`.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of SIGKILLs after which leftover processes are ignored: they must not delay the next run for ever.
const MAX_KILLS_OF_LEFTOVERS: u32 = 5;

impl Supervisor {
    fn stop_settings(&self, id: InstanceId) -> Stop {
        self.services[id].definition.stop
    }

    /// Stops an instance, whatever its state is.
    pub(super) fn stop(&mut self, id: InstanceId, then: AfterStop) {
        let (state, is_restart) = (self.services[id].state, matches!(then, AfterStop::Restart(_)));
        // There is no process yet that a restart would replace.
        if is_restart
            && matches!(state, State::Spawning { .. } | State::CleaningUp(CleaningUp { next: AfterRun::Proceed, .. }))
        {
            return;
        }
        let is_planned = matches!(then, AfterStop::Restart(by) if by.is_planned());
        self.services[id].is_established &= !is_restart || is_planned;
        match state {
            State::Waiting { .. } | State::BackingOff { .. } | State::Scheduled { .. } | State::Spawning { .. } => {
                self.stop_without_process(id, then);
            }
            State::Executing(process) | State::Starting { process, .. } => {
                self.send_stop_signal(id, process, then, self.now + self.stop_settings(id).timeout);
            }
            State::Running(running) if self.needs_stop_delay(id, then) => {
                let until = self.now + self.stop_settings(id).delay;
                let stopping = Stopping { process: running.process, stage: StopStage::Delayed, until, then };
                self.enter(id, State::Stopping(stopping), self.reason_of(id, then));
            }
            State::Running(running) => self.stop_running(id, running.process, then),
            // It has reported `STOPPING=1` and has not been sent a signal.
            State::Stopping(Stopping {
                process, stage: StopStage::SignalSent, then: AfterStop::ExitOnItsOwn, ..
            }) => {
                self.send_stop_signal(id, process, then, self.now + self.stop_settings(id).timeout);
            }
            State::Stopping(stopping) => {
                self.set_state(id, State::Stopping(Stopping { then, ..stopping }));
            }
            State::CleaningUp(cleaning_up) => self.stop_cleaning_up(id, cleaning_up, then),
            State::Stopped { .. } => {
                if let AfterStop::Restart(_) = then {
                    self.start_or_wait(id, self.reason_of(id, then));
                }
            }
        }
    }

    fn stop_without_process(&mut self, id: InstanceId, then: AfterStop) {
        match then {
            AfterStop::StayStopped(why) => self.conclude(id, AfterRun::StayStopped(why), self.reason_of(id, then)),
            AfterStop::Restart(_) => self.start_or_wait(id, self.reason_of(id, then)),
            // Without a process there is no fault and no report.
            AfterStop::Fail(_) | AfterStop::ExitOnItsOwn => {}
        }
    }

    fn stop_cleaning_up(&mut self, id: InstanceId, cleaning_up: CleaningUp, then: AfterStop) {
        // An instance that has completed or failed stays so.
        if matches!((cleaning_up.next, then), (AfterRun::StayStopped(_), AfterStop::StayStopped(_))) {
            return;
        }
        let (next, decision) = self.after_stop_of(id, then);
        if let Some(Reason::Exited { decision: last, .. }) = &mut self.services[id].reason {
            *last = decision;
        }
        let state = State::CleaningUp(CleaningUp { next, ..cleaning_up });
        match cleaning_up.next {
            // It was starting until now.
            AfterRun::Proceed => self.enter(id, state, self.reason_of(id, then)),
            AfterRun::Restart { .. } | AfterRun::Start | AfterRun::AwaitSchedule { .. } | AfterRun::StayStopped(_) => {
                self.set_state(id, state);
            }
        }
    }

    /// Whether `stop_delay` applies: only to a process that is running, and not after a fault.
    fn needs_stop_delay(&self, id: InstanceId, then: AfterStop) -> bool {
        !self.is_forced() && !matches!(then, AfterStop::Fail(_)) && !self.stop_settings(id).delay.is_zero()
    }

    /// Sends the stop signal, followed by SIGCONT so that a suspended process handles it. In a forced shutdown, sends SIGKILL.
    /// `until`: when SIGKILL follows.
    pub(super) fn send_stop_signal(&mut self, id: InstanceId, process: Process, then: AfterStop, until: Mono) {
        let reason = self.reason_of(id, then);
        let stop = self.stop_settings(id);
        let run = process.run;
        if self.is_forced() {
            let until = self.now + KILL_INTERVAL;
            let stopping = Stopping { process, stage: StopStage::Killed(1), until, then };
            self.enter(id, State::Stopping(stopping), reason);
            return self.kill(run, stop.kill_mode);
        }
        let stopping = Stopping { process, stage: StopStage::SignalSent, until, then };
        self.enter(id, State::Stopping(stopping), reason);
        let scope = match stop.kill_mode {
            KillMode::Group => Scope::Group,
            KillMode::Mixed | KillMode::Process => Scope::Main,
        };
        let signal = match then {
            // As in systemd: the core dump shows where the process hangs.
            AfterStop::Fail(Fault::WatchdogTimeout(_) | Fault::WatchdogTriggered) => Signal::ABRT,
            AfterStop::Fail(Fault::NotReady(_) | Fault::HookTimeout(..) | Fault::NotFinished(_) | Fault::Unhealthy)
            | AfterStop::StayStopped(_)
            | AfterStop::Restart(_)
            | AfterStop::ExitOnItsOwn => stop.signal,
        };
        if self.services[id].definition.process.ipc && process.hook.is_none() {
            self.act(Action::AnnounceStop { run });
        }
        self.act(Action::Signal { run, scope, signal });
        self.act(Action::Signal { run, scope, signal: Signal::CONT });
    }

    /// Sends SIGKILL to the main process, and to its group if `kill_mode` includes it.
    fn kill(&mut self, run: RunId, kill_mode: KillMode) {
        let scope = match kill_mode {
            KillMode::Mixed | KillMode::Group => Scope::Group,
            KillMode::Process => Scope::Main,
        };
        self.act(Action::Signal { run, scope, signal: Signal::KILL });
    }

    /// The time of a stage has elapsed: enters the next one, or repeats SIGKILL.
    pub(super) fn escalate(&mut self, id: InstanceId) {
        let State::Stopping(stopping) = self.services[id].state else { return };
        let Stopping { process, stage, then, .. } = stopping;
        let (pid, stop) = (process.pid, self.stop_settings(id));
        let kills = match stage {
            StopStage::Delayed => return self.stop_running(id, process, then),
            // The second one is not a stage of a process that has not exited.
            StopStage::PreStop | StopStage::PostStop | StopStage::SignalSent => {
                self.on_side_run_late(id, stop.timeout);
                self.record(JournalEvent::StopTimedOut { instance: id, pid, after: stop.timeout });
                1
            }
            StopStage::Killed(kills) => kills.saturating_add(1),
        };
        if kills == KILLS_BEFORE_REPORT {
            self.record(JournalEvent::Unkillable { instance: id, pid });
        }
        let until = self.now + kill_interval(kills);
        self.set_state(id, State::Stopping(Stopping { stage: StopStage::Killed(kills), until, ..stopping }));
        self.kill(process.run, stop.kill_mode);
    }

    /// What happens to an instance after the process that was stopped has exited.
    pub(super) fn after_stop(&self, then: AfterStop) -> (AfterRun, RestartDecision) {
        match then {
            AfterStop::StayStopped(why) => (AfterRun::StayStopped(why), RestartDecision::StayStopped),
            AfterStop::Restart(_) if self.is_draining() => {
                (AfterRun::StayStopped(Stopped::Shutdown), RestartDecision::StayStopped)
            }
            AfterStop::Restart(_) => {
                let decision = RestartDecision::Restart { delay: Duration::ZERO, unstable: 0, limit: None };
                (AfterRun::Start, decision)
            }
            // Never called with these: `on_stopped` calls `on_crash`.
            AfterStop::Fail(_) | AfterStop::ExitOnItsOwn => {
                (AfterRun::StayStopped(Stopped::Operator), RestartDecision::StayStopped)
            }
        }
    }

    /// The main process has exited. Leftover processes are stopped before anything else happens, if `kill_mode` includes
    /// them.
    pub(super) fn end_run(&mut self, ended: ExitedProcess, next: AfterRun, reason: Reason) {
        let ExitedProcess { id, process, leftovers, stopping } = ended;
        let stop = self.stop_settings(id);
        self.kill_side_run(id);
        let has_leftovers = leftovers == Leftovers::Some && stop.kill_mode != KillMode::Process;
        if self.is_forced() || (!has_leftovers && self.services[id].side_run.is_none()) {
            self.forget_side_run(id);
            return self.conclude(id, next, reason);
        }
        let has_post_stop_begun = false;
        if !has_leftovers {
            let (stage, until) = (StopStage::Killed(1), self.now + KILL_INTERVAL);
            let cleaning_up = CleaningUp { process, stage, until, next, has_leftovers, has_post_stop_begun };
            return self.enter(id, State::CleaningUp(cleaning_up), reason);
        }
        let is_daemon = stopping.is_none() && self.services[id].last_run.as_ref().is_some_and(|run| run.is_daemon);
        self.record(JournalEvent::LeftoverProcessesFound { instance: id, pid: process.pid, is_daemon });
        // During `stop_delay` and `pre_stop` no signal has been sent.
        let stopping = stopping.filter(|(stage, _)| !matches!(stage, StopStage::Delayed | StopStage::PreStop));
        let (stage, until) = match stopping {
            Some((StopStage::Killed(_), _)) => (StopStage::Killed(1), self.now + KILL_INTERVAL),
            Some((_, until)) => (StopStage::SignalSent, until),
            None => (StopStage::SignalSent, self.now + stop.timeout.min(LEFTOVERS_TIMEOUT)),
        };
        let cleaning_up = CleaningUp { process, stage, until, next, has_leftovers, has_post_stop_begun };
        self.enter(id, State::CleaningUp(cleaning_up), reason);
        if let StopStage::Killed(_) = stage {
            return self.signal_leftovers(process.run, Signal::KILL);
        }
        // With `group`, those that were in the group have been sent it together with the main process.
        if stop.kill_mode == KillMode::Mixed || stopping.is_none() {
            self.signal_leftovers(process.run, stop.signal);
            self.signal_leftovers(process.run, Signal::CONT);
        }
    }

    fn signal_leftovers(&mut self, run: RunId, signal: Signal) {
        self.act(Action::Signal { run, scope: Scope::Leftovers, signal });
    }

    pub(super) fn on_leftovers_gone(&mut self, run: RunId) {
        let Some(id) = self.instance_of(run).filter(|_| !self.on_side_run_gone(run)) else { return };
        if let State::CleaningUp(cleaning_up) = self.services[id].state {
            self.set_state(id, State::CleaningUp(CleaningUp { has_leftovers: false, ..cleaning_up }));
            self.continue_cleanup(id);
        }
    }

    /// Finishes it if nothing is left to wait for.
    pub(super) fn continue_cleanup(&mut self, id: InstanceId) {
        if let State::CleaningUp(CleaningUp { has_leftovers: false, .. }) = self.services[id].state
            && self.services[id].side_run.is_none()
        {
            self.finish_cleanup(id);
        }
    }

    fn finish_cleanup(&mut self, id: InstanceId) {
        if let State::CleaningUp(CleaningUp { next, process, .. }) = self.services[id].state {
            let (run, decision, definition) = match self.services[id].reason.clone() {
                Some(Reason::Exited { run, mut decision, definition }) => {
                    if let (AfterRun::Restart { due }, RestartDecision::Restart { delay, .. }) = (next, &mut decision) {
                        *delay = due.since(self.now);
                    }
                    (run, decision, definition)
                }
                // `pre_start` has succeeded.
                _ => {
                    let exit = Exit { status: ExitStatus::Code(0), oom_killed: false };
                    let run = RunResult::new(process.run, exit, self.now.since(process.since));
                    let definition = Rc::clone(&self.services[id].definition);
                    (Rc::new(RunResult { hook: process.hook, ..run }), RestartDecision::StayStopped, definition)
                }
            };
            self.conclude(id, next, Reason::CleanedUp { run, decision, definition });
        }
    }

    /// Leftover processes are still there: sends SIGKILL, or gives up.
    pub(super) fn escalate_cleanup(&mut self, id: InstanceId) {
        let State::CleaningUp(cleaning_up) = self.services[id].state else { return };
        let Process { run, pid, .. } = cleaning_up.process;
        let kills = match cleaning_up.stage {
            StopStage::PostStop => {
                self.on_side_run_late(id, self.services[id].definition.hooks.timeout);
                1
            }
            StopStage::Delayed | StopStage::PreStop | StopStage::SignalSent => 1,
            StopStage::Killed(kills) => {
                self.kill_side_run(id);
                kills.saturating_add(1)
            }
        };
        if kills > MAX_KILLS_OF_LEFTOVERS {
            self.record(JournalEvent::Unkillable { instance: id, pid });
            self.forget_side_run(id);
            return self.finish_cleanup(id);
        }
        let until = self.now + kill_interval(kills);
        self.set_state(id, State::CleaningUp(CleaningUp { stage: StopStage::Killed(kills), until, ..cleaning_up }));
        if cleaning_up.has_leftovers {
            self.signal_leftovers(run, Signal::KILL);
        }
        self.continue_cleanup(id);
    }

    /// How the last attempt of its probe has failed, if it was not ready in time, or its last health check, if unhealthy.
    pub(super) fn probe_failure(&self, id: InstanceId, fault: Fault) -> Option<ProbeFailure> {
        match fault {
            Fault::NotReady(_) => self.services[id].probe_failure.clone(),
            Fault::Unhealthy => self.services[id].check_failure.clone(),
            Fault::HookTimeout(..) | Fault::NotFinished(_) | Fault::WatchdogTimeout(_) | Fault::WatchdogTriggered => {
                None
            }
        }
    }

    /// Why an instance is stopped.
    pub(super) fn reason_of(&self, id: InstanceId, then: AfterStop) -> Reason {
        match then {
            AfterStop::Restart(by) => Reason::RestartRequested(by),
            AfterStop::Fail(fault) => Reason::Fault(fault, self.probe_failure(id, fault)),
            AfterStop::ExitOnItsOwn => Reason::StoppingReported,
            AfterStop::StayStopped(Stopped::Operator) => Reason::StopRequested(match self.services.has(id) {
                _ if self.services[id.service].is_retiring() => Requester::Config,
                true => Requester::Operator,
                false => Requester::Scaling,
            }),
            AfterStop::StayStopped(Stopped::Replaced) => Reason::Replaced,
            AfterStop::StayStopped(
                Stopped::NotStarted
                | Stopped::Shutdown
                | Stopped::Completed
                | Stopped::Failed { .. }
                | Stopped::Blocked { .. },
            ) => Reason::Shutdown,
        }
    }

    /// All processes have been sent SIGKILL: stops waiting for the leftover processes of single runs.
    pub(super) fn finish_all_cleanups(&mut self) {
        for id in self.services.ids_with_surges() {
            self.forget_side_run(id);
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
