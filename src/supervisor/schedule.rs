//! Schedules: the runs of oneshots, and the restarts of services, at times of the wall clock.
//!
//! The supervisor does not read the clock. [`Supervisor::wall_deadline`] says when something is due; the runtime then sends
//! [`Event::WallClock`](super::Event::WallClock), and also when the clock was set.
//!
//! A run that is due while the one before it is not over is skipped. When the clock was set forward or keepalive was
//! suspended, everything that was missed is made up by one run, unless it is too late for that. When the clock was set back,
//! what has run does not run again, except for schedules that repeat, such as `*/5 * * * *`, which follow the clock.

use std::rc::Rc;

use super::core::Supervisor;
use super::planned::SkipReason;
use super::record::{JournalEvent, Reason, Requester};
use super::run_result::{FailureReason, RestartDecision};
use super::state::{AfterRun, AfterStop, State, Stopped};
use crate::model::plan::Kind;
use crate::model::{InstanceId, ServiceIndex};

/// When the clock was set by more than this, in seconds, what was due meanwhile was not missed: the clock was wrong. As in
/// Vixie's cron.
const MAX_CLOCK_STEP: i64 = 3 * 3_600;

impl Supervisor {
    /// When [`Event::WallClock`](super::Event::WallClock) is needed, in seconds since 1970; also if that time has passed.
    #[must_use]
    pub const fn wall_deadline(&self) -> Option<i64> {
        self.calendar.due
    }

    /// Schedules may have changed: asks for the time.
    pub(super) fn read_calendar(&mut self) {
        let has_any = self.plan.services.iter().any(|service| service.schedule.is_some());
        self.calendar.due = (has_any || self.calendar.due.is_some()).then_some(i64::MIN);
    }

    pub(super) fn on_wall_clock(&mut self, now: i64) {
        let before = self.calendar.read_at.replace(now).unwrap_or(now);
        self.calendar.due = None;
        if self.is_draining() {
            return;
        }
        for service in self.services.service_indexes() {
            let definition = Rc::clone(&self.services[service].definition);
            let Some(schedule) = definition.schedule.as_ref().filter(|_| !definition.is_removed) else {
                self.services[service].planned.due = None;
                continue;
            };
            let known = self.services[service].planned.due.take().filter(|(known, _)| known == schedule);
            let next = match known {
                Some((_, due)) if now < before => {
                    let follows = schedule.cron.is_repeated() || before - now >= MAX_CLOCK_STEP;
                    if follows { schedule.next(now) } else { Some(due) }
                }
                Some((_, due)) if due > now => Some(due),
                Some((_, due)) => {
                    self.on_due(service, now - due);
                    schedule.next(now + 1)
                }
                None => schedule.next(now),
            };
            self.services[service].planned.due = next.map(|next| (Rc::clone(schedule), next));
            self.calendar.due = self.calendar.due.into_iter().chain(next).min();
        }
    }

    /// A run or a restart is due, since `late` seconds.
    fn on_due(&mut self, service: ServiceIndex, late: i64) {
        let is_suspended = |id: InstanceId| self.services[id].state.is_inactive();
        if self.services.ids_of(service).all(is_suspended) {
            return;
        }
        if late >= MAX_CLOCK_STEP {
            return self.skip_run(service, SkipReason::TooLate(late));
        }
        if self.services[service].definition.kind == Kind::Service {
            return self.restart_instances(service);
        }
        for id in self.services.ids_of(service) {
            match self.services[id].state {
                State::Scheduled { .. } => self.request_start(id, Requester::Schedule),
                State::Stopped { .. } => {}
                State::Waiting { .. }
                | State::Spawning { .. }
                | State::Executing(_)
                | State::Starting { .. }
                | State::Running(_)
                | State::Stopping(_)
                | State::CleaningUp(_)
                | State::BackingOff { .. } => self.skip_run(service, SkipReason::StillRunning),
            }
        }
    }

    /// `restart_schedule` is due.
    fn restart_instances(&mut self, service: ServiceIndex) {
        let ids: Vec<_> = self.services.ids_of(service).filter(|id| self.services.has(*id)).collect();
        match self.reloadable(&ids) {
            // It is being scaled to zero: there is nothing to replace.
            Ok(()) if ids.is_empty() => {}
            Ok(()) => {
                let numbers = ids.iter().map(|id| id.number).collect();
                self.start_rollout(service, numbers, None, None, Requester::Schedule);
            }
            Err(_) => self.skip_run(service, SkipReason::Reloading),
        }
    }

    fn skip_run(&mut self, service: ServiceIndex, why: SkipReason) {
        let runs = &mut self.services[service].planned.runs;
        runs.skipped = runs.skipped.saturating_add(1);
        self.record(JournalEvent::RunSkipped { service, why });
    }

    /// A dependency of a run that was due will not become ready. The state of the instance after that.
    pub(super) fn skipped_run(&mut self, service: ServiceIndex) -> State {
        let runs = &mut self.services[service].planned.runs;
        runs.skipped = runs.skipped.saturating_add(1);
        State::Scheduled { failure: Some(FailureReason::DependencyFailed) }
    }

    /// Lets the instances wait for the schedule that were never started.
    pub(super) fn begin_schedule(&mut self, service: ServiceIndex, by: Requester) {
        for id in self.services.ids_of(service) {
            if let State::Stopped { why: Stopped::NotStarted } = self.services[id].state {
                self.enter(id, State::Scheduled { failure: None }, Reason::StartRequested(by));
            }
        }
    }

    /// Whether it waits for its schedule when it is started for this reason: a configuration runs nothing before its time.
    pub(super) fn awaits_schedule_after(&self, id: InstanceId, reason: &Reason) -> bool {
        let is_of_config =
            matches!(reason, Reason::StartRequested(Requester::Config) | Reason::RestartRequested(Requester::Config));
        is_of_config && self.services[id.service].definition.runs_on_schedule()
    }

    /// What happens after the process of this instance, which was stopped, has exited.
    pub(super) fn after_stop_of(&self, id: InstanceId, then: AfterStop) -> (AfterRun, RestartDecision) {
        let is_of_config = matches!(then, AfterStop::Restart(Requester::Config));
        if is_of_config && self.services[id.service].definition.runs_on_schedule() {
            return (AfterRun::AwaitSchedule { failure: None }, RestartDecision::StayStopped);
        }
        self.after_stop(then)
    }

    /// A run is over and is not restarted. `failure`: `None` if it has succeeded.
    pub(super) fn after_last_run(&mut self, id: InstanceId, failure: Option<FailureReason>) -> AfterRun {
        let service = &mut self.services[id.service];
        if service.definition.runs_on_schedule() {
            let runs = &mut service.planned.runs;
            let count = if failure.is_none() { &mut runs.succeeded } else { &mut runs.failed };
            *count = count.saturating_add(1);
            // The next run is no restart.
            self.services[id].ended_by = None;
            return AfterRun::AwaitSchedule { failure };
        }
        AfterRun::StayStopped(match failure {
            None => Stopped::Completed,
            Some(failure) => self.failed(failure),
        })
    }
}
