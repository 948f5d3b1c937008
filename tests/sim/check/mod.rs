//! Checks every step against the rules. They are computed here independently, from the events that the supervisor got.
//!
//! A step is one event and the actions that follow from it. Other events may come before these actions are performed.
//! They take effect here only after all earlier actions, so that each action is checked against the state in which the
//! supervisor decided on it.
//!
//! `model` and `instance` have the state of each service and instance, derived only from events and journal entries.
//! The rules: `journal` for journal entries, `reports` for reports of processes, `lifetimes` for releases, `restarts`
//! for restarts after an exit, `shutdown` for the shutdown, `requests` for replies, `waits` for deadlines.

mod health;
mod hooks;
mod instance;
mod journal;
mod lifetimes;
mod memory;
mod model;
mod reloads;
mod reports;
mod requests;
mod restarts;
mod schedules;
mod shown;
mod shutdown;
mod signals;
mod targets;
mod waits;
mod watches;

use std::collections::VecDeque;
use std::rc::Rc;

use keepalive::model::plan::{Hook, Strategy};
use keepalive::model::{InstanceId, Mono, Pid, Plan, RunId, Woken};
use keepalive::supervisor::{Action, Event, InstanceView, Leftovers, StateName, View};

use crate::world::World;
use instance::Instance;
use model::Model;
use requests::{Config, MAX_SOAK, PROOF_TIME, Requests};
use restarts::Expected;
use shutdown::Shutdown;
use watches::Changes;

/// A violation of a rule.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

pub(crate) type Verdict = Result<(), Violation>;

/// `rule!(condition, "what is wrong: {}", detail)`
macro_rules! rule {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err($crate::check::Violation(format!($($message)+)));
        }
    };
}
pub(crate) use rule;

#[derive(Debug)]
pub(crate) struct Checker {
    plan: Rc<Plan>,
    model: Model,
    requests: Requests,
    shutdown: Shutdown,
    changes: Changes,
    /// The first one is being checked, the others follow.
    steps: VecDeque<Step>,
    now: Mono,
    event: Option<Event>,
    /// Actions since the last event.
    actions: usize,
    /// The actions that must come next, in reverse order.
    expected_actions: Vec<Action>,
    /// The run that was spawned last.
    last_run: RunId,
    turn: Turn,
    memory: memory::Memory,
}

/// An event that the supervisor has handled.
#[derive(Debug)]
struct Step {
    at: Mono,
    event: Event,
    /// The number of its actions that have not been checked.
    actions: usize,
    /// The view of the supervisor right after it.
    shown: Vec<ShownInstance>,
    /// An instance that was shown with a pid that is not its main process.
    reaped: Option<InstanceId>,
    /// Whether there was any process at that time.
    left: Leftovers,
}

/// The view of one instance.
#[derive(Debug)]
struct ShownInstance {
    id: InstanceId,
    state: StateName,
    is_ready: bool,
    run: Option<RunId>,
    pid: Option<Pid>,
    unstable: u32,
}

impl ShownInstance {
    const fn new(view: &InstanceView<'_>) -> Self {
        let InstanceView { id, state, ready: is_ready, run, pid, unstable, .. } = *view;
        Self { id, state, is_ready, run, pid, unstable }
    }
}

/// The time since the last wait.
#[derive(Debug, Default)]
struct Turn {
    /// The deadline has passed and there was no event.
    deadline_alone: bool,
    actions: usize,
    /// Turns in which no time passed and no event came.
    idle: usize,
    began: Option<Mono>,
    /// keepalive was paused before the deadline.
    was_paused: bool,
}

impl Checker {
    pub(crate) fn new(plan: Rc<Plan>) -> Self {
        Self {
            model: Model::new(Rc::clone(&plan)),
            requests: Requests::default(),
            shutdown: Shutdown::default(),
            changes: Changes::default(),
            steps: VecDeque::new(),
            plan,
            now: Mono::default(),
            event: None,
            actions: 0,
            expected_actions: Vec::new(),
            last_run: RunId::default(),
            turn: Turn::default(),
            memory: memory::Memory::default(),
        }
    }

