//! One instance: its states, and what each event does to each of them.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::outbox::Place;
pub(super) use super::presence::{Presence, Watch};
use super::restart::{self, Readiness};
use super::stop::{Rung, Then};
use super::{Action, Exit, Fact, Fault, GaveUp, Left, Obstacle, Outlook, Process, Reason, Run, StateName, Supervisor};
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
    Starting { pid: Pid, since: Mono, gate: Gate },
    /// It is ready, or has been.
    Running { pid: Pid, since: Mono, presence: Presence, watch: Option<Watch>, soaked: Option<Mono> },
    /// It has been told to end.
    Stopping { pid: Pid, since: Mono, rung: Rung, until: Mono, then: Then },
    /// The main process has ended; what it left in its group and session is being ended.
    Clearing { leader: Pid, rung: Rung, until: Mono, next: Next },
    /// A restart is due.
    BackingOff { until: Mono },
    /// It does not run and will not by itself.
    Stopped { why: Stopped },
}

/// What makes it ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
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
        gave_up: GaveUp,
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

    /// Its twin: not started, and counting on from a run that there has been.
    pub(super) fn twin(&self) -> Self {
        let (restarts, last_run) = (self.restarts, self.last_run);
        Self { restarts, last_run, has_run: true, ..Self::new(self.id.twin(), Rc::clone(&self.definition)) }
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
            Self::Starting { gate: Gate::At(until) | Gate::By(until), .. }
            | Self::Stopping { until, .. }
            | Self::Clearing { until, .. }
            | Self::BackingOff { until } => Some(*until),
            Self::Running { presence, watch, soaked, .. } => {
                [presence.until(), watch.map(|watch| watch.by), *soaked].into_iter().flatten().min()
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
            | Self::Clearing { .. }
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
            | Self::Clearing { .. }
            | Self::BackingOff { .. }
            | Self::Stopped { .. } => None,
        }
    }

    /// The main process, reaped or not.
    const fn any_pid(&self) -> Option<Pid> {
        if let Self::Clearing { leader, .. } = self { Some(*leader) } else { self.live_pid() }
    }
}

impl Supervisor {
    /// The one place where a state changes: keeps counts, timers and the record true.
    pub(super) fn enter(&mut self, id: InstanceId, state: State, reason: Reason) {
        let before = self.fleet.replace_state(id, state);
        self.timers.change(id, before.deadline(), state.deadline());
        if let State::Clearing { leader, .. } = before {
            self.leaders.remove(&leader);
        }
        if let State::Clearing { leader, .. } = state {
            self.leaders.insert(leader, id);
        }
        self.mark_unsettled(id.service);
        let (from, to) = (before.name(), state.name());
        let is_news = matches!(
            reason,
            Reason::Ended { .. } | Reason::DependencyCompleted { .. } | Reason::DependencyFailed { .. }
        );
        if from != to || is_news {
            // That nothing is left of it is no reason for where it goes then: that is how it ended.
            if reason != Reason::Cleared {
                self.fleet[id].reason = Some(reason.clone());
            }
            let pid = state.any_pid().or(before.any_pid());
            self.record(Fact::Transition { instance: id, from, to, pid, reason });
        }
    }

    /// Starts it, or has it wait for what it depends on, or says that this will never come.
    pub(super) fn start_or_wait(&mut self, id: InstanceId, reason: Reason) {
        if self.dependencies_are_satisfied(id.service) {
            self.start(id, reason);
        } else if let Some(dependency) = self.hopeless_dependency(id.service) {
            self.block_instance(id, dependency);
        } else {
            self.enter(id, State::Waiting, reason);
        }
    }

    pub(super) fn start(&mut self, id: InstanceId, reason: Reason) {
        let definition = Rc::clone(&self.fleet[id.service].definition);
        let instance = &mut self.fleet[id];
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
        let (restarts, definition) = (self.fleet[id].restarts, Rc::clone(&self.fleet[id.service].definition));
        self.fleet[id].watchdog = definition.watchdog;
        self.fleet[id].definition = Rc::clone(&definition);
        let from = self.outbox.end();
        self.fleet.replace_state(id, State::Spawning { from });
        self.act(Action::Spawn { instance: id, restarts, definition });
    }

    pub(super) fn on_spawned(&mut self, id: InstanceId, pid: Pid) {
        let State::Spawning { .. } = self.fleet[id].state else {
            // Every spawn is asked for in `start`, and is not given out after `Spawning` has been left.
            return;
        };
        self.processes.insert(pid, Process { instance: id, from: self.outbox.end() });
        self.enter(id, State::Executing { pid, since: self.now }, Reason::Unblocked);
    }

