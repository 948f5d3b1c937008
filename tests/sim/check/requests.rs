//! Who has to get which answer.

use std::collections::BTreeMap;

use keepalive::model::{InstanceId, ServiceIndex};
use keepalive::supervisor::{Refusal, ReloadFailure, Request, RequestId, StateName, Target, Verb};

use super::model::{Model, is_active};
use super::shutdown::Stage;
use super::{Verdict, Violation, rule};

#[derive(Debug, Default)]
pub(crate) struct Requests {
    open: BTreeMap<RequestId, Open>,
}

/// A request that has not been answered.
#[derive(Debug)]
struct Open {
    request: Request,
    /// What is to be started, or to get a signal.
    up: Vec<InstanceId>,
    /// What is to be stopped.
    down: Vec<InstanceId>,
    /// The reloads that it waits for, and whether one of them has failed.
    reloads: Vec<ServiceIndex>,
    has_failed_reload: bool,
    /// How far the configuration is that is to be loaded for it.
    config: Config,
    /// It cannot be: the answer has to be this.
    refusal: Option<Refusal>,
}

/// The configuration that is loaded for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Config {
    Loading,
    Failed,
    /// Or there is none to be loaded.
    Loaded,
}

impl Requests {
    pub(crate) fn hears(&mut self, id: RequestId, request: Request, model: &mut Model, stage: Stage) {
        let refusal = match stage {
            Stage::Up => refusal(request, model),
            _ if request == Request::Shutdown => None,
            _ => Some(Refusal::ShuttingDown),
        };
        let (reloads, has_failed_reload) = (Vec::new(), false);
        let is_refused = refusal.is_some();
        let is_loading = request == Request::ReloadConfig && !is_refused;
        let config = if is_loading { Config::Loading } else { Config::Loaded };
        let mut open = Open { request, up: Vec::new(), down: Vec::new(), reloads, has_failed_reload, config, refusal };
        if !is_refused {
            match request {
                Request::Control(target, verb) => open.about(targets(target, model), verb, model),
                Request::Scale(service, wanted) => {
                    let before = model.of(service).len() as u32;
                    let id = |number| InstanceId { service, number };
                    open.down = (wanted..before).map(id).collect();
                    for id in &open.down {
                        stop(*id, model);
                    }
                    model.scale(service, wanted);
                    open.about((0..wanted).map(id).collect(), Verb::Start, model);
                }
                Request::ReloadConfig | Request::Shutdown => {}
            }
        }
        self.open.insert(id, open);
    }

    pub(crate) fn reload_begins(&mut self, id: RequestId, service: ServiceIndex) {
        if let Some(open) = self.open.get_mut(&id) {
            open.reloads.push(service);
        }
    }

    pub(crate) fn reload_ends(&mut self, service: ServiceIndex, failure: Option<&ReloadFailure>) {
        for open in self.open.values_mut().filter(|open| open.reloads.contains(&service)) {
            open.reloads.retain(|other| *other != service);
            open.has_failed_reload |= failure.is_some();
        }
    }

    /// The load of the configuration has come to its end.
    pub(crate) fn config_load_ends(&mut self, id: Option<RequestId>, config: Config) {
        if let Some(open) = id.and_then(|id| self.open.get_mut(&id)) {
            open.config = config;
        }
    }

    /// Whether the configuration was still to be loaded for it.
    pub(crate) fn withdrawn(&mut self, id: RequestId) -> bool {
        self.open.remove(&id).is_some_and(|open| open.config == Config::Loading)
    }

    pub(crate) fn sees_reply(
        &mut self,
        id: RequestId,
        result: Result<(), Refusal>,
        model: &Model,
        stage: Stage,
    ) -> Verdict {
        let Some(open) = self.open.remove(&id) else { return Err(Violation(format!("another reply to {id:?}"))) };
        let request = open.request;
        if let Some(refusal) = open.refusal {
            rule!(result == Err(refusal), "{request:?}: {result:?}");
            return Ok(());
        }
        match request {
            Request::Control(target, Verb::Reload) => return open.sees_reload_answered(target, result, model, stage),
            Request::ReloadConfig => return open.sees_reload_answered(Target::All, result, model, stage),
            Request::Control(..) | Request::Scale(..) | Request::Shutdown => {}
        }
        let is_signal = matches!(request, Request::Control(_, Verb::Signal(_)));
        let running =
            || open.up.iter().any(|target| model.find(*target).is_some_and(|instance| instance.main.is_some()));
        match result {
            Ok(()) => rule!(if is_signal { running() } else { open.is_done(model) }, "{request:?} is said to be done"),
            Err(Refusal::ShuttingDown) => rule!(stage != Stage::Up, "it is not shutting down"),
            Err(Refusal::NotRunning(instance)) => rule!(is_signal && !running(), "{instance:?} does run"),
            Err(Refusal::Failed(instance)) => {
                let failed = model.find(instance).is_some_and(|instance| instance.state == StateName::Failed);
                rule!(failed && open.up.contains(&instance), "{instance:?} has not failed");
            }
            Err(Refusal::Superseded(instance)) => {
                let state = model.find(instance).map(|instance| instance.state);
                let up = open.up.contains(&instance)
                    && matches!(state, None | Some(StateName::Stopped | StateName::Stopping));
                let down = open.down.contains(&instance) && state.is_some_and(is_active);
                rule!(up || down, "{request:?} is not overtaken: {instance:?} is {state:?}");
            }
            Err(
                Refusal::UnknownInstance(_)
                | Refusal::Oneshot(_)
                | Refusal::TooMany(..)
                | Refusal::Reloading(_)
                | Refusal::ReloadFailed(_)
                | Refusal::ConfigLoadFailed(_),
            ) => {
                rule!(false, "{request:?} is refused: {result:?}")
            }
        }
        Ok(())
    }

