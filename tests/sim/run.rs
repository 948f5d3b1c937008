//! Runs one seed: a plan, a world, an operator, the real supervisor and the checker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::{AwakeClock, Mono, Plan, Signal, Woken};
use keepalive::supervisor::{Action, Event, JournalEntry, JournalEvent, Step, Supervisor};

use crate::chance::Chance;
use crate::check::{Checker, Violation};
use crate::operator::Operator;
use crate::plans;
use crate::trace::{Keep, Trace};
use crate::world::World;

/// After this many steps the shutdown begins even before the horizon, because crash loops cause many steps.
const MAX_STEPS_BEFORE_SHUTDOWN: u64 = 4_000;
/// A run with more steps does not terminate.
const MAX_STEPS: u64 = 40_000;

/// The statistics of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) simulated: Duration,
    pub(crate) steps: u64,
    /// The number of occurrences of each situation.
    pub(crate) situations: BTreeMap<String, u64>,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        self.steps += other.steps;
        for (situation, count) in &other.situations {
            *self.situations.entry(situation.clone()).or_default() += count;
        }
    }

    fn count_pause(&mut self) {
        *self.situations.entry("pause".into()).or_default() += 1;
    }

    fn count_event(&mut self, event: &Event) {
        let kind = match event {
            Event::Ready { source, .. } => variant_name("ready by", source),
            event => variant_name("event", event),
        };
        *self.situations.entry(kind).or_default() += 1;
    }

    fn count(&mut self, action: &Action) {
        let situation = match action {
            Action::WriteJournal(JournalEntry { event: JournalEvent::Transition { from, to, .. }, .. }) => {
                format!("{} → {}", from.as_str(), to.as_str())
            }
            Action::WriteJournal(JournalEntry { event: JournalEvent::ShutdownStarted { cause }, .. }) => {
                variant_name("draining", cause)
            }
            Action::WriteJournal(JournalEntry { event: JournalEvent::ShutdownForced { signal }, .. }) => {
                format!("forced by signal: {}", signal.is_some())
            }
            Action::WriteJournal(JournalEntry { event, .. }) => variant_name("journal", event),
            Action::Signal { scope, signal: Signal::KILL, .. } => variant_name("kill", scope),
            Action::Spawn { hook: Some(hook), .. } => variant_name("hook", hook),
            Action::Reply { result: Err(refusal), .. } => variant_name("refusal", refusal),
            action => variant_name("action", action),
        };
        *self.situations.entry(situation).or_default() += 1;
    }
}

/// The name of a variant.
fn variant_name(kind: &str, value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let name = text.split([' ', '(']).next().unwrap_or_default();
    format!("{kind} {name}")
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) message: String,
    pub(crate) plan: Rc<Plan>,
    pub(crate) trace: String,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, keep: Keep) -> Result<(Totals, String), Failure> {
    let trace = Rc::new(RefCell::new(Trace::new(keep)));
    let mut chance = Chance::new(seed);
    let plan = Rc::new(plans::random(&mut chance));
    let result = catch_unwind(AssertUnwindSafe(|| Run::new(&plan, chance, seed, Rc::clone(&trace)).finish()));
    let message = match result {
        Ok(Ok(totals)) => return Ok((totals, trace.borrow().text())),
        Ok(Err(Violation(message))) => message,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
        }
    };
    let trace = trace.borrow().text();
    Err(Failure { seed, message, plan, trace })
}

struct Run {
    supervisor: Supervisor,
    world: World,
    operator: Operator,
    checker: Checker,
    trace: Rc<RefCell<Trace>>,
    chance: Chance,
    begun: Mono,
    totals: Totals,
    over: bool,
    /// The clock of the supervisor. That of the world also counts the pauses.
    clock: AwakeClock,
    /// keepalive is paused in one of this many waits.
    pause_interval: u64,
    /// The supervisor wakes up late by up to this many milliseconds.
    max_delay_millis: u64,
    /// The number of actions that are performed in a turn.
    budget: u32,
    /// The number of actions left in this turn.
    left: u32,
    /// The wall clock is so many seconds ahead of that of the world.
    wall_offset: i64,
    /// The wall clock was set.
    is_clock_set: bool,
}

/// The next step after some actions.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The budget is spent, so events come first.
    Busy,
    /// There are no more actions.
    Sleep {
        until: Option<Mono>,
    },
    Over,
}

