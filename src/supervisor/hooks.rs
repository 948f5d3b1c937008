//! The hooks that run beside or after the main process: `pre_stop` and `post_stop`. Each is a run of its own.
//!
//! `pre_start` is in `transitions.rs`: it goes through the states of a start. These two are side runs of an instance that is
//! stopping: the stop, or what follows it, waits for them, and their failure is only reported.

use std::rc::Rc;
use std::time::Duration;

use super::core::Supervisor;
use super::event::{Action, Leftovers, Scope};
use super::record::{JournalEvent, Reason};
use super::run_result::{Exit, Fault, RunResult};
use super::side_run::SideRun;
use super::state::{AfterRun, AfterStop, CleaningUp, Process, State, StopStage, Stopping};
use crate::model::plan::Hook;
use crate::model::{ExitStatus, InstanceId, RunId, Signal, StartFailure};

impl Supervisor {
    /// Runs `pre_stop` before the stop signal, if the instance has one, and stops because somebody has ordered that or
    /// because it is unhealthy. In other cases it does not work, or exits on its own.
    pub(super) fn stop_running(&mut self, id: InstanceId, process: Process, then: AfterStop) {
        let definition = Rc::clone(&self.services[id].definition);
        let until = self.now + definition.stop.timeout;
        let is_ordered =
            matches!(then, AfterStop::StayStopped(_) | AfterStop::Restart(_) | AfterStop::Fail(Fault::Unhealthy));
        if !is_ordered
            || self.is_forced()
            || definition.stop.timeout.is_zero()
            || definition.hooks.find(Hook::PreStop).is_none()
        {
            return self.send_stop_signal(id, process, then, until);
        }
        let reason = self.reason_of(id, then);
        self.enter(id, State::Stopping(Stopping { process, stage: StopStage::PreStop, until, then }), reason);
        self.start_side_run(id, Hook::PreStop, None);
    }

    /// Runs `post_stop` after a run, or a `pre_start` that has not led to one, and its leftover processes. Returns whether it
    /// has one.
    pub(super) fn run_post_stop(&mut self, id: InstanceId, next: AfterRun, reason: &Reason) -> bool {
        let (now, is_forced) = (self.now, self.is_forced());
        let instance = &mut self.services[id];
        let is_over = matches!(instance.state, State::CleaningUp(CleaningUp { has_post_stop_begun: true, .. }));
        let Some(process) = instance.state.last_process().filter(|_| !is_over) else { return false };
        if instance.definition.hooks.find(Hook::PostStop).is_none() || is_forced {
            return false;
        }
        let ended = instance.last_run.as_ref().filter(|run| run.id == process.run && run.hook.is_none());
        let (ended, until) = (ended.map(|run| run.exit.status), now + instance.definition.hooks.timeout);
        let (stage, has_leftovers, has_post_stop_begun) = (StopStage::PostStop, false, true);
        let state = CleaningUp { process, stage, until, next, has_leftovers, has_post_stop_begun };
        if let Reason::CleanedUp { run, decision, definition } = reason.clone() {
            instance.reason = Some(Reason::Exited { run, decision, definition });
        }
        self.enter(id, State::CleaningUp(state), reason.clone());
        self.start_side_run(id, Hook::PostStop, ended);
        true
    }

    fn start_side_run(&mut self, id: InstanceId, hook: Hook, ended: Option<ExitStatus>) {
        let (run, instances, since) = (self.next_run(), self.services[id.service].desired, self.now);
        let (has_process, has_exited, is_killed, failure) = (false, false, false, None);
        let instance = &mut self.services[id];
        instance.side_run = Some(SideRun { run, hook, since, has_process, has_exited, is_killed, failure });
        let (restarts, definition) = (instance.restarts.total(), Rc::clone(&instance.definition));
        self.runs.insert(run, id);
        self.act(Action::Spawn { run, instance: id, hook: Some(hook), ended, restarts, instances, definition });
    }

    /// The instance of which this is the side run.
    pub(super) fn with_side_run(&mut self, run: RunId) -> Option<(InstanceId, &mut SideRun)> {
        let id = *self.runs.get(&run)?;
        let side_run = self.services[id].side_run.as_mut().filter(|side_run| side_run.run == run)?;
        Some((id, side_run))
    }

