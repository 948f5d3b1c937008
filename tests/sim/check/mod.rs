//! Checks every step against the rules, which are computed here anew from what the supervisor has been told.
//!
//! A step is one event and the actions that follow from it. Other events may come before these are done: they are taken
//! account of only when all actions before theirs have been seen, so that each action is judged by what was known when
//! it was decided.
//!
//! `model` and `instance` are what there is to know about each service and instance, fed by events and records alone;
//! `journal` has the rules for records, `reports` knows
//! what comes of what processes report, `lifetimes` when something may be released, `restarts` what has to follow the end of a run, `shutdown` how the end has to go,
//! `requests` who has to get an answer, `waits` what a deadline is needed for.

mod instance;
mod journal;
mod lifetimes;
mod model;
mod reloads;
mod reports;
mod requests;
mod restarts;
mod shutdown;
mod signals;
mod waits;

use std::collections::VecDeque;
use std::rc::Rc;

use keepalive::model::{InstanceId, Mono, Pid, Plan, RunId};
use keepalive::supervisor::{Action, Event, InstanceView, Leftovers, StateName, View};

use crate::world::World;
use model::Model;
use requests::{Config, Requests};
use shutdown::End;

/// A rule that has been broken.
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
    end: End,
    /// The first one is being looked at, the others come when it is done.
    steps: VecDeque<Step>,
    now: Mono,
    event: Option<Event>,
    /// Actions since the last event.
    actions: usize,
    /// Actions that have to come next, the last one first.
    owed: Vec<Action>,
    /// The run that was begun last.
    last_run: RunId,
    turn: Turn,
}

/// An event that the supervisor has been told.
#[derive(Debug)]
struct Step {
    at: Mono,
    event: Event,
    /// How many of the actions that follow from it have not been seen.
    actions: usize,
    /// What the supervisor has shown right after it.
    shown: Vec<Shown>,
    /// Which instance of those had a main process that is none, or none any more.
    reaped: Option<InstanceId>,
    /// Whether any process was there then, whosever.
    left: Leftovers,
}

/// What the supervisor has shown of one instance.
#[derive(Debug)]
struct Shown {
    id: InstanceId,
    state: StateName,
    is_ready: bool,
    run: Option<RunId>,
    pid: Option<Pid>,
    unstable: u32,
}

impl Shown {
    const fn new(view: &InstanceView<'_>) -> Self {
        let InstanceView { id, state, ready: is_ready, run, pid, unstable, .. } = *view;
        Self { id, state, is_ready, run, pid, unstable }
    }
}

/// What has happened since the last wait.
#[derive(Debug, Default)]
struct Turn {
    /// The deadline has come and nothing else has.
    deadline_alone: bool,
    actions: usize,
    /// Turns without a step of time or an event.
    idle: usize,
    began: Option<Mono>,
}

impl Checker {
    pub(crate) fn new(plan: Rc<Plan>) -> Self {
        Self {
            model: Model::new(Rc::clone(&plan)),
            requests: Requests::default(),
            end: End::default(),
            steps: VecDeque::new(),
            plan,
            now: Mono::default(),
            event: None,
            actions: 0,
            owed: Vec::new(),
            last_run: RunId::default(),
            turn: Turn::default(),
        }
    }

    pub(crate) fn turn_begins(&mut self, now: Mono, until: Option<Mono>) {
        let idle = if self.turn.began == Some(now) { self.turn.idle + 1 } else { 0 };
        let deadline_alone = until.is_some_and(|until| until <= now);
        self.turn = Turn { deadline_alone, actions: 0, idle, began: Some(now) };
    }

    /// What the supervisor has been told, and how many actions follow from it.
    pub(crate) fn heard(&mut self, at: Mono, event: Event, actions: usize, view: View<'_>, world: &World) -> Verdict {
        if !matches!(event, Event::Tick) {
            self.turn.deadline_alone = false;
            self.turn.idle = 0;
        }
        let mut shown: Vec<_> = view.instances().map(|instance| Shown::new(&instance)).collect();
        let mut surges: Vec<_> = view.services().flat_map(|service| service.surges()).collect();
        surges.sort_by_key(|surge| surge.id);
        shown.extend(surges.iter().map(Shown::new));
        let is_wrong = |instance: &&Shown| {
            instance.pid.is_some() && instance.pid != instance.run.and_then(|run| world.main_pid(run))
        };
        let reaped = shown.iter().find(is_wrong).map(|instance| instance.id);
        let left = if world.is_empty() { Leftovers::None } else { Leftovers::Some };
        let step = Step { at, event, actions, shown, reaped, left };
        self.steps.push_back(step);
        if self.steps.len() == 1 { self.begin_step() } else { Ok(()) }
    }

