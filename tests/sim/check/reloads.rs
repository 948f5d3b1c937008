//! The rules for rolling reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use keepalive::model::plan::Kind;
use keepalive::model::{InstanceId, Mono, Plan, ServiceIndex};
use keepalive::supervisor::{Event, Fault, Reason, ReloadFailure, Requester, StateName, Target};

use super::health;
use super::instance::{Instance, Progress, ReportedStop};
use super::model::{Model, is_active};
use super::requests::{MAX_SOAK, PROOF_TIME};
use super::restarts::Expected;
use super::{Verdict, Violation, rule};

/// The state of the reload of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReloadState {
    /// Whether it is for all instances of the service.
    pub(crate) is_whole: bool,
    /// Whether an instance is not running, or has been reloaded.
    pub(crate) has_begun: bool,
}

impl Model {
    /// A rolling reload starts the surge instance `id`.
    pub(crate) fn add_surge(&mut self, id: InstanceId) -> Verdict {
        let Some(reloaded) = self.reloading.get(&id.service).copied() else {
            return Err(Violation(format!("{id:?} starts without a reload")));
        };
        let main = self.find(id.slot()).map(|main| (main.state, main.runs));
        let Some((StateName::Running, runs)) = main else {
            return Err(Violation(format!("{id:?} starts beside {main:?}")));
        };
        let definition = &self.plan.services[id.service.position()];
        if self
            .reloading
            .insert(id.service, ReloadState { has_begun: true, ..reloaded })
            .is_some_and(|reloaded| !reloaded.has_begun)
        {
            let is_coming = |dependency: &&ServiceIndex| {
                self.reloading.contains_key(dependency)
                    || (self.is_active(**dependency) && !self.is_satisfied(**dependency))
            };
            let missing = definition.depends_on.iter().find(is_coming);
            rule!(missing.is_none(), "{id:?} starts before its dependency {missing:?} is ready");
        }
        let mut surge = Instance::new(definition);
        surge.runs = runs + 1;
        self.surges.insert(id, surge);
        let count = self.surges.keys().filter(|surge| surge.service == id.service).count() as u32;
        rule!(count <= definition.reload.max_surge, "{count} surge instances exceed max_surge");
        Ok(())
    }

    pub(crate) fn on_reload_started(&mut self, service: ServiceIndex, target: Option<Target>) -> Verdict {
        let is_whole = !matches!(target, Some(Target::Instance(_)));
        let has_begun = self.of(service).iter().any(|instance| instance.state != StateName::Running);
        let reloaded = ReloadState { is_whole, has_begun };
        rule!(self.reloading.insert(service, reloaded).is_none(), "{service:?} is being reloaded already");
        Ok(())
    }

    pub(crate) fn on_reload_finished(&mut self, service: ServiceIndex, failure: Option<&ReloadFailure>) -> Verdict {
        let reloaded = self.reloading.remove(&service);
        rule!(reloaded.is_some(), "{service:?} was not being reloaded");
        // What an old process that has exited by itself has left behind may still be there.
        let is_left = |(id, surge): &(&InstanceId, &Instance)| id.service == service && surge.main.is_some();
        let left = self.surges.iter().find(is_left).map(|(id, _)| id);
        rule!(left.is_none(), "{left:?} exists after the reload");
        // What still soaks has lasted for long enough.
        for instance in &mut self.instances[service.position()] {
            instance.may_end |= instance.state == StateName::Running;
        }
        let definition = &self.plan.services[service.position()];
        let is_old = |instance: &&Instance| {
            instance.state == StateName::Running && !instance.definition.same_process_spec(definition)
        };
        let old = self.of(service).iter().find(is_old);
        let done = failure.is_none() && reloaded.is_some_and(|reloaded| reloaded.is_whole);
        rule!(!done || old.is_none(), "{old:?} has the old definition after the reload");
        Ok(())
    }

    /// The old process of `id` is gone: what has ended on its own beside it does not count, and is started again at once.
    pub(super) fn on_old_gone(&mut self, id: InstanceId, now: Mono) {
        if let Some(main) = self.find_mut(id)
            && std::mem::take(&mut main.has_died_beside_old)
        {
            (main.unstable, main.refusals) = (0, 0);
            main.due = main.due.map(|_| now);
        }
    }

    /// Whether the new process of a reload takes the place of `id` if that exits.
    pub(super) fn has_promotable_surge(&self, id: InstanceId) -> bool {
        let surge = self.surges.get(&id.surge()).filter(|surge| !id.is_surge() && !surge.is_old);
        surge.is_some_and(|surge| matches!(surge.state, StateName::Starting | StateName::Running))
    }

    /// An instance of the service changes to this state.
    pub(crate) fn on_reload_transition(&mut self, service: ServiceIndex, to: StateName) {
        if let Some(reloaded) = self.reloading.get_mut(&service) {
            reloaded.has_begun |= to != StateName::Running;
        }
    }

