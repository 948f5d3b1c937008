//! The journal turns each entry into a log line, counters and a public event. It has no other effects.
//!
//! [`events`] keeps the latest events for clients, [`counts`] has the counters of the metrics.

pub(super) mod counts;
pub(super) mod events;
mod line;

use std::time::Duration;

use crate::model::{InstanceId, Mono, Plan};
use crate::supervisor::JournalEntry;
use crate::sys;
use counts::Counts;
use events::{Coalescer, EventKind, Events};

/// The events and counters since keepalive was started.
#[derive(Debug)]
pub(super) struct Journal {
    counts: Counts,
    events: Events,
    /// The start of keepalive.
    started_at: Mono,
    /// The same as Unix time.
    started_at_wall: Duration,
    orphans: Coalescer,
    rejected: Rejected,
}

/// Clients that were rejected.
#[derive(Debug, Default)]
struct Rejected {
    count: u64,
    last_reason: String,
    coalescer: Coalescer,
}

impl Journal {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            counts: Counts::default(),
            events: Events::default(),
            started_at: now,
            started_at_wall: sys::wall(),
            orphans: Coalescer::default(),
            rejected: Rejected::default(),
        }
    }

    /// Writes an entry of the supervisor.
    pub(super) fn record(&mut self, plan: &Plan, entry: JournalEntry) {
        self.counts.record(&entry);
        line::write(plan, &entry.event);
        self.publish(EventKind::JournalEvent(entry.event));
    }

    /// Adds an event.
    pub(super) fn publish(&mut self, kind: EventKind) {
        self.events.push(sys::wall(), kind);
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) const fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    pub(super) const fn events(&self) -> &Events {
        &self.events
    }

    pub(super) const fn started_at(&self) -> Mono {
        self.started_at
    }

    /// The start of keepalive as Unix time.
    pub(super) const fn started_at_wall(&self) -> Duration {
        self.started_at_wall
    }

    /// A process has executed its program.
    pub(super) fn on_executed(&mut self, id: InstanceId, now: Mono) {
        self.counts.executed(id, now);
    }

    /// An orphaned process has been reaped.
    pub(super) fn on_orphan_reaped(&mut self) {
        self.counts.orphans += 1;
    }

    /// A client was rejected.
    pub(super) fn on_client_rejected(&mut self, reason: &str) {
        self.on_client_dropped();
        self.rejected.count += 1;
        reason.clone_into(&mut self.rejected.last_reason);
    }

    /// A client was disconnected because it was too slow.
    pub(super) const fn on_client_dropped(&mut self) {
        self.counts.dropped_clients += 1;
    }

    /// When [`Self::publish_coalesced`] has an event to publish.
    pub(super) fn due(&self) -> Option<Mono> {
        let due = [self.orphans.due(self.counts.orphans), self.rejected.coalescer.due(self.rejected.count)];
        due.into_iter().flatten().min()
    }

    /// Publishes frequent events, combined, at most once a second.
    pub(super) fn publish_coalesced(&mut self, now: Mono) {
        let total = self.counts.orphans;
        if let Some(count) = self.orphans.take(total, now) {
            self.publish(EventKind::OrphansReaped { count, total });
        }
        if let Some(count) = self.rejected.coalescer.take(self.rejected.count, now) {
            let reason = std::mem::take(&mut self.rejected.last_reason);
            self.publish(EventKind::ClientRejected { count, reason });
        }
    }
}