    /// No answer is out that could be given.
    pub(crate) fn none_is_overdue(&self, model: &Model) -> Verdict {
        for (id, open) in &self.open {
            let at_once = matches!(open.request, Request::Shutdown | Request::Control(_, Verb::Signal(_)));
            let overdue = at_once || open.refusal.is_some() || open.is_done(model) || open.has_failed(model);
            rule!(!overdue, "{id:?} could be answered: {open:?}");
        }
        Ok(())
    }

    pub(crate) fn all_are_answered(&self) -> Verdict {
        rule!(self.open.is_empty(), "no answer to {:?}", self.open);
        Ok(())
    }
}

impl Open {
    fn about(&mut self, targets: Vec<InstanceId>, verb: Verb, model: &mut Model) {
        match verb {
            Verb::Start | Verb::Restart => {
                for target in &targets {
                    let instance = model.get_mut(*target);
                    (instance.unstable, instance.refusals, instance.stopped_by_operator) = (0, 0, false);
                    let again = verb == Verb::Restart && instance.main.is_some();
                    instance.wanted = again || instance.state == StateName::Stopping;
                    if instance.state == StateName::Stopping {
                        (instance.due, instance.fault) = (None, None);
                        instance.is_wanted_to_leave();
                    }
                }
                self.up = targets;
            }
            Verb::Stop => {
                targets.iter().for_each(|target| stop(*target, model));
                self.down = targets;
            }
            Verb::Signal(_) => self.up = targets,
            Verb::Reload => {}
        }
    }

    fn sees_reload_answered(
        &self,
        target: Target,
        result: Result<(), Refusal>,
        model: &Model,
        stage: Stage,
    ) -> Verdict {
        let is_over = self.reloads.is_empty();
        let has_failed = matches!(result, Err(Refusal::ConfigLoadFailed(_)));
        let is_cancelled = result == Err(Refusal::ShuttingDown);
        rule!(is_cancelled || has_failed == (self.config == Config::Failed), "{result:?} of {self:?}");
        rule!(is_cancelled || self.config != Config::Loading, "it is still being loaded: {self:?}");
        match result {
            Ok(()) => rule!(is_over && !self.has_failed_reload, "a reload is said to be done: {self:?}"),
            Err(Refusal::ReloadFailed(_)) => rule!(is_over && self.has_failed_reload, "no reload has failed: {self:?}"),
            Err(Refusal::ConfigLoadFailed(_)) => {}
            Err(Refusal::ShuttingDown) => rule!(stage != Stage::Up, "it is not shutting down"),
            Err(Refusal::Reloading(service)) => rule!(model.is_reloading(service), "{service:?} is not being reloaded"),
            Err(Refusal::Oneshot(service)) => rule!(model.is_oneshot(service), "{service:?} is no oneshot"),
            Err(Refusal::NotRunning(_)) => {
                let runs = |id: &InstanceId| {
                    let state = model.find(*id).map(|instance| instance.state);
                    matches!(state, Some(StateName::Running | StateName::Starting | StateName::Backoff))
                };
                rule!(!targets(target, model).iter().any(runs), "it could be reloaded: {self:?}");
            }
            Err(Refusal::UnknownInstance(_) | Refusal::TooMany(..) | Refusal::Failed(_) | Refusal::Superseded(_)) => {
                rule!(false, "a reload is refused: {result:?}");
            }
        }
        Ok(())
    }

    fn is_done(&self, model: &Model) -> bool {
        if !self.reloads.is_empty() || self.config == Config::Loading {
            return false;
        }
        let is_down = |id: &InstanceId| model.find(*id).is_none_or(|instance| !is_active(instance.state));
        self.up.iter().all(|id| model.is_up(*id)) && self.down.iter().all(is_down)
    }

    fn has_failed(&self, model: &Model) -> bool {
        let mut instances = self.up.iter().filter_map(|id| model.find(*id));
        instances.any(|instance| instance.state == StateName::Failed)
    }
}

fn stop(id: InstanceId, model: &mut Model) {
    let instance = model.get_mut(id);
    instance.stopped_by_operator |= is_active(instance.state);
    (instance.wanted, instance.fault) = (false, None);
    instance.is_wanted_to_leave();
}

/// Why it cannot be, as far as is known at once.
fn refusal(request: Request, model: &Model) -> Option<Refusal> {
    match request {
        Request::Control(Target::Instance(id), _) => {
            (id.number >= model.wanted(id.service)).then_some(Refusal::UnknownInstance(id))
        }
        Request::Scale(service, _) => model.is_oneshot(service).then_some(Refusal::Oneshot(service)),
        Request::Control(Target::All | Target::Service(_), _) | Request::ReloadConfig | Request::Shutdown => None,
    }
}

fn targets(target: Target, model: &Model) -> Vec<InstanceId> {
    let of = |service| (0..model.wanted(service)).map(move |number| InstanceId { service, number });
    match target {
        Target::Instance(id) => vec![id],
        Target::Service(service) => of(service).collect(),
        Target::All => model.services().flat_map(of).collect(),
    }
}
