//! The rules for replies to requests.

use std::collections::BTreeMap;
use std::time::Duration;

use keepalive::model::plan::Strategy;
use keepalive::model::{InstanceId, Mono, ServiceIndex};
use keepalive::supervisor::{Event, Refusal, ReloadFailure, Request, RequestId, StateName, Target, Verb};

use super::instance::Instance;
use super::model::{Model, is_active};
use super::shutdown::ShutdownStage;
use super::targets::{targets, unavailable_dependency};
use super::{Verdict, Violation, rule};

/// How long a process that is ready as soon as it runs must run before the request for its start is done.
pub(super) const PROOF_TIME: Duration = Duration::from_secs(1);
/// The longest `soak` of the plans.
pub(super) const MAX_SOAK: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(super) open: BTreeMap<RequestId, Open>,
    /// A configuration has turned a service off or on: a later one may wait for its instances.
    is_scaled_by_config: bool,
    /// The time of the last tick, which reports the end of deadlines.
    pub(super) ticked_at: Mono,
    /// Restarts that waited have begun because of this event, after what it has started.
    pub(super) has_begun_deferred: bool,
}

/// A request that has not been answered.
#[derive(Debug)]
pub(super) struct Open {
    request: Request,
    /// The instances to start or to signal.
    pub(super) up: Vec<InstanceId>,
    /// The instances to stop.
    down: Vec<InstanceId>,
    /// The instances whose restart has not begun, because what they depend on is not ready.
    pub(super) deferred: Vec<InstanceId>,
    /// The reloads that it waits for.
    reloads: Vec<ServiceIndex>,
    has_failed_reload: bool,
    /// The instances to start whose processes have exited and are restarted.
    pub(super) died: Vec<InstanceId>,
    /// The state of the configuration load for it.
    config: Config,
    /// The only correct reply, if the request is impossible.
    refusal: Option<Refusal>,
}

/// The state of the configuration load for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Config {
    Loading,
    Failed,
    /// The load has finished, or the request needs none.
    Loaded,
}

impl Requests {
    pub(crate) fn apply_event(&mut self, id: RequestId, request: Request, model: &mut Model, stage: ShutdownStage) {
        let refusal = match stage {
            ShutdownStage::Up => refusal(&request, model),
            _ if request == Request::Shutdown => None,
            _ => Some(Refusal::ShuttingDown),
        };
        let (reloads, has_failed_reload) = (Vec::new(), false);
        let is_refused = refusal.is_some();
        let is_loading = request == Request::ReloadConfig && !is_refused;
        let config = if is_loading { Config::Loading } else { Config::Loaded };
        let (up, down, died, deferred) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let request_of = request.clone();
        let mut open =
            Open { request: request_of, up, down, deferred, reloads, has_failed_reload, died, config, refusal };
        if !is_refused {
            match request {
                Request::Control(target, verb) => self.apply_verb(&mut open, &[target], verb, model),
                Request::Several(wanted, verb) => self.apply_verb(&mut open, &wanted, verb, model),
                Request::Scale(service, wanted) => {
                    let (before, from) = (model.of(service).len() as u32, model.desired(service));
                    let id = |number| InstanceId { service, number };
                    open.down = (wanted..before).map(id).collect();
                    self.cancel_deferred(&open.down);
                    for id in &open.down {
                        stop(*id, model);
                    }
                    model.scale(service, wanted);
                    // What an operator has stopped stays stopped.
                    let is_left_alone = |id: &InstanceId| {
                        let instance = model.get(*id);
                        let is_stopping = instance.queued.is_some() || instance.state == StateName::Stopping;
                        is_stopping || instance.is_stopped_by_operator()
                    };
                    let kept = (0..wanted).map(id).filter(|id| id.number >= from || !is_left_alone(id)).collect();
                    open.apply_verb(kept, Verb::Start, model);
                }
                Request::ReloadConfig | Request::Shutdown => {}
            }
        }
        self.open.insert(id, open);
    }

