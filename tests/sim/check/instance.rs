//! The state of one instance.

use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::{Hook, Kind, Ready, Service};
use keepalive::model::{InstanceId, Mono, Pid, RunId, StartFailure};
use keepalive::supervisor::{Exit, Fault, Reason, RestartDecision, StateName, Verb};

use super::health::Checks;
use super::hooks::{PreStop, SideRun};
use super::requests::{MAX_SOAK, PROOF_TIME};
use super::restarts::Expected;
use super::{Verdict, rule};

/// Whether it is stopping because its process has reported so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportedStop {
    No,
    /// There is no other reason to stop.
    Only,
    /// A stop is requested too, but its stop signal has not been sent.
    StopRequested,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Instance {
    /// The definition of its current or last run.
    pub(crate) definition: Rc<Service>,
    pub(crate) state: StateName,
    /// An operator has stopped it.
    pub(crate) stopped_by_operator: bool,
    /// Its run has ended, and it is not started again when its leftovers are gone.
    pub(super) stays_stopped: bool,
    /// It is stopping, and a start or restart is requested.
    pub(crate) start_requested: bool,
    /// Its run that has been spawned, without a result yet.
    pub(crate) spawning: Option<RunId>,
    /// Its run with a main process that has not been reaped.
    pub(crate) main: Option<RunId>,
    /// What that run is, or the run that has been spawned or lingers, if it is a hook.
    pub(crate) hook: Option<Hook>,
    /// Whether its start began with a definition that has `pre_start`, and that has succeeded.
    pub(crate) needs_pre_start: bool,
    pub(crate) is_prepared: bool,
    /// Its `pre_stop` or `post_stop`, until nothing of it is left.
    pub(super) side_run: Option<SideRun>,
    pub(super) pre_stop: Option<PreStop>,
    /// A run has ended, and `post_stop` has not been run.
    pub(super) owes_post_stop: bool,
    /// The main process of that run.
    pub(crate) pid: Option<Pid>,
    /// Its run whose main process has been reaped and whose leftovers are being stopped.
    pub(crate) lingering: Option<RunId>,
    /// The time since which leftovers are being stopped.
    pub(super) lingering_since: Mono,
    /// Leftovers cannot be killed and are no longer awaited.
    pub(super) has_given_up: bool,
    pub(crate) since: Mono,
    /// Since when it is in the state running.
    pub(super) running_since: Mono,
    pub(crate) failure: Option<StartFailure>,
    pub(crate) unstable: u32,
    /// A reload may have reset `unstable`.
    pub(super) may_forget_failures: bool,
    pub(crate) refusals: u32,
    /// The number of runs, without those that failed for lack of a resource.
    pub(crate) runs: u32,
    /// It has executed its program in some run.
    pub(crate) has_executed: bool,
    pub(crate) last_exit: Option<Exit>,
    /// The decision that must come next.
    pub(crate) expected: Option<Expected>,
    /// The end of `backoff`.
    pub(crate) due: Option<Mono>,
    /// The progress of its run.
    pub(super) progress: Progress,
    /// The time at which it becomes ready.
    pub(crate) ready_at: Option<Mono>,
    /// The deadline for readiness.
    pub(crate) ready_by: Option<Mono>,
    /// The final deadline for a new process that reloads itself repeatedly.
    pub(super) ready_again_by: Option<Mono>,
    /// The watchdog interval and the deadline for the next ping.
    pub(crate) watchdog: Option<(Duration, Mono)>,
    /// The watchdog interval that its process has reported.
    pub(crate) reported_watchdog: Option<Duration>,
    /// The fault because of which it is being stopped.
    pub(crate) fault: Option<Fault>,
    /// Since when it has waited for its dependencies, until that has been told.
    pub(super) waits_since: Option<Mono>,
    /// The stop or restart that waits for the stops of its dependents.
    pub(super) queued: Option<Verb>,
    /// Its process has ended before its stop or restart has begun, which follows at once.
    pub(super) stop_is_due: bool,
    /// It is being stopped in order.
    pub(super) stops_in_order: bool,
    /// Its last run was stopped because of a fault.
    pub(super) was_stopped_for_fault: bool,
    pub(crate) reported_stop: ReportedStop,
    /// Its process has reported its stop at any time.
    pub(crate) has_announced_stop: bool,
    /// The time of its delayed stop signal.
    pub(crate) delayed_until: Option<Mono>,
    /// The end of the soak time that a process has in the first definition with which it is ready.
    pub(super) soaks_until: Option<Mono>,
    /// It was started at boot, or has been ready for long enough since a request has started it: its failure may end keepalive.
    pub(crate) may_end: bool,
    /// The same, if it has certainly been ready for long enough: its failure must end keepalive.
    pub(crate) must_end: bool,
    /// The end of the soak time of a surge instance.
    pub(crate) min_ready_until: Option<Mono>,
    /// The deadline after its stop signal.
    pub(crate) kill_at: Option<Mono>,
    pub(crate) kills: u32,
    /// The position of its failure among all failures, if it has failed.
    pub(crate) failed: Option<u32>,
    /// A dependency failed before it could start.
    pub(crate) blocked: bool,
    /// When its oneshot must have finished.
    pub(crate) finish_by: Option<Mono>,
    /// Its health checks.
    pub(super) checks: Option<Checks>,
    /// It has been replaced, and is the old process of a reload.
    pub(super) is_old: bool,
    /// A run has ended beside the old process of a reload.
    pub(super) has_died_beside_old: bool,
}

