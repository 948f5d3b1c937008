//! How events change the state of an instance. The table at the top of [`super::instance`] shows the result.

use std::rc::Rc;
use std::time::Duration;

use super::availability::Availability;
use super::core::Supervisor;
use super::event::{Action, Leftovers};
use super::measuring::MemoryState;
use super::readiness::{Lifetime, Readiness, WatchdogDeadline};
use super::record::{JournalEvent, Reason};
use super::request::PROOF_TIME;
use super::restart::{self, StartResult};
use super::run_result::{Exit, FailureReason, Fault, RestartCause, RestartDecision, RunResult};
use super::state::{
    AfterRun, AfterStop, ExitedProcess, Process, Running, StartDeadline, State, StateKind, Stopped, Stopping,
};
use super::state_name::StateName;
use crate::model::plan::{Hook, KillMode, Kind, Ready, Service};
use crate::model::{ExitStatus, InstanceId, Pid, ProbeFailure, RunId, StartFailure};

impl Supervisor {
    /// The instance of this run; `None` if the run has ended.
    pub(super) fn instance_of(&self, run: RunId) -> Option<InstanceId> {
        self.runs.get(&run).copied()
    }

    /// Changes the state, and records the transition if users see another state or a run has ended.
    pub(super) fn enter(&mut self, id: InstanceId, state: State, reason: Reason) {
        let before = self.set_state(id, state);
        if state.has_process() && !matches!(state, State::Running(_)) {
            self.abort_check(&before);
        }
        let (from, to) = (before.name(), state.name());
        let is_always_recorded = matches!(
            reason,
            Reason::Exited { .. } | Reason::DependencyCompleted { .. } | Reason::DependencyFailed { .. }
        );
        if from == to && !is_always_recorded {
            return;
        }
        // After a cleanup the reason is still how the run has ended.
        if !matches!(reason, Reason::CleanedUp { .. }) {
            self.services[id].reason = Some(reason.clone());
        }
        let process = state.last_process().or(before.last_process()).filter(|process| process.hook.is_none());
        self.record(JournalEvent::Transition {
            instance: id,
            from,
            to,
            pid: process.map(|process| process.pid),
            reason,
        });
        self.release_if_inactive(id);
        self.prefer_sockets_if_running(id);
    }

    /// The only place that replaces a state. It updates the counts, the timers and the index of runs. Returns the old state.
    pub(super) fn set_state(&mut self, id: InstanceId, state: State) -> State {
        let before = self.services.replace_state(id, state);
        let instance = &mut self.services[id];
        let has_worked = match instance.definition.kind {
            Kind::Service => state.is_proven(),
            Kind::Oneshot => false,
        };
        instance.is_established |= has_worked || state.name() == StateName::Completed;
        self.timers.change(id, before.deadline(), state.deadline());
        if before.run() != state.run() {
            if let Some(run) = before.run() {
                self.runs.remove(&run);
            }
            if let Some(run) = state.run() {
                self.runs.insert(run, id);
            }
        }
        self.mark_dirty(id.service);
        before
    }

    /// Updates the data of a running instance.
    pub(super) fn update_running(&mut self, id: InstanceId, update: impl FnOnce(&mut Running)) {
        if let State::Running(mut running) = self.services[id].state {
            update(&mut running);
            self.set_state(id, State::Running(running));
        }
    }

    /// Starts it, lets it wait for its dependencies, or fails it if a dependency has failed.
    pub(super) fn start_or_wait(&mut self, id: InstanceId, reason: Reason) {
        if self.awaits_schedule_after(id, &reason) {
            self.enter(id, State::Scheduled { failure: None }, reason);
        } else if self.dependencies_are_ready(id.service) {
            self.start(id, reason);
        } else if let Some(dependency) = self.dependency_that_is(Availability::Failed, id.service) {
            self.block_instance(id, dependency);
        } else {
            self.wait(id, reason);
        }
    }