    pub(crate) fn on_wake(&mut self, now: Mono, until: Option<Mono>) {
        let idle = if self.turn.began == Some(now) { self.turn.idle + 1 } else { 0 };
        let deadline_alone = until.is_some_and(|until| until <= now);
        self.turn = Turn { deadline_alone, actions: 0, idle, began: Some(now), was_paused: false };
    }

    /// keepalive was paused while it waited, `awake` being the time when the pause began. A timer that is late for the second
    /// time in a row is not taken for a pause.
    pub(crate) fn on_resumed(&mut self, now: Mono, until: Option<Mono>, awake: Mono, woken: Woken) -> Verdict {
        let is_late_again = woken == Woken::Normally && until == Some(now);
        rule!(now <= awake || is_late_again, "the time of a pause counts: it is {now:?}, not {awake:?}");
        self.on_wake(now, until);
        // Not the supervisor has caused this turn.
        self.turn.idle = 0;
        self.turn.was_paused = until.is_none_or(|until| now < until);
        Ok(())
    }

    /// The supervisor has handled an event, and this many actions follow.
    pub(crate) fn on_event(
        &mut self,
        at: Mono,
        event: Event,
        actions: usize,
        view: View<'_>,
        world: &World,
    ) -> Verdict {
        if !matches!(event, Event::Tick) {
            self.turn.deadline_alone = false;
            self.turn.was_paused = false;
            self.turn.idle = 0;
        }
        let mut shown: Vec<_> = view.instances().map(|instance| ShownInstance::new(&instance)).collect();
        let mut surges: Vec<_> = view.services().flat_map(|service| service.surges()).collect();
        surges.sort_by_key(|surge| surge.id);
        shown.extend(surges.iter().map(ShownInstance::new));
        let is_wrong = |instance: &&ShownInstance| {
            instance.pid.is_some() && instance.pid != instance.run.and_then(|run| world.main_pid(run))
        };
        let reaped = shown.iter().find(is_wrong).map(|instance| instance.id);
        let left = if world.is_empty() { Leftovers::None } else { Leftovers::Some };
        rule!(!self.turn.was_paused || actions == 0, "a pause lets a deadline expire: {actions} actions");
        let step = Step { at, event, actions, shown, reaped, left };
        self.steps.push_back(step);
        if self.steps.len() == 1 { self.begin_step() } else { Ok(()) }
    }

    /// Moves to the step of the next action.
    fn begin_step(&mut self) -> Verdict {
        while let Some(step) = self.steps.front() {
            let (at, event) = (step.at, step.event.clone());
            self.apply_event(at, &event)?;
            if !self.end_step()? {
                break;
            }
        }
        Ok(())
    }

    /// Finishes the step if all its actions have been checked, and returns whether they have.
    fn end_step(&mut self) -> Result<bool, Violation> {
        let Some(step) = self.steps.pop_front_if(|step| step.actions == 0) else { return Ok(false) };
        rule!(step.reaped.is_none(), "{:?} shows a process that has been reaped", step.reaped);
        self.check_step(&step.shown)?;
        Ok(true)
    }

    /// Checks the next action of the supervisor.
    pub(crate) fn check_action(&mut self, action: &Action, world: &World) -> Verdict {
        let Some(step) = self.steps.front_mut() else {
            return Err(Violation(format!("{action:?} does not follow from anything")));
        };
        step.actions -= 1;
        let left = step.left;
        self.check_rules(action, world, left)?;
        if self.end_step()? && !self.shutdown.has_exited() { self.begin_step() } else { Ok(()) }
    }

    /// The supervisor has dropped this many actions that later events made obsolete. They are not known, but a dropped
    /// action that was still needed is missing later.
    pub(crate) fn on_skipped_actions(&mut self, count: usize, world: &World) -> Verdict {
        for _ in 0..count {
            let Some(step) = self.steps.front_mut() else {
                return Err(Violation("an action is dropped that does not follow from any event".into()));
            };
            step.actions -= 1;
            match self.expected_actions.pop() {
                Some(
                    Action::Signal { run, .. }
                    | Action::AnnounceStop { run }
                    | Action::StartProbe { run }
                    | Action::AbortProbe { run },
                ) => rule!(
                    world.main_pid(run).is_none(),
                    "an action for run {run} is dropped, but its main process exists"
                ),
                Some(expected) => rule!(false, "{expected:?} is dropped"),
                None => {}
            }
            if self.end_step()? {
                self.begin_step()?;
            }
        }
        Ok(())
    }