impl Run {
    fn new(plan: &Rc<Plan>, mut chance: Chance, seed: u64, trace: Rc<RefCell<Trace>>) -> Self {
        let mut world = World::new(plan, Chance::new(chance.next()));
        let mut operator = Operator::new(plan, Chance::new(chance.next()));
        let hour = Duration::from_secs(3_600);
        let longest = chance.pick(&[Duration::from_secs(2), Duration::from_secs(60), hour, 48 * hour]);
        let horizon = chance.up_to(longest);
        operator.plan(&mut world, horizon);
        let max_delay_millis = chance.pick(&[0, 0, 5, 3_000]);
        let budget = chance.pick(&[u32::MAX, u32::MAX, u32::MAX, 1, 2, 7, 64]);
        let pause_interval = chance.pick(&[u64::MAX, 200, 20]);
        Self {
            supervisor: Supervisor::new(Rc::clone(plan), seed),
            checker: Checker::new(Rc::clone(plan)),
            begun: world.now,
            clock: AwakeClock::new(world.now),
            world,
            operator,
            trace,
            chance,
            totals: Totals::default(),
            over: false,
            pause_interval,
            max_delay_millis,
            budget,
            left: 0,
            wall_offset: 1_700_000_000,
            is_clock_set: false,
        }
    }

    fn finish(mut self) -> Result<Totals, Violation> {
        self.handle(Event::Boot)?;
        let mut is_ending = false;
        while !self.over {
            if self.totals.steps > MAX_STEPS_BEFORE_SHUTDOWN && !is_ending {
                is_ending = true;
                self.operator.plan(&mut self.world, Duration::ZERO);
            }
            if self.totals.steps > MAX_STEPS {
                return Err(Violation("the run does not terminate".into()));
            }
            self.turn()?;
        }
        self.check_after_exit()?;
        self.totals.simulated = self.world.now.since(self.begun);
        Ok(self.totals)
    }

    /// Works as the event loop of the runtime: performs pending actions within the budget, sleeps if there are no more,
    /// and handles events, each followed by its actions within the budget.
    fn turn(&mut self) -> Result<(), Violation> {
        self.left = self.budget;
        match self.perform_actions()? {
            Next::Over => return Ok(()),
            Next::Busy => self.while_busy(),
            Next::Sleep { until } => self.sleep(until)?,
        }
        while let Some(events) = self.world.next_events() {
            for event in events {
                self.handle(event)?;
                if matches!(self.perform_actions()?, Next::Over) {
                    return Ok(());
                }
            }
            // Deaths and signals also come in batches.
            if self.left == 0 && self.chance.one_in(3) {
                break;
            }
        }
        self.read_wall_clock()?;
        self.handle(Event::Tick)?;
        self.perform_actions().map(drop)
    }

    /// The wall clock, in seconds since 1970.
    fn wall_clock(&self) -> i64 {
        (self.world.now.as_nanos() / 1_000_000_000).cast_signed() + self.wall_offset
    }

    /// When the supervisor needs the wall clock.
    fn wall_wake(&self) -> Option<Mono> {
        let rest = self.supervisor.wall_deadline()?.saturating_sub(self.wall_clock());
        Some(self.world.now + Duration::from_secs(rest.max(0).unsigned_abs()))
    }

    /// Works as the timer of the runtime, which expires at the deadline and when the clock is set.
    fn read_wall_clock(&mut self) -> Result<(), Violation> {
        let is_due = self.supervisor.wall_deadline().is_some_and(|deadline| deadline <= self.wall_clock());
        if !is_due && !std::mem::take(&mut self.is_clock_set) {
            return Ok(());
        }
        self.handle(Event::WallClock(self.wall_clock()))?;
        self.perform_actions().map(drop)
    }

    /// Advances the time to the next occurrence or deadline.
    fn sleep(&mut self, until: Option<Mono>) -> Result<(), Violation> {
        let now = self.clock.now();
        self.trace.borrow_mut().record_wait(now, until);
        self.checker.check_before_wait(until, self.supervisor.view(), &self.world)?;
        let timeout = until.map(|until| until.since(now));
        let timer = timeout.map(|timeout| self.world.now + timeout);
        let wake = timer.into_iter().chain(self.world.next()).chain(self.wall_wake()).min();
        if self.supervisor.wall_deadline().is_some() && self.chance.one_in(100) {
            self.wall_offset += self.chance.below(36_000).cast_signed() - 18_000;
            self.is_clock_set = true;
        }
        let Some(mut wake) = wake.filter(|wake| *wake < NEVER) else {
            return Err(Violation("no event and no deadline will follow, but the supervisor has not exited".into()));
        };
        let spurious = self.chance.one_in(10);
        if self.pause_interval != u64::MAX && self.chance.one_in(self.pause_interval) {
            return self.pause(wake, until);
        }
        if spurious && wake > self.world.now {
            wake = self.world.now + self.chance.up_to(wake.since(self.world.now));
        } else if self.chance.one_in(4) {
            wake = wake + self.chance.millis(0, self.max_delay_millis);
        }
        self.world.now = self.world.now.max(wake);
        self.clock.on_wake(self.world.now, timeout, Woken::Normally);
        self.checker.on_wake(self.clock.now(), until);
        Ok(())
    }

