//! The journal turns each entry into a log line, counters and a public event. It has no other effects.
//!
//! [`events`] keeps the latest events for clients, [`counts`] has the counters of the metrics.

pub(super) mod counts;
pub(super) mod events;
mod limit;
mod line;

use std::time::Duration;

use crate::logs::channel;
use crate::logs::protocol::LastLinesQuery;
use crate::model::{InstanceId, Mono, Pid, Plan};
use crate::runtime::rate_limited_log::{self, MessageKind};
use crate::supervisor::{JournalEntry, JournalEvent};
use crate::sys;
use counts::Counts;
use events::{Coalescer, EventKind, Events};
use limit::{EventLimits, Suppressed};

/// The events and counters since keepalive was started.
#[derive(Debug)]
pub(super) struct Journal {
    counts: Counts,
    events: Events,
    /// The start of keepalive.
    started_at: Mono,
    /// The same as Unix time.
    started_at_wall: Duration,
    limits: EventLimits,
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
            limits: EventLimits::default(),
            orphans: Coalescer::default(),
            rejected: Rejected::default(),
        }
    }

    /// Writes an entry of the supervisor.
    /// `failed`: the run whose last lines belong to the entry.
    pub(super) fn record(&mut self, plan: &Plan, failed: Option<LastLinesQuery>, entry: JournalEntry) {
        self.counts.record(&entry);
        let (suppressed, event) = self.limits.admit(entry.event, entry.at);
        if let Some(suppressed) = suppressed {
            self.write_suppressed(plan, suppressed);
        }
        if let Some(event) = event {
            channel::with_last_lines(failed, || line::write(plan, &event));
            self.publish(EventKind::JournalEvent(event));
        }
    }

    fn write(&mut self, plan: &Plan, event: JournalEvent) {
        line::write(plan, &event);
        self.publish(EventKind::JournalEvent(event));
    }

    /// Writes the latest of the events, and before it how many others there were.
    fn write_suppressed(&mut self, plan: &Plan, Suppressed { instance, count, latest }: Suppressed) {
        if count > 0 {
            line::write_suppressed(plan, instance, count, &latest);
            self.publish(EventKind::EventsSuppressed { instance, count });
        }
        self.write(plan, latest);
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
    pub(super) fn on_orphan_reaped(&mut self, pid: Pid) {
        self.counts.orphans += 1;
        let message = format_args!("reaped orphaned process {pid}, {} in total", self.counts.orphans);
        rate_limited_log::debug(MessageKind::OrphanReaped, None, message);
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
        let rejected = self.rejected.coalescer.due(self.rejected.count);
        let due = [self.orphans.due(self.counts.orphans), rejected, self.limits.due(), rate_limited_log::due()];
        due.into_iter().flatten().min()
    }

    /// Publishes frequent events, combined, at most once a second, and what has been suppressed.
    pub(super) fn publish_coalesced(&mut self, plan: &Plan, now: Mono) {
        rate_limited_log::flush(now);
        for suppressed in self.limits.take_suppressed(now) {
            self.write_suppressed(plan, suppressed);
        }
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
