//! Another configuration: what differs is started, stopped or replaced; what does not is left alone.

use std::rc::Rc;

use super::core::Supervisor;
use super::event::Action;
use super::operator::{Pending, Refusal, RequestId};
use super::record::{Changes, JournalEvent};
use super::state::{AfterStop, State, Stopped, Stopping};
use crate::model::plan::{Kind, Plan, Service};
use crate::model::{InstanceId, ServiceIndex};

/// What is to be waited for until the new configuration is in force.
#[derive(Default)]
struct Work {
    up: Vec<InstanceId>,
    down: Vec<InstanceId>,
    reloads: Vec<ServiceIndex>,
    changes: Changes,
}

impl Supervisor {
    pub(super) fn on_config_loaded(&mut self, id: Option<RequestId>, plan: Rc<Plan>) {
        if self.is_draining() {
            return;
        }
        // Whoever asked for it may not wait any more.
        let id = id.filter(|id| self.take_config_request(*id));
        if let Some(service) = self.rollout_underway() {
            self.record(JournalEvent::ConfigReloadRejected { service });
            if let Some(id) = id {
                self.reply(id, Err(Refusal::Reloading(service)));
            }
            return;
        }
        self.cancel_waiting_rollouts();
        let before = std::mem::replace(&mut self.plan, Rc::clone(&plan));
        self.act(Action::Adopt(Rc::clone(&plan)));
        let mut work = Work::default();
        // First all definitions, so that what is started finds what it depends on.
        let known = before.services.len();
        self.services.adopt(&plan);
        for (position, service) in (0..).zip(&plan.services).skip(known) {
            work.changes.added += 1;
            self.add(ServiceIndex(position), service, &mut work);
        }
        for ((position, old), new) in (0..).zip(&before.services).zip(&plan.services) {
            self.change(ServiceIndex(position), old, new, &mut work);
        }
        self.record(JournalEvent::ConfigReloaded(work.changes));
        for service in self.services.service_indexes() {
            self.mark_dirty(service);
        }
        if let Some(id) = id {
            self.await_changes(Pending::new(id, work.up, work.down, work.reloads));
        }
    }

    pub(super) fn on_config_load_failed(&mut self, id: Option<RequestId>, reason: Rc<str>) {
        if self.is_draining() {
            return;
        }
        self.record(JournalEvent::ConfigLoadFailed { reason: Rc::clone(&reason) });
        if let Some(id) = id.filter(|id| self.take_config_request(*id)) {
            self.reply(id, Err(Refusal::ConfigLoadFailed(reason)));
        }
    }

    fn add(&mut self, service: ServiceIndex, definition: &Service, work: &mut Work) {
        if definition.autostart && definition.instances > 0 {
            for wanted in self.want(service) {
                self.start_or_block(wanted);
            }
            if definition.kind == Kind::Service {
                work.up.extend(self.services.ids_of(service));
            }
        }
    }

    fn change(&mut self, service: ServiceIndex, old: &Rc<Service>, new: &Rc<Service>, work: &mut Work) {
        let count = &mut work.changes;
        if old == new {
            count.unchanged += u32::from(new.instances > 0);
            return;
        }
        if new.instances == 0 {
            count.removed += 1;
            work.down.extend(self.services.ids_of(service));
            return self.services.retire(service);
        }
        if old.instances == 0 {
            count.added += 1;
            self.services.revive(service);
            self.services.resize(service, new.instances);
            if new.autostart {
                // What of it is still on its way down comes back after that.
                let ids: Vec<_> = self.services.ids_of(service).filter(|id| self.services.has(*id)).collect();
                ids.iter().for_each(|id| self.request_start(*id));
                work.up.extend(ids.into_iter().filter(|_| new.kind == Kind::Service));
            }
            return;
        }
        let mut resize = (old.instances != new.instances).then_some(new.instances);
        // An operator may have scaled it to more than there can be of this one, not even for a while.
        if new.too_many_instances(self.services[service].wanted).is_some() {
            self.resize_for(service, new.instances, work);
            resize = None;
        }
        if old.same_process_spec(new) {
            work.changes.adjusted += 1;
            for id in self.services.ids_of(service) {
                self.services[id].definition = Rc::clone(new);
            }
        } else {
            work.changes.reloaded += 1;
            if self.replace_processes(service, old, resize, work) {
                return;
            }
        }
        if let Some(wanted) = resize {
            self.resize_for(service, wanted, work);
        }
        if new.autostart && !old.autostart {
            self.add(service, new, work);
        }
    }

