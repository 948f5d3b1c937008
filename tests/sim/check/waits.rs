//! The rules for deadlines: the wait ends no later than the deadline of each timed state.

use std::time::Duration;

use keepalive::model::Mono;
use keepalive::supervisor::StateName;

use super::model::Model;
use super::shutdown::Shutdown;
use super::{Checker, Verdict, rule};

/// A longer wait is told.
const LONG_WAIT: Duration = Duration::from_secs(30);
/// SIGKILL is repeated at least once in this time.
const KILL_AGAIN: Duration = Duration::from_secs(60);

pub(crate) fn check(until: Option<Mono>, now: Mono, model: &Model, shutdown: &Shutdown) -> Verdict {
    let until = until.unwrap_or(Mono::from_nanos(u64::MAX));
    rule!(until >= now, "the deadline {until:?} is in the past");
    if let Some(latest) = shutdown.latest() {
        rule!(until <= latest, "the deadline {until:?} is later than that of the shutdown, {latest:?}");
    }
    for (id, instance) in model.all().chain(model.surges()) {
        let stop = instance.definition.stop;
        let latest = match instance.state {
            StateName::Backoff => instance.due,
            StateName::Starting => instance.ready_at.or(instance.ready_by),
            StateName::Stopping if shutdown.is_forced() => None,
            StateName::Stopping if instance.post_stop_until().is_some() => instance.post_stop_until(),
            StateName::Stopping if instance.delayed_until.is_some() => instance.delayed_until,
            StateName::Stopping if instance.main.is_some() && instance.kills == 0 => instance.kill_at,
            StateName::Stopping => {
                let kill_again = (now + KILL_AGAIN).max(now + stop.timeout);
                Some(instance.kill_at.map_or(kill_again, |at| kill_again.max(at)))
            }
            StateName::Running => instance
                .watchdog
                .map(|(_, by)| by)
                .into_iter()
                .chain(instance.finish_by)
                .chain(instance.checks.as_ref().and_then(|checks| checks.due).filter(|_| !shutdown.has_begun()))
                .chain(instance.min_ready_until.filter(|at| *at > now))
                .min(),
            StateName::Waiting => instance.waits_since.map(|since| since + LONG_WAIT),
            StateName::Scheduled | StateName::Stopped | StateName::Completed | StateName::Failed => None,
        };
        if let Some(latest) = latest {
            rule!(until <= latest, "the deadline {until:?} is later than that of {id:?}, {latest:?}");
        }
        let due = instance.state != StateName::Backoff || instance.due.is_some_and(|due| due > now);
        rule!(due, "{id:?} has not restarted after its backoff");
    }
    Ok(())
}

impl Checker {
    pub(super) fn check_waiting_instances(&self) -> Verdict {
        for (id, _) in self.model.all().filter(|(_, instance)| instance.blocked) {
            let free = self.model.dependencies_are_satisfied(id.service);
            rule!(!free, "{id:?} is blocked though its dependencies are ready");
        }
        for (id, instance) in self.model.all().filter(|(_, instance)| instance.state == StateName::Waiting) {
            rule!(
                !self.model.dependencies_are_satisfied(id.service),
                "{id:?} waits though its dependencies are ready: {instance:?}"
            );
            for dependency in &self.plan.services[id.service.position()].depends_on {
                let satisfied = self.model.is_satisfied(*dependency);
                let is_over = self.model.cannot_become_ready(*dependency);
                rule!(!is_over, "{id:?} waits for {dependency:?}, which cannot become ready");
                let may_come =
                    satisfied || self.model.is_active(*dependency) || self.model.is_stopped_by_operator(*dependency);
                rule!(may_come, "{id:?} waits for {dependency:?}, which does not start");
            }
        }
        Ok(())
    }
}
