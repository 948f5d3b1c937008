//! One instance: its states, and what each event does to each of them.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::outbox::Place;
pub(super) use super::presence::{Presence, WatchdogDeadline};
use super::restart::{self, Readiness};
use super::stop::{AfterStop, StopStage};
use super::{
    Action, Exit, FailureReason, Fault, JournalEvent, Leftovers, Process, Reason, RestartDecision, RolloutError, Run,
    StateName, Supervisor,
};
use crate::model::plan::{Backoff, Ready, Service};
use crate::model::{ExitStatus, InstanceId, Mono, Pid, ServiceIndex, StartFailure};

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    /// What its present or last run is made of.
    pub(super) definition: Rc<Service>,
    pub(super) state: State,
    /// How often it has been started again, by whomever.
    pub(super) restarts: u32,
    /// Whether the next start is one again: there was a run since the last.
    has_run: bool,
    /// Whether its present run has been ready.
    pub(super) has_been_ready: bool,
    /// As a new process that has gone away again: when it is to be back, however often it goes.
    pub(super) back_by: Option<Mono>,
    /// How often it has to show that it is alive once it is ready.
    pub(super) watchdog: Option<Duration>,
    /// Consecutive unstable runs.
    pub(super) unstable: u32,
    /// Consecutive starts that the system refused.
    refusals: u32,
    /// Why the present run never got to its program, if so.
    failure: Option<StartFailure>,
    pub(super) last_run: Option<Run>,
    /// Why it is in its state.
    pub(super) reason: Option<Reason>,
}

/// Where an instance is in its life. The fields exist only where they mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For what it depends on.
    Waiting,
    /// [`Action::Spawn`] waits for its turn at this place or later: no process has been made yet.
    Spawning { from: Place },
    /// The process exists and is about to run its program.
    Executing { pid: Pid, since: Mono },
    /// The program runs and is not ready yet.
    Starting { pid: Pid, since: Mono, deadline: StartDeadline },
    /// It is ready, or has been.
    Running {
        pid: Pid,
        since: Mono,
        presence: Presence,
        watch: Option<WatchdogDeadline>,
        min_ready_until: Option<Mono>,
    },
    /// It has been told to end.
    Stopping { pid: Pid, since: Mono, stage: StopStage, until: Mono, then: AfterStop },
    /// The main process has ended; what it left in its group and session is being ended.
    CleaningUp { leader: Pid, stage: StopStage, until: Mono, next: Next },
    /// A restart is due.
    BackingOff { until: Mono },
    /// It does not run and will not by itself.
    Stopped { why: Stopped },
}

/// What makes it ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartDeadline {
    /// That it is then.
    At(Mono),
    /// That it is told; if it is not by then, the start has failed.
    By(Mono),
}

/// What follows when nothing of the last run is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another run, not before this.
    Restart {
        due: Mono,
    },
    /// Another run because an operator wants it, once what it depends on is there.
    Start,
    Rest(Stopped),
}

/// Why it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    NotStarted,
    Operator,
    Shutdown,
    /// Another process has its place.
    Replaced,
    Completed,
    /// The how manieth failure of all it was says which was first and which last.
    Failed {
        failure_reason: FailureReason,
        nth: u32,
    },
    Blocked {
        dependency: ServiceIndex,
    },
}

/// Between starts that the system refused: it is out of processes, memory or descriptors, which neither an exit nor
/// a spin would mend.
const REFUSED: Backoff =
    Backoff { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(10), jitter: 0.1 };

impl Instance {
    pub(super) const fn new(id: InstanceId, definition: Rc<Service>) -> Self {
        Self {
            id,
            definition,
            state: State::Stopped { why: Stopped::NotStarted },
            restarts: 0,
            has_run: false,
            has_been_ready: false,
            back_by: None,
            watchdog: None,
            unstable: 0,
            refusals: 0,
            failure: None,
            last_run: None,
            reason: None,
        }
    }

