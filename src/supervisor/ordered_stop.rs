//! Stops and restarts of several services at once: what depends on a service stops before it. An instance that is restarted
//! starts again when its dependencies have been restarted and are ready.

use super::core::Supervisor;
use super::operator::Pending;
use super::record::Requester;
use super::state::AfterStop;
use super::state_name::StateName;
use crate::model::{InstanceId, ServiceIndex};

impl Supervisor {
    /// Stops instances, dependents first. `then`: whether they start again.
    pub(super) fn stop_in_order(&mut self, targets: &[InstanceId], then: AfterStop) {
        for id in targets {
            if self.services[*id].queued_stop.replace(then).is_none() {
                self.ordered_stops.push(*id);
            }
        }
        self.drive_ordered_stops();
    }

    /// Begins the restarts that are requested, unless they have to wait: a process that runs is not stopped before the
    /// dependencies are ready without which it cannot start again.
    pub(super) fn drive_restarts(&mut self) {
        let is_requested = |pending: &&Pending| !pending.restarts.is_empty();
        let requests: Vec<_> =
            self.requests.iter().filter(is_requested).map(|it| (it.id, it.restarts.clone())).collect();
        for (request, targets) in requests {
            if let Some(refusal) = self.unavailable_dependency(&targets) {
                self.requests.retain(|pending| pending.id != request);
                self.reply(request, Err(refusal));
            } else if self.awaited_by_restart(&targets).is_none() {
                self.stop_in_order(&targets, AfterStop::Restart(Requester::Operator));
                if let Some(position) = self.requests.iter().position(|pending| pending.id == request) {
                    let mut pending = self.requests.remove(position);
                    pending.restarts.clear();
                    pending.died.clear();
                    self.require_proof(&pending);
                    self.requests.insert(position, pending);
                }
            }
        }
    }

    /// Another request stops an instance, or removes it, before its restart has begun.
    pub(super) fn cancel_restart(&mut self, id: InstanceId) {
        for pending in &mut self.requests {
            pending.restarts.retain(|other| *other != id);
        }
    }

    /// Whether it is to be stopped when its dependents have stopped.
    pub(super) fn is_stop_queued(&self, service: ServiceIndex) -> bool {
        !self.ordered_stops.is_empty()
            && self.services[service].instances().iter().any(|instance| instance.queued_stop.is_some())
    }

    /// Another request, or the shutdown, takes the place of a stop that has not begun.
    pub(super) fn cancel_queued_stop(&mut self, id: InstanceId) {
        if self.services[id].queued_stop.take().is_some() {
            for dependent in self.services[id.service].dependents.clone() {
                self.mark_dirty(dependent);
            }
        }
    }

    /// Stops what no stopping service depends on any more, directly or indirectly.
    pub(super) fn drive_ordered_stops(&mut self) {
        while !self.ordered_stops.is_empty() {
            let mut stops = std::mem::take(&mut self.ordered_stops);
            stops.retain(|id| {
                let instance = self.services.find(*id);
                instance.is_some_and(|it| it.queued_stop.is_some() || it.state.name() == StateName::Stopping)
            });
            let needed = self.dependencies_of(&stops);
            let is_free = |id: &InstanceId| {
                let state = self.services[*id].state;
                let is_up = state.has_process() && state.name() != StateName::Stopping;
                !is_up || needed.get(id.service.position()) != Some(&true)
            };
            let is_queued = |id: &&InstanceId| self.services[**id].queued_stop.is_some();
            let free: Vec<_> = stops.iter().filter(is_queued).copied().filter(is_free).collect();
            self.ordered_stops = stops;
            if free.is_empty() {
                return;
            }
            let is_restarted =
                |id: &&InstanceId| matches!(self.services[**id].queued_stop, Some(AfterStop::Restart(_)));
            let restarted: Vec<_> = free.iter().filter(is_restarted).copied().collect();
            self.start_dependencies_of(&restarted);
            for id in free {
                match self.services[id].queued_stop.take() {
                    Some(AfterStop::Restart(by)) => {
                        self.request_restart(id, by);
                        self.request_start(id, by);
                    }
                    Some(_) => self.request_stop(id),
                    None => {}
                }
            }
        }
    }

    /// By position: the services that those of `ids` depend on, directly or indirectly.
    pub(super) fn dependencies_of(&self, ids: &[InstanceId]) -> Vec<bool> {
        let mut found = vec![false; self.plan.services.len()];
        let mut pending: Vec<ServiceIndex> = ids.iter().map(|id| id.service).collect();
        while let Some(service) = pending.pop() {
            for dependency in &self.services[service].definition.depends_on {
                if let Some(is_found) = found.get_mut(dependency.position())
                    && !std::mem::replace(is_found, true)
                {
                    pending.push(*dependency);
                }
            }
        }
        found
    }

    /// All services, dependencies first.
    pub(super) fn start_order(&self) -> Vec<ServiceIndex> {
        let mut missing: Vec<usize> =
            self.services.service_indexes().map(|index| self.services[index].definition.depends_on.len()).collect();
        let has_none = |index: &ServiceIndex| self.services[*index].definition.depends_on.is_empty();
        let mut order: Vec<ServiceIndex> = self.services.service_indexes().filter(has_none).collect();
        let mut position = 0;
        while let Some(index) = order.get(position).copied() {
            position += 1;
            for dependent in &self.services[index].dependents {
                if let Some(missing) = missing.get_mut(dependent.position()) {
                    *missing = missing.saturating_sub(1);
                    if *missing == 0 {
                        order.push(*dependent);
                    }
                }
            }
        }
        order
    }
}
