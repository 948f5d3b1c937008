//! Decides. What has happened goes in, what to do comes out; nothing else.
//!
//! Pure: no system call, no clock, no file, no logging, and it cannot fail. Failures of the world arrive as
//! [`Event`]s, decisions leave as [`Action`]s, and every transition is told as one [`JournalEntry`]. The same events at the
//! same times with the same seed give the same actions, which is what `tests/sim` lives on.
//!
//! The life of an instance (`State`):
//!
//! ```text
//!              dependencies ready          execve done             ready
//!   Waiting ───────────────────► Spawning ─► Executing ─► Starting ─► Running
//!      ▲                          ▲                │           │         │ stop
//!      │ operator      due / at once              └─── it dies ───┬──────┤
//!      │                          │                                ▼      ▼
//!   Stopped ◄── settled ──── BackingOff ◄── what it left is gone ── CleaningUp ◄── Stopping
//! ```
//!
//! Where to start reading: [`Supervisor::handle`], then `instance.rs` for what each event does to each state,
//! `restart.rs` for whether a run is followed by another, `service.rs` for what instances mean to their service and its
//! neighbours, `shutdown.rs` for the ordered end.

mod configure;
mod event;
mod instance;
mod notify;
mod outbox;
mod presence;
mod random;
mod record;
mod release;
mod reload;
mod request;
mod restart;
mod service;
mod service_table;
mod shutdown;
mod stop;
mod timers;
mod view;

use std::collections::VecDeque;
use std::rc::Rc;

use crate::model::map::Map;
use crate::model::plan::SignalAction;
use crate::model::{InstanceId, Mono, Pid, Plan, ServiceIndex, Signal};

pub use event::{Action, Event, Exit, Leftovers, Scope, Step};
pub use record::{
    Cause, Changes, FailureReason, Fault, JournalEntry, JournalEvent, Outcome, Reason, RestartDecision, Run,
};
pub use reload::{ReloadFailure, RolloutError};
pub use request::{Refusal, Request, RequestId, Target, Verb};
pub use view::{InstanceView, ServiceView, StateName, View};

use instance::{Next, State};
use outbox::{Outbox, Place};
use random::Random;
use reload::Rollout;
use service_table::ServiceTable;
use shutdown::Phase;
use timers::Timers;

/// The deciding part of keepalive.
#[derive(Debug)]
pub struct Supervisor {
    plan: Rc<Plan>,
    services: ServiceTable,
    /// Which instance a process is the main process of, until it has been reaped.
    processes: Map<Pid, Process>,
    /// Which instance waits until nothing is left of what a process led that has been reaped.
    leaders: Map<Pid, InstanceId>,
    timers: Timers,
    outbox: Outbox,
    /// Services whose instances have changed state since [`Self::propagate`] last looked at them.
    dirty: VecDeque<ServiceIndex>,
    phase: Phase,
    requests: Vec<request::Pending>,
    /// The reloads that are under way.
    rollouts: Map<ServiceIndex, Rollout>,
    random: Random,
    now: Mono,
    /// How many failures for good there have been.
    failures: u32,
}

/// The main process of an instance.
#[derive(Clone, Copy, Debug)]
struct Process {
    instance: InstanceId,
    /// What was decided earlier is not meant for it.
    from: Place,
}

impl Supervisor {
    /// A supervisor that has started nothing yet; [`Event::Boot`] begins.
    ///
    /// `seed` drives the jitter of restart delays and nothing else.
    #[must_use]
    pub fn new(plan: Rc<Plan>, seed: u64) -> Self {
        Self {
            services: ServiceTable::new(&plan),
            plan,
            processes: Map::new(),
            leaders: Map::new(),
            timers: Timers::default(),
            outbox: Outbox::default(),
            dirty: VecDeque::new(),
            phase: Phase::Up,
            requests: Vec::new(),
            rollouts: Map::new(),
            random: Random::new(seed),
            now: Mono::default(),
            failures: 0,
        }
    }

