//! The journal: each entry is one line, its counts and one event. It writes, and does nothing else.
//!
//! [`events`] keeps the latest events for those who ask or follow, [`counts`] is what the metrics show.

pub(super) mod counts;
pub(super) mod events;
mod line;

use std::time::Duration;

use crate::model::{InstanceId, Mono, Plan};
use crate::supervisor::JournalEntry;
use crate::sys;
use counts::Counts;
use events::{Coalescer, Events, What};

/// What has happened since keepalive was started.
#[derive(Debug)]
pub(super) struct Journal {
    counts: Counts,
    events: Events,
    /// When it begins.
    begun: Mono,
    /// The same moment, since 1970.
    begun_at: Duration,
    orphans: Coalescer,
    rejected: Rejected,
}

/// Clients that were turned away.
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
            begun: now,
            begun_at: sys::wall(),
            orphans: Coalescer::default(),
            rejected: Rejected::default(),
        }
    }

    /// Writes what the supervisor has recorded.
    pub(super) fn record(&mut self, plan: &Plan, entry: JournalEntry) {
        self.counts.record(&entry);
        line::write(plan, &entry.event);
        self.publish(What::JournalEvent(entry.event));
    }

    /// Adds an event.
    pub(super) fn publish(&mut self, what: What) {
        self.events.push(sys::wall(), what);
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

    pub(super) const fn begun(&self) -> Mono {
        self.begun
    }

    /// Since 1970.
    pub(super) const fn begun_at(&self) -> Duration {
        self.begun_at
    }

    /// The program of an instance's process has been executed.
    pub(super) fn on_executed(&mut self, id: InstanceId, now: Mono) {
        self.counts.executed(id, now);
    }

    /// A dead process has been reaped that no service had started.
    pub(super) fn on_orphan_reaped(&mut self) {
        self.counts.orphans += 1;
    }

    /// A client was turned away.
    pub(super) fn on_client_rejected(&mut self, reason: &str) {
        self.on_client_dropped();
        self.rejected.count += 1;
        reason.clone_into(&mut self.rejected.last_reason);
    }

    /// A client was given up because it kept us waiting.
    pub(super) const fn on_client_dropped(&mut self) {
        self.counts.dropped_clients += 1;
    }

    /// When [`Self::publish_coalesced`] has something to publish.
    pub(super) fn due(&self) -> Option<Mono> {
        let due = [self.orphans.due(self.counts.orphans), self.rejected.coalescer.due(self.rejected.count)];
        due.into_iter().flatten().min()
    }

    /// Publishes what may happen very often: together, once a second at most.
    pub(super) fn publish_coalesced(&mut self, now: Mono) {
        let total = self.counts.orphans;
        if let Some(count) = self.orphans.take(total, now) {
            self.publish(What::Orphans { count, total });
        }
        if let Some(count) = self.rejected.coalescer.take(self.rejected.count, now) {
            let reason = std::mem::take(&mut self.rejected.last_reason);
            self.publish(What::RefusedClients { count, reason });
        }
    }
}
