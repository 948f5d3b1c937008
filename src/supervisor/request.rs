//! What an operator asks for, and when it is done.

use std::rc::Rc;

use super::instance::{Next, State, Stopped};
use super::stop::AfterStop;
use super::{Action, Cause, Outcome, Reason, ReloadFailure, Scope, StateName, Supervisor};
use crate::model::instance_limit::TooManyInstances;
use crate::model::plan::Kind;
use crate::model::{InstanceId, ServiceIndex, Signal};

/// Tells one request from another; chosen by whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Something about one service or instance.
    About(Target, Verb),
    /// Another number of instances, at least 1: done when these are ready and the surplus is gone. Not of a oneshot.
    Scale(ServiceIndex, u32),
    /// Read the configuration again; done when it is in force.
    Configure,
    /// The ordered stop of everything. Answered at once, also if it has begun already.
    Shutdown,
}

/// Whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All instances of all services.
    All,
    /// All instances of it.
    Service(ServiceIndex),
    /// This one alone.
    Instance(InstanceId),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Run it; done when it is ready, a oneshot when it has succeeded. Forgets its failures.
    Start,
    /// Stop it; done when nothing of it is left.
    Stop,
    /// Stop it and run it again; done when a start would be. Forgets its failures.
    Restart,
    /// Replace its processes one by one, so that there are never fewer ready ones; done when each has another.
    Reload,
    /// Send a signal to its main processes; not possible if there is none.
    Signal(Signal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Everything is being stopped.
    ShuttingDown,
    /// It does not run.
    NotRunning(InstanceId),
    /// It was started and has failed for good.
    Failed(InstanceId),
    /// Another request has taken it elsewhere meanwhile.
    Overtaken(InstanceId),
    /// There is no such instance, or no more.
    Unknown(InstanceId),
    /// It is being reloaded already.
    Reloading(ServiceIndex),
    /// A reload has failed; what was there before goes on.
    ReloadFailed(ReloadFailure),
    /// There cannot be so many instances that this is the last.
    TooMany(InstanceId, TooManyInstances),
    /// It is a oneshot: it has as many instances as its configuration says, and runs once.
    Oneshot(ServiceIndex),
    /// The configuration cannot be read or is invalid, for this reason.
    ConfigLoadFailed(Rc<str>),
}

/// A request whose answer is still out.
#[derive(Debug)]
pub(super) struct Pending {
    id: RequestId,
    up: Vec<InstanceId>,
    down: Vec<InstanceId>,
    /// Services whose reload it waits for.
    reloads: Vec<ServiceIndex>,
    /// What has gone wrong with one of these.
    failure: Option<ReloadFailure>,
    /// The configuration is being loaded for it.
    is_loading: bool,
}

impl Pending {
    /// Done when these are ready, those are down, and the services have been reloaded.
    pub(super) const fn new(
        id: RequestId,
        up: Vec<InstanceId>,
        down: Vec<InstanceId>,
        reloads: Vec<ServiceIndex>,
    ) -> Self {
        Self { id, up, down, reloads, failure: None, is_loading: false }
    }

