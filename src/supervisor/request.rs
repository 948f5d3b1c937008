//! Requests of operators: how they are performed, and when they are done.

use std::time::Duration;

use super::core::Supervisor;
use super::event::{Action, Scope};
use super::operator::{Pending, Refusal, Request, RequestId, Target, Verb};
use super::record::{Cause, Outcome, Reason, Requester};
use super::rollout::ReloadFailure;
use super::state::{AfterRun, AfterStop, CleaningUp, Running, State, Stopped, Stopping};
use super::state_name::StateName;
use crate::model::plan::{Kind, Ready};
use crate::model::{InstanceId, ServiceIndex, Signal};

/// How long a process that is ready as soon as it runs must run before a request for its start is done.
pub const PROOF_TIME: Duration = Duration::from_secs(1);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Ready,
    Stopped,
}

/// The progress of a request.
enum Progress {
    Done,
    Ongoing,
    Failed(Refusal),
}

impl Supervisor {
    pub(super) fn on_request(&mut self, id: RequestId, request: Request) {
        if self.is_draining() {
            let is_done = request == Request::Shutdown;
            return self.reply(id, if is_done { Ok(()) } else { Err(Refusal::ShuttingDown) });
        }
        match request {
            Request::Shutdown => {
                self.reply(id, Ok(()));
                self.begin_shutdown(Outcome { code: 0, cause: Cause::Requested });
            }
            Request::Control(target, verb) => self.on_verb(id, verb, &[target]),
            Request::Several(wanted, verb) => self.on_verb(id, verb, &wanted),
            Request::Scale(service, desired) => self.scale(id, service, desired),
            Request::ReloadConfig => {
                self.requests.push(Pending::config_load(id));
                self.act(Action::LoadConfig { id: Some(id) });
            }
        }
    }

    /// The client has gone: there is no reply. The operation continues.
    pub(super) fn on_withdrawn(&mut self, id: RequestId) {
        if self.take_config_request(id) {
            self.act(Action::WithdrawConfigLoad { id });
        }
        self.requests.retain(|pending| pending.id != id);
    }

    /// Removes the request that waits for the configuration to be loaded. Returns whether it was waiting.
    pub(super) fn take_config_request(&mut self, id: RequestId) -> bool {
        let before = self.requests.len();
        self.requests.retain(|pending| pending.id != id || !pending.is_loading);
        self.requests.len() < before
    }

    fn on_verb(&mut self, id: RequestId, verb: Verb, wanted: &[Target]) {
        let unknown = wanted.iter().find_map(|target| match target {
            Target::Instance(instance) if !self.services.has(*instance) => Some(*instance),
            Target::Instance(_) | Target::Service(_) | Target::All => None,
        });
        if let Some(instance) = unknown {
            return self.reply(id, Err(Refusal::UnknownInstance(instance)));
        }
        let is_all = wanted.contains(&Target::All);
        // Surplus instances are being stopped.
        let is_meant =
            |id: &InstanceId| self.services.has(*id) && (is_all || wanted.iter().any(|target| target.includes(*id)));
        let mut targets = Vec::new();
        for service in self.start_order() {
            targets.extend(self.services.ids_of(service).filter(is_meant));
        }
        if let (Some(Target::Service(service)), [], false) =
            (wanted.first(), &targets[..], is_all || verb == Verb::Stop)
        {
            return self.reply(id, Err(Refusal::NoInstances(*service)));
        }
        if is_all {
            targets.retain(|id| !self.is_left_alone(*id, verb));
        }
        let pending = match verb {
            Verb::Signal(signal) => {
                let result = self.signal_targets(signal, &targets);
                return self.reply(id, result);
            }
            Verb::Start => {
                self.start_dependencies_of(&targets);
                targets.iter().for_each(|target| self.request_start(*target, Requester::Operator));
                Pending::new(id, targets, Vec::new(), Vec::new())
            }
            Verb::Reload => return self.reload(id, targets, wanted),
            Verb::Stop => {
                targets.iter().for_each(|target| self.cancel_restart(*target));
                self.stop_in_order(&targets, AfterStop::StayStopped(Stopped::Operator));
                Pending::new(id, Vec::new(), targets, Vec::new())
            }
            Verb::Restart => {
                let restarts = targets.clone();
                self.requests.push(Pending { restarts, ..Pending::new(id, targets, Vec::new(), Vec::new()) });
                return self.drive_restarts();
            }
        };
        self.require_proof(&pending);
        self.requests.push(pending);
    }