    pub(super) fn start(&mut self, id: InstanceId, reason: Reason) {
        let instance = &mut self.services[id];
        (instance.start_failure, instance.probe_failure, instance.ready_again_by) = (None, None, None);
        instance.check_failure = None;
        (instance.has_been_ready, instance.has_reported_stopping) = (false, false);
        if let Some(cause) = instance.ended_by.take() {
            instance.restarts.count(cause);
        }
        let (run, hook) = (self.next_run(), self.services[id.service].definition.hooks.find(Hook::PreStart));
        self.enter(id, State::Spawning { run, hook, prepared: None }, reason);
        self.request_spawn(id, run, hook);
    }

    /// Requests a new process in place of one that was requested and does not exist yet, because the id or the definition of
    /// the instance has changed.
    pub(super) fn respawn(&mut self, id: InstanceId) {
        let hook = self.services[id].state.hook();
        self.spawn(id, hook.and_then(|hook| self.services[id.service].definition.hooks.find(hook)));
    }

    /// Requests the hook, or the main process, of a start that has begun.
    pub(super) fn spawn(&mut self, id: InstanceId, hook: Option<Hook>) {
        let (run, prepared) = (self.next_run(), self.services[id].state.last_process());
        self.set_state(id, State::Spawning { run, hook, prepared });
        self.request_spawn(id, run, hook);
    }

    fn request_spawn(&mut self, id: InstanceId, run: RunId, hook: Option<Hook>) {
        let service = &self.services[id.service];
        let (definition, instances) = (Rc::clone(&service.definition), service.desired);
        let instance = &mut self.services[id];
        instance.definition = Rc::clone(&definition);
        instance.watchdog = definition.watchdog;
        let restarts = instance.restarts.total();
        self.act(Action::Spawn { run, instance: id, hook, ended: None, restarts, instances, definition });
    }

    pub(super) const fn next_run(&mut self) -> RunId {
        let run = self.last_run.next();
        self.last_run = run;
        run
    }

    pub(super) fn on_spawned(&mut self, run: RunId, pid: Pid) {
        let Some(id) = self.instance_of(run).filter(|_| !self.on_side_run_spawned(run)) else { return };
        if let State::Spawning { hook, .. } = self.services[id].state {
            self.set_state(id, State::Executing(Process { run, pid, since: self.now, hook }));
        }
    }

    /// The instance that waits for the process of this run.
    pub(super) fn spawning_instance(&self, run: RunId) -> Option<InstanceId> {
        self.instance_of(run).filter(|id| matches!(self.services[*id].state, State::Spawning { .. }))
    }

    pub(super) fn on_executed(&mut self, run: RunId) {
        let Some(id) = self.instance_of(run) else { return };
        // In any other state it is being stopped.
        let State::Executing(process) = self.services[id].state else { return };
        let process = Process { since: self.now, ..process };
        let definition = &self.services[id].definition;
        if process.hook.is_some() {
            let deadline = StartDeadline::ReadyBy(self.now + definition.hooks.timeout);
            self.set_state(id, State::Starting { process, deadline });
            return;
        }
        let deadline = match definition.ready {
            Ready::Exec => return self.begin_running(id, process),
            Ready::Delay(delay) => StartDeadline::ReadyAt(self.now + delay),
            Ready::Notify | Ready::Ipc | Ready::Fd(_) | Ready::Probe(_) => {
                StartDeadline::ReadyBy(self.now + definition.start_timeout())
            }
        };
        let has_probe = matches!(definition.ready, Ready::Probe(_));
        self.set_state(id, State::Starting { process, deadline });
        if has_probe {
            self.act(Action::StartProbe { run });
        }
    }

