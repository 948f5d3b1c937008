//! `watch`: a service whose files have changed is restarted, as by a reload, one instance of it after the other. What has
//! failed, backs off or has completed is started at once: its files may be right now.
//!
//! What an operator has stopped, or was never started, stays so. Changes while the service is reloaded or stops, or during a
//! run of a oneshot, lead to one restart afterwards.

use super::core::Supervisor;
use super::record::Requester;
use super::state::{State, Stopped};
use crate::model::plan::Kind;
use crate::model::{InstanceId, ServiceIndex};

impl Supervisor {
    pub(super) fn on_files_changed(&mut self, service: ServiceIndex) {
        if self.plan.services.get(service.position()).is_some_and(|service| service.watch.is_some()) {
            self.services[service].has_changed_files = true;
            self.mark_dirty(service);
        }
    }

    /// Restarts a service whose files have changed, unless it must wait for that.
    pub(super) fn restart_changed(&mut self, service: ServiceIndex) {
        if !self.services[service].has_changed_files || self.is_draining() || self.rollouts.contains_key(&service) {
            return;
        }
        let is_oneshot = self.services[service].definition.kind == Kind::Oneshot;
        let ids: Vec<_> = self.services.ids_of(service).filter(|id| self.services.has(*id)).collect();
        let is_busy = |id: &InstanceId| {
            let state = self.services[*id].state;
            matches!(state, State::Stopping(_) | State::CleaningUp(_)) || (is_oneshot && state.is_up())
        };
        if ids.iter().any(is_busy) {
            return;
        }
        self.services[service].has_changed_files = false;
        // It is being removed.
        if self.services[service].is_retiring() {
            return;
        }
        let mut numbers = Vec::new();
        for id in ids {
            let state = self.services[id].state;
            let is_over = matches!(
                state,
                State::Stopped { why: Stopped::Failed { .. } | Stopped::Completed }
                    | State::BackingOff { .. }
                    | State::Scheduled { .. }
            );
            if is_over {
                self.request_start(id, Requester::Watch);
            } else if state.is_up() {
                numbers.push(id.number);
            }
        }
        if !numbers.is_empty() {
            self.start_rollout(service, numbers, None, None, Requester::Watch);
        }
    }
}