    /// A configuration has changed the number of instances, at once or at the end of the reload of the service.
    pub(crate) fn on_configured_scale(
        &mut self,
        event: Option<&Event>,
        service: ServiceIndex,
        wanted: u32,
        model: &mut Model,
    ) {
        self.is_scaled_by_config = true;
        let (before, from) = (model.of(service).len() as u32, model.desired(service));
        let starts = if from == 0 { model.is_needed(service) } else { model.is_active(service) };
        if from == 0 {
            model.untried.insert(service, None);
        }
        let id = |number| InstanceId { service, number };
        let surplus: Vec<_> = (wanted..before).map(id).collect();
        self.cancel_deferred(&surplus);
        surplus.iter().for_each(|id| stop(*id, model));
        model.scale(service, wanted);
        let added: Vec<_> = (from..wanted).map(id).filter(|_| starts).collect();
        added.iter().for_each(|id| start(model.get_mut(*id)));
        let loaded = if let Some(Event::ConfigLoaded { id, .. }) = event { *id } else { None };
        let is_meant = |id: &RequestId, open: &Open| Some(*id) == loaded || open.reloads.contains(&service);
        for (_, open) in self.open.iter_mut().filter(|(id, open)| is_meant(id, open)) {
            open.down.extend(&surplus);
            open.up.extend(&added);
        }
    }

    pub(crate) fn on_reload_started(&mut self, id: RequestId, service: ServiceIndex) {
        if let Some(open) = self.open.get_mut(&id) {
            open.reloads.push(service);
        }
    }

    pub(crate) fn on_reload_finished(&mut self, service: ServiceIndex, failure: Option<&ReloadFailure>) {
        for open in self.open.values_mut().filter(|open| open.reloads.contains(&service)) {
            open.reloads.retain(|other| *other != service);
            open.has_failed_reload |= failure.is_some();
        }
    }

    /// The process of an instance has exited on its own, and is restarted.
    pub(crate) fn on_died(&mut self, id: InstanceId) {
        let is_start = |request: &Request| {
            matches!(
                request,
                Request::Control(_, Verb::Start | Verb::Restart)
                    | Request::Several(_, Verb::Start | Verb::Restart)
                    | Request::Scale(..)
            )
        };
        for open in self.open.values_mut().filter(|open| is_start(&open.request) && open.up.contains(&id)) {
            open.died.push(id);
        }
    }

    /// The load of the configuration has finished.
    pub(crate) fn on_config_load_finished(&mut self, id: Option<RequestId>, config: Config) {
        if let Some(open) = id.and_then(|id| self.open.get_mut(&id)) {
            open.config = config;
        }
    }

    /// Removes a request and returns whether its configuration load was pending.
    pub(crate) fn withdraw(&mut self, id: RequestId) -> bool {
        self.open.remove(&id).is_some_and(|open| open.config == Config::Loading)
    }

    pub(crate) fn check_reply(
        &mut self,
        id: RequestId,
        result: Result<(), Refusal>,
        model: &Model,
        stage: ShutdownStage,
    ) -> Verdict {
        let Some(open) = self.open.remove(&id) else { return Err(Violation(format!("another reply to {id:?}"))) };
        let request = open.request.clone();
        if !open.deferred.is_empty() && matches!(result, Err(Refusal::DependencyUnavailable(..))) {
            let expected = unavailable_dependency(&open.deferred, model).map_or(Ok(()), Err);
            rule!(result == expected, "{request:?}: {result:?}");
            return Ok(());
        }
        if let Some(refusal) = open.refusal {
            rule!(result == Err(refusal), "{request:?}: {result:?}");
            return Ok(());
        }
        match request {
            Request::Control(target, Verb::Reload) => return open.check_reload_reply(target, result, model, stage),
            Request::ReloadConfig => return open.check_reload_reply(Target::All, result, model, stage),
            Request::Control(..) | Request::Several(..) | Request::Scale(..) | Request::Shutdown => {}
        }
        let is_signal = matches!(request, Request::Control(_, Verb::Signal(_)));
        if let Err(Refusal::Several(refusals)) = result {
            rule!(!is_signal && refusals.len() > 1, "{request:?} has no failures: {refusals:?}");
            return refusals.iter().try_for_each(|refusal| open.check_failure(refusal, model, stage));
        }
        let has_main = |instance: &Instance| instance.main.is_some() && instance.hook.is_none();
        let running = || open.up.iter().any(|target| model.find(*target).is_some_and(has_main));
        match result {
            Ok(()) => rule!(
                if is_signal { running() || open.up.is_empty() } else { open.is_done(model) },
                "{request:?} is answered before it is done"
            ),
            Err(Refusal::ShuttingDown) => rule!(stage != ShutdownStage::Up, "keepalive is not shutting down"),
            Err(Refusal::NotRunning(instance)) => rule!(is_signal && !running(), "{instance:?} is running"),
            Err(refusal) => open.check_failure(&refusal, model, stage)?,
        }
        Ok(())
    }