    /// Takes in what has happened at `now`. Never blocks, never fails.
    pub fn handle(&mut self, now: Mono, event: Event) {
        self.now = now;
        if matches!(self.phase, Phase::Over) {
            return self.on_event_after_the_end(&event);
        }
        match event {
            Event::Boot => self.on_boot(),
            Event::Spawned { instance, pid } => self.on_spawned(instance, pid),
            Event::SpawnRefused { instance, errno } => self.on_spawn_refused(instance, errno),
            Event::Executed { pid } => self.on_executed(pid),
            Event::ExecFailed { pid, failure } => self.on_exec_failed(pid, failure),
            Event::Unbound { instance, failure } => self.on_unbound(instance, failure),
            Event::Ready { pid } => self.on_ready(pid),
            Event::Reloading { pid, since } => self.on_reloading(pid, since),
            Event::Stopping { pid } => self.on_leaving(pid),
            Event::ResetFailures { pid } => self.on_forgiven(pid),
            Event::Alive { pid } => self.on_alive(pid),
            Event::WatchdogEvery { pid, interval } => self.on_watchdog_every(pid, interval),
            Event::WatchdogTriggered { pid } => self.on_trouble(pid),
            Event::Extended { pid, by } => self.on_extended(pid, by),
            Event::MainPidChanged { pid, successor } => self.on_succeeded(pid, successor),
            Event::Exited { pid, exit, left } => self.on_exited(pid, exit, left),
            Event::Cleared { pid } => self.on_cleared(pid),
            Event::Signal(signal) => self.on_signal(signal),
            Event::HungUp => self.on_hung_up(),
            Event::Request { id, request } => self.on_request(id, request),
            Event::ConfigLoaded { id, plan } => self.on_config_loaded(id, plan),
            Event::ConfigLoadFailed { id, reason } => self.on_config_load_failed(id, reason),
            Event::Withdrawn(id) => self.on_withdrawn(id),
            Event::Childless => self.on_childless(),
            Event::Tick => self.on_tick(),
        }
        self.propagate();
    }

    /// Nothing follows from it any more, but what was decided before may still be on its way: not to the dead.
    fn on_event_after_the_end(&mut self, event: &Event) {
        if let Event::Exited { pid, .. } = event {
            self.processes.remove(pid);
        }
    }

    /// What to do next. [`Step::Wait`] comes only when nothing is left to do, so that no caller sleeps on a stale
    /// deadline.
    ///
    /// An action may wait while other things happen. A start that has been called off meanwhile, and a signal whose
    /// receiver has been reaped, are not given out any more.
    pub fn poll(&mut self) -> Step {
        match self.next_action() {
            Some(action) => Step::Do(action),
            None => Step::Wait { until: self.next_deadline() },
        }
    }

    /// How many actions [`Self::poll`] has still to give out, or to pass over. One event may become an action for each instance: who
    /// can leave such events where they are does so while this is large.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    /// How many instances there are.
    #[must_use]
    pub const fn instances(&self) -> u32 {
        self.services.total().instances()
    }

    /// The state, for status, metrics and tests.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { plan: &self.plan, table: &self.services, is_stopping: !matches!(self.phase, Phase::Up) }
    }

    fn next_deadline(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Up => self.timers.first(),
            Phase::Draining(drain) => Some(self.timers.first().map_or(drain.until(), |first| first.min(drain.until()))),
            Phase::Over => None,
        }
    }

    fn on_tick(&mut self) {
        while let Some(instance) = self.timers.pop_due(self.now) {
            self.on_deadline(instance);
        }
        self.on_drain_deadline();
    }

    fn on_signal(&mut self, signal: Signal) {
        match self.plan.signals.of(signal) {
            SignalAction::Forward => self.forward(signal),
            SignalAction::Shutdown => self.on_stop_signal(signal),
            SignalAction::Reload if self.is_draining() => self.record(JournalEvent::SignalIgnored { signal }),
            SignalAction::Reload => {
                self.record(JournalEvent::ConfigurationWanted { signal });
                self.act(Action::LoadConfig { id: None });
            }
            SignalAction::Ignore => self.record(JournalEvent::SignalIgnored { signal }),
        }
    }

    /// A closed terminal ends what runs on it, as it ends any program; nobody has asked for a reload.
    fn on_hung_up(&mut self) {
        match self.plan.signals.of(Signal::HUP) {
            SignalAction::Ignore => self.record(JournalEvent::SignalIgnored { signal: Signal::HUP }),
            SignalAction::Reload | SignalAction::Shutdown | SignalAction::Forward => self.on_stop_signal(Signal::HUP),
        }
    }

    fn forward(&mut self, signal: Signal) {
        let mut receivers = 0;
        for instance in self.services.ids() {
            if let State::Executing { pid, .. } | State::Starting { pid, .. } | State::Running { pid, .. } =
                self.services[instance].state
            {
                receivers += 1;
                self.act(Action::Signal { pid, scope: Scope::Main, signal });
            }
        }
        self.record(JournalEvent::SignalForwarded { signal, receivers });
    }

    fn act(&mut self, action: Action) {
        self.outbox.push(action);
    }

    fn record(&mut self, fact: JournalEvent) {
        self.act(Action::JournalEntry(JournalEntry { at: self.now, fact }));
    }
}
