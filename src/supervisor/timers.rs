//! The deadlines of instances, at most one for each, the earliest first.

use std::collections::BTreeSet;

use crate::model::{InstanceId, Mono};

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Mono, InstanceId)>);

impl Timers {
    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<Mono> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Removes and returns the instance with the earliest deadline, if that is not later than `now`.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<InstanceId> {
        if self.first()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, instance)| instance)
    }

    /// Replaces the deadline of `instance`, `before`, by `after`.
    pub(super) fn change(&mut self, instance: InstanceId, before: Option<Mono>, after: Option<Mono>) {
        if before == after {
            // `pop_due` may have removed it: insert it again.
            self.0.extend(after.map(|at| (at, instance)));
            return;
        }
        if let Some(at) = before {
            self.0.remove(&(at, instance));
        }
        if let Some(at) = after {
            self.0.insert((at, instance));
        }
    }
}