    fn resize_for(&mut self, service: ServiceIndex, wanted: u32, work: &mut Work) {
        let (up, down) = self.resize(service, wanted);
        work.up.extend(up);
        work.down.extend(down);
    }

    /// Those that are there are of the old definition. Whether they are being reloaded, and resized after that.
    fn replace_processes(
        &mut self,
        service: ServiceIndex,
        old: &Rc<Service>,
        resize: Option<u32>,
        work: &mut Work,
    ) -> bool {
        let ids: Vec<_> = self.services.ids_of(service).collect();
        if self.services[service].definition.kind == Kind::Oneshot {
            // What it did, it did as it was.
            for id in ids {
                if !matches!(self.services[id].state, State::Stopped { why: Stopped::NotStarted | Stopped::Operator }) {
                    self.request_restart(id);
                    self.request_start(id);
                }
            }
        } else if self.reloadable(&ids).is_ok() {
            self.want_dependencies(service);
            let is_to_stay = |number: &u32| resize.is_none_or(|wanted| *number < wanted);
            let slots = ids.iter().map(|id| id.number).filter(is_to_stay).collect();
            self.begin_rollout(service, slots, Some(Rc::clone(old)), resize);
            work.reloads.push(service);
            return true;
        }
        false
    }

    /// Another number of instances; gives back whom that has started and stopped.
    pub(super) fn resize(&mut self, service: ServiceIndex, wanted: u32) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let rests = |id: InstanceId| self.services[id].state.is_resting();
        let is_at_rest = self.services.ids_of(service).all(rests);
        let from = self.set_wanted(service, wanted);
        for id in self.services.ids_of(service) {
            if !self.services.has(id) {
                self.request_stop(id);
                down.push(id);
            } else if id.number >= from && !is_at_rest {
                self.request_start(id);
                up.push(id);
            }
        }
        (up, down)
    }

    /// So many instances there are to be; how many it was before.
    pub(super) fn set_wanted(&mut self, service: ServiceIndex, wanted: u32) -> u32 {
        let from = self.services[service].wanted;
        self.services.resize(service, wanted);
        if from != wanted {
            self.record(JournalEvent::Scaled { service, from, to: wanted });
        }
        from
    }

    /// Stops a service that is no longer in the configuration, once nothing is left of what depends on it, or may again.
    pub(super) fn retire_if_possible(&mut self, service: ServiceIndex) {
        if !self.services[service].is_retiring || self.is_draining() {
            return;
        }
        let holds = |dependent: &ServiceIndex| self.services[*dependent].counts.live > 0;
        if self.services[service].dependents.iter().any(holds) || self.may_be_needed_again(service) {
            return;
        }
        for id in self.services.ids_of(service) {
            if !matches!(
                self.services[id].state,
                State::Stopped { .. } | State::Stopping(Stopping { then: AfterStop::Rest(_), .. })
            ) {
                self.request_stop(id);
            }
        }
        self.services.resize(service, 0);
        if self.services[service].counts.live == 0 {
            self.drop_stopped(service);
            let definition = Rc::clone(&self.services[service].definition);
            for dependency in &definition.depends_on {
                if self.services[*dependency].is_retiring && self.services[*dependency].wanted > 0 {
                    self.mark_dirty(*dependency);
                }
            }
        }
    }
}