    pub(crate) fn is_reloading(&self, service: ServiceIndex) -> bool {
        self.reloading.contains_key(&service)
    }

    /// The shutdown ends all reloads.
    pub(crate) fn forget_reloads(&mut self) {
        self.reloading.clear();
    }

    /// The surge instance replaces `id`.
    pub(crate) fn on_replaced(&mut self, id: InstanceId, now: Mono) -> Verdict {
        rule!(self.reloading.contains_key(&id.service), "{id:?} is replaced without a reload");
        let Some(mut surge) = self.surges.remove(&id.surge()) else {
            return Err(Violation(format!("{id:?} is replaced without a surge instance")));
        };
        // The new process is ready, unless the old one has died. So the number of ready instances does not decrease.
        let has_died = self.get(id).expected.is_some();
        let is_ready = surge.state == StateName::Running
            && !surge.is_not_ready()
            && surge.min_ready_until.is_none_or(|at| at <= now);
        rule!(is_ready || has_died, "{id:?} is replaced by a process that is not ready: {surge:?}");
        rule!(surge.state != StateName::Stopping, "{id:?} is replaced by a stopping process");
        surge.min_ready_until = None;
        let mut old = std::mem::replace(self.get_mut(id), surge);
        self.get_mut(id).queued = old.queued.take();
        old.expected = old.expected.map(|_| Expected::Replaced);
        old.is_old = true;
        self.surges.insert(id.surge(), old);
        Ok(())
    }
}

impl Model {
    /// The plan has changed: a configuration has been loaded, or a service returns to its previous definition. Instances with the
    /// same process specification get the new definition.
    pub(crate) fn apply_config(&mut self, plan: &Rc<Plan>, event: Option<&Event>, now: Mono) {
        let is_loaded = matches!(event, Some(Event::ConfigLoaded { plan: loaded, .. }) if Rc::ptr_eq(loaded, plan));
        let mut kept = Vec::new();
        for (position, new) in (0..).zip(&plan.services) {
            let old = self.plan.services.get(position as usize);
            let is_kept = old.is_some_and(|old| !old.is_removed && old.same_process_spec(new));
            let index = ServiceIndex(position);
            let returns =
                self.untried.get(&index).and_then(Option::as_ref).is_some_and(|before| Rc::ptr_eq(before, new));
            // It returns to the previous definition.
            if returns && !is_loaded {
                self.untried.remove(&index);
            } else if !is_kept {
                self.untried.entry(index).or_insert_with(|| old.cloned());
            } else if is_loaded && self.doubtful.contains(&index) {
                self.instances[position as usize].iter_mut().for_each(Instance::on_perhaps_retried);
            } else if is_loaded && self.untried.contains_key(&index) {
                self.instances[position as usize].iter_mut().for_each(Instance::on_retried);
            }
            kept.push(is_kept && old != Some(new));
        }
        self.plan = Rc::clone(plan);
        for ((instances, definition), _) in
            self.instances.iter_mut().zip(&plan.services).zip(kept).filter(|(_, kept)| *kept)
        {
            for instance in instances {
                let before = std::mem::replace(&mut instance.definition, Rc::clone(definition));
                instance.on_redefined(before.health.as_ref(), now);
            }
        }
    }
}

impl Model {
    /// Forgets that services were untried which have been ready for long enough.
    pub(crate) fn update_untried(&mut self, now: Mono) {
        let untried = std::mem::take(&mut self.untried);
        let is_soaking = |service: ServiceIndex| {
            self.of(service).iter().any(|instance| instance.soaks_until.is_some_and(|until| until > now))
        };
        let is_degraded =
            |service: ServiceIndex| self.of(service).iter().any(|instance| instance.state == StateName::Failed);
        // A process of the old definition proves nothing, nor does a service without instances.
        let is_old = |service: ServiceIndex| {
            let definition = &self.plan.services[service.position()];
            let is_old = |one: &Instance| is_active(one.state) && !one.definition.same_process_spec(definition);
            self.desired(service) == 0 || self.of(service).iter().any(is_old)
        };
        let is_untried = |service: &ServiceIndex| {
            !self.is_satisfied(*service) || is_degraded(*service) || is_soaking(*service) || is_old(*service)
        };
        let is_young = |service: ServiceIndex| {
            let is_young = |one: &Instance| one.is_ready_at_once() && now <= one.since + PROOF_TIME + MAX_SOAK;
            self.of(service).iter().any(is_young)
        };
        let doubtful = self.doubtful.clone();
        let mut doubtful: BTreeSet<_> =
            doubtful.into_iter().filter(|service| is_untried(service) || is_young(*service)).collect();
        let (kept, worked): (BTreeMap<_, _>, BTreeMap<_, _>) =
            untried.into_iter().partition(|(service, _)| is_untried(service));
        doubtful.extend(worked.into_keys().filter(|service| is_young(*service)));
        doubtful.retain(|service| !kept.contains_key(service));
        (self.untried, self.doubtful) = (kept, doubtful);
    }
}

