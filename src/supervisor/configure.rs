//! Applies a new configuration: services that differ are started, stopped or reloaded; the others are left alone.

use std::rc::Rc;

use super::core::Supervisor;
use super::event::Action;
use super::operator::{Pending, Refusal, RequestId};
use super::record::{Changes, JournalEvent, Requester};
use super::service_table::{InEffect, Membership, Untried};
use super::state::{AfterStop, State, Stopped, Stopping};
use crate::model::plan::{Kind, Plan, Service};
use crate::model::{InstanceId, ServiceIndex};

/// What must happen until the new configuration is in effect.
#[derive(Default)]
struct Work {
    awaiting_ready: Vec<InstanceId>,
    awaiting_stop: Vec<InstanceId>,
    reloads: Vec<ServiceIndex>,
    changes: Changes,
}

impl Work {
    /// The number of processes and services that the reload waits for.
    const fn underway(&self) -> usize {
        self.awaiting_ready.len() + self.reloads.len()
    }
}

impl Supervisor {
    pub(super) fn on_config_loaded(&mut self, id: Option<RequestId>, plan: Rc<Plan>) {
        if self.is_draining() {
            return;
        }
        if let Some(service) = self.active_rollout() {
            self.record(JournalEvent::ConfigReloadDeferred { service });
            if !self.deferred_loads.contains(&id) {
                self.deferred_loads.push(id);
            }
            return;
        }
        // The client may have gone.
        let id = id.filter(|id| self.take_config_request(*id));
        self.cancel_waiting_rollouts();
        let before = std::mem::replace(&mut self.plan, Rc::clone(&plan));
        self.act(Action::ApplyConfig(Rc::clone(&plan)));
        let mut work = Work::default();
        // All definitions are replaced first, so that a service that is started finds its dependencies.
        let known = before.services.len();
        self.services.apply_config(&plan);
        for (position, service) in (0..).zip(&plan.services).skip(known) {
            work.changes.added += 1;
            self.services[ServiceIndex(position)].untried = Some(Untried { before: None });
            self.add(ServiceIndex(position), service, &mut work);
        }
        for ((position, old), new) in (0..).zip(&before.services).zip(&plan.services) {
            self.change(ServiceIndex(position), old, new, &mut work);
        }
        work.changes.awaited = work.awaiting_ready.iter().map(|id| id.service).collect();
        self.record(JournalEvent::ConfigReloaded(work.changes));
        self.read_calendar();
        for service in self.services.service_indexes() {
            self.services[service].in_effect = InEffect::Configured;
            self.mark_dirty(service);
        }
        if let Some(id) = id {
            self.await_changes(Pending::new(id, work.awaiting_ready, work.awaiting_stop, work.reloads));
        }
    }

    /// Loads the configuration again that came during a reload, if no reload is under way any more.
    pub(super) fn load_deferred_config(&mut self) {
        if self.deferred_loads.is_empty() || self.active_rollout().is_some() {
            return;
        }
        for id in std::mem::take(&mut self.deferred_loads) {
            self.act(Action::LoadConfig { id });
        }
    }

    pub(super) fn on_config_load_failed(&mut self, id: Option<RequestId>, reason: Rc<str>) {
        if self.is_draining() {
            return;
        }
        self.record(JournalEvent::ConfigReloadFailed { reason: Rc::clone(&reason) });
        if let Some(id) = id.filter(|id| self.take_config_request(*id)) {
            self.reply(id, Err(Refusal::ConfigLoadFailed(reason)));
        }
    }

    fn add(&mut self, service: ServiceIndex, definition: &Service, work: &mut Work) {
        if definition.autostart {
            for index in self.mark_waiting(service, Requester::Config) {
                self.start_or_block(index);
            }
            work.awaiting_ready.extend(self.services.ids_of(service));
        }
    }