    /// Before any of these instances starts: of a service that has failed, one may be among them, and another service that
    /// needs all of them.
    pub(super) fn start_dependencies_of(&mut self, targets: &[InstanceId]) {
        for target in targets {
            if !self.services[*target].state.is_up() {
                self.start_dependencies(target.service, Requester::Operator);
            }
        }
    }

    /// Whether a request for all instances does not mean it: what has completed runs again only if it is named, and a restart
    /// does not start what an operator has stopped or was never started.
    fn is_left_alone(&self, id: InstanceId, verb: Verb) -> bool {
        match self.state_name(id) {
            StateName::Completed | StateName::Scheduled => matches!(verb, Verb::Start | Verb::Restart),
            StateName::Stopped => verb == Verb::Restart,
            StateName::Waiting
            | StateName::Starting
            | StateName::Running
            | StateName::Stopping
            | StateName::Backoff
            | StateName::Failed => false,
        }
    }

    /// Processes that are ready as soon as they run may exit at once: these instances must run for [`PROOF_TIME`].
    pub(super) fn require_proof(&mut self, pending: &Pending) {
        for id in &pending.awaiting_ready {
            if let Some(State::Running(Running { process, .. })) =
                self.services.find(*id).map(|instance| instance.state)
                && self.is_ready_at_once(*id)
            {
                let until = process.since + PROOF_TIME;
                let is_young = until > self.now;
                self.update_running(*id, |running| {
                    running.min_ready_until = running.min_ready_until.max(is_young.then_some(until));
                });
            }
        }
    }

    /// Whether its process is ready as soon as it has executed its program, and goes on.
    pub(super) fn is_ready_at_once(&self, id: InstanceId) -> bool {
        let definition = &self.services[id].definition;
        definition.kind == Kind::Service && definition.ready == Ready::Exec
    }

    /// Whether an operator waits for it to run for [`PROOF_TIME`].
    pub(super) fn is_proof_awaited(&self, id: InstanceId) -> bool {
        self.requests.iter().any(|pending| pending.awaiting_ready.contains(&id)) && self.is_ready_at_once(id)
    }

    /// The process of an instance has exited, and is restarted: requests that wait for it have failed.
    pub(super) fn fail_requests(&mut self, id: InstanceId) {
        for pending in self.requests.iter_mut().filter(|pending| pending.awaiting_ready.contains(&id)) {
            if !pending.died.contains(&id) {
                pending.died.push(id);
            }
        }
    }

    /// Reloads the targets. If they are all services, those are left out that cannot be reloaded.
    fn reload(&mut self, id: RequestId, targets: Vec<InstanceId>, wanted: &[Target]) {
        let are_all = wanted.contains(&Target::All);
        let mut groups = Vec::new();
        let is_waiting = |id: &InstanceId| matches!(self.services[*id].state, State::Waiting { .. });
        for group in targets.chunk_by(|one, other| one.service == other.service) {
            let waiting = group.first().filter(|_| group.iter().all(is_waiting));
            match self.reloadable(group).and(waiting.map_or(Ok(()), |id| Err(Refusal::NotRunning(*id)))) {
                Ok(()) => groups.push(group),
                Err(Refusal::Oneshot(_) | Refusal::NotRunning(_)) if are_all => {}
                Err(refusal) => return self.reply(id, Err(refusal)),
            }
        }
        let mut services = Vec::new();
        for group in groups {
            let Some(InstanceId { service, .. }) = group.first() else { continue };
            self.start_rollout(
                *service,
                group.iter().map(|instance| instance.number).collect(),
                None,
                None,
                Requester::Reload,
            );
            services.push(*service);
        }
        self.requests.push(Pending::new(id, Vec::new(), Vec::new(), services));
    }