impl Instance {
    /// A reload starts again what an earlier one has brought, and has failed: that forgets its failures.
    fn on_retried(&mut self) {
        self.may_forget_failures = self.queued.is_none() && !self.stopped_by_operator;
        if self.may_forget_failures && self.state == StateName::Stopping {
            // It starts as soon as it has stopped.
            (self.start_requested, self.due, self.fault) = (true, None, None);
            (self.unstable, self.refusals) = (0, 0);
            self.request_stop();
            self.put_to_test();
        }
    }

    /// As [`Self::on_retried`], if the earlier reload is not known to have succeeded.
    fn on_perhaps_retried(&mut self) {
        self.may_forget_failures = self.queued.is_none() && !self.stopped_by_operator;
    }

    /// `unstable`: what is shown.
    pub(super) fn forget_failures(&mut self, unstable: u32) {
        if std::mem::take(&mut self.may_forget_failures) && unstable == 0 {
            (self.unstable, self.refusals) = (0, 0);
        }
    }

    pub(super) fn request_stop(&mut self) {
        if self.reported_stop == ReportedStop::Only {
            self.reported_stop = ReportedStop::StopRequested;
        }
    }

    /// Updates readiness, watchdog and fault for a transition.
    pub(super) fn apply_transition(
        &mut self,
        id: InstanceId,
        from: StateName,
        to: StateName,
        reason: &Reason,
        now: Mono,
    ) -> Verdict {
        if *reason == Reason::StoppingReported || from != to {
            self.reported_stop =
                if *reason == Reason::StoppingReported { ReportedStop::Only } else { ReportedStop::No };
        }
        if let Reason::Fault(fault, _) = reason {
            let is_justified = match fault {
                Fault::HookTimeout(..) => {
                    self.hook.is_some() && from == StateName::Starting && self.ready_by.is_some_and(|by| by <= now)
                }
                Fault::NotReady(_) => {
                    self.hook.is_none() && from == StateName::Starting && self.ready_by.is_some_and(|by| by <= now)
                }
                Fault::NotFinished(_) => from == StateName::Running && self.finish_by.is_some_and(|by| by <= now),
                Fault::WatchdogTimeout(_) => {
                    from == StateName::Running && self.watchdog.is_some_and(|(_, by)| by <= now)
                }
                Fault::WatchdogTriggered => true,
                Fault::Unhealthy => health::is_justified(self, from, *fault),
            };
            rule!(is_justified && to == StateName::Stopping, "{id:?} has no such fault: {reason:?}, {self:?}");
            self.fault = Some(*fault);
        } else if from != to || matches!(reason, Reason::Exited { .. }) {
            self.fault = None;
        }
        let is_blocked = matches!(from, StateName::Backoff | StateName::Failed | StateName::Completed) && self.blocked;
        let is_tried_again = match reason {
            Reason::StartRequested(by) => from == StateName::Failed || *by == Requester::Watch,
            _ => false,
        };
        if matches!(reason, Reason::RestartRequested(_)) || is_tried_again || is_blocked {
            (self.unstable, self.refusals) = (0, 0);
            self.start_requested |= to == StateName::Stopping;
        }
        if (from, to) == (StateName::Running, StateName::Starting) && *reason == Reason::ReloadingReported {
            rule!(self.is_not_ready(), "{id:?} is starting again without a report: {self:?}");
            self.progress = Progress::Executed;
            let by = now + self.definition.start_timeout();
            let at_last = *self.ready_again_by.get_or_insert(by + self.definition.reload.soak);
            (self.ready_at, self.ready_by) = (None, Some(by.min(at_last)));
        }
        self.min_ready_until = None;
        self.soaks_until = (to == StateName::Running).then(|| now + self.definition.reload.soak);
        if to == StateName::Running && id.is_surge() && !self.definition.reload.soak.is_zero() {
            self.min_ready_until = Some(now + self.definition.reload.soak);
        }
        if to == StateName::Running {
            self.progress = Progress::Ready;
            let every = self.reported_watchdog.or(self.definition.watchdog).filter(|every| !every.is_zero());
            self.watchdog = every.map(|every| (every, now + every));
            let limit = self.definition.ready_timeout.filter(|_| self.definition.kind == Kind::Oneshot);
            self.finish_by = limit.map(|limit| self.since + limit);
        } else {
            self.finish_by = None;
            // There is another process, unless this one must become ready again.
            self.reported_watchdog = self.reported_watchdog.filter(|_| *reason == Reason::ReloadingReported);
            self.watchdog = None;
        }
        Ok(())
    }
}