    /// Checks that every request with a known result has been answered.
    pub(crate) fn check_none_is_overdue(&self, model: &Model) -> Verdict {
        let now = self.ticked_at;
        for (id, open) in &self.open {
            let at_once = matches!(open.request, Request::Shutdown | Request::Control(_, Verb::Signal(_)));
            let overdue = at_once
                || open.refusal.is_some()
                || (open.is_done(model) && open.has_lasted(model, now) && !open.may_await_untried(model, now))
                || open.has_failed(model, now);
            let may_wait = (self.is_scaled_by_config
                || model.plan.services.iter().any(|service| service.instances == 0))
                && open.request == Request::ReloadConfig;
            rule!(!overdue || may_wait, "{id:?} could be answered: {open:?}");
        }
        Ok(())
    }

    pub(crate) fn check_all_are_answered(&self) -> Verdict {
        rule!(self.open.is_empty(), "no answer to {:?}", self.open);
        Ok(())
    }
}

impl Open {
    /// Checks one reason why a start or stop has failed.
    fn check_failure(&self, refusal: &Refusal, model: &Model, stage: ShutdownStage) -> Verdict {
        match refusal {
            Refusal::Failed(instance) => {
                let failed = model.find(*instance).is_some_and(|instance| is_failure(instance, stage));
                // The failure that causes the shutdown is the answer to all requests.
                let is_meant = self.up.contains(instance) || stage != ShutdownStage::Up;
                rule!(failed && is_meant, "{instance:?} has not failed");
            }
            Refusal::Died(instance) => rule!(self.died.contains(instance), "{instance:?} has not exited"),
            Refusal::Superseded(instance) => {
                let state = model.find(*instance).map(|instance| instance.state);
                let up = self.up.contains(instance)
                    && matches!(state, None | Some(StateName::Stopped | StateName::Stopping));
                let down = self.down.contains(instance) && state.is_some_and(is_active);
                rule!(up || down, "{self:?} is not superseded: {instance:?} is {state:?}");
            }
            other => rule!(false, "{self:?} is refused: {other:?}"),
        }
        Ok(())
    }

    pub(super) fn apply_verb(&mut self, targets: Vec<InstanceId>, verb: Verb, model: &mut Model) {
        for target in &targets {
            let instance = model.get_mut(*target);
            let is_stop = matches!(verb, Verb::Stop | Verb::Restart);
            let waits = is_stop && instance.is_up();
            instance.stops_in_order |= is_stop && instance.state == StateName::Stopping;
            match verb {
                // The transition that follows, or the end of its process, applies it.
                Verb::Stop | Verb::Restart if waits => instance.queued = Some(verb),
                Verb::Start | Verb::Stop | Verb::Restart => apply(*target, verb, model),
                Verb::Signal(_) | Verb::Reload => {}
            }
        }
        match verb {
            Verb::Start | Verb::Restart | Verb::Signal(_) => self.up = targets,
            Verb::Stop => self.down = targets,
            Verb::Reload => {}
        }
    }