/// The progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Made,
    /// Exec has been reported.
    Executed,
    Ready,
    /// It was ready and has reported a reload.
    NotReady,
}

/// After this time from the first of five SIGKILLs, leftovers no longer block the next run.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_millis(200 + 400 + 800 + 1_600 + 3_200);

impl Instance {
    pub(super) fn new(definition: &Rc<Service>) -> Self {
        Self {
            definition: Rc::clone(definition),
            progress: Progress::Made,
            ready_by: None,
            ready_again_by: None,
            watchdog: None,
            reported_watchdog: None,
            fault: None,
            waits_since: None,
            queued: None,
            stop_is_due: false,
            stops_in_order: false,
            was_stopped_for_fault: false,
            reported_stop: ReportedStop::No,
            has_announced_stop: false,
            delayed_until: None,
            soaks_until: None,
            may_end: false,
            must_end: false,
            min_ready_until: None,
            state: StateName::Stopped,
            stopped_by_operator: false,
            stays_stopped: false,
            start_requested: false,
            spawning: None,
            main: None,
            hook: None,
            needs_pre_start: false,
            is_prepared: false,
            side_run: None,
            pre_stop: None,
            owes_post_stop: false,
            pid: None,
            lingering: None,
            lingering_since: Mono::default(),
            has_given_up: false,
            since: Mono::from_nanos(0),
            running_since: Mono::from_nanos(0),
            failure: None,
            unstable: 0,
            may_forget_failures: false,
            refusals: 0,
            runs: 0,
            has_executed: false,
            last_exit: None,
            expected: None,
            due: None,
            ready_at: None,
            kill_at: None,
            kills: 0,
            failed: None,
            blocked: false,
            finish_by: None,
            checks: None,
            is_old: false,
            has_died_beside_old: false,
        }
    }

    /// Whether its process is ready as soon as it has executed its program, and goes on.
    pub(crate) fn is_ready_at_once(&self) -> bool {
        self.definition.kind == Kind::Service && self.definition.ready == Ready::Exec
    }

    /// Its failure ends keepalive.
    pub(super) const fn establish(&mut self) {
        (self.may_end, self.must_end) = (true, true);
    }

    /// A request starts it: its failure does not end keepalive.
    pub(super) const fn put_to_test(&mut self) {
        (self.may_end, self.must_end) = (false, false);
    }

    /// A reload sends it a signal: what it does not survive need not end keepalive.
    pub(super) const fn signal_reload(&mut self, now: Mono) {
        (self.must_end, self.running_since) = (false, now);
    }

    /// It is not running any more.
    pub(super) fn note_run(&mut self, now: Mono) {
        if self.state == StateName::Running && self.definition.kind == Kind::Service {
            let ran = now.since(self.running_since);
            self.may_end |= ran >= self.definition.reload.soak;
            self.must_end |= ran > PROOF_TIME + MAX_SOAK && !self.is_not_ready();
        }
    }

    pub(super) fn on_entered(&mut self, reason: &Reason, now: Mono) {
        let is_over =
            matches!(reason, Reason::Exited { decision, .. } if !matches!(decision, RestartDecision::Restart { .. }));
        self.stays_stopped = self.state == StateName::Stopping && is_over;
        match self.state {
            StateName::Running => self.running_since = now,
            StateName::Completed => self.establish(),
            _ => {}
        }
    }

    /// Whether an operator has stopped it, or it is being stopped for one.
    pub(super) fn is_stopped_by_operator(&self) -> bool {
        self.stopped_by_operator && matches!(self.state, StateName::Stopped | StateName::Stopping)
    }

    /// Whether it has a process that nothing stops yet.
    pub(crate) fn is_up(&self) -> bool {
        self.main.is_some() && matches!(self.state, StateName::Starting | StateName::Running)
    }

    pub(crate) fn has_been_ready(&self) -> bool {
        matches!(self.progress, Progress::Ready | Progress::NotReady)
    }

    pub(super) fn is_not_ready(&self) -> bool {
        let is_unhealthy = self.checks.as_ref().is_some_and(|checks| checks.is_unhealthy);
        self.progress == Progress::NotReady || is_unhealthy
    }

    /// Its stop timeout begins.
    pub(super) fn on_stop_signal(&mut self, now: Mono) {
        self.kill_at = Some(now + self.definition.stop.timeout);
        (self.delayed_until, self.kills) = (None, 0);
    }

    /// Whether its stop signal may still come while it is stopping.
    pub(super) fn stop_signal_may_be_late(&self, now: Mono) -> bool {
        self.pre_stop.is_some()
            || self.delayed_until.is_some_and(|until| until <= now)
            || self.reported_stop != ReportedStop::No
    }

    /// It or its leftovers are reported as unkillable.
    pub(super) fn on_unkillable(&mut self, id: InstanceId, now: Mono) -> Verdict {
        let is_cleaning_up = self.state == StateName::Starting && self.is_prepared;
        rule!(is_cleaning_up || self.state == StateName::Stopping, "{id:?} cannot be killed while {:?}", self.state);
        if self.lingering.is_some() {
            let is_early = now < self.lingering_since + LEFTOVERS_TIMEOUT;
            rule!(!is_early, "leftovers of {id:?} are abandoned too early: {self:?}");
            self.has_given_up = true;
        }
        Ok(())
    }

    /// The exit code for keepalive: never 0 for a failure.
    pub(crate) fn failure_code(&self) -> u8 {
        match self.last_exit.map_or(1, |exit| exit.status.code()) {
            // The signal was keepalive's own.
            129.. if self.was_stopped_for_fault => 1,
            code => code.max(1),
        }
    }
}