    /// Whether these instances of a service can be reloaded.
    ///
    /// # Errors
    /// It is a oneshot, it is being reloaded already, or none of the instances is running.
    pub(super) fn reloadable(&self, targets: &[InstanceId]) -> Result<(), Refusal> {
        let Some(first) = targets.first() else { return Ok(()) };
        if self.services[first.service].definition.kind == Kind::Oneshot {
            return Err(Refusal::Oneshot(first.service));
        }
        if self.rollouts.contains_key(&first.service) {
            return Err(Refusal::Reloading(first.service));
        }
        let is_stopped = |id: &InstanceId| {
            let state = self.services[*id].state;
            if let State::Stopped { why } = state {
                !matches!(why, Stopped::Failed { .. })
            } else {
                state.will_stay_stopped()
            }
        };
        if targets.iter().all(is_stopped) { Err(Refusal::NotRunning(*first)) } else { Ok(()) }
    }

    /// A reload has finished, and has started and stopped these instances by changing their number.
    pub(super) fn on_reload_finished(
        &mut self,
        service: ServiceIndex,
        failure: Option<ReloadFailure>,
        started: &[InstanceId],
        stopped: &[InstanceId],
    ) {
        for pending in self.requests.iter_mut().filter(|pending| pending.reloads.contains(&service)) {
            pending.reloads.retain(|other| *other != service);
            pending.awaiting_ready.extend_from_slice(started);
            pending.awaiting_stop.extend_from_slice(stopped);
            pending.failures.extend(failure.clone().map(|failure| Refusal::ReloadFailed(Box::new(failure))));
        }
    }

    pub(super) fn await_changes(&mut self, pending: Pending) {
        self.require_proof(&pending);
        self.requests.push(pending);
    }

    fn scale(&mut self, id: RequestId, service: ServiceIndex, desired: u32) {
        if self.services[service].definition.kind == Kind::Oneshot {
            return self.reply(id, Err(Refusal::Oneshot(service)));
        }
        if let Some(excess) = self.services[service].definition.too_many_instances(desired) {
            let last = InstanceId { service, number: desired.saturating_sub(1) };
            return self.reply(id, Err(Refusal::TooMany(last, excess)));
        }
        let current: Vec<_> = self.services.ids_of(service).filter(|id| self.services.has(*id)).collect();
        if desired as usize > current.len()
            && let Some(refusal) = self.unavailable_dependency(&[InstanceId { service, number: 0 }])
        {
            return self.reply(id, Err(refusal));
        }
        self.cancel_resize(service);
        let from = self.set_desired(service, desired);
        let (mut kept, surplus): (Vec<_>, Vec<_>) =
            self.services.ids_of(service).partition(|id| self.services.has(*id));
        // What an operator has stopped stays stopped, and other requests go on.
        kept.retain(|id| id.number >= from || !self.is_stopped_or_stopping(*id));
        kept.iter().for_each(|id| self.request_start(*id, Requester::Operator));
        surplus.iter().for_each(|id| self.request_stop(*id));
        self.requests.push(Pending::new(id, kept, surplus, Vec::new()));
    }

    /// Whether an operator has stopped it, or it is being stopped or restarted.
    fn is_stopped_or_stopping(&self, id: InstanceId) -> bool {
        let instance = &self.services[id];
        let is_stopping = instance.queued_stop.is_some() || instance.state.name() == StateName::Stopping;
        is_stopping || instance.state.is_stopped_by_operator()
    }

    fn signal_targets(&mut self, signal: Signal, targets: &[InstanceId]) -> Result<(), Refusal> {
        let processes: Vec<_> =
            targets.iter().filter_map(|target| self.services[*target].state.main_process()).collect();
        if let (Some(target), []) = (targets.first(), &processes[..]) {
            return Err(Refusal::NotRunning(*target));
        }
        for process in processes {
            self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
        }
        Ok(())
    }

