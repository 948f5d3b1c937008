//! The instances that a request means, and when it is impossible or has to wait.

use keepalive::model::{InstanceId, ServiceIndex};
use keepalive::supervisor::{Refusal, StateName, Target, Verb};

use super::instance::Instance;
use super::model::{Model, is_active};
use super::requests::{Open, Requests};

impl Requests {
    pub(super) fn apply_verb(&mut self, open: &mut Open, wanted: &[Target], verb: Verb, model: &mut Model) {
        let targets = targets(wanted, verb, model);
        if verb == Verb::Stop {
            self.cancel_deferred(&targets);
        }
        if verb == Verb::Restart && must_wait(&targets, model) {
            (open.up, open.deferred) = (targets.clone(), targets);
        } else {
            open.apply_verb(targets, verb, model);
        }
    }

    /// Other requests stop these instances.
    pub(super) fn cancel_deferred(&mut self, targets: &[InstanceId]) {
        for open in self.open.values_mut() {
            open.deferred.retain(|id| !targets.contains(id));
        }
    }

    /// Begins the restarts that need not wait any more.
    pub(super) fn begin_deferred(&mut self, model: &mut Model) {
        for open in self.open.values_mut() {
            if open.deferred.is_empty() || must_wait(&open.deferred, model) {
                continue;
            }
            let targets = std::mem::take(&mut open.deferred);
            self.has_begun_deferred = true;
            open.died.clear();
            if unavailable_dependency(&targets, model).is_some() {
                // It is refused.
                open.deferred = targets;
                continue;
            }
            for id in &targets {
                let instance = model.get_mut(*id);
                instance.stop_is_due |= !instance.is_up() && instance.state != StateName::Stopping;
            }
            let up = open.up.clone();
            open.apply_verb(targets, Verb::Restart, model);
            open.up = up;
        }
    }
}

/// Whether a process that runs would be stopped before it can start again.
fn must_wait(targets: &[InstanceId], model: &Model) -> bool {
    let is_other = |dependency: &ServiceIndex| targets.iter().all(|target| target.service != *dependency);
    targets.iter().filter(|id| model.find(**id).is_some_and(|instance| instance.main.is_some())).any(|id| {
        model.depends_on(id.service).iter().any(|dependency| is_other(dependency) && !model.is_available(*dependency))
    })
}

/// A service is not restarted, nor are there more of its instances, while nobody starts a dependency.
pub(super) fn unavailable_dependency(targets: &[InstanceId], model: &Model) -> Option<Refusal> {
    let mut services: Vec<_> = targets.iter().map(|id| id.service).collect();
    services.sort_unstable();
    services.into_iter().find_map(|service| {
        let is_unavailable = |dependency: &ServiceIndex| {
            let will_run = |one: &Instance| {
                // A failure stays one while what is left of it is being stopped.
                let has_failed = one.state == StateName::Stopping && one.failed.is_some() && !one.start_requested;
                is_active(one.state)
                    && !has_failed
                    && !one.is_stopped_by_operator()
                    && !one.stays_stopped
                    && one.queued != Some(Verb::Stop)
            };
            let is_target = targets.iter().any(|target| target.service == *dependency);
            !model.is_available(*dependency) && !model.of(*dependency).iter().any(will_run) && !is_target
        };
        let dependency = model.depends_on(service).iter().copied().find(is_unavailable)?;
        Some(Refusal::DependencyUnavailable(service, dependency))
    })
}

/// The instances that are meant. What has completed is not started by a request for all, nor restarted what is stopped.
pub(super) fn targets(wanted: &[Target], verb: Verb, model: &Model) -> Vec<InstanceId> {
    let is_all = wanted.contains(&Target::All);
    let of = |service| (0..model.desired(service)).map(move |number| InstanceId { service, number });
    let all = model.services().flat_map(of).filter(|id| wanted.iter().any(|target| target.includes(*id)));
    let is_left_alone = |state| match verb {
        Verb::Start => state == StateName::Completed,
        Verb::Restart => matches!(state, StateName::Completed | StateName::Stopped),
        Verb::Stop | Verb::Reload | Verb::Signal(_) => false,
    };
    all.filter(|id| !is_all || !is_left_alone(model.get(*id).state)).collect()
}
