//! Reports of processes: readiness, reloads, the watchdog and the other messages of sd_notify(3).

use std::rc::Rc;
use std::time::Duration;

use super::core::Supervisor;
use super::event::{Action, ReadySource, Scope};
use super::readiness::{Readiness, WatchdogDeadline};
use super::record::Reason;
use super::rollout::RolloutError;
use super::run_result::{Fault, RunResult};
use super::state::{AfterStop, CleaningUp, Running, StartDeadline, State, StopStage, Stopping};
use crate::model::plan::Ready;
use crate::model::{InstanceId, Mono, Pid, RunId, Signal};

/// A process that has been sent the reload signal must send `RELOADING=1` within this time. If it does not, it does not
/// report reloads.
const RELOADING_REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The unit of `MONOTONIC_USEC`.
const fn microseconds(time: Mono) -> u64 {
    time.as_nanos() / 1000
}

impl Supervisor {
    /// A process becomes ready by the source that its service is configured with. `READY=1` also ends a reload that the
    /// process has reported. Reports after `STOPPING=1` are ignored.
    pub(super) fn on_ready(&mut self, run: RunId, source: ReadySource) {
        let Some(id) = self.instance_of(run) else { return };
        if self.services[id].has_reported_stopping {
            return;
        }
        let is_configured = is_configured(&self.services[id].definition.ready, source);
        if is_configured {
            // A process that reports has executed its program, even if `Event::Executed` has not come yet.
            self.on_executed(run);
        }
        let ends_reload = source == ReadySource::Notify;
        // The new process of a reload was ready and has reported `RELOADING=1` since.
        let is_reloading = self.services[id].ready_again_by.is_some();
        // With `ready = { delay = … }` only the time counts; in other states readiness has no meaning.
        let state = self.services[id].state;
        if let State::Starting { process, deadline: StartDeadline::ReadyBy(_) } = state
            && (is_configured || (ends_reload && is_reloading))
        {
            self.begin_running(id, process);
        } else if let State::Running(running) = state
            && (is_configured || ends_reload)
        {
            match running.readiness {
                Readiness::NotReady | Readiness::Reloading { .. } => self.set_readiness(id, Readiness::Ready),
                Readiness::ReloadSignalled { at, until, .. } => {
                    self.set_readiness(id, Readiness::ReloadSignalled { at, until, is_ready: true });
                }
                Readiness::Ready => {}
            }
        }
    }

    /// `RELOADING=1`. `since`: when the reload began, if the process reports it.
    pub(super) fn on_reloading(&mut self, run: RunId, since: Option<Mono>) {
        let Some(id) = self.instance_of(run).filter(|id| !self.services[*id].has_reported_stopping) else { return };
        let State::Running(running) = self.services[id].state else { return };
        let readiness = match running.readiness {
            // As in systemd: a report from before the signal belongs to another reload.
            Readiness::ReloadSignalled { at, .. }
                if since.is_some_and(|since| microseconds(since) >= microseconds(at)) =>
            {
                Readiness::Reloading { until: at + self.services[id].definition.start_timeout() }
            }
            Readiness::ReloadSignalled { at, until, .. } => Readiness::ReloadSignalled { at, until, is_ready: false },
            Readiness::Ready | Readiness::NotReady => Readiness::NotReady,
            readiness @ Readiness::Reloading { .. } => readiness,
        };
        self.set_readiness(id, readiness);
    }

    /// `STOPPING=1`: the process exits on its own, and has `stop_timeout` to do so.
    pub(super) fn on_stopping_reported(&mut self, run: RunId) {
        let Some(id) = self.instance_of(run) else { return };
        self.services[id].has_reported_stopping = true;
        let State::Running(Running { process, .. }) = self.services[id].state else { return };
        let until = self.now + self.services[id].definition.stop.timeout;
        let stopping = Stopping { process, stage: StopStage::SignalSent, until, then: AfterStop::ExitOnItsOwn };
        self.enter(id, State::Stopping(stopping), Reason::StoppingReported);
    }

    /// Sends the reload signal. A process that supports it reports the progress.
    pub(super) fn signal_reload(&mut self, id: InstanceId, signal: Signal) {
        let State::Running(Running { process, readiness, .. }) = self.services[id].state else { return };
        self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
        let (at, is_ready) = (self.now, readiness.is_ready());
        let timeout = RELOADING_REPORT_TIMEOUT.min(self.services[id].definition.start_timeout());
        self.set_readiness(id, Readiness::ReloadSignalled { at, until: at + timeout, is_ready });
    }

    /// The process has not reported in time that it reloads, or that it is ready again.
    pub(super) fn on_reload_report_missing(&mut self, id: InstanceId) {
        let State::Running(Running { readiness, .. }) = self.services[id].state else { return };
        if let Readiness::Reloading { .. } = readiness {
            self.fail_rollout(id, RolloutError::ReloadTimedOut);
        }
        if readiness.is_reload_pending() {
            self.set_readiness(id, readiness.settled());
        }
    }

