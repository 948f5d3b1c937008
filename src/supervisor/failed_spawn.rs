//! Starts that create no process: tried again if the system is short of something, and else failed.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::core::Supervisor;
use super::record::Reason;
use super::restart;
use super::rollout::RolloutError;
use super::run_result::{Exit, FailureReason, RestartDecision, RunResult};
use super::state::{AfterRun, State, Stopped};
use crate::model::plan::Backoff;
use crate::model::{ExitStatus, InstanceId, RunId, StartFailure, StartStep};

/// The delay between attempts to create a process while the system is out of processes, memory or descriptors.
const SPAWN_RETRY_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(10), jitter: 0.1 };

impl Supervisor {
    pub(super) fn on_spawn_failed(&mut self, run: RunId, errno: Errno) {
        if self.on_side_run_refused(run, StartFailure { step: StartStep::Create, errno }) {
            return;
        }
        if let Some(id) = self.spawning_instance(run) {
            self.retry_spawn(id, errno);
        }
    }

    /// Tries again later, without a limit: the service is not at fault.
    pub(super) fn retry_spawn(&mut self, id: InstanceId, errno: Errno) {
        if self.is_draining() {
            return self.conclude(id, AfterRun::StayStopped(Stopped::Shutdown), Reason::Shutdown);
        }
        if id.is_surge() {
            // The old process continues, and a later reload may succeed.
            self.fail_rollout(id, RolloutError::SpawnFailed);
            let reason = Reason::SpawnFailed { errno, retry_in: Duration::ZERO, attempt: 1 };
            return self.conclude(id, AfterRun::StayStopped(Stopped::Replaced), reason);
        }
        let attempt = self.services[id].spawn_failures.saturating_add(1);
        self.services[id].spawn_failures = attempt;
        let retry_in = restart::backoff_delay(&SPAWN_RETRY_BACKOFF, attempt, &mut self.random);
        let until = self.now + retry_in;
        self.enter(id, State::BackingOff { until }, Reason::SpawnFailed { errno, retry_in, attempt });
    }

    /// There is no process, and a retry would not help.
    pub(super) fn on_bind_failed(&mut self, run: RunId, failure: StartFailure) {
        if self.on_side_run_refused(run, failure) {
            return;
        }
        let Some(id) = self.spawning_instance(run) else { return };
        let exit = Exit { status: ExitStatus::Code(failure.exit_code()), oom_killed: false };
        let hook = self.services[id].state.hook();
        let result = Rc::new(RunResult { failure: Some(failure), hook, ..RunResult::new(run, exit, Duration::ZERO) });
        self.services[id].last_run = Some(Rc::clone(&result));
        self.fail_unproven(id, &result);
        if failure.errno == Errno::ETIMEDOUT && !id.is_surge() {
            // What holds the lock may give it back.
            return self.retry_spawn(id, failure.errno);
        }
        let (next, decision) = if self.is_draining() {
            (AfterRun::StayStopped(Stopped::Shutdown), RestartDecision::StayStopped)
        } else if id.is_surge() {
            (AfterRun::StayStopped(Stopped::Replaced), RestartDecision::StayStopped)
        } else {
            let failure_reason = FailureReason::BindFailed;
            (self.after_last_run(id, Some(failure_reason)), RestartDecision::Fail(failure_reason))
        };
        let reason = self.ended(id, result, decision);
        self.conclude(id, next, reason);
    }
}
