//! The deadlines of instances, at most one for each, the earliest first.

use std::collections::VecDeque;

use crate::model::{InstanceId, Mono};

/// Sorted. Most deadlines are inserted at the end and removed from the start, where nothing has to be moved.
#[derive(Debug, Default)]
pub(super) struct Timers(VecDeque<(Mono, InstanceId)>);

impl Timers {
    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<Mono> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Removes and returns the instance with the earliest deadline, if that is not later than `now`.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<InstanceId> {
        if self.first()? > now {
            return None;
        }
        self.0.pop_front().map(|(_, instance)| instance)
    }

    /// Replaces the deadline of `instance`, `before`, by `after`.
    pub(super) fn change(&mut self, instance: InstanceId, before: Option<Mono>, after: Option<Mono>) {
        if before != after
            && let Some(at) = before
            && let Ok(position) = self.0.binary_search(&(at, instance))
        {
            self.0.remove(position);
        }
        // If they are equal, `pop_due` may have removed it: insert it again.
        if let Some(at) = after
            && let Err(position) = self.0.binary_search(&(at, instance))
        {
            self.0.insert(position, (at, instance));
        }
    }
}