    fn apply_event(&mut self, now: Mono, event: &Event) -> Verdict {
        self.now = now;
        self.actions = 0;
        self.event = Some(event.clone());
        self.requests.has_begun_deferred = false;
        self.changes.begin_event();
        if self.apply_to_side_run(event) {
            return Ok(());
        }
        match event {
            Event::Tick => self.requests.ticked_at = now,
            Event::Boot | Event::WallClock(_) | Event::NoChildren | Event::TerminalClosed => {}
            Event::FilesChanged { service } => self.changes.on_changed(*service, &self.plan),
            // The fault has it.
            Event::WatchdogTriggered { .. } | Event::ProbeFailed { .. } => {}
            Event::MemoryMeasured(used) => self.memory.on_measured(used),
            Event::Checked { run, failure } => self.on_checked(*run, failure.as_ref()),
            Event::Spawned { run, pid } => {
                rule!(self.shutdown.may_spawn(), "run {run} gets a process during the shutdown");
                self.model.on_spawned(*run, *pid, now)?;
            }
            Event::SpawnFailed { run, errno } => {
                rule!(self.shutdown.may_spawn(), "run {run} tries to get a process during the shutdown");
                self.model.on_spawn_failed(*run, *errno)?;
            }
            Event::BindFailed { run, failure } => {
                rule!(self.shutdown.may_spawn(), "run {run} tries to get a process during the shutdown");
                self.model.on_bind_failed(*run, *failure)?;
            }
            Event::Executed { run } => self.on_executed(*run),
            Event::ExecFailed { run, failure } => self.model.on_exec_failed(*run, *failure),
            Event::Exited { run, exit, leftovers } => {
                let instance = self.model.on_exited(*run, *exit, *leftovers, now, self.shutdown.stage())?;
                let of = self.model.get(instance);
                // Its surge instance takes its place, and it has not died for a request.
                let is_promoted = self.model.has_promotable_surge(instance);
                let restarts = matches!(of.expected, Some(Expected::Restart { .. }));
                if restarts && !is_promoted {
                    self.requests.on_died(instance);
                }
                self.expected_actions = vec![Action::ReleaseRun { run: *run, instance }];
            }
            Event::LeftoversGone { run } => self.model.on_leftovers_gone(*run),
            Event::Signal(signal) => self.shutdown.on_signal(*signal, &self.plan, now),
            Event::Request { id, request } => {
                self.requests.apply_event(*id, request.clone(), &mut self.model, self.shutdown.stage());
            }
            Event::Ready { run, source } => {
                if self.model.implies_executed(*run, *source) {
                    self.on_executed(*run);
                }
                self.model.on_ready(*run, *source, now);
            }
            Event::Reloading { run, .. } => self.model.on_reloading(*run),
            Event::StoppingReported { run } => self.model.on_stopping_reported(*run),
            Event::WatchdogPing { run } => self.model.on_watchdog(*run, None, now),
            Event::WatchdogInterval { run, interval } => self.model.on_watchdog(*run, Some(*interval), now),
            Event::TimeoutExtended { run, by } => self.model.on_timeout_extended(*run, *by, now),
            Event::MainPidChanged { run, pid } => {
                self.on_executed(*run);
                self.model.on_main_pid_changed(*run, *pid);
            }
            Event::ConfigLoaded { id, .. } => self.requests.on_config_load_finished(*id, Config::Loaded),
            Event::ConfigLoadFailed { id, .. } => self.requests.on_config_load_finished(*id, Config::Failed),
            Event::ResetFailures { run } => self.model.on_reset_failures(*run),
            Event::Withdrawn(id) => {
                if self.requests.withdraw(*id) {
                    self.expected_actions.push(Action::WithdrawConfigLoad { id: *id });
                }
            }
        }
        Ok(())
    }