    pub(super) fn request_start(&mut self, id: InstanceId, by: Requester) {
        self.cancel_queued_stop(id);
        self.services[id].reset_failures();
        let state = self.services[id].state;
        if !state.is_up() {
            self.start_dependencies(id.service, by);
        }
        match state {
            State::Stopped { .. } | State::Scheduled { .. } => {
                self.services[id].on_start_requested(by);
                self.start_or_wait(id, Reason::StartRequested(by));
            }
            State::CleaningUp(CleaningUp { next: AfterRun::Proceed, .. }) => {}
            State::BackingOff { .. } | State::CleaningUp(_) => self.stop(id, AfterStop::Restart(by)),
            State::Stopping(Stopping { then: AfterStop::Restart(_), .. }) => {}
            State::Stopping(_) => self.stop(id, AfterStop::Restart(by)),
            // It is starting or running already.
            State::Waiting { .. }
            | State::Spawning { .. }
            | State::Executing(_)
            | State::Starting { .. }
            | State::Running(_) => {}
        }
    }

    pub(super) fn request_stop(&mut self, id: InstanceId) {
        self.cancel_queued_stop(id);
        self.cancel_restart(id);
        self.cancel_surge(id, Stopped::Replaced);
        if !self.services[id].state.is_inactive() {
            self.note_stop_in_rollout(id);
            self.stop(id, AfterStop::StayStopped(Stopped::Operator));
        }
    }

    pub(super) fn request_restart(&mut self, id: InstanceId, by: Requester) {
        self.services[id].reset_failures();
        if !matches!(self.services[id].state, State::Stopped { .. } | State::Waiting { .. }) {
            self.stop(id, AfterStop::Restart(by));
        }
    }

    /// Answers the requests that are done or have failed.
    pub(super) fn answer_requests(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        for pending in std::mem::take(&mut self.requests) {
            match self.progress(&pending) {
                Progress::Done => self.reply(pending.id, Ok(())),
                Progress::Failed(refusal) => self.reply(pending.id, Err(refusal)),
                Progress::Ongoing => self.requests.push(pending),
            }
        }
    }

    /// It has failed when nothing is under way any more.
    fn progress(&self, pending: &Pending) -> Progress {
        let (mut failures, mut waiting) = (pending.failures.clone(), Vec::new());
        for service in &pending.reloads {
            match self.awaited_by_reload(*service, &pending.died) {
                // It may wait for ever.
                Some(dependency) => waiting.push(Refusal::ReloadAwaits(*service, dependency)),
                None => return Progress::Ongoing,
            }
        }
        if pending.is_loading || !pending.restarts.is_empty() {
            return Progress::Ongoing;
        }
        let ready = pending.awaiting_ready.iter().map(|id| (id, Awaited::Ready));
        for (id, awaited) in ready.chain(pending.awaiting_stop.iter().map(|id| (id, Awaited::Stopped))) {
            match self.instance_progress(*id, awaited) {
                Progress::Failed(refusal) => failures.push(refusal),
                _ if pending.died.contains(id) => failures.push(Refusal::Died(*id)),
                Progress::Done => {}
                // It may wait for ever.
                Progress::Ongoing if self.waits_for_any(*id, &pending.died) => {}
                Progress::Ongoing => return Progress::Ongoing,
            }
        }
        failures.append(&mut waiting);
        match &failures[..] {
            [] => Progress::Done,
            [failure] => Progress::Failed(failure.clone()),
            _ => Progress::Failed(Refusal::Several(failures.into())),
        }
    }

    /// The service of the first of these that the reload of `service`, which has not begun, waits for, directly or indirectly.
    fn awaited_by_reload(&self, service: ServiceIndex, died: &[InstanceId]) -> Option<ServiceIndex> {
        let waits = self.rollouts.get(&service).is_some_and(|rollout| !rollout.has_started);
        if died.is_empty() || !waits {
            return None;
        }
        let needed = self.dependencies_of(&[InstanceId { service, number: 0 }]);
        let is_awaited =
            |died: &ServiceIndex| needed.get(died.position()) == Some(&true) && !self.services[*died].is_ready();
        died.iter().map(|id| id.service).find(is_awaited)
    }