    fn check_reload_reply(
        &self,
        target: Target,
        result: Result<(), Refusal>,
        model: &Model,
        stage: ShutdownStage,
    ) -> Verdict {
        let is_over = self.reloads.is_empty();
        let has_failed = matches!(result, Err(Refusal::ConfigLoadFailed(_)));
        let is_cancelled = match result {
            Err(Refusal::ShuttingDown) => true,
            Err(Refusal::Failed(_)) => stage != ShutdownStage::Up,
            _ => false,
        };
        rule!(is_cancelled || has_failed == (self.config == Config::Failed), "{result:?} of {self:?}");
        rule!(is_cancelled || self.config != Config::Loading, "the configuration is still being loaded: {self:?}");
        match result {
            Ok(()) => rule!(is_over && !self.has_failed_reload, "a reload is answered before it is done: {self:?}"),
            Err(Refusal::ReloadFailed(_)) => rule!(is_over && self.has_failed_reload, "no reload has failed: {self:?}"),
            Err(Refusal::ConfigLoadFailed(_) | Refusal::Died(_)) => {}
            Err(Refusal::Failed(id)) => {
                let has_failed = model.find(id).is_some_and(|instance| is_failure(instance, stage));
                let may_be_awaited = is_cancelled || self.request == Request::ReloadConfig;
                rule!(may_be_awaited && has_failed, "{id:?} has not caused a shutdown");
            }
            Err(Refusal::Superseded(id)) => {
                rule!(self.request == Request::ReloadConfig, "{id:?} is not superseded: {self:?}");
            }
            Err(Refusal::ShuttingDown) => rule!(stage != ShutdownStage::Up, "keepalive is not shutting down"),
            Err(Refusal::Reloading(service)) => rule!(model.is_reloading(service), "{service:?} is not being reloaded"),
            Err(Refusal::Oneshot(service)) => rule!(model.is_oneshot(service), "{service:?} is not a oneshot"),
            Err(Refusal::NotRunning(_)) => {
                let runs = |id: &InstanceId| {
                    let state = model.find(*id).map(|instance| instance.state);
                    matches!(state, Some(StateName::Running | StateName::Starting | StateName::Backoff))
                };
                rule!(
                    !targets(&[target], Verb::Reload, model).iter().any(runs),
                    "the target could be reloaded: {self:?}"
                );
            }
            Err(Refusal::Several(failures)) => {
                let awaits = |failure: &Refusal| match failure {
                    Refusal::ReloadAwaits(service, dependency) => {
                        model.is_reloading(*service)
                            && self.reloads.contains(service)
                            && !model.is_satisfied(*dependency)
                    }
                    _ => false,
                };
                let is_over = failures.iter().filter(|failure| awaits(failure)).count() == self.reloads.len();
                let is_reload = |failure: &Refusal| matches!(failure, Refusal::ReloadFailed(_));
                let is_config = self.request == Request::ReloadConfig;
                let are_reloads = self.has_failed_reload && failures.iter().all(is_reload);
                let have_failed = is_over && (is_config || are_reloads);
                rule!(have_failed && failures.len() > 1, "not all of these reloads have failed: {failures:?}");
            }
            Err(
                Refusal::ReloadAwaits(..)
                | Refusal::UnknownInstance(_)
                | Refusal::NoInstances(_)
                | Refusal::DependencyUnavailable(..)
                | Refusal::TooMany(..),
            ) => {
                rule!(false, "a reload is refused: {result:?}");
            }
        }
        Ok(())
    }

    fn is_done(&self, model: &Model) -> bool {
        if !self.reloads.is_empty() || self.config == Config::Loading || !self.deferred.is_empty() {
            return false;
        }
        let is_down = |id: &InstanceId| model.find(*id).is_none_or(|instance| !is_active(instance.state));
        let is_up = |id: &InstanceId| model.is_up(*id) && model.get(*id).queued.is_none();
        self.up.iter().all(is_up) && self.down.iter().all(is_down)
    }

    /// A load of the configuration also waits for definitions that an earlier one has brought.
    fn may_await_untried(&self, model: &Model, now: Mono) -> bool {
        let is_young = || model.all().any(|(id, _)| model.is_up(id) && !lasts(id, model, now));
        self.request == Request::ReloadConfig && (!model.untried.is_empty() || !model.doubtful.is_empty() || is_young())
    }

    /// Whether its processes run longer than any request waits for.
    fn has_lasted(&self, model: &Model, now: Mono) -> bool {
        self.up.iter().all(|id| lasts(*id, model, now))
    }

    /// Whether nothing is under way any more, and something has failed.
    fn has_failed(&self, model: &Model, now: Mono) -> bool {
        let has_failed = |id: &InstanceId| model.find(*id).is_some_and(|it| it.state == StateName::Failed);
        let is_up = |id: &InstanceId| model.is_up(*id) && model.get(*id).queued.is_none() && lasts(*id, model, now);
        let is_signalled = |id: &InstanceId| matches!(model.get(*id).definition.reload.strategy, Strategy::Signal(_));
        let is_up = |id: &InstanceId| is_up(id) && !is_signalled(id);
        self.deferred.is_empty()
            && self.up.iter().any(has_failed)
            && self.up.iter().all(|id| has_failed(id) || self.died.contains(id) || is_up(id))
            && self.down.iter().all(|id| model.find(*id).is_none_or(|instance| !is_active(instance.state)))
    }
}

/// Whether it has failed, or its health has caused the shutdown.
fn is_failure(instance: &Instance, stage: ShutdownStage) -> bool {
    instance.state == StateName::Failed || (stage != ShutdownStage::Up && instance.is_not_ready())
}