    /// If a probe determines readiness, it must start now.
    fn on_executed(&mut self, run: RunId) {
        if self.model.on_executed(run, self.now) {
            self.expected_actions = vec![Action::StartProbe { run }];
        }
    }

    fn check_rules(&mut self, action: &Action, world: &World, left: Leftovers) -> Verdict {
        self.actions += 1;
        self.turn.actions += 1;
        let limit = 100 + 20 * self.model.len();
        rule!(self.actions <= limit, "{} actions for one event", self.actions);
        rule!(!self.shutdown.has_exited(), "after the exit: {action:?}");
        let expected = self.expected_actions.pop();
        if let Some(expected) = &expected {
            rule!(expected == action, "expected {expected:?}, found {action:?}");
        }
        match action {
            Action::Spawn { run, instance, hook, ended, restarts, instances, definition } => {
                rule!(*run > self.last_run, "run {run} is not newer than run {}", self.last_run);
                self.last_run = *run;
                if let Some(hook @ (Hook::PreStop | Hook::PostStop)) = hook {
                    return self.check_side_run(*instance, *run, *hook, *ended);
                }
                let current = &self.plan.services[instance.service.position()];
                let is_current = definition == current;
                rule!(is_current, "{instance:?} is not spawned from the current definition");
                let desired = self.model.desired(instance.service);
                rule!(*instances == desired, "{instance:?} is one of {instances} instances, not of {desired}");
                self.check_spawn(*instance, *restarts, *hook)?;
                let instance = self.model.get_mut(*instance);
                (instance.spawning, instance.definition) = (Some(*run), Rc::clone(definition));
            }
            Action::Signal { run, scope, signal } => self.check_signal(*run, *scope, *signal, world)?,
            Action::AnnounceStop { run } => {
                rule!(world.main_pid(*run).is_some(), "the stop of run {run} is announced, but it has been reaped");
                if expected.is_none() {
                    self.expect_late_stop_signal(*run)?;
                }
            }
            Action::StartProbe { run } | Action::AbortProbe { run } => {
                rule!(expected.is_some(), "{action:?} without a reason");
                rule!(world.main_pid(*run).is_some(), "{action:?}, but its main process has been reaped");
            }
            Action::StartCheck { run, health } => self.check_start_of_check(*run, health, world)?,
            Action::AbortCheck { run } => self.check_abort_of_check(*run)?,
            Action::MeasureMemory => self.check_measuring()?,
            Action::ReleaseRun { run, .. } => {
                rule!(expected.is_some(), "run {run} is released without an exit before")
            }
            Action::SignalAll { signal } => self.shutdown.check_signal_all(*signal, &self.model)?,
            Action::WriteJournal(record) => {
                rule!(record.at == self.now, "a journal entry has another time");
                self.check_journal_event(&record.event)?;
            }
            Action::ApplyConfig(plan) => {
                self.plan = Rc::clone(plan);
                self.model.apply_config(plan, self.event.as_ref(), self.now);
            }
            Action::Reply { id, result } => {
                self.requests.check_reply(*id, result.clone(), &self.model, self.shutdown.stage())?
            }
            Action::Exit(outcome) => {
                self.requests.check_all_are_answered()?;
                self.shutdown.check_exit(outcome, &self.model, left, self.now)?;
            }
            other => self.check_lifetime(other)?,
        }
        Ok(())
    }