    fn change(&mut self, service: ServiceIndex, old: &Rc<Service>, new: &Rc<Service>, work: &mut Work) {
        if old == new {
            let is_retried = self.retry_untried(service, work);
            work.changes.reloaded += u32::from(is_retried);
            work.changes.unchanged += u32::from(!is_retried && !new.is_removed);
            return;
        }
        if new.is_removed {
            work.changes.removed += 1;
            work.awaiting_stop.extend(self.services.ids_of(service));
            self.services[service].membership = Membership::Removed;
            return;
        }
        if old.is_removed {
            work.changes.added += 1;
            self.services[service].membership = Membership::Present;
            self.populate(service, new, work);
            return;
        }
        // A scheduled run that is in progress goes on. The next one is that of the new definition.
        let has_same_processes = old.same_process_spec(new) || (old.runs_on_schedule() && new.runs_on_schedule());
        if !has_same_processes {
            let before = self.services[service].worked_before(old);
            self.services[service].untried = Some(Untried { before });
        }
        let mut resize = (old.instances != new.instances).then_some(new.instances);
        if resize == Some(0) {
            work.changes.adjusted += 1;
            return self.resize_for(service, 0, work);
        }
        if resize.is_some() && self.services[service].is_off() {
            self.record(JournalEvent::Scaled { service, from: 0, to: new.instances });
            let is_started = self.populate(service, new, work);
            return if is_started { work.changes.reloaded += 1 } else { work.changes.not_running.push(service) };
        }
        // An operator may have scaled the service to more instances than the new definition allows: resize it before the
        // reload.
        if new.too_many_instances(self.services[service].desired).is_some() {
            self.resize_for(service, new.instances, work);
            resize = None;
        }
        let underway = work.underway();
        if has_same_processes {
            for id in self.services.ids_of(service) {
                self.redefine_instance(id, new);
            }
            self.retry_untried(service, work);
        }
        if has_same_processes || !self.replace_processes(service, old, resize, work) {
            if let Some(desired) = resize {
                self.resize_for(service, desired, work);
            }
            if new.autostart && !old.autostart {
                self.add(service, new, work);
            }
        }
        match (has_same_processes, underway == work.underway()) {
            (true, true) => work.changes.adjusted += 1,
            (false, true) => work.changes.not_running.push(service),
            (_, false) => work.changes.reloaded += 1,
        }
    }

    /// Gives a service instances that had none, or was removed. Returns whether they start: if not by itself, a service that
    /// runs may depend on it.
    fn populate(&mut self, service: ServiceIndex, new: &Service, work: &mut Work) -> bool {
        self.services[service].untried = Some(Untried { before: None });
        self.services.resize(service, new.instances);
        let (ids, surplus): (Vec<_>, Vec<_>) = self.services.ids_of(service).partition(|id| self.services.has(*id));
        surplus.iter().for_each(|id| self.request_stop(*id));
        work.awaiting_stop.extend(surplus);
        let is_active = |dependent: &ServiceIndex| self.services[*dependent].counts.active > 0;
        let starts = new.autostart || self.services[service].dependents.iter().any(is_active);
        if starts {
            // Instances that are still being stopped are started again afterwards.
            ids.iter().for_each(|id| self.request_start(*id, Requester::Config));
            work.awaiting_ready.extend(ids);
        }
        starts
    }

    /// Tries a definition again that an earlier reload has brought, and that has not been ready yet: its result is that of
    /// this reload too. Returns whether there is anything to wait for.
    fn retry_untried(&mut self, service: ServiceIndex, work: &mut Work) -> bool {
        if self.services[service].untried.is_none() {
            return false;
        }
        let is_meant = |id: &InstanceId| {
            let instance = &self.services[*id];
            let is_idle = matches!(instance.state, State::Stopped { why: Stopped::NotStarted | Stopped::Completed });
            self.services.has(*id)
                && instance.queued_stop.is_none()
                && !is_idle
                && !instance.state.is_stopped_by_operator()
        };
        let ids: Vec<_> = self.services.ids_of(service).filter(is_meant).collect();
        ids.iter().for_each(|id| self.request_start(*id, Requester::Config));
        work.awaiting_ready.extend(&ids);
        !ids.is_empty()
    }