    /// Nothing can be said before the configuration has been loaded.
    fn config_load(id: RequestId) -> Self {
        Self { is_loading: true, ..Self::new(id, Vec::new(), Vec::new(), Vec::new()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Up,
    Down,
}

/// How far one instance of a request has come.
enum Progress {
    Done,
    Underway,
    Never(Refusal),
}

impl Supervisor {
    pub(super) fn on_request(&mut self, id: RequestId, request: Request) {
        if self.is_draining() {
            let is_so = request == Request::Shutdown;
            return self.reply(id, if is_so { Ok(()) } else { Err(Refusal::ShuttingDown) });
        }
        match request {
            Request::Shutdown => {
                self.reply(id, Ok(()));
                self.shut_down(Outcome { code: 0, cause: Cause::Requested });
            }
            Request::About(Target::Instance(instance), _) if !self.services.has(instance) => {
                self.reply(id, Err(Refusal::Unknown(instance)));
            }
            Request::About(target, verb) => {
                let targets: Vec<_> = match target {
                    Target::All => self.services.ids().collect(),
                    Target::Service(service) => self.services.ids_of(service).collect(),
                    Target::Instance(instance) => vec![instance],
                };
                // What is surplus is on its way down anyway, and nothing else is to become of it.
                let is_meant = |target: &InstanceId| self.services.has(*target);
                let targets = targets.into_iter().filter(is_meant).collect();
                self.on_verb(id, verb, target, targets);
            }
            Request::Scale(service, wanted) => self.scale(id, service, wanted),
            Request::Configure => {
                self.requests.push(Pending::config_load(id));
                self.act(Action::LoadConfig { id: Some(id) });
            }
        }
    }

    /// Nobody waits for the answer any more. What has begun goes on.
    pub(super) fn on_withdrawn(&mut self, id: RequestId) {
        if self.take_config_request(id) {
            self.act(Action::WithdrawConfigLoad { id });
        }
        self.requests.retain(|pending| pending.id != id);
    }

    /// Takes the request out for which the configuration is being loaded; whether its answer was still out.
    pub(super) fn take_config_request(&mut self, id: RequestId) -> bool {
        let before = self.requests.len();
        self.requests.retain(|pending| pending.id != id || !pending.is_loading);
        self.requests.len() < before
    }

    fn on_verb(&mut self, id: RequestId, verb: Verb, target: Target, targets: Vec<InstanceId>) {
        let pending = match verb {
            Verb::Signal(signal) => {
                let result = self.signal_targets(signal, &targets);
                return self.reply(id, result);
            }
            Verb::Start => {
                targets.iter().for_each(|target| self.request_start(*target));
                Pending::new(id, targets, Vec::new(), Vec::new())
            }
            Verb::Reload => return self.reload(id, targets, target),
            Verb::Stop => {
                targets.iter().for_each(|target| self.request_stop(*target));
                Pending::new(id, Vec::new(), targets, Vec::new())
            }
            Verb::Restart => {
                targets.iter().for_each(|target| self.request_restart(*target));
                targets.iter().for_each(|target| self.request_start(*target));
                Pending::new(id, targets, Vec::new(), Vec::new())
            }
        };
        self.requests.push(pending);
    }

    /// Of all services, those are reloaded that can be.
    fn reload(&mut self, id: RequestId, targets: Vec<InstanceId>, target: Target) {
        let mut groups = Vec::new();
        for group in targets.chunk_by(|one, other| one.service == other.service) {
            match (self.reloadable(group), target) {
                (Ok(()), _) => groups.push(group),
                (Err(Refusal::Oneshot(_) | Refusal::NotRunning(_)), Target::All) => {}
                (Err(refusal), _) => return self.reply(id, Err(refusal)),
            }
        }
        let mut services = Vec::new();
        for group in groups {
            let Some(InstanceId { service, .. }) = group.first() else { continue };
            self.begin_rollout(*service, group.iter().map(|instance| instance.number).collect(), None, None);
            services.push(*service);
        }
        self.requests.push(Pending::new(id, Vec::new(), Vec::new(), services));
    }

    /// Whether these can be reloaded.
    ///
    /// # Errors
    /// It is a oneshot, is being reloaded already, or none of them runs.
    pub(super) fn reloadable(&self, targets: &[InstanceId]) -> Result<(), Refusal> {
        let Some(first) = targets.first() else { return Ok(()) };
        if self.services[first.service].definition.kind == Kind::Oneshot {
            return Err(Refusal::Oneshot(first.service));
        }
        if self.rollouts.contains_key(&first.service) {
            return Err(Refusal::Reloading(first.service));
        }
        let rests = |id: &InstanceId| match self.services[*id].state {
            State::Stopped { why: Stopped::Failed { .. } } => false,
            State::Stopped { .. }
            | State::Stopping { then: AfterStop::Rest(_), .. }
            | State::CleaningUp { next: Next::Rest(_), .. } => true,
            State::Waiting
            | State::Spawning { .. }
            | State::Executing { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. } => false,
        };
        if targets.iter().all(rests) { Err(Refusal::NotRunning(*first)) } else { Ok(()) }
    }

    /// A reload has come to its end. `up` and `down`: whom that has started and stopped.
    pub(super) fn reload_is_over(
        &mut self,
        service: ServiceIndex,
        failure: Option<ReloadFailure>,
        up: &[InstanceId],
        down: &[InstanceId],
    ) {
        for pending in self.requests.iter_mut().filter(|pending| pending.reloads.contains(&service)) {
            pending.reloads.retain(|other| *other != service);
            pending.up.extend_from_slice(up);
            pending.down.extend_from_slice(down);
            pending.failure = pending.failure.take().or_else(|| failure.clone());
        }
    }

    pub(super) fn await_changes(&mut self, pending: Pending) {
        self.requests.push(pending);
    }

    fn scale(&mut self, id: RequestId, service: ServiceIndex, wanted: u32) {
        if self.services[service].definition.kind == Kind::Oneshot {
            return self.reply(id, Err(Refusal::Oneshot(service)));
        }
        if let Some(excess) = self.services[service].definition.too_many_instances(wanted) {
            let last = InstanceId { service, number: wanted.saturating_sub(1) };
            return self.reply(id, Err(Refusal::TooMany(last, excess)));
        }
        self.forget_resize(service);
        self.set_wanted(service, wanted);
        self.mark_dirty(service);
        let (up, down): (Vec<_>, Vec<_>) = self.services.ids_of(service).partition(|id| self.services.has(*id));
        up.iter().for_each(|id| self.request_start(*id));
        down.iter().for_each(|id| self.request_stop(*id));
        self.requests.push(Pending::new(id, up, down, Vec::new()));
    }

    fn signal_targets(&mut self, signal: Signal, targets: &[InstanceId]) -> Result<(), Refusal> {
        let pids: Vec<_> = targets.iter().filter_map(|target| self.services[*target].state.live_pid()).collect();
        if let (Some(target), []) = (targets.first(), &pids[..]) {
            return Err(Refusal::NotRunning(*target));
        }
        for pid in pids {
            self.act(Action::Signal { pid, scope: Scope::Main, signal });
        }
        Ok(())
    }

    pub(super) fn request_start(&mut self, id: InstanceId) {
        self.services[id].forgive();
        match self.services[id].state {
            State::Stopped { .. } => {
                self.want_dependencies(id.service);
                self.start_or_wait(id, Reason::Requested);
            }
            State::BackingOff { .. }
            | State::Stopping { then: AfterStop::Rest(_) | AfterStop::Fail(_) | AfterStop::Own, .. }
            | State::CleaningUp { .. } => {
                self.stop(id, AfterStop::Restart);
            }
            State::Spawning { .. }
            | State::Waiting
            | State::Executing { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { then: AfterStop::Restart, .. } => {}
        }
    }

    pub(super) fn request_stop(&mut self, id: InstanceId) {
        self.call_off_twin(id, Stopped::Replaced);
        match self.services[id].state {
            State::Stopped { .. } => {}
            State::Waiting
            | State::Spawning { .. }
            | State::Executing { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. } => self.stop(id, AfterStop::Rest(Stopped::Operator)),
        }
    }

    pub(super) fn request_restart(&mut self, id: InstanceId) {
        self.services[id].forgive();
        if !matches!(self.services[id].state, State::Stopped { .. } | State::Waiting) {
            self.stop(id, AfterStop::Restart);
        }
    }

    pub(super) fn want_dependencies(&mut self, service: ServiceIndex) {
        let definition = Rc::clone(&self.services[service].definition);
        for dependency in &definition.depends_on {
            for wanted in self.want(*dependency) {
                self.start_or_block(wanted);
            }
        }
    }

    /// Answers every request that is done or cannot be any more.
    pub(super) fn answer_requests(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        for pending in std::mem::take(&mut self.requests) {
            match self.progress(&pending) {
                Progress::Done => self.reply(pending.id, Ok(())),
                Progress::Never(refusal) => self.reply(pending.id, Err(refusal)),
                Progress::Underway => self.requests.push(pending),
            }
        }
    }

    fn progress(&self, pending: &Pending) -> Progress {
        let mut progress = match &pending.failure {
            _ if pending.is_loading || !pending.reloads.is_empty() => Progress::Underway,
            Some(failure) => return Progress::Never(Refusal::ReloadFailed(failure.clone())),
            None => Progress::Done,
        };
        let up = pending.up.iter().map(|id| (id, Awaited::Up));
        for (id, verb) in up.chain(pending.down.iter().map(|id| (id, Awaited::Down))) {
            match self.instance_progress(*id, verb) {
                Progress::Done => {}
                Progress::Underway => progress = Progress::Underway,
                Progress::Never(refusal) => return Progress::Never(refusal),
            }
        }
        progress
    }

    fn instance_progress(&self, id: InstanceId, verb: Awaited) -> Progress {
        if self.services.find(id).is_none() {
            return match verb {
                Awaited::Up => Progress::Never(Refusal::Overtaken(id)),
                Awaited::Down => Progress::Done,
            };
        }
        match (verb, self.state_name(id)) {
            // Its turn comes when nothing is left of what depends on it.
            (Awaited::Down, state) if self.services[id.service].is_retiring && !state.is_at_rest() => {
                Progress::Underway
            }
            (Awaited::Up, StateName::Running) if self.services[id.service].definition.kind == Kind::Oneshot => {
                Progress::Underway
            }
            (Awaited::Up, StateName::Running | StateName::Completed)
            | (Awaited::Down, StateName::Stopped | StateName::Completed | StateName::Failed) => Progress::Done,
            (Awaited::Up, StateName::Failed) => Progress::Never(Refusal::Failed(id)),
            (Awaited::Up, StateName::Stopped) => Progress::Never(Refusal::Overtaken(id)),
            (Awaited::Down, StateName::Starting | StateName::Running | StateName::Waiting | StateName::Backoff) => {
                Progress::Never(Refusal::Overtaken(id))
            }
            (_, StateName::Stopping) if self.is_stopping_for_another(id, verb) => {
                Progress::Never(Refusal::Overtaken(id))
            }
            (Awaited::Up, StateName::Waiting | StateName::Starting | StateName::Stopping | StateName::Backoff)
            | (Awaited::Down, StateName::Stopping) => Progress::Underway,
        }
    }

    /// Whether an operator has meanwhile asked for the opposite of `verb`, so that it will not come to that.
    fn is_stopping_for_another(&self, id: InstanceId, verb: Awaited) -> bool {
        match (&self.services[id].state, verb) {
            (
                State::Stopping { then: AfterStop::Rest(_), .. }
                | State::CleaningUp { next: Next::Rest(Stopped::Operator), .. },
                Awaited::Up,
            )
            | (
                State::Stopping { then: AfterStop::Restart, .. }
                | State::CleaningUp { next: Next::Restart { .. } | Next::Start, .. },
                Awaited::Down,
            ) => true,
            (
                State::Waiting
                | State::Spawning { .. }
                | State::Executing { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::CleaningUp { .. }
                | State::BackingOff { .. }
                | State::Stopped { .. },
                Awaited::Up | Awaited::Down,
            ) => false,
        }
    }

    /// Everything is being stopped: no request will be done any more.
    pub(super) fn refuse_requests(&mut self) {
        for pending in std::mem::take(&mut self.requests) {
            self.reply(pending.id, Err(Refusal::ShuttingDown));
        }
    }

    pub(super) fn reply(&mut self, id: RequestId, result: Result<(), Refusal>) {
        self.act(Action::Reply { id, result });
    }
}