    /// Its surge: not started, and counting on from a run that there has been.
    pub(super) fn surge(&self) -> Self {
        let (restarts, last_run) = (self.restarts, self.last_run);
        Self { restarts, last_run, has_run: true, ..Self::new(self.id.surge(), Rc::clone(&self.definition)) }
    }

    /// Forgets the failures so far, because an operator wants it to run.
    pub(super) const fn forgive(&mut self) {
        (self.unstable, self.refusals) = (0, 0);
    }
}

impl State {
    /// When something is to happen to it without any other event.
    pub(super) fn deadline(&self) -> Option<Mono> {
        match self {
            Self::Starting { deadline: StartDeadline::At(until) | StartDeadline::By(until), .. }
            | Self::Stopping { until, .. }
            | Self::CleaningUp { until, .. }
            | Self::BackingOff { until } => Some(*until),
            Self::Running { presence, watch, min_ready_until, .. } => {
                [presence.until(), watch.map(|watch| watch.by), *min_ready_until].into_iter().flatten().min()
            }
            Self::Waiting | Self::Spawning { .. } | Self::Executing { .. } | Self::Stopped { .. } => None,
        }
    }

    /// The main process that has not been reaped.
    pub(super) const fn live_pid(&self) -> Option<Pid> {
        match self {
            Self::Executing { pid, .. }
            | Self::Starting { pid, .. }
            | Self::Running { pid, .. }
            | Self::Stopping { pid, .. } => Some(*pid),
            Self::Waiting
            | Self::Spawning { .. }
            | Self::CleaningUp { .. }
            | Self::BackingOff { .. }
            | Self::Stopped { .. } => None,
        }
    }

    /// Since when that process exists.
    pub(super) const fn since(&self) -> Option<Mono> {
        match self {
            Self::Executing { since, .. }
            | Self::Starting { since, .. }
            | Self::Running { since, .. }
            | Self::Stopping { since, .. } => Some(*since),
            Self::Waiting
            | Self::Spawning { .. }
            | Self::CleaningUp { .. }
            | Self::BackingOff { .. }
            | Self::Stopped { .. } => None,
        }
    }

    /// The main process, reaped or not.
    const fn any_pid(&self) -> Option<Pid> {
        if let Self::CleaningUp { leader, .. } = self { Some(*leader) } else { self.live_pid() }
    }
}

impl Supervisor {
    /// The one place where a state changes: keeps counts, timers and the record true.
    pub(super) fn enter(&mut self, id: InstanceId, state: State, reason: Reason) {
        let before = self.services.replace_state(id, state);
        self.timers.change(id, before.deadline(), state.deadline());
        if let State::CleaningUp { leader, .. } = before {
            self.leaders.remove(&leader);
        }
        if let State::CleaningUp { leader, .. } = state {
            self.leaders.insert(leader, id);
        }
        self.mark_dirty(id.service);
        let (from, to) = (before.name(), state.name());
        let is_news = matches!(
            reason,
            Reason::Ended { .. } | Reason::DependencyCompleted { .. } | Reason::DependencyFailed { .. }
        );
        if from != to || is_news {
            // That nothing is left of it is no reason for where it goes then: that is how it ended.
            if reason != Reason::Cleared {
                self.services[id].reason = Some(reason.clone());
            }
            let pid = state.any_pid().or(before.any_pid());
            let is_late = matches!(reason, Reason::Fault(Fault::NotReady(_)));
            self.record(JournalEvent::Transition { instance: id, from, to, pid, reason });
            self.release_if_at_rest(id);
            self.prefer_sockets_if_running(id);
            if is_late {
                self.log_probe_failure(id, pid);
            }
        }
    }

    /// Starts it, or has it wait for what it depends on, or says that this will never come.
    pub(super) fn start_or_wait(&mut self, id: InstanceId, reason: Reason) {
        if self.dependencies_are_satisfied(id.service) {
            self.start(id, reason);
        } else if let Some(dependency) = self.failed_dependency(id.service) {
            self.block_instance(id, dependency);
        } else {
            self.enter(id, State::Waiting, reason);
        }
    }

