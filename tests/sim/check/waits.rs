//! Every timed state has a deadline, and the wait ends no later.

use std::time::Duration;

use keepalive::model::Mono;
use keepalive::supervisor::StateName;

use super::model::Model;
use super::shutdown::End;
use super::{Verdict, rule};

/// SIGKILL is repeated at least so often.
const KILL_AGAIN: Duration = Duration::from_secs(60);

pub(crate) fn check(until: Option<Mono>, now: Mono, model: &Model, end: &End) -> Verdict {
    let until = until.unwrap_or(Mono::from_nanos(u64::MAX));
    rule!(until >= now, "it waits until {until:?}, which is past");
    if let Some(latest) = end.latest() {
        rule!(until <= latest, "the drain is not looked after: {until:?} is later than {latest:?}");
    }
    for (id, instance) in model.all().chain(model.surges()) {
        let stop = instance.definition.stop;
        let latest = match instance.state {
            StateName::Backoff => instance.due,
            StateName::Starting => instance.ready_at.or(instance.ready_by),
            StateName::Stopping if end.is_forced() => None,
            StateName::Stopping if instance.delayed_until.is_some() => instance.delayed_until,
            StateName::Stopping if instance.main.is_some() && instance.kills == 0 => instance.kill_at,
            StateName::Stopping => {
                let kill_again = (now + KILL_AGAIN).max(now + stop.timeout);
                Some(instance.kill_at.map_or(kill_again, |at| kill_again.max(at)))
            }
            StateName::Running => instance
                .watch
                .map(|(_, by)| by)
                .into_iter()
                .chain(instance.min_ready_until.filter(|at| *at > now))
                .min(),
            StateName::Waiting | StateName::Stopped | StateName::Completed | StateName::Failed => None,
        };
        if let Some(latest) = latest {
            rule!(until <= latest, "{id:?} is not looked after: {until:?} is later than {latest:?}");
        }
        let due = instance.state != StateName::Backoff || instance.due.is_some_and(|due| due > now);
        rule!(due, "{id:?} should have been restarted");
    }
    Ok(())
}