    /// The process has exited on its own. A reload that waits for it, or for the old process, has failed.
    pub(super) fn fail_unproven(&mut self, id: InstanceId, result: &Rc<RunResult>) {
        let is_beside_old = self.is_beside_old(id);
        if !is_beside_old && !self.is_unproven(id) {
            return;
        }
        let has_reported_it =
            matches!(self.services[id].state, State::Stopping(Stopping { then: AfterStop::ExitOnItsOwn, .. }));
        let result = Rc::clone(result);
        let error = match (has_reported_it, is_beside_old) {
            (true, _) => RolloutError::ExitedAfterStopping(result),
            (false, true) => RolloutError::ExitedBesideOld(result),
            (false, false) => RolloutError::Exited(result),
        };
        self.fail_rollout(id, error);
    }

    /// Whether the process that it replaces in a reload, or leftover processes of it, are still there.
    pub(super) fn is_beside_old(&self, id: InstanceId) -> bool {
        let other = if id.is_surge() { id.slot() } else { id.surge() };
        let old = self.services.find(other).and_then(|other| other.state.run());
        old.is_some_and(|old| self.services[id].state.run().is_some_and(|new| old < new))
    }

    /// `RESTART_RESET=1`.
    pub(super) fn on_reset_failures(&mut self, run: RunId) {
        let is_gone = |state: State| matches!(state, State::CleaningUp(CleaningUp { has_leftovers: false, .. }));
        if let Some(id) = self.instance_of(run).filter(|id| !is_gone(self.services[*id].state)) {
            self.services[id].reset_failures();
        }
    }

    fn set_readiness(&mut self, id: InstanceId, readiness: Readiness) {
        let State::Running(Running { process, .. }) = self.services[id].state else { return };
        if readiness != Readiness::NotReady || !self.is_new(id) {
            return self.update_running(id, |running| running.readiness = readiness);
        }
        // The new process of a reload must become ready again in time, or the reload fails.
        let (now, instance) = (self.now, &mut self.services[id]);
        instance.has_been_ready = false;
        let until = now + instance.definition.start_timeout();
        let ready_again_by = *instance.ready_again_by.get_or_insert(until + instance.definition.reload.soak);
        let deadline = StartDeadline::ReadyBy(until.min(ready_again_by));
        self.enter(id, State::Starting { process, deadline }, Reason::ReloadingReported);
    }

    /// `WATCHDOG=1`.
    pub(super) fn on_watchdog_ping(&mut self, run: RunId) {
        let Some(id) = self.instance_of(run) else { return };
        let now = self.now;
        self.update_running(id, |running| {
            if let Some(watchdog) = &mut running.watchdog {
                watchdog.by = now + watchdog.every;
            }
        });
    }

    /// `WATCHDOG_USEC`. Zero turns the watchdog off.
    pub(super) fn on_watchdog_interval(&mut self, run: RunId, every: Duration) {
        let Some(id) = self.instance_of(run) else { return };
        let every = Some(every).filter(|every| !every.is_zero());
        let watchdog = every.map(|every| WatchdogDeadline { every, by: self.now + every });
        self.services[id].watchdog = every;
        self.update_running(id, |running| running.watchdog = watchdog);
    }

    /// `WATCHDOG=trigger`.
    pub(super) fn on_watchdog_triggered(&mut self, run: RunId) {
        let Some(id) = self.instance_of(run) else { return };
        if let State::Executing(_) | State::Starting { .. } | State::Running(_) = self.services[id].state {
            self.stop(id, AfterStop::Fail(Fault::WatchdogTriggered));
        }
    }

    /// `EXTEND_TIMEOUT_USEC`.
    pub(super) fn on_timeout_extended(&mut self, run: RunId, by: Duration) {
        let Some(id) = self.instance_of(run) else { return };
        let extended = self.now + by;
        // Other states have no timeout that can be extended.
        let state = self.services[id].state;
        if let State::Starting { process, deadline: StartDeadline::ReadyBy(until) } = state {
            let instance = &mut self.services[id];
            let soak = instance.definition.reload.soak;
            instance.ready_again_by = instance.ready_again_by.map(|by| by.max(extended + soak));
            let deadline = StartDeadline::ReadyBy(until.max(extended));
            self.set_state(id, State::Starting { process, deadline });
        } else if let State::Stopping(stopping) = state
            && let Stopping { stage: StopStage::SignalSent | StopStage::PreStop, until, .. } = stopping
        {
            self.set_state(id, State::Stopping(Stopping { until: until.max(extended), ..stopping }));
        } else if let State::Running(Running { readiness: Readiness::Reloading { until }, .. }) = state {
            self.set_readiness(id, Readiness::Reloading { until: until.max(extended) });
        }
    }

    /// `MAINPID`: `pid` is the main process from now on. The exit of the previous one has no effect.
    pub(super) fn on_main_pid_changed(&mut self, run: RunId, pid: Pid) {
        let Some(id) = self.instance_of(run) else { return };
        self.on_executed(run);
        let state = self.services[id].state;
        if state.has_process() {
            self.set_state(id, state.with_pid(pid));
        }
    }
}

const fn is_configured(ready: &Ready, source: ReadySource) -> bool {
    match source {
        ReadySource::Notify => matches!(ready, Ready::Notify),
        ReadySource::Ipc => matches!(ready, Ready::Ipc),
        ReadySource::Fd => matches!(ready, Ready::Fd(_)),
        ReadySource::Probe => matches!(ready, Ready::Probe(_)),
    }
}
