//! One seed: a plan, a world, an operator, the real supervisor, and somebody who checks all of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::{Mono, Plan, Signal};
use keepalive::supervisor::{Action, Event, JournalEntry, JournalEvent, Step, Supervisor};

use crate::chance::Chance;
use crate::check::{Checker, Violation};
use crate::operator::Operator;
use crate::plans;
use crate::trace::{Keep, Trace};
use crate::world::World;

/// After so many steps the end is brought about, whatever the horizon was: crash loops make many.
const STEPS: u64 = 4_000;
/// An end that takes more is no end.
const STEPS_OF_THE_END: u64 = 40_000;

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) simulated: Duration,
    pub(crate) steps: u64,
    /// How often which kind of thing was done.
    pub(crate) deeds: BTreeMap<String, u64>,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        self.steps += other.steps;
        for (deed, count) in &other.deeds {
            *self.deeds.entry(deed.clone()).or_default() += count;
        }
    }

    fn count_event(&mut self, event: &Event) {
        let kind = match event {
            Event::Ready { source, .. } => first_word("ready by", source),
            event => first_word("event", event),
        };
        *self.deeds.entry(kind).or_default() += 1;
    }

    fn count(&mut self, action: &Action) {
        let deed = match action {
            Action::WriteJournal(JournalEntry { event: JournalEvent::Transition { from, to, .. }, .. }) => {
                format!("{} → {}", from.as_str(), to.as_str())
            }
            Action::WriteJournal(JournalEntry { event: JournalEvent::ShutdownStarted { cause }, .. }) => {
                first_word("draining", cause)
            }
            Action::WriteJournal(JournalEntry { event: JournalEvent::ShutdownForced { signal }, .. }) => {
                format!("forced by signal: {}", signal.is_some())
            }
            Action::WriteJournal(JournalEntry { event, .. }) => first_word("fact", event),
            Action::Signal { scope, signal: Signal::KILL, .. } => first_word("kill", scope),
            Action::Reply { result: Err(refusal), .. } => first_word("refusal", refusal),
            action => first_word("action", action),
        };
        *self.deeds.entry(deed).or_default() += 1;
    }
}

/// The name of a variant.
fn first_word(kind: &str, value: &impl Debug) -> String {
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
    /// Most milliseconds by which the supervisor is woken late.
    sloth: u64,
    /// So many actions are done in a turn.
    budget: u32,
    /// So many more in this one.
    left: u32,
}