    pub(super) fn start(&mut self, id: InstanceId, reason: Reason) {
        let definition = Rc::clone(&self.services[id.service].definition);
        let instance = &mut self.services[id];
        instance.definition = Rc::clone(&definition);
        (instance.failure, instance.has_been_ready, instance.back_by) = (None, false, None);
        instance.watchdog = definition.watchdog;
        if std::mem::take(&mut instance.has_run) {
            instance.restarts = instance.restarts.saturating_add(1);
        }
        let restarts = instance.restarts;
        self.enter(id, State::Spawning { from: self.outbox.end() }, reason);
        self.act(Action::Spawn { instance: id, restarts, definition });
    }

    /// Asks anew for the process of an instance that has changed its id since it was asked for, or is to be another.
    pub(super) fn start_again(&mut self, id: InstanceId) {
        let (restarts, definition) = (self.services[id].restarts, Rc::clone(&self.services[id.service].definition));
        self.services[id].watchdog = definition.watchdog;
        self.services[id].definition = Rc::clone(&definition);
        let from = self.outbox.end();
        self.services.replace_state(id, State::Spawning { from });
        self.act(Action::Spawn { instance: id, restarts, definition });
    }

    pub(super) fn on_spawned(&mut self, id: InstanceId, pid: Pid) {
        let State::Spawning { .. } = self.services[id].state else {
            // Every spawn is asked for in `start`, and is not given out after `Spawning` has been left.
            return;
        };
        self.processes.insert(pid, Process { instance: id, from: self.outbox.end() });
        self.enter(id, State::Executing { pid, since: self.now }, Reason::Unblocked);
    }