/// Whether its process runs longer than any request waits for. One that has been sent the signal of a reload must outlive that,
/// also if the reload has failed meanwhile.
fn lasts(id: InstanceId, model: &Model, now: Mono) -> bool {
    let is_old = |instance: &Instance| now.since(instance.since) > PROOF_TIME + MAX_SOAK;
    model
        .find(id)
        .is_none_or(|instance| !instance.is_ready_at_once() || (is_old(instance) && !model.is_reloading(id.service)))
}

/// A start, stop or restart takes effect.
pub(super) fn apply(id: InstanceId, verb: Verb, model: &mut Model) {
    if verb == Verb::Stop {
        return stop(id, model);
    }
    let instance = model.get_mut(id);
    let again = verb == Verb::Restart && instance.main.is_some();
    let needs_dependencies = again || !matches!(instance.state, StateName::Starting | StateName::Running);
    start(instance);
    instance.start_requested |= again;
    if needs_dependencies {
        start_dependencies(id.service, model);
    }
}

/// The dependencies that an operator has stopped, or that have failed, are started too.
fn start_dependencies(service: ServiceIndex, model: &mut Model) {
    let (mut needing, mut visited) = (vec![service], Vec::new());
    while let Some(dependent) = needing.pop() {
        for dependency in model.depends_on(dependent).to_vec() {
            if visited.contains(&dependency) || model.is_available(dependency) {
                continue;
            }
            visited.push(dependency);
            let tries_again = model.cannot_become_ready(dependency);
            let is_oneshot = model.is_oneshot(dependency);
            for number in 0..model.desired(dependency) {
                let instance = model.get_mut(InstanceId { service: dependency, number });
                if instance.queued == Some(Verb::Stop) {
                    instance.queued = None;
                }
                let is_tried = tries_again && (instance.state == StateName::Failed || !is_oneshot);
                if is_tried || instance.is_stopped_by_operator() {
                    start(instance);
                }
            }
            let waits = |instance: &Instance| {
                matches!(instance.state, StateName::Stopped | StateName::Waiting | StateName::Stopping)
            };
            if tries_again || model.of(dependency).iter().any(waits) {
                needing.push(dependency);
            }
        }
    }
}

fn start(instance: &mut Instance) {
    instance.queued = None;
    (instance.unstable, instance.refusals, instance.stopped_by_operator) = (0, 0, false);
    instance.start_requested = instance.state == StateName::Stopping;
    if instance.state == StateName::Stopping {
        instance.put_to_test();
        instance.stays_stopped = false;
        (instance.due, instance.fault) = (None, None);
        instance.request_stop();
    }
}

fn stop(id: InstanceId, model: &mut Model) {
    let instance = model.get_mut(id);
    // What it depends on waits for it as before.
    instance.stops_in_order |= instance.queued.take().is_some();
    instance.stopped_by_operator |= is_active(instance.state);
    (instance.start_requested, instance.fault) = (false, None);
    instance.request_stop();
}

/// The refusal of a request that is known to be impossible at once.
fn refusal(request: &Request, model: &Model) -> Option<Refusal> {
    let (wanted, verb) = match request {
        Request::Control(target, verb) => (std::slice::from_ref(target), *verb),
        Request::Several(wanted, verb) => (&wanted[..], *verb),
        Request::Scale(service, _) if model.is_oneshot(*service) => return Some(Refusal::Oneshot(*service)),
        Request::Scale(service, wanted) => {
            let current: Vec<_> = targets(&[Target::Service(*service)], Verb::Stop, model);
            let first = InstanceId { service: *service, number: 0 };
            return if *wanted as usize > current.len() { unavailable_dependency(&[first], model) } else { None };
        }
        Request::ReloadConfig | Request::Shutdown => return None,
    };
    let unknown = wanted.iter().find_map(|target| match target {
        Target::Instance(id) if id.number >= model.desired(id.service) => Some(Refusal::UnknownInstance(*id)),
        _ => None,
    });
    let restarted = || Some(targets(wanted, verb, model)).filter(|_| verb == Verb::Restart);
    let is_none = !wanted.contains(&Target::All) && verb != Verb::Stop && targets(wanted, verb, model).is_empty();
    let off =
        || wanted.iter().find_map(|target| if let Target::Service(service) = target { Some(*service) } else { None });
    let unknown = unknown.or_else(|| off().filter(|_| is_none).map(Refusal::NoInstances));
    unknown.or_else(|| unavailable_dependency(&restarted()?, model))
}
