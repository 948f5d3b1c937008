//! The counters of the metrics.

use std::time::Duration;

use crate::model::plan::Kind;
use crate::model::{ExitStatus, InstanceId, Mono, ServiceIndex};
use crate::runtime::by_instance::ByInstance;
use crate::supervisor::{
    Changes, JournalEntry, JournalEvent, PROOF_TIME, Reason, ReloadFailure, RestartDecision, StateName,
};

/// Counts since keepalive has started.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Counts {
    instances: ByInstance<Count>,
    /// Orphaned processes that were reaped.
    pub(in crate::runtime) orphans: u64,
    /// Turns of the event loop.
    pub(in crate::runtime) turns: u64,
    /// Finished reloads by service: succeeded and failed.
    reloads: Vec<[u64; 2]>,
    /// When the shutdown began.
    pub(in crate::runtime) shutdown_started_at: Option<Mono>,
    /// The changes of the last reload of the configuration.
    pub(in crate::runtime) changes: Changes,
    config_reload_failures: u64,
    last_config_reload_failed: bool,
    /// The services that the last reload of the configuration has started, and that have not worked yet.
    config_reload_awaits: Vec<ServiceIndex>,
    /// Clients that were rejected, or disconnected because they were too slow.
    pub(in crate::runtime) dropped_clients: u64,
}

/// Counts of one instance.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Count {
    /// Exits by status. There are at most as many as exit codes and signals.
    pub(in crate::runtime) exits: Vec<(ExitStatus, u64)>,
    started_at: Option<Mono>,
    /// The time from the decision to start until the program was executed, of the last start.
    pub(in crate::runtime) start: Option<Duration>,
    /// The time from the decision to start until it was ready, of the last start.
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

    /// The reloads of a service: succeeded and failed.
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

    /// A service that the last reload of the configuration has started has failed, has worked, or has been stopped.
    fn watch_config_reload(&mut self, service: ServiceIndex, from: StateName, to: StateName, reason: &Reason) {
        if !self.config_reload_awaits.contains(&service) {
            return;
        }
        let (has_failed, is_over) = if let Reason::Exited { run, definition, decision } = reason {
            let is_failure = matches!(decision, RestartDecision::Fail(_) | RestartDecision::Restart { .. })
                && (from != StateName::Stopping || run.fault.is_some());
            let has_worked = from == StateName::Running
                && definition.kind == Kind::Service
                && run.uptime >= definition.reload.soak.max(PROOF_TIME);
            (is_failure && !has_worked, has_worked || to == StateName::Completed)
        } else {
            (
                matches!(reason, Reason::DependencyFailed { .. } | Reason::DependencyCompleted { .. }),
                matches!(reason, Reason::StopRequested(_) | Reason::RestartRequested(_)),
            )
        };
        if has_failed {
            self.config_reload_awaits.clear();
            self.config_reload_failed();
        } else if is_over {
            self.config_reload_awaits.retain(|awaited| *awaited != service);
        }
    }

    pub(in crate::runtime) fn record(&mut self, record: &JournalEntry) {
        if let JournalEvent::ReloadFinished { service, failure } = &record.event {
            self.on_reload_ended(*service, failure.as_ref());
        }
        if let JournalEvent::ConfigReloaded(changes) = &record.event {
            self.changes.clone_from(changes);
            self.config_reload_awaits.clone_from(&changes.awaited);
            self.last_config_reload_failed = false;
        }
        // What the last reload has brought does not work: that counts once.
        let is_rolled_back = matches!(record.event, JournalEvent::ReloadRolledBack { .. });
        if matches!(record.event, JournalEvent::ConfigReloadFailed { .. })
            || is_rolled_back && !self.last_config_reload_failed
        {
            self.config_reload_awaits.clear();
            self.config_reload_failed();
        }
        if let JournalEvent::ShutdownStarted { .. } = record.event {
            self.shutdown_started_at = Some(record.at);
        }
        let JournalEvent::Transition { instance, from, to, reason, .. } = &record.event else { return };
        if !instance.is_surge() {
            self.watch_config_reload(instance.service, *from, *to, reason);
        }
        let Some(count) = self.instances.entry(*instance) else { return };
        if let Reason::Exited { run, .. } = reason {
            count.exited(run.exit.status);
        }
        if *to == StateName::Starting {
            count.started_at = Some(record.at);
        }
        if *from == StateName::Starting && *to == StateName::Running {
            count.ready = count.started_at.map(|started_at| record.at.since(started_at));
        }
    }

    pub(in crate::runtime) fn executed(&mut self, id: InstanceId, now: Mono) {
        if let Some(count) = self.instances.entry(id) {
            count.start = count.started_at.map(|started_at| now.since(started_at));
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