    pub(super) fn on_spawn_refused(&mut self, id: InstanceId, errno: Errno) {
        match self.services[id].state {
            State::Spawning { .. } => self.retry_refused(id, errno),
            // As in `on_spawned`.
            State::Waiting
            | State::Executing { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// Tries again later, for as long as it takes: it is no fault of the service.
    fn retry_refused(&mut self, id: InstanceId, errno: Errno) {
        if self.is_draining() {
            return self.enter(id, State::Stopped { why: Stopped::Shutdown }, Reason::Shutdown);
        }
        if id.is_surge() {
            // The old process runs, and another time may be better.
            self.fail_rollout(id, RolloutError::NoProcess);
            return self.enter(
                id,
                State::Stopped { why: Stopped::Replaced },
                Reason::Refused { errno, retry_in: Duration::ZERO, attempt: 1 },
            );
        }
        let attempt = self.services[id].refusals.saturating_add(1);
        self.services[id].refusals = attempt;
        let retry_in = restart::backoff_delay(&REFUSED, attempt, &mut self.random);
        let until = self.now + retry_in;
        self.enter(id, State::BackingOff { until }, Reason::Refused { errno, retry_in, attempt });
    }

    pub(super) fn on_executed(&mut self, pid: Pid) {
        let Some(Process { instance: id, .. }) = self.processes.get(&pid).copied() else { return };
        let State::Executing { .. } = self.services[id].state else {
            // It is being stopped already.
            return;
        };
        let since = self.now;
        let definition = &self.services[id].definition;
        let deadline = match definition.ready {
            Ready::Exec => return self.begin_running(id, pid, since),
            Ready::Delay(delay) => StartDeadline::At(since + delay),
            Ready::Notify | Ready::Ipc | Ready::Fd(_) | Ready::Probe(_) => {
                StartDeadline::By(since + definition.ready_timeout)
            }
        };
        self.enter(id, State::Starting { pid, since, deadline }, Reason::Unblocked);
    }

    /// It is ready.
    pub(super) fn begin_running(&mut self, id: InstanceId, pid: Pid, since: Mono) {
        self.services[id].has_been_ready = true;
        let watch = self.services[id].watchdog.map(|every| WatchdogDeadline { every, by: self.now + every });
        let presence = Presence::Ready;
        let soak = self.services[id].definition.reload.soak;
        let min_ready_until = (!soak.is_zero() && self.is_unproven(id)).then(|| self.now + soak);
        self.enter(id, State::Running { pid, since, presence, watch, min_ready_until }, Reason::Ready);
    }

    /// No process could be made for it, and trying again would not help.
    pub(super) fn on_unbound(&mut self, id: InstanceId, failure: StartFailure) {
        let State::Spawning { .. } = self.services[id].state else {
            // As in `on_spawned`.
            return;
        };
        let exit = Exit { status: ExitStatus::Code(failure.exit_code()), oom_killed: false };
        let run = Run { exit, uptime: Duration::ZERO, failure: Some(failure), fault: None };
        self.services[id].last_run = Some(run);
        self.end_unproven(id, run);
        let (why, decision) = if self.is_draining() {
            (Stopped::Shutdown, RestartDecision::Stay)
        } else if id.is_surge() {
            (Stopped::Replaced, RestartDecision::Stay)
        } else {
            self.failures = self.failures.saturating_add(1);
            let failure_reason = FailureReason::Unbound;
            (Stopped::Failed { failure_reason, nth: self.failures }, RestartDecision::Fail(failure_reason))
        };
        let reason = self.ended(id, run, decision);
        self.enter(id, State::Stopped { why }, reason);
    }

    pub(super) fn on_exec_failed(&mut self, pid: Pid, failure: StartFailure) {
        if let Some(Process { instance, .. }) = self.processes.get(&pid) {
            self.services[*instance].failure = Some(failure);
        }
    }

    pub(super) fn on_exited(&mut self, pid: Pid, exit: Exit, left: Leftovers) {
        let Some(id) = self.instance_of(pid) else { return };
        self.succeed_early(id);
        let Some(Process { instance: id, .. }) = self.processes.remove(&pid) else { return };
        let failure = self.services[id].failure;
        if !failure.is_some_and(StartFailure::is_shortage) {
            let instance = &mut self.services[id];
            (instance.has_run, instance.refusals) = (true, 0);
        }
        let run_since = |since: Mono| Run { exit, uptime: self.now.since(since), failure, fault: None };
        match self.services[id].state {
            State::Executing { since, .. } | State::Starting { since, .. } => {
                self.on_crash(id, pid, run_since(since), Readiness::Missed, left, None);
            }
            State::Running { since, .. } => self.on_crash(id, pid, run_since(since), Readiness::Reached, left, None),
            State::Stopping { since, stage, until, then: AfterStop::Fail(fault), .. } => {
                let run = Run { fault: Some(fault), ..run_since(since) };
                let readiness = if self.services[id].has_been_ready { Readiness::Reached } else { Readiness::Missed };
                self.on_crash(id, pid, run, readiness, left, Some((stage, until)));
            }
            State::Stopping { since, then: AfterStop::Own, .. } => {
                self.on_crash(id, pid, run_since(since), Readiness::Reached, left, None);
            }
            State::Stopping { since, stage, until, then, .. } => {
                let run = run_since(since);
                self.services[id].last_run = Some(run);
                // Whatever was to become of it, another process has its place.
                let then = if id.is_surge() { AfterStop::Rest(Stopped::Replaced) } else { then };
                let (next, decision) = self.after_stop(then);
                let reason = self.ended(id, run, decision);
                self.end_run(id, pid, left, next, reason, Some((stage, until)));
            }
            // These have no main process, so `processes` cannot lead here.
            State::Waiting
            | State::Spawning { .. }
            | State::CleaningUp { .. }
            | State::BackingOff { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// A process has ended without anybody having wanted that, or because it was broken. `stopping`: as in [`Self::end_run`].
    fn on_crash(
        &mut self,
        id: InstanceId,
        pid: Pid,
        run: Run,
        readiness: Readiness,
        left: Leftovers,
        stopping: Option<(StopStage, Mono)>,
    ) {
        self.services[id].last_run = Some(run);
        self.end_unproven(id, run);
        if id.is_surge() {
            let why = if self.is_draining() { Stopped::Shutdown } else { Stopped::Replaced };
            let reason = self.ended(id, run, RestartDecision::Stay);
            return self.end_run(id, pid, left, Next::Rest(why), reason, stopping);
        }
        if let Some(failure) = run.failure.filter(|failure| failure.is_shortage()) {
            return self.retry_refused(id, failure.errno);
        }
        let service = Rc::clone(&self.services[id].definition);
        let unstable = self.services[id].unstable;
        let mut decision = restart::decide(&service, &run, readiness, unstable, &mut self.random);
        if self.is_draining() && matches!(decision, RestartDecision::Restart { .. }) {
            decision = RestartDecision::Stay;
        }
        let next = match decision {
            RestartDecision::Restart { delay, unstable, .. } => {
                self.services[id].unstable = unstable;
                Next::Restart { due: self.now + delay }
            }
            RestartDecision::Stay => Next::Rest(Stopped::Shutdown),
            RestartDecision::Complete => Next::Rest(Stopped::Completed),
            RestartDecision::Fail(failure_reason) => {
                self.failures = self.failures.saturating_add(1);
                Next::Rest(Stopped::Failed { failure_reason, nth: self.failures })
            }
        };
        let reason = self.ended(id, run, decision);
        self.end_run(id, pid, left, next, reason, stopping);
    }

    fn ended(&self, id: InstanceId, run: Run, decision: RestartDecision) -> Reason {
        Reason::Ended { run, decision, definition: Rc::clone(&self.services[id].definition) }
    }

    /// Nothing of the last run is left: on to what follows it.
    pub(super) fn conclude(&mut self, id: InstanceId, next: Next, reason: Reason) {
        match next {
            Next::Restart { .. } | Next::Start if self.is_draining() => {
                self.enter(id, State::Stopped { why: Stopped::Shutdown }, reason);
            }
            Next::Restart { due } if due <= self.now => {
                self.start(id, reason);
            }
            Next::Restart { due } => self.enter(id, State::BackingOff { until: due }, reason),
            Next::Start if self.dependencies_are_satisfied(id.service) => self.start(id, reason),
            // Should they never be, that comes out when this is settled: first comes how the run has ended.
            Next::Start => self.enter(id, State::Waiting, reason),
            Next::Rest(why) => self.enter(id, State::Stopped { why }, reason),
        }
    }

    pub(super) fn on_deadline(&mut self, id: InstanceId) {
        match self.services[id].state {
            State::Starting { pid, since, deadline: StartDeadline::At(_) } => self.begin_running(id, pid, since),
            State::Starting { deadline: StartDeadline::By(_), .. } => {
                let timeout = self.services[id].definition.ready_timeout;
                self.stop(id, AfterStop::Fail(Fault::NotReady(timeout)));
            }
            State::Running { watch: Some(WatchdogDeadline { every, by }), .. } if by <= self.now => {
                self.stop(id, AfterStop::Fail(Fault::Silent(every)));
            }
            State::Running { min_ready_until: Some(min_ready_until), .. } if min_ready_until <= self.now => {
                self.end_trial(id)
            }
            State::Running { .. } => self.on_unanswered(id),
            State::Stopping { .. } => self.escalate(id),
            State::CleaningUp { .. } => self.climb_clearing(id),
            State::BackingOff { .. } => self.start(id, Reason::Due),
            // No deadline, no call.
            State::Waiting | State::Spawning { .. } | State::Executing { .. } | State::Stopped { .. } => {}
        }
    }

    /// It has run long enough once it was ready.
    pub(super) fn end_trial(&mut self, id: InstanceId) {
        if let State::Running { pid, since, presence, watch, min_ready_until } = self.services[id].state
            && (min_ready_until.is_some() || presence.is_reload_signalled())
        {
            let presence = presence.settled();
            self.enter(id, State::Running { pid, since, presence, watch, min_ready_until: None }, Reason::Ready);
        }
    }

    /// The name of the state an instance is in.
    pub(super) fn state_name(&self, id: InstanceId) -> StateName {
        self.services[id].state.name()
    }
}
