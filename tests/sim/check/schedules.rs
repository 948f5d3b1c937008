//! The rules for schedules: no two runs at once, and a run that is due is skipped only for a reason.

use std::time::Duration;

use keepalive::model::ServiceIndex;
use keepalive::supervisor::{Event, SkipReason, StateName};

use super::instance::Instance;
use super::{Checker, Verdict, Violation, rule};

impl Checker {
    pub(super) fn check_skipped(&self, service: ServiceIndex, why: SkipReason) -> Verdict {
        rule!(matches!(self.event, Some(Event::WallClock(_))), "{service:?}: nothing is due");
        rule!(!self.shutdown.has_begun(), "{service:?} is scheduled during the shutdown");
        let definition = &self.plan.services[service.position()];
        rule!(definition.schedule.is_some(), "{service:?} has no schedule");
        let instances = self.model.of(service);
        let is_over = |state| matches!(state, StateName::Scheduled | StateName::Stopped | StateName::Failed);
        let is_justified = match why {
            SkipReason::StillRunning => instances.iter().any(|instance| !is_over(instance.state)),
            SkipReason::Reloading => {
                let is_stopping = |one: &Instance| one.state == StateName::Stopping;
                self.model.is_reloading(service) || instances.iter().any(is_stopping)
            }
            SkipReason::TooLate(late) => late >= 3 * 3_600,
        };
        rule!(is_justified, "{service:?} is skipped: {why:?}");
        Ok(())
    }

    /// One process of a service is replaced at a time.
    pub(super) fn check_expired(&self, service: ServiceIndex) -> Verdict {
        let Some(limit) = self.plan.services[service.position()].max_lifetime else {
            return Err(Violation(format!("{service:?} has no `max_lifetime`")));
        };
        rule!(!self.model.is_reloading(service), "{service:?} is being reloaded already");
        let is_old = |one: &Instance| self.now.since(one.since) >= limit - limit / 10 - Duration::from_nanos(1);
        rule!(self.model.of(service).iter().any(is_old), "no process of {service:?} is old");
        Ok(())
    }
}
