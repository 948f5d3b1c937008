//! The rules for schedules: no two runs at once, and a run that is due is skipped only for a reason.

use keepalive::model::ServiceIndex;
use keepalive::supervisor::{Event, SkipReason, StateName};

use super::{Checker, Verdict, rule};

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
            SkipReason::Reloading => self.model.is_reloading(service),
            SkipReason::NotRunning => true,
            SkipReason::TooLate(late) => late >= 3 * 3_600,
        };
        rule!(is_justified, "{service:?} is skipped: {why:?}");
        Ok(())
    }
}
