//! What is counted for the metrics.

use std::time::Duration;

use super::by_instance::ByInstance;
use crate::model::{ExitStatus, InstanceId, Mono, ServiceIndex};
use crate::supervisor::{Changes, JournalEntry, JournalEvent, Reason, ReloadFailure, StateName};

/// Counts since keepalive has started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    instances: ByInstance<Count>,
    /// Dead processes that no service had started.
    pub(super) orphans: u64,
    /// Of the loop.
    pub(super) turns: u64,
    /// Reloads that are over, by service: how many were done, how many failed.
    reloads: Vec<[u64; 2]>,
    /// What the last configuration has changed that was read again.
    pub(super) changes: Changes,
    config_reload_failures: u64,
    last_config_reload_failed: bool,
    /// Clients that were turned away, or given up because they kept us waiting.
    pub(super) dropped_clients: u64,
}

/// Counts of one instance.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// How its runs have ended, how often. As many ways as there are exit codes and signals at most.
    pub(super) exits: Vec<(ExitStatus, u64)>,
    begun: Option<Mono>,
    /// From the decision to start until its program was executed, the last time.
    pub(super) start: Option<Duration>,
    /// From the decision to start until it was ready, the last time.
    pub(super) ready: Option<Duration>,
}

impl Counts {
    pub(super) fn of(&self, id: InstanceId) -> Option<&Count> {
        self.instances.get(id)
    }

    /// A reload of a service is over.
    pub(super) fn reloaded(&mut self, service: ServiceIndex, failure: Option<&ReloadFailure>) {
        let position = service.position();
        if self.reloads.len() <= position {
            self.reloads.resize(position + 1, [0; 2]);
        }
        if let Some([done, failed]) = self.reloads.get_mut(position) {
            *(if failure.is_none() { done } else { failed }) += 1;
        }
    }

    /// How many reloads of a service were done, and how many have failed.
    pub(super) fn reloads(&self, service: ServiceIndex) -> [u64; 2] {
        self.reloads.get(service.position()).copied().unwrap_or_default()
    }

    pub(super) const fn config_reload_failures(&self) -> u64 {
        self.config_reload_failures
    }

    pub(super) const fn last_config_reload_failed(&self) -> bool {
        self.last_config_reload_failed
    }

    pub(super) fn config_reload_failed(&mut self) {
        self.config_reload_failures += 1;
        self.last_config_reload_failed = true;
    }

    pub(super) fn record(&mut self, record: &JournalEntry) {
        if let JournalEvent::Reconfigured(_) = record.fact {
            self.last_config_reload_failed = false;
        }
        if let JournalEvent::ReconfigurationRefused { .. } = record.fact {
            self.config_reload_failed();
        }
        let JournalEvent::Transition { instance, from, to, reason, .. } = &record.fact else { return };
        let Some(count) = self.instances.entry(*instance) else { return };
        if let Reason::Ended { run, .. } = reason {
            count.exited(run.exit.status);
        }
        if *to == StateName::Starting {
            count.begun = Some(record.at);
        }
        if *from == StateName::Starting && *to == StateName::Running {
            count.ready = count.begun.map(|begun| record.at.since(begun));
        }
    }

    pub(super) fn executed(&mut self, id: InstanceId, now: Mono) {
        if let Some(count) = self.instances.entry(id) {
            count.start = count.begun.map(|begun| now.since(begun));
        }
    }
}

impl Count {
    fn exited(&mut self, status: ExitStatus) {
        match self.exits.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => self.exits.push((status, 1)),
        }
    }
}