    /// Whether it waits for one of these, directly or indirectly.
    fn waits_for_any(&self, id: InstanceId, died: &[InstanceId]) -> bool {
        if died.is_empty() || self.state_name(id) != StateName::Waiting {
            return false;
        }
        let needed = self.dependencies_of(&[id]);
        died.iter().any(|died| needed.get(died.service.position()) == Some(&true))
    }

    fn instance_progress(&self, id: InstanceId, awaited: Awaited) -> Progress {
        if self.services.find(id).is_none() {
            return match awaited {
                Awaited::Ready => Progress::Failed(Refusal::Superseded(id)),
                Awaited::Stopped => Progress::Done,
            };
        }
        if self.services[id].queued_stop.is_some() {
            return Progress::Ongoing;
        }
        match (awaited, self.state_name(id)) {
            // A removed service is stopped after its dependents.
            (Awaited::Stopped, state) if self.services[id.service].is_retiring() && !state.is_inactive() => {
                Progress::Ongoing
            }
            (Awaited::Ready, StateName::Running)
                if self.services[id.service].definition.kind == Kind::Oneshot || self.is_being_proven(id) =>
            {
                Progress::Ongoing
            }
            (Awaited::Ready, StateName::Running | StateName::Completed)
            | (Awaited::Stopped, StateName::Stopped | StateName::Completed | StateName::Failed) => Progress::Done,
            (Awaited::Ready, StateName::Scheduled)
                if !matches!(self.services[id].state, State::Scheduled { failure: Some(_) }) =>
            {
                Progress::Done
            }
            (Awaited::Ready, StateName::Failed | StateName::Scheduled) => Progress::Failed(Refusal::Failed(id)),
            (Awaited::Ready, StateName::Stopped) => Progress::Failed(Refusal::Superseded(id)),
            (
                Awaited::Stopped,
                StateName::Starting
                | StateName::Running
                | StateName::Waiting
                | StateName::Backoff
                | StateName::Scheduled,
            ) => Progress::Failed(Refusal::Superseded(id)),
            (_, StateName::Stopping) if self.is_contradicted(id, awaited) => Progress::Failed(Refusal::Superseded(id)),
            (Awaited::Ready, StateName::Waiting | StateName::Starting | StateName::Stopping | StateName::Backoff)
            | (Awaited::Stopped, StateName::Stopping) => Progress::Ongoing,
        }
    }

    /// Whether it has run for less than [`PROOF_TIME`], and an operator waits for that.
    fn is_being_proven(&self, id: InstanceId) -> bool {
        self.is_ready_at_once(id)
            && matches!(self.services[id].state, State::Running(Running { min_ready_until: Some(_), .. }))
    }

    /// Whether an operator has requested the opposite of `awaited` in the meantime.
    fn is_contradicted(&self, id: InstanceId, awaited: Awaited) -> bool {
        let state = self.services[id].state;
        match awaited {
            Awaited::Ready => matches!(
                state,
                State::Stopping(Stopping { then: AfterStop::StayStopped(_), .. })
                    | State::CleaningUp(CleaningUp { next: AfterRun::StayStopped(Stopped::Operator), .. })
            ),
            Awaited::Stopped => matches!(
                state,
                State::Stopping(Stopping { then: AfterStop::Restart(_), .. })
                    | State::CleaningUp(CleaningUp {
                        next: AfterRun::Restart { .. } | AfterRun::Start | AfterRun::Proceed,
                        ..
                    })
            ),
        }
    }

    /// Answers all requests, because keepalive is shutting down: those that are not done with the failure of the instance
    /// `cause`, or of their own.
    pub(super) fn refuse_requests(&mut self, cause: Option<InstanceId>) {
        for pending in std::mem::take(&mut self.requests) {
            let result = match self.progress(&pending) {
                Progress::Done => Ok(()),
                Progress::Failed(refusal) => Err(refusal),
                Progress::Ongoing => Err(cause.map_or(Refusal::ShuttingDown, Refusal::Failed)),
            };
            self.reply(pending.id, result);
        }
    }

    pub(super) fn reply(&mut self, id: RequestId, result: Result<(), Refusal>) {
        self.act(Action::Reply { id, result });
    }
}