    /// Goes on to where the next action belongs.
    fn begin_step(&mut self) -> Verdict {
        while let Some(step) = self.steps.front() {
            let (at, event) = (step.at, step.event.clone());
            self.hears(at, &event)?;
            if !self.end_step()? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the step has been seen to its end.
    fn end_step(&mut self) -> Result<bool, Violation> {
        let Some(step) = self.steps.pop_front_if(|step| step.actions == 0) else { return Ok(false) };
        rule!(step.reaped.is_none(), "{:?} shows a process that has been reaped", step.reaped);
        self.step_ended(&step.shown)?;
        Ok(true)
    }

    /// What the supervisor wants done.
    pub(crate) fn sees(&mut self, action: &Action, world: &World) -> Verdict {
        let Some(step) = self.steps.front_mut() else {
            return Err(Violation(format!("{action:?} does not follow from anything")));
        };
        step.actions -= 1;
        let left = step.left;
        self.judge(action, world, left)?;
        if self.end_step()? && !self.end.exited() { self.begin_step() } else { Ok(()) }
    }

    /// So many actions have been overtaken by what has happened since they were decided. What they were is not told:
    /// what would have been needed all the same is found missing.
    pub(crate) fn passed_over(&mut self, count: usize, world: &World) -> Verdict {
        for _ in 0..count {
            let Some(step) = self.steps.front_mut() else {
                return Err(Violation("overtaken, and it did not follow from anything".into()));
            };
            step.actions -= 1;
            match self.owed.pop() {
                Some(
                    Action::Signal { run, .. }
                    | Action::AnnounceStop { run }
                    | Action::StartProbe { run }
                    | Action::AbortProbe { run },
                ) => rule!(world.main_pid(run).is_none(), "run {run} is passed over, and its main process is there"),
                Some(owed) => rule!(false, "{owed:?} is passed over"),
                None => {}
            }
            if self.end_step()? {
                self.begin_step()?;
            }
        }
        Ok(())
    }

    fn hears(&mut self, now: Mono, event: &Event) -> Verdict {
        self.now = now;
        self.actions = 0;
        self.event = Some(event.clone());
        match event {
            Event::Boot | Event::Tick | Event::NoChildren | Event::WatchdogTriggered { .. } => {}
            Event::Spawned { run, pid } => {
                rule!(self.end.may_spawn(), "run {run} gets a process during the drain");
                self.model.spawned(*run, *pid, now)?;
            }
            Event::SpawnFailed { run, errno } => {
                rule!(self.end.may_spawn(), "run {run} is to get a process during the drain");
                self.model.refused(*run, *errno)?;
            }
            Event::BindFailed { run, failure } => {
                rule!(self.end.may_spawn(), "run {run} is to get a process during the drain");
                self.model.bind_failed(*run, *failure)?;
            }
            Event::Executed { run } => self.executes(*run),
            Event::ExecFailed { run, failure } => self.model.exec_failed(*run, *failure),
            Event::Exited { run, exit, leftovers } => {
                let instance = self.model.exited(*run, *exit, *leftovers, now, self.end.stage())?;
                self.owed = vec![Action::ReleaseRun { run: *run, instance }];
            }
            Event::LeftoversGone { run } => self.model.leftovers_gone(*run),
            Event::Signal(signal) => self.end.hears_signal(*signal, &self.plan),
            Event::TerminalClosed => self.end.hears_terminal_closed(&self.plan),
            Event::Request { id, request } => {
                self.requests.hears(*id, *request, &mut self.model, self.end.stage());
            }
            Event::Ready { run, source } => {
                if self.model.shows_that_it_has_executed(*run, *source) {
                    self.executes(*run);
                }
                self.model.says_ready(*run, *source, now);
            }
            Event::Reloading { run, .. } => self.model.says_that_it_reloads(*run),
            Event::StoppingReported { run } => self.model.says_that_it_stops(*run),
            Event::WatchdogPing { run } => self.model.is_alive(*run, None, now),
            Event::WatchdogInterval { run, interval } => self.model.is_alive(*run, Some(*interval), now),
            Event::TimeoutExtended { run, by } => self.model.has_more_time(*run, *by, now),
            Event::MainPidChanged { run, pid } => {
                self.executes(*run);
                self.model.has_another_main_process(*run, *pid);
            }
            Event::ConfigLoaded { id, .. } => self.requests.config_load_ends(*id, Config::Loaded),
            Event::ConfigLoadFailed { id, .. } => self.requests.config_load_ends(*id, Config::Failed),
            Event::ResetFailures { run } => self.model.is_forgiven(*run),
            Event::Withdrawn(id) => {
                if self.requests.withdrawn(*id) {
                    self.owed.push(Action::WithdrawConfigLoad { id: *id });
                }
            }
        }
        Ok(())
    }

    /// What is found out about by a probe is probed from then on.
    fn executes(&mut self, run: RunId) {
        if self.model.executed(run, self.now) {
            self.owed = vec![Action::StartProbe { run }];
        }
    }

    fn judge(&mut self, action: &Action, world: &World, left: Leftovers) -> Verdict {
        self.actions += 1;
        self.turn.actions += 1;
        let limit = 100 + 20 * self.model.len();
        rule!(self.actions <= limit, "{} actions for one event", self.actions);
        rule!(!self.end.exited(), "after the exit: {action:?}");
        let owed = self.owed.pop();
        if let Some(owed) = &owed {
            rule!(owed == action, "{owed:?} should have come, not {action:?}");
        }
        match action {
            Action::Spawn { run, instance, restarts, definition } => {
                rule!(*run > self.last_run, "run {run} comes after run {}", self.last_run);
                self.last_run = *run;
                let current = &self.plan.services[instance.service.position()];
                let is_current = definition == current;
                rule!(is_current, "{instance:?} is made of what is not in force");
                self.sees_spawn(*instance, *restarts)?;
                let instance = self.model.get_mut(*instance);
                (instance.spawning, instance.definition) = (Some(*run), Rc::clone(definition));
            }
            Action::Signal { run, scope, signal } => self.sees_signal(*run, *scope, *signal, world)?,
            Action::AnnounceStop { run } => {
                rule!(world.main_pid(*run).is_some(), "a stop of run {run}, which has been reaped, is announced");
                if owed.is_none() {
                    self.owe_late_stop_signal(*run)?;
                }
            }
            Action::StartProbe { run } | Action::AbortProbe { run } => {
                rule!(owed.is_some(), "{action:?}, for no reason");
                rule!(world.main_pid(*run).is_some(), "{action:?}, and its main process has been reaped");
            }
            Action::ReleaseRun { run, .. } => rule!(owed.is_some(), "run {run} has not just ended, and is released"),
            Action::SignalAll { signal } => self.end.sees_signal_all(*signal, &self.model)?,
            Action::WriteJournal(record) => {
                rule!(record.at == self.now, "a record of another time");
                self.sees_fact(&record.event)?;
            }
            Action::ApplyConfig(plan) => {
                self.plan = Rc::clone(plan);
                self.model.adopt(plan);
            }
            Action::Reply { id, result } => {
                self.requests.sees_reply(*id, result.clone(), &self.model, self.end.stage())?
            }
            Action::Exit(outcome) => {
                self.requests.all_are_answered()?;
                self.end.sees_exit(outcome, &self.model, left, self.now)?;
            }
            other => self.sees_lifetime(other)?,
        }
        Ok(())
    }

    fn sees_spawn(&mut self, id: InstanceId, restarts: u32) -> Verdict {
        let instance = self.model.get(id);
        rule!(instance.main.is_none(), "{id:?} has a process already");
        rule!(instance.lingering.is_none(), "{id:?} is spawned before what it left is gone");
        rule!(instance.state == StateName::Starting, "{id:?} is spawned while {:?}", instance.state);
        rule!(restarts == instance.runs, "{id:?}: restarts is {restarts}, it has had {} runs", instance.runs);
        rule!(self.end.may_spawn(), "{id:?} is spawned during the drain");
        Ok(())
    }

    /// Everything that follows from an event has been seen.
    fn step_ended(&mut self, shown: &[Shown]) -> Verdict {
        if self.event == Some(Event::Boot) {
            let idle = |id: InstanceId| self.model.get(id).state == StateName::Stopped;
            let forgotten = self.model.all().find(|(id, _)| self.model.starts_by_itself(id.service) && idle(*id));
            rule!(forgotten.is_none() || self.end.begun(), "nobody has started {forgotten:?}");
        }
        rule!(self.owed.is_empty(), "{:?} has not come", self.owed);
        self.report_has_been_followed()?;
        let expected = self.model.all().chain(self.model.surges()).map(|(id, _)| id);
        rule!(shown.iter().map(|instance| instance.id).eq(expected), "it shows others than there are: {shown:?}");
        for instance in shown {
            let model = self.model.get(instance.id);
            let id = instance.id;
            rule!(model.expected.is_none(), "{id:?}: nothing has followed {:?}", model.expected);
            rule!(instance.state == model.state, "{id:?} is {:?}, its records say {:?}", instance.state, model.state);
            rule!(instance.pid == model.pid, "{id:?} shows {:?}, its process is {:?}", instance.pid, model.pid);
            let is_ready = model.state == StateName::Running && !model.is_not_ready();
            rule!(instance.is_ready == is_ready, "{id:?} is shown as ready: {}", instance.is_ready);
            let run = model.main.or(model.lingering.filter(|_| model.state == StateName::Stopping));
            rule!(run.is_none() || instance.run == run, "{id:?} shows {:?}, it is in {run:?}", instance.run);
            let may_run = model::is_live(model.state);
            rule!(may_run || instance.run.is_none(), "{id:?} is {:?} and in {:?}", model.state, instance.run);
            rule!(
                instance.unstable == model.unstable,
                "{id:?}: {} unstable, not {}",
                instance.unstable,
                model.unstable
            );
        }
        if self.end.exited() {
            return Ok(());
        }
        self.requests.none_is_overdue(&self.model)?;
        if self.end.begun() {
            return self.end.everything_unneeded_is_stopped(&self.model);
        }
        self.end.ought_not_to_have_begun(&self.model, &self.plan)?;
        self.nothing_waits_in_vain()
    }

    fn nothing_waits_in_vain(&self) -> Verdict {
        for (id, _) in self.model.all().filter(|(_, instance)| instance.blocked) {
            let free = self.model.dependencies_are_satisfied(id.service);
            rule!(!free, "{id:?} is blocked by nothing any more");
        }
        for (id, instance) in self.model.all().filter(|(_, instance)| instance.state == StateName::Waiting) {
            rule!(!self.model.dependencies_are_satisfied(id.service), "{id:?} waits for nothing: {instance:?}");
            for dependency in &self.plan.services[id.service.position()].depends_on {
                let satisfied = self.model.is_satisfied(*dependency);
                let is_over = self.model.cannot_become_ready(*dependency);
                rule!(!is_over, "{id:?} waits for {dependency:?}, which will never come");
                let may_come =
                    satisfied || self.model.is_active(*dependency) || self.model.is_stopped_by_operator(*dependency);
                rule!(may_come, "{id:?} waits for {dependency:?}, which nobody starts");
            }
        }
        Ok(())
    }

    /// The supervisor goes to sleep.
    pub(crate) fn turn_ended(&mut self, until: Option<Mono>, view: View<'_>, world: &World) -> Verdict {
        rule!(self.steps.is_empty(), "{:?} have not been followed", self.steps);
        rule!(self.turn.idle <= 4 * self.model.len() + 8, "it spins: {} turns without anything", self.turn.idle);
        // That a process has stayed up long enough is nothing to be seen while others have not.
        let may_be_unproven = self.model.services().any(|service| self.model.is_reloading(service));
        let futile = self.turn.deadline_alone && self.turn.actions == 0 && !may_be_unproven;
        rule!(!futile, "it was woken by a stale deadline");
        for service in view.services() {
            let expect = self.model.is_satisfied(service.index);
            rule!(service.ready == expect, "{:?} is satisfied: {}", service.index, service.ready);
        }
        waits::check(until, self.now, &self.model, &self.end)?;
        let childless = world.is_empty() && self.end.begun() && !self.model.any_left();
        rule!(!childless, "the last process is gone, and no exit");
        for (id, instance) in self.model.all().chain(self.model.surges()) {
            let made = instance.state != StateName::Starting || instance.main.is_some();
            rule!(made, "{id:?} is said to start, and nothing has been made");
            if let Some(run) = instance.lingering {
                let unheard = world.owes_leftovers_gone(run);
                rule!(unheard, "{id:?} waits for what run {run} has left, which is gone");
            }
        }
        Ok(())
    }
}