    /// Checks the state after the last action of a step.
    fn check_step(&mut self, shown: &[ShownInstance]) -> Verdict {
        if self.event == Some(Event::Boot) {
            let idle = |id: InstanceId| self.model.get(id).state == StateName::Stopped;
            let forgotten = self.model.all().find(|(id, _)| self.model.starts_by_itself(id.service) && idle(*id));
            rule!(forgotten.is_none() || self.shutdown.has_begun(), "{forgotten:?} has not been started");
        }
        rule!(self.expected_actions.is_empty(), "{:?} is missing", self.expected_actions);
        self.requests.begin_deferred(&mut self.model);
        rule!(self.model.failed_hook.is_none(), "the failure of a hook is not reported");
        self.check_effect_of_report()?;
        if !self.shutdown.has_begun() {
            self.changes.check_none_forgotten(&self.model, &self.plan)?;
        }
        self.check_health()?;
        let expected = self.model.all().chain(self.model.surges()).map(|(id, _)| id);
        rule!(shown.iter().map(|instance| instance.id).eq(expected), "the view has wrong instances: {shown:?}");
        for instance in shown {
            self.check_instance(instance)?;
        }
        if self.shutdown.has_exited() {
            return Ok(());
        }
        self.requests.check_none_is_overdue(&self.model)?;
        if self.shutdown.has_begun() {
            return self.shutdown.check_all_stopping(&self.model);
        }
        self.shutdown.check_no_reason_to_begin(&self.model, &self.plan)?;
        self.check_waiting_instances()
    }

    /// Checks the state before the supervisor waits.
    pub(crate) fn check_before_wait(&mut self, until: Option<Mono>, view: View<'_>, world: &World) -> Verdict {
        self.model.update_untried(self.now);
        self.check_hooks_before_wait()?;
        rule!(self.steps.is_empty(), "actions of these steps are missing: {:?}", self.steps);
        rule!(
            self.turn.idle <= 4 * self.model.len() + 8,
            "the loop spins: {} turns without an event or a deadline",
            self.turn.idle
        );
        // During a reload, the end of a soak time has no visible effect while other processes have not finished theirs.
        // Nothing is replaced while it waits for its stop either.
        let is_queued = self.model.all().any(|(_, instance)| instance.queued.is_some());
        let may_be_unproven = is_queued || self.model.services().any(|service| self.model.is_reloading(service));
        // Neither has the end of the time that a process must run, if its request waits for others too, or is withdrawn.
        let soaks_until = |one: &Instance| one.soaks_until.unwrap_or(one.since).max(one.since + MAX_SOAK);
        let is_proven_now = |one: &Instance| self.now <= soaks_until(one) + PROOF_TIME;
        let is_proof = self.model.all().chain(self.model.surges()).any(|(_, instance)| is_proven_now(instance));
        // A process that reloads on a signal must outlive it, even if the reload has failed meanwhile.
        let is_signalled = |instance: &Instance| matches!(instance.definition.reload.strategy, Strategy::Signal(_));
        let is_proof = is_proof || self.model.all().any(|(_, instance)| is_signalled(instance));
        let futile = self.turn.deadline_alone && self.turn.actions == 0 && !may_be_unproven && !is_proof;
        rule!(!futile, "a deadline had no effect");
        for service in view.services() {
            let expect = self.model.is_satisfied(service.index);
            rule!(service.available == expect, "{:?} is shown as available = {}", service.index, service.available);
            let has_failed = self.model.of(service.index).iter().any(|instance| instance.state == StateName::Failed);
            let is_ready = expect && !has_failed;
            rule!(service.ready == is_ready, "{:?} is shown with ready = {}", service.index, service.ready);
        }
        for (id, instance) in self.model.all().filter(|(_, instance)| instance.queued.is_some()) {
            let waits = self.shutdown.has_begun() || self.model.stopping_dependent(id.service).is_some();
            rule!(waits, "{id:?} is not stopped though its dependents have stopped: {instance:?}");
        }
        waits::check(until, self.now, &self.model, &self.shutdown)?;
        let childless = world.is_empty() && self.shutdown.has_begun() && !self.model.any_left();
        rule!(!childless, "the last process is gone, but the supervisor has not exited");
        for (id, instance) in self.model.all().chain(self.model.surges()) {
            let made = instance.state != StateName::Starting || instance.main.is_some() || instance.lingering.is_some();
            rule!(made, "{id:?} is starting, but has no process");
            if let Some(run) = instance.lingering {
                let unheard = world.will_report_leftovers_gone(run);
                rule!(unheard, "{id:?} waits for leftovers of run {run}, which are gone");
            }
        }
        Ok(())
    }
}