    fn resize_for(&mut self, service: ServiceIndex, desired: u32, work: &mut Work) {
        let (started, stopped) = self.resize(service, desired);
        work.awaiting_ready.extend(started);
        work.awaiting_stop.extend(stopped);
    }

    /// Replaces the processes of the old definition. Returns whether a reload was started, which also resizes the service.
    fn replace_processes(
        &mut self,
        service: ServiceIndex,
        old: &Rc<Service>,
        resize: Option<u32>,
        work: &mut Work,
    ) -> bool {
        let ids: Vec<_> = self.services.ids_of(service).filter(|id| self.services.has(*id)).collect();
        if ids.is_empty() {
            return false;
        }
        if self.services[service].definition.kind == Kind::Oneshot {
            // A oneshot that has not been started, or was stopped, does not start now.
            for id in ids {
                if !matches!(self.services[id].state, State::Stopped { why: Stopped::NotStarted | Stopped::Operator }) {
                    self.request_restart(id, Requester::Config);
                    self.request_start(id, Requester::Config);
                    work.awaiting_ready.push(id);
                }
            }
        } else if self.reloadable(&ids).is_ok() {
            self.start_dependencies(service, Requester::Config);
            let stays = |number: &u32| resize.is_none_or(|desired| *number < desired);
            let slots = ids.iter().map(|id| id.number).filter(stays).collect();
            self.start_rollout(service, slots, Some(Rc::clone(old)), resize, Requester::Reload);
            work.reloads.push(service);
            return true;
        }
        false
    }

    /// Changes the number of instances. Returns the instances that were started and those that were stopped.
    pub(super) fn resize(&mut self, service: ServiceIndex, desired: u32) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let (mut started, mut stopped) = (Vec::new(), Vec::new());
        let is_inactive = |id: InstanceId| self.services[id].state.is_inactive();
        let all_inactive = self.services.ids_of(service).all(is_inactive);
        let from = self.set_desired(service, desired);
        for id in self.services.ids_of(service) {
            if !self.services.has(id) {
                self.request_stop(id);
                stopped.push(id);
            } else if id.number >= from && !all_inactive {
                self.request_start(id, Requester::Config);
                started.push(id);
            }
        }
        (started, stopped)
    }

    /// Sets the number of instances that there should be, and returns the previous one.
    pub(super) fn set_desired(&mut self, service: ServiceIndex, desired: u32) -> u32 {
        let from = self.services[service].desired;
        self.services.resize(service, desired);
        if from != desired {
            self.record(JournalEvent::Scaled { service, from, to: desired });
            self.mark_dirty(service);
        }
        from
    }

    /// Stops a service that has been removed from the configuration, once its dependents have stopped and no rollback can
    /// start them again.
    pub(super) fn retire_if_possible(&mut self, service: ServiceIndex) {
        if !self.services[service].is_retiring() || self.is_draining() {
            return;
        }
        let is_live = |dependent: &ServiceIndex| self.services[*dependent].counts.live > 0;
        if self.services[service].dependents.iter().any(is_live) || self.is_needed_for_rollback(service) {
            return;
        }
        for id in self.services.ids_of(service) {
            if !matches!(
                self.services[id].state,
                State::Stopped { .. } | State::Stopping(Stopping { then: AfterStop::StayStopped(_), .. })
            ) {
                self.request_stop(id);
            }
        }
        self.services.resize(service, 0);
        if self.services[service].counts.live == 0 {
            self.drop_stopped(service);
            let definition = Rc::clone(&self.services[service].definition);
            for dependency in &definition.depends_on {
                if self.services[*dependency].is_retiring() && self.services[*dependency].desired > 0 {
                    self.mark_dirty(*dependency);
                }
            }
        }
    }
}