    pub(super) fn begin_running(&mut self, id: InstanceId, process: Process) {
        self.services[id].has_been_ready = true;
        let watchdog = self.services[id].watchdog.map(|every| WatchdogDeadline { every, by: self.now + every });
        let Service { kind, reload, ready_timeout, .. } = &*self.services[id].definition;
        let min_ready_until = match kind {
            Kind::Oneshot => ready_timeout.map(|timeout| process.since + timeout),
            Kind::Service => {
                let is_new = self.is_unproven(id) || self.is_tentative(id);
                // Without `soak`, only the new process of a rolling reload is trusted at once.
                let least = if self.is_ready_at_once(id) && !id.is_surge() { PROOF_TIME } else { Duration::ZERO };
                let soak = reload.soak.max(least);
                let soaks_until = (!soak.is_zero() && is_new).then(|| self.now + soak);
                let proven_at = self.is_proof_awaited(id).then(|| process.since + PROOF_TIME);
                soaks_until.max(proven_at.filter(|at| *at > self.now))
            }
        };
        let checks = self.checks_of(&self.services[id].definition);
        let lifetime = self.lifetime_from(process.since, self.services[id].definition.max_lifetime);
        let (readiness, memory) = (Readiness::Ready, MemoryState::Below);
        let running = Running { process, readiness, watchdog, min_ready_until, checks, lifetime, memory };
        self.enter(id, State::Running(running), Reason::Ready);
        self.measure_memory_of(id);
    }

    /// The state of an instance that has failed and is not restarted.
    pub(super) const fn failed(&mut self, failure_reason: FailureReason) -> Stopped {
        self.failures = self.failures.saturating_add(1);
        Stopped::Failed { failure_reason, nth: self.failures }
    }

    pub(super) fn on_exec_failed(&mut self, run: RunId, failure: StartFailure) {
        let id = self.instance_of(run).filter(|_| !self.on_side_run_not_executed(run, failure));
        if let Some(id) = id {
            self.services[id].start_failure = Some(failure);
        }
    }

    pub(super) fn on_probe_failed(&mut self, run: RunId, failure: ProbeFailure) {
        if let Some(id) = self.instance_of(run) {
            self.services[id].probe_failure = Some(failure);
        }
    }

    pub(super) fn on_exited(&mut self, run: RunId, exit: Exit, leftovers: Leftovers) {
        let Some(id) = self.instance_of(run) else { return };
        if self.on_side_run_exited(run, exit, leftovers) || !self.services[id].state.has_process() {
            return;
        }
        self.act(Action::ReleaseRun { run, instance: id });
        self.promote_surge(id);
        let Some(id) = self.instance_of(run) else { return };
        let state = self.services[id].state;
        let Some(process) = state.process() else { return };
        let failure = self.services[id].start_failure;
        let ended = ExitedProcess { id, process, leftovers, stopping: None };
        let is_hook = process.hook.is_some();
        if is_hook && failure.is_none() && exit.status == ExitStatus::Code(0) && state.kind() != StateKind::Stopping {
            return self.end_run(ended, AfterRun::Proceed, Reason::DependenciesReady);
        }
        if !failure.is_some_and(StartFailure::is_shortage) {
            let instance = &mut self.services[id];
            (instance.ended_by, instance.spawn_failures) = (Some(RestartCause::Crash), 0);
        }
        self.services[id].has_executed |= failure.is_none() && !is_hook;
        let uptime = self.now.since(process.since);
        let is_daemon = leftovers == Leftovers::Some
            && !is_hook
            && !matches!(state, State::Stopping(_))
            && self.services[id].definition.stop.kill_mode != KillMode::Process
            && exit.status == ExitStatus::Code(0)
            && uptime < Duration::from_secs(1);
        let result = RunResult { failure, is_daemon, hook: process.hook, ..RunResult::new(run, exit, uptime) };
        if let State::Stopping(stopping) = state {
            return self.on_stopped(ended, stopping, result);
        }
        let start = if let State::Running(_) = state { StartResult::Ready } else { StartResult::NotReady };
        self.on_crash(ended, result, start);
    }