    /// keepalive is paused while it waits, before `wake`, and what happens meanwhile is handled afterwards. Either the kernel
    /// interrupts the wait, or the timer is late.
    fn pause(&mut self, wake: Mono, until: Option<Mono>) -> Result<(), Violation> {
        let before = self.clock.now();
        let waited = self.chance.up_to(wake.since(self.world.now));
        let began = self.world.now + waited;
        let timeout = until.map(|until| until.since(before));
        let timer = timeout.map(|timeout| self.world.now + timeout);
        let resumed = began + self.chance.millis(1, 100_000);
        let is_late = timer.is_some_and(|timer| timer + Duration::from_secs(1) < resumed);
        let woken = if is_late && self.chance.one_in(2) { Woken::Normally } else { Woken::Interrupted };
        self.world.now = resumed;
        self.clock.on_wake(resumed, timeout, woken);
        self.totals.count_pause();
        self.checker.on_resumed(self.clock.now(), until, before + waited, woken)
    }

    /// Actions are pending, and performing the others has taken some time, or keepalive was paused meanwhile.
    fn while_busy(&mut self) {
        if self.chance.one_in(3) {
            self.world.now = self.world.now + self.chance.millis(0, self.max_delay_millis.max(20));
            self.clock.read(self.world.now);
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        self.totals.steps += 1;
        self.totals.count_event(&event);
        let (now, event) = (self.clock.now(), self.on_supervisor_clock(event));
        self.trace.borrow_mut().record_event(now, &event);
        let before = self.supervisor.backlog();
        self.supervisor.handle(now, event.clone());
        let actions = self.supervisor.backlog() - before;
        self.checker.on_event(now, event, actions, self.supervisor.view(), &self.world)
    }

    /// Processes report times of the monotonic clock.
    fn on_supervisor_clock(&self, event: Event) -> Event {
        match event {
            Event::Reloading { run, since } => Event::Reloading { run, since: since.map(|since| self.clock.at(since)) },
            event => event,
        }
    }

    /// Performs pending actions within the budget of this turn.
    fn perform_actions(&mut self) -> Result<Next, Violation> {
        while !self.over {
            if self.left == 0 {
                return Ok(Next::Busy);
            }
            let before = self.supervisor.backlog();
            let step = self.supervisor.poll();
            let gone = before - self.supervisor.backlog();
            match step {
                Step::Wait { until } => {
                    self.checker.on_skipped_actions(gone, &self.world)?;
                    return Ok(Next::Sleep { until });
                }
                Step::Do(action) => {
                    self.checker.on_skipped_actions(gone - 1, &self.world)?;
                    self.perform(&action)?;
                }
            }
        }
        Ok(Next::Over)
    }

    fn perform(&mut self, action: &Action) -> Result<(), Violation> {
        self.left -= 1;
        self.trace.borrow_mut().record_action(self.clock.now(), action);
        self.checker.check_action(action, &self.world)?;
        self.operator.interfere_after(&mut self.world, action);
        self.totals.count(action);
        self.over = matches!(action, Action::Exit(_));
        // These events come before the next action.
        for answer in self.world.perform(action) {
            self.handle(answer)?;
        }
        Ok(())
    }

    /// After its exit the supervisor returns no action for any event.
    fn check_after_exit(&mut self) -> Result<(), Violation> {
        let signal = Event::Signal(Signal::TERM);
        for event in [Event::Tick, Event::NoChildren, signal, Event::Tick] {
            self.trace.borrow_mut().record_event(self.clock.now(), &event);
            self.supervisor.handle(self.clock.now(), event);
            let step = self.supervisor.poll();
            if step != (Step::Wait { until: None }) {
                return Err(Violation(format!("after the exit: {step:?}")));
            }
        }
        Ok(())
    }
}

const NEVER: Mono = Mono::from_nanos(u64::MAX);