/// What comes after some actions.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The budget is spent: what has happened meanwhile comes first.
    Busy,
    /// There are no more.
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
        let sloth = chance.pick(&[0, 0, 5, 3_000]);
        let budget = chance.pick(&[u32::MAX, u32::MAX, u32::MAX, 1, 2, 7, 64]);
        Self {
            supervisor: Supervisor::new(Rc::clone(plan), seed),
            checker: Checker::new(Rc::clone(plan)),
            begun: world.now,
            world,
            operator,
            trace,
            chance,
            totals: Totals::default(),
            over: false,
            sloth,
            budget,
            left: 0,
        }
    }

    fn finish(mut self) -> Result<Totals, Violation> {
        self.hear(Event::Boot)?;
        let mut hurried = false;
        while !self.over {
            if self.totals.steps > STEPS && !hurried {
                hurried = true;
                self.operator.plan(&mut self.world, Duration::ZERO);
            }
            if self.totals.steps > STEPS_OF_THE_END {
                return Err(Violation("it does not come to an end".into()));
            }
            self.turn()?;
        }
        self.after_the_end()?;
        self.totals.simulated = self.world.now.since(self.begun);
        Ok(self.totals)
    }

    /// As the loop of the runtime has it: does what waits to be done, as far as the budget allows; sleeps if that was
    /// all; takes in what has happened, doing at once what follows, as far as the budget still allows.
    fn turn(&mut self) -> Result<(), Violation> {
        self.left = self.budget;
        match self.act()? {
            Next::Over => return Ok(()),
            Next::Busy => self.while_busy(),
            Next::Sleep { until } => self.sleep(until)?,
        }
        while let Some(events) = self.world.happen() {
            for event in events {
                self.hear(event)?;
                if matches!(self.act()?, Next::Over) {
                    return Ok(());
                }
            }
            // Deaths and signals come in batches, too.
            if self.left == 0 && self.chance.one_in(3) {
                break;
            }
        }
        self.hear(Event::Tick)?;
        self.act().map(drop)
    }

    /// Until something is due.
    fn sleep(&mut self, until: Option<Mono>) -> Result<(), Violation> {
        self.trace.borrow_mut().waits(self.world.now, until);
        self.checker.turn_ended(until, self.supervisor.view(), &self.world)?;
        let wake = until.into_iter().chain(self.world.next()).min();
        let Some(mut wake) = wake.filter(|wake| *wake < NEVER) else {
            return Err(Violation("nothing will ever happen again, and no exit".into()));
        };
        let spurious = self.chance.one_in(10);
        if spurious && wake > self.world.now {
            wake = self.world.now + self.chance.up_to(wake.since(self.world.now));
        } else if self.chance.one_in(4) {
            wake = wake + self.chance.millis(0, self.sloth);
        }
        self.world.now = self.world.now.max(wake);
        self.checker.turn_begins(self.world.now, until);
        Ok(())
    }

    /// Actions still wait, and what was done has taken its time.
    fn while_busy(&mut self) {
        if self.chance.one_in(3) {
            self.world.now = self.world.now + self.chance.millis(0, self.sloth.max(20));
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), Violation> {
        self.totals.steps += 1;
        self.totals.count_event(&event);
        self.trace.borrow_mut().heard(self.world.now, &event);
        let before = self.supervisor.backlog();
        self.supervisor.handle(self.world.now, event.clone());
        let actions = self.supervisor.backlog() - before;
        self.checker.heard(self.world.now, event, actions, self.supervisor.view(), &self.world)
    }

    /// Does what the supervisor wants, as far as the budget of this turn allows.
    fn act(&mut self) -> Result<Next, Violation> {
        while !self.over {
            if self.left == 0 {
                return Ok(Next::Busy);
            }
            let before = self.supervisor.backlog();
            let step = self.supervisor.poll();
            let gone = before - self.supervisor.backlog();
            match step {
                Step::Wait { until } => {
                    self.checker.passed_over(gone, &self.world)?;
                    return Ok(Next::Sleep { until });
                }
                Step::Do(action) => {
                    self.checker.passed_over(gone - 1, &self.world)?;
                    self.perform(&action)?;
                }
            }
        }
        Ok(Next::Over)
    }

    fn perform(&mut self, action: &Action) -> Result<(), Violation> {
        self.left -= 1;
        self.trace.borrow_mut().did(self.world.now, action);
        self.checker.sees(action, &self.world)?;
        self.operator.watch(&mut self.world, action);
        self.totals.count(action);
        self.over = matches!(action, Action::Exit(_));
        // The answers come before anything else is done.
        for answer in self.world.perform(action) {
            self.hear(answer)?;
        }
        Ok(())
    }

    /// After its exit the supervisor says no more, whatever it is told.
    fn after_the_end(&mut self) -> Result<(), Violation> {
        let signal = Event::Signal(Signal::TERM);
        for event in [Event::Tick, Event::NoChildren, signal, Event::Tick] {
            self.trace.borrow_mut().heard(self.world.now, &event);
            self.supervisor.handle(self.world.now, event);
            let step = self.supervisor.poll();
            if step != (Step::Wait { until: None }) {
                return Err(Violation(format!("after the exit: {step:?}")));
            }
        }
        Ok(())
    }
}

const NEVER: Mono = Mono::from_nanos(u64::MAX);
