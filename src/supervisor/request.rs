//! What an operator asks for, and when it is done.

use super::core::Supervisor;
use super::event::{Action, Scope};
use super::operator::{Pending, Refusal, Request, RequestId, Target, Verb};
use super::record::{Cause, Outcome, Reason};
use super::rollout::ReloadFailure;
use super::state::{AfterStop, CleaningUp, Next, State, Stopped, Stopping};
use super::state_name::StateName;
use crate::model::plan::Kind;
use crate::model::{InstanceId, ServiceIndex, Signal};

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
        let rests = |id: &InstanceId| {
            let state = self.services[*id].state;
            let has_failed = matches!(state, State::Stopped { why: Stopped::Failed { .. } });
            (matches!(state, State::Stopped { .. }) && !has_failed) || will_rest(state)
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
        let processes: Vec<_> = targets.iter().filter_map(|target| self.services[*target].state.process()).collect();
        if let (Some(target), []) = (targets.first(), &processes[..]) {
            return Err(Refusal::NotRunning(*target));
        }
        for process in processes {
            self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
        }
        Ok(())
    }

    pub(super) fn request_start(&mut self, id: InstanceId) {
        self.services[id].reset_failures();
        match self.services[id].state {
            State::Stopped { .. } => {
                self.want_dependencies(id.service);
                self.start_or_wait(id, Reason::Requested);
            }
            State::BackingOff { .. } | State::CleaningUp(_) => self.stop(id, AfterStop::Restart),
            State::Stopping(stopping) if stopping.then != AfterStop::Restart => self.stop(id, AfterStop::Restart),
            // It starts, or runs already.
            State::Waiting
            | State::Spawning { .. }
            | State::Executing(_)
            | State::Starting { .. }
            | State::Running(_)
            | State::Stopping(_) => {}
        }
    }

    pub(super) fn request_stop(&mut self, id: InstanceId) {
        self.cancel_surge(id, Stopped::Replaced);
        if !self.services[id].state.is_resting() {
            self.stop(id, AfterStop::Rest(Stopped::Operator));
        }
    }

    pub(super) fn request_restart(&mut self, id: InstanceId) {
        self.services[id].reset_failures();
        if !matches!(self.services[id].state, State::Stopped { .. } | State::Waiting) {
            self.stop(id, AfterStop::Restart);
        }
    }

    pub(super) fn want_dependencies(&mut self, service: ServiceIndex) {
        let definition = std::rc::Rc::clone(&self.services[service].definition);
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
        let state = self.services[id].state;
        match verb {
            Awaited::Up => matches!(
                state,
                State::Stopping(Stopping { then: AfterStop::Rest(_), .. })
                    | State::CleaningUp(CleaningUp { next: Next::Rest(Stopped::Operator), .. })
            ),
            Awaited::Down => matches!(
                state,
                State::Stopping(Stopping { then: AfterStop::Restart, .. })
                    | State::CleaningUp(CleaningUp { next: Next::Restart { .. } | Next::Start, .. })
            ),
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

/// Whether it is on its way to rest.
const fn will_rest(state: State) -> bool {
    matches!(
        state,
        State::Stopping(Stopping { then: AfterStop::Rest(_), .. })
            | State::CleaningUp(CleaningUp { next: Next::Rest(_), .. })
    )
}