    pub(super) fn is_side_run(&self, run: RunId) -> bool {
        let side_run = self.runs.get(&run).and_then(|id| self.services.find(*id)?.side_run);
        side_run.is_some_and(|side_run| side_run.run == run)
    }

    /// Returns whether it was a side run.
    pub(super) fn on_side_run_spawned(&mut self, run: RunId) -> bool {
        self.with_side_run(run).map(|(_, side_run)| side_run.has_process = true).is_some()
    }

    /// It could not be created. Returns whether it was a side run.
    pub(super) fn on_side_run_refused(&mut self, run: RunId, failure: StartFailure) -> bool {
        let Some((id, side_run)) = self.with_side_run(run) else { return false };
        side_run.failure = Some(failure);
        let exit = Exit { status: ExitStatus::Code(failure.exit_code()), oom_killed: false };
        self.report_side_run(id, exit, None);
        self.forget_side_run(id);
        self.on_side_run_over(id);
        true
    }

    /// It could not execute its program. Returns whether it was a side run.
    pub(super) fn on_side_run_not_executed(&mut self, run: RunId, failure: StartFailure) -> bool {
        self.with_side_run(run).map(|(_, side_run)| side_run.failure = Some(failure)).is_some()
    }

    /// Returns whether it was a side run.
    pub(super) fn on_side_run_exited(&mut self, run: RunId, exit: Exit, leftovers: Leftovers) -> bool {
        let Some((id, side_run)) = self.with_side_run(run) else { return false };
        side_run.has_exited = true;
        let is_success = side_run.failure.is_none() && exit.status == ExitStatus::Code(0);
        self.act(Action::ReleaseRun { run, instance: id });
        if !is_success {
            self.report_side_run(id, exit, None);
        }
        match leftovers {
            Leftovers::None => self.forget_side_run(id),
            Leftovers::Some => self.kill_side_run(id),
        }
        self.on_side_run_over(id);
        true
    }

    /// Its leftover processes are gone. Returns whether it was a side run.
    pub(super) fn on_side_run_gone(&mut self, run: RunId) -> bool {
        let Some((id, _)) = self.with_side_run(run) else { return false };
        self.forget_side_run(id);
        self.on_side_run_over(id);
        true
    }

    /// It has exited: continues the stop. What it has left behind is being killed, which the next run waits for.
    fn on_side_run_over(&mut self, id: InstanceId) {
        if let State::Stopping(Stopping { process, stage: StopStage::PreStop, until, then }) = self.services[id].state {
            self.send_stop_signal(id, process, then, until);
        }
        self.continue_cleanup(id);
    }

    /// Reports that it has failed, unless it was killed.
    fn report_side_run(&mut self, id: InstanceId, exit: Exit, fault: Option<Fault>) {
        let Some(SideRun { run, hook, since, failure, .. }) = self.services[id].side_run.filter(|it| !it.is_killed)
        else {
            return;
        };
        let run = RunResult::new(run, exit, self.now.since(since));
        let run = Rc::new(RunResult { hook: Some(hook), failure, fault, ..run });
        let definition = Rc::clone(&self.services[id].definition);
        self.record(JournalEvent::HookFailed { instance: id, run, definition });
    }

    /// Its time is over, which was `timeout`.
    pub(super) fn on_side_run_late(&mut self, id: InstanceId, timeout: Duration) {
        let exit = Exit { status: ExitStatus::Signal(Signal::KILL), oom_killed: false };
        if let Some(SideRun { hook, .. }) = self.services[id].side_run {
            self.report_side_run(id, exit, Some(Fault::HookTimeout(hook, timeout)));
        }
        self.kill_side_run(id);
    }

    /// Kills it, or its leftover processes; one that does not exist yet is not started.
    pub(super) fn kill_side_run(&mut self, id: InstanceId) {
        let Some(side_run) = &mut self.services[id].side_run else { return };
        side_run.is_killed = true;
        let SideRun { run, has_process, has_exited, .. } = *side_run;
        if !has_process {
            return self.forget_side_run(id);
        }
        let scope = if has_exited { Scope::Leftovers } else { Scope::Group };
        self.act(Action::Signal { run, scope, signal: Signal::KILL });
    }

    /// Nothing waits for it any more.
    pub(super) fn forget_side_run(&mut self, id: InstanceId) {
        if let Some(side_run) = self.services[id].side_run.take() {
            self.runs.remove(&side_run.run);
        }
    }
}