    /// A process that was being stopped has exited.
    fn on_stopped(&mut self, ended: ExitedProcess, stopping: Stopping, result: RunResult) {
        let id = ended.id;
        let Stopping { stage, until, then, .. } = stopping;
        let ended = ExitedProcess { stopping: Some((stage, until)), ..ended };
        match then {
            AfterStop::ExitOnItsOwn => {
                self.on_crash(ExitedProcess { stopping: None, ..ended }, result, StartResult::Ready)
            }
            AfterStop::Fail(fault) => {
                // A oneshot that does not finish has not started, however long it runs.
                // One that is unhealthy did not work, even if it was ready.
                let has_failed = matches!(fault, Fault::NotFinished(_) | Fault::Unhealthy);
                let start = match self.services[id].has_been_ready && !has_failed {
                    true => StartResult::Ready,
                    false => StartResult::NotReady,
                };
                let probe_failure = self.probe_failure(id, fault);
                self.on_crash(ended, RunResult { fault: Some(fault), probe_failure, ..result }, start);
            }
            AfterStop::StayStopped(_) | AfterStop::Restart(_) => {
                let cause = if let AfterStop::Restart(by) = then { by.restart_cause() } else { RestartCause::Operator };
                let result = Rc::new(result);
                self.end_by(id, &result, cause);
                let then = if id.is_surge() { AfterStop::StayStopped(Stopped::Replaced) } else { then };
                let (next, decision) = self.after_stop_of(id, then);
                let reason = self.ended(id, result, decision);
                self.end_run(ended, next, reason);
            }
        }
    }

    /// A process has exited on its own, or was stopped because of a fault: the restart policy decides.
    fn on_crash(&mut self, ended: ExitedProcess, result: RunResult, start: StartResult) {
        let id = ended.id;
        let cause = RestartCause::of(&result, &self.services[id].definition.restart.success);
        let result = Rc::new(result);
        self.end_by(id, &result, cause);
        self.fail_unproven(id, &result);
        if id.is_surge() {
            let why = if self.is_draining() { Stopped::Shutdown } else { Stopped::Replaced };
            let reason = self.ended(id, result, RestartDecision::StayStopped);
            return self.end_run(ended, AfterRun::StayStopped(why), reason);
        }
        if let Some(failure) = result.failure.filter(|failure| failure.is_shortage()) {
            return self.retry_spawn(id, failure.errno);
        }
        let service = Rc::clone(&self.services[id].definition);
        let mut limit = service.restart.max_restarts;
        if self.is_beside_old(id) {
            limit = None;
            let ends = &mut self.services[id].ends_beside_old;
            *ends = ends.saturating_add(1);
        }
        let history = (self.services[id].unstable, limit, self.services[id].has_executed);
        let mut decision = restart::decide(&service, &result, start, history, &mut self.random);
        if self.is_draining() && matches!(decision, RestartDecision::Restart { .. }) {
            decision = RestartDecision::StayStopped;
        }
        let untried = self.services[id.service].untried.as_ref().filter(|_| service.kind == Kind::Oneshot);
        if untried.is_some_and(|untried| untried.before.is_some())
            && matches!(decision, RestartDecision::Restart { .. })
        {
            decision = RestartDecision::Fail(FailureReason::Untried);
        }
        let next = match decision {
            RestartDecision::Restart { delay, unstable, .. } => {
                self.services[id].unstable = unstable;
                self.fail_requests(id);
                AfterRun::Restart { due: self.now + delay }
            }
            RestartDecision::StayStopped => AfterRun::StayStopped(Stopped::Shutdown),
            RestartDecision::Complete => self.after_last_run(id, None),
            RestartDecision::Fail(failure_reason) => self.after_last_run(id, Some(failure_reason)),
        };
        let reason = self.ended(id, result, decision);
        self.end_run(ended, next, reason);
    }

    fn end_by(&mut self, id: InstanceId, result: &Rc<RunResult>, cause: RestartCause) {
        let instance = &mut self.services[id];
        instance.last_run = Some(Rc::clone(result));
        instance.ended_by = instance.ended_by.map(|_| cause);
    }

    pub(super) fn ended(&self, id: InstanceId, run: Rc<RunResult>, decision: RestartDecision) -> Reason {
        Reason::Exited { run, decision, definition: Rc::clone(&self.services[id].definition) }
    }

