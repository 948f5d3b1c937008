//! What is counted for the metrics.

use std::time::Duration;

use crate::model::{ExitStatus, InstanceId, Mono, ServiceIndex};
use crate::runtime::by_instance::ByInstance;
use crate::supervisor::{Changes, JournalEntry, JournalEvent, Reason, ReloadFailure, StateName};

/// Counts since keepalive has started.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Counts {
    instances: ByInstance<Count>,
    /// Dead processes that no service had started.
    pub(in crate::runtime) orphans: u64,
    /// Of the loop.
    pub(in crate::runtime) turns: u64,
    /// Reloads that are over, by service: how many were done, how many failed.
    reloads: Vec<[u64; 2]>,
    /// When the ordered stop has begun.
    pub(in crate::runtime) stop_begun: Option<Mono>,
    /// What the last configuration has changed that was read again.
    pub(in crate::runtime) changes: Changes,
    config_reload_failures: u64,
    last_config_reload_failed: bool,
    /// Clients that were turned away, or given up because they kept us waiting.
    pub(in crate::runtime) dropped_clients: u64,
}

/// Counts of one instance.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Count {
    /// How its runs have ended, how often. As many ways as there are exit codes and signals at most.
    pub(in crate::runtime) exits: Vec<(ExitStatus, u64)>,
    begun: Option<Mono>,
    /// From the decision to start until its program was executed, the last time.
    pub(in crate::runtime) start: Option<Duration>,
    /// From the decision to start until it was ready, the last time.
    pub(in crate::runtime) ready: Option<Duration>,
}

impl Counts {
    pub(in crate::runtime) fn of(&self, id: InstanceId) -> Option<&Count> {
        self.instances.get(id)
    }

    fn on_reload_ended(&mut self, service: ServiceIndex, failure: Option<&ReloadFailure>) {
        let position = service.position();
        if self.reloads.len() <= position {
            self.reloads.resize(position + 1, [0; 2]);
        }
        if let Some([done, failed]) = self.reloads.get_mut(position) {
            *(if failure.is_none() { done } else { failed }) += 1;
        }
    }

    /// How many reloads of a service were done, and how many have failed.
    pub(in crate::runtime) fn reloads(&self, service: ServiceIndex) -> [u64; 2] {
        self.reloads.get(service.position()).copied().unwrap_or_default()
    }

    pub(in crate::runtime) const fn config_reload_failures(&self) -> u64 {
        self.config_reload_failures
    }

    pub(in crate::runtime) const fn last_config_reload_failed(&self) -> bool {
        self.last_config_reload_failed
    }

    fn config_reload_failed(&mut self) {
        self.config_reload_failures += 1;
        self.last_config_reload_failed = true;
    }

    pub(in crate::runtime) fn record(&mut self, record: &JournalEntry) {
        if let JournalEvent::ReloadEnded { service, failure } = &record.fact {
            self.on_reload_ended(*service, failure.as_ref());
        }
        if let JournalEvent::ConfigReloaded(changes) = record.fact {
            self.changes = changes;
            self.last_config_reload_failed = false;
        }
        if let JournalEvent::ConfigLoadFailed { .. } | JournalEvent::ConfigReloadRejected { .. } = record.fact {
            self.config_reload_failed();
        }
        if let JournalEvent::Draining { .. } = record.fact {
            self.stop_begun = Some(record.at);
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

    pub(in crate::runtime) fn executed(&mut self, id: InstanceId, now: Mono) {
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