    pub(super) fn on_spawn_refused(&mut self, id: InstanceId, errno: Errno) {
        match self.fleet[id].state {
            State::Spawning { .. } => self.retry_refused(id, errno),
            // As in `on_spawned`.
            State::Waiting
            | State::Executing { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::BackingOff { .. }
            | State::Stopped { .. } => {}
        }
    }

    /// Tries again later, for as long as it takes: it is no fault of the service.
    fn retry_refused(&mut self, id: InstanceId, errno: Errno) {
        if self.is_draining() {
            return self.enter(id, State::Stopped { why: Stopped::Shutdown }, Reason::Shutdown);
        }
        if id.is_twin() {
            // The old process runs, and another time may be better.
            self.fail_rollout(id, Obstacle::NoProcess);
            return self.enter(
                id,
                State::Stopped { why: Stopped::Replaced },
                Reason::Refused { errno, retry_in: Duration::ZERO, attempt: 1 },
            );
        }
        let attempt = self.fleet[id].refusals.saturating_add(1);
        self.fleet[id].refusals = attempt;
        let retry_in = restart::backoff_delay(&REFUSED, attempt, &mut self.random);
        let until = self.now + retry_in;
        self.enter(id, State::BackingOff { until }, Reason::Refused { errno, retry_in, attempt });
    }

    pub(super) fn on_executed(&mut self, pid: Pid) {
        let Some(Process { instance: id, .. }) = self.processes.get(&pid).copied() else { return };
        let State::Executing { .. } = self.fleet[id].state else {
            // It is being stopped already.
            return;
        };
        let since = self.now;
        let definition = &self.fleet[id].definition;
        let gate = match definition.ready {
            Ready::Exec => return self.begin_running(id, pid, since),
            Ready::Delay(delay) => Gate::At(since + delay),
            Ready::Notify | Ready::Ipc | Ready::Fd(_) | Ready::Probe(_) => Gate::By(since + definition.ready_timeout),
        };
        self.enter(id, State::Starting { pid, since, gate }, Reason::Unblocked);
    }

    /// It is ready.
    pub(super) fn begin_running(&mut self, id: InstanceId, pid: Pid, since: Mono) {
        self.fleet[id].has_been_ready = true;
        let watch = self.fleet[id].watchdog.map(|every| Watch { every, by: self.now + every });
        let presence = Presence::Ready;
        let soak = self.fleet[id].definition.reload.soak;
        let soaked = (!soak.is_zero() && self.is_on_trial(id)).then(|| self.now + soak);
        self.enter(id, State::Running { pid, since, presence, watch, soaked }, Reason::Ready);
    }

    /// No process could be made for it, and trying again would not help.
    pub(super) fn on_unbound(&mut self, id: InstanceId, failure: StartFailure) {
        let State::Spawning { .. } = self.fleet[id].state else {
            // As in `on_spawned`.
            return;
        };
        let exit = Exit { status: ExitStatus::Code(failure.exit_code()), oom_killed: false };
        let run = Run { exit, uptime: Duration::ZERO, failure: Some(failure), fault: None };
        self.fleet[id].last_run = Some(run);
        self.end_on_trial(id, run);
        let (why, outlook) = if self.is_draining() {
            (Stopped::Shutdown, Outlook::Stay)
        } else if id.is_twin() {
            (Stopped::Replaced, Outlook::Stay)
        } else {
            self.failures = self.failures.saturating_add(1);
            let gave_up = GaveUp::Unbound;
            (Stopped::Failed { gave_up, nth: self.failures }, Outlook::Fail(gave_up))
        };
        let reason = self.ended(id, run, outlook);
        self.enter(id, State::Stopped { why }, reason);
    }

    pub(super) fn on_exec_failed(&mut self, pid: Pid, failure: StartFailure) {
        if let Some(Process { instance, .. }) = self.processes.get(&pid) {
            self.fleet[*instance].failure = Some(failure);
        }
    }

    pub(super) fn on_exited(&mut self, pid: Pid, exit: Exit, left: Left) {
        let Some(id) = self.instance_of(pid) else { return };
        self.succeed_early(id);
        let Some(Process { instance: id, .. }) = self.processes.remove(&pid) else { return };
        let failure = self.fleet[id].failure;
        if !failure.is_some_and(StartFailure::is_shortage) {
            let instance = &mut self.fleet[id];
            (instance.has_run, instance.refusals) = (true, 0);
        }
        let run_since = |since: Mono| Run { exit, uptime: self.now.since(since), failure, fault: None };
        match self.fleet[id].state {
            State::Executing { since, .. } | State::Starting { since, .. } => {
                self.on_crash(id, pid, run_since(since), Readiness::Missed, left, None);
            }
            State::Running { since, .. } => self.on_crash(id, pid, run_since(since), Readiness::Reached, left, None),
            State::Stopping { since, rung, until, then: Then::Fail(fault), .. } => {
                let run = Run { fault: Some(fault), ..run_since(since) };
                let readiness = if self.fleet[id].has_been_ready { Readiness::Reached } else { Readiness::Missed };
                self.on_crash(id, pid, run, readiness, left, Some((rung, until)));
            }
            State::Stopping { since, then: Then::Own, .. } => {
                self.on_crash(id, pid, run_since(since), Readiness::Reached, left, None);
            }
            State::Stopping { since, rung, until, then, .. } => {
                let run = run_since(since);
                self.fleet[id].last_run = Some(run);
                // Whatever was to become of it, another process has its place.
                let then = if id.is_twin() { Then::Rest(Stopped::Replaced) } else { then };
                let (next, outlook) = self.after_stop(then);
                let reason = self.ended(id, run, outlook);
                self.end_run(id, pid, left, next, reason, Some((rung, until)));
            }
            // These have no main process, so `processes` cannot lead here.
            State::Waiting
            | State::Spawning { .. }
            | State::Clearing { .. }
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
        left: Left,
        stopping: Option<(Rung, Mono)>,
    ) {
        self.fleet[id].last_run = Some(run);
        self.end_on_trial(id, run);
        if id.is_twin() {
            let why = if self.is_draining() { Stopped::Shutdown } else { Stopped::Replaced };
            let reason = self.ended(id, run, Outlook::Stay);
            return self.end_run(id, pid, left, Next::Rest(why), reason, stopping);
        }
        if let Some(failure) = run.failure.filter(|failure| failure.is_shortage()) {
            return self.retry_refused(id, failure.errno);
        }
        let service = Rc::clone(&self.fleet[id].definition);
        let unstable = self.fleet[id].unstable;
        let mut outlook = restart::decide(&service, &run, readiness, unstable, &mut self.random);
        if self.is_draining() && matches!(outlook, Outlook::Restart { .. }) {
            outlook = Outlook::Stay;
        }
        let next = match outlook {
            Outlook::Restart { delay, unstable, .. } => {
                self.fleet[id].unstable = unstable;
                Next::Restart { due: self.now + delay }
            }
            Outlook::Stay => Next::Rest(Stopped::Shutdown),
            Outlook::Complete => Next::Rest(Stopped::Completed),
            Outlook::Fail(gave_up) => {
                self.failures = self.failures.saturating_add(1);
                Next::Rest(Stopped::Failed { gave_up, nth: self.failures })
            }
        };
        let reason = self.ended(id, run, outlook);
        self.end_run(id, pid, left, next, reason, stopping);
    }

    fn ended(&self, id: InstanceId, run: Run, outlook: Outlook) -> Reason {
        Reason::Ended { run, outlook, definition: Rc::clone(&self.fleet[id].definition) }
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
        match self.fleet[id].state {
            State::Starting { pid, since, gate: Gate::At(_) } => self.begin_running(id, pid, since),
            State::Starting { gate: Gate::By(_), .. } => {
                let timeout = self.fleet[id].definition.ready_timeout;
                self.stop(id, Then::Fail(Fault::NotReady(timeout)));
            }
            State::Running { watch: Some(Watch { every, by }), .. } if by <= self.now => {
                self.stop(id, Then::Fail(Fault::Silent(every)));
            }
            State::Running { soaked: Some(soaked), .. } if soaked <= self.now => self.end_trial(id),
            State::Running { .. } => self.on_unanswered(id),
            State::Stopping { .. } => self.climb(id),
            State::Clearing { .. } => self.climb_clearing(id),
            State::BackingOff { .. } => self.start(id, Reason::Due),
            // No deadline, no call.
            State::Waiting | State::Spawning { .. } | State::Executing { .. } | State::Stopped { .. } => {}
        }
    }

    /// It has run long enough once it was ready.
    pub(super) fn end_trial(&mut self, id: InstanceId) {
        if let State::Running { pid, since, presence, watch, soaked } = self.fleet[id].state
            && (soaked.is_some() || presence.is_called())
        {
            let presence = presence.settled();
            self.enter(id, State::Running { pid, since, presence, watch, soaked: None }, Reason::Ready);
        }
    }

    /// The name of the state an instance is in.
    pub(super) fn state_name(&self, id: InstanceId) -> StateName {
        self.fleet[id].state.name()
    }
}