    /// The run has ended, and no leftover processes remain.
    pub(super) fn conclude(&mut self, id: InstanceId, next: AfterRun, reason: Reason) {
        let is_ended_by_shutdown = next == AfterRun::Proceed && self.is_draining();
        let (next, reason) = match is_ended_by_shutdown {
            true => (AfterRun::StayStopped(Stopped::Shutdown), Reason::Shutdown),
            false => (next, reason),
        };
        if next != AfterRun::Proceed && self.run_post_stop(id, next, &reason) {
            return;
        }
        match next {
            AfterRun::Restart { .. } | AfterRun::Start if self.is_draining() => {
                self.enter(id, State::Stopped { why: Stopped::Shutdown }, reason);
            }
            AfterRun::Restart { due } if due <= self.now => {
                self.start(id, reason);
            }
            AfterRun::Restart { due } => self.enter(id, State::BackingOff { until: due }, reason),
            AfterRun::Start if self.dependencies_are_ready(id.service) => self.start(id, reason),
            // If a dependency has failed, `propagate` fails the instance. The end of the run is recorded first.
            AfterRun::Start => self.wait(id, reason),
            AfterRun::AwaitSchedule { .. } if self.is_draining() => {
                self.enter(id, State::Stopped { why: Stopped::Shutdown }, reason);
            }
            AfterRun::AwaitSchedule { failure } => self.enter(id, State::Scheduled { failure }, reason),
            AfterRun::Proceed => self.spawn(id, None),
            AfterRun::StayStopped(why) => self.enter(id, State::Stopped { why }, reason),
        }
    }

    pub(super) fn on_deadline(&mut self, id: InstanceId) {
        match self.services[id].state {
            State::Starting { process, deadline: StartDeadline::ReadyAt(_) } => self.begin_running(id, process),
            State::Starting { process, deadline: StartDeadline::ReadyBy(_) } => {
                let definition = Rc::clone(&self.services[id].definition);
                if let Some(hook) = process.hook {
                    return self.stop(id, AfterStop::Fail(Fault::HookTimeout(hook, definition.hooks.timeout)));
                }
                let run = process.run;
                self.stop(id, AfterStop::Fail(Fault::NotReady(definition.start_timeout())));
                if let Ready::Probe(_) = definition.ready {
                    self.act(Action::AbortProbe { run });
                }
            }
            State::Running(running) => self.on_running_deadline(id, running),
            State::Stopping(_) => self.escalate(id),
            State::CleaningUp(_) => self.escalate_cleanup(id),
            State::BackingOff { .. } => self.start(id, Reason::BackoffElapsed),
            State::Waiting { .. } => self.warn_of_wait(id.service),
            // These have no deadline.
            State::Spawning { .. } | State::Executing(_) | State::Scheduled { .. } | State::Stopped { .. } => {}
        }
    }

    fn on_running_deadline(&mut self, id: InstanceId, running: Running) {
        let now = self.now;
        if let Some(WatchdogDeadline { every, .. }) = running.watchdog.filter(|watchdog| watchdog.by <= now) {
            self.stop(id, AfterStop::Fail(Fault::WatchdogTimeout(every)));
        } else if let Some(until) = running.min_ready_until.filter(|until| *until <= now) {
            match self.services[id].definition.kind {
                Kind::Service => self.mark_proven(id),
                Kind::Oneshot => {
                    let limit = until.since(running.process.since);
                    self.stop(id, AfterStop::Fail(Fault::NotFinished(limit)));
                }
            }
        } else if running.checks.and_then(|checks| checks.due()).is_some_and(|due| due <= now) {
            self.start_check(id, running);
        } else if running.lifetime.until().is_some_and(|until| until <= now) {
            self.update_running(id, |running| running.lifetime = Lifetime::Over);
        } else {
            self.on_reload_report_missing(id);
        }
    }

    /// The new process of a reload has been ready for long enough.
    pub(super) fn mark_proven(&mut self, id: InstanceId) {
        self.update_running(id, |running| {
            if running.min_ready_until.is_some() || running.readiness.is_reload_pending() {
                running.readiness = running.readiness.settled();
                running.min_ready_until = None;
            }
        });
    }

    pub(super) fn state_name(&self, id: InstanceId) -> StateName {
        self.services[id].state.name()
    }
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
