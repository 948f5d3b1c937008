//! The supervisor: its state, where events come in and where actions go out.

use std::collections::VecDeque;
use std::rc::Rc;

use super::event::{Action, Event, Scope, Step};
use super::operator::Pending;
use super::outbox::Outbox;
use super::phase::Phase;
use super::random::Random;
use super::record::{JournalEntry, JournalEvent};
use super::rollout::Rollout;
use super::service_table::ServiceTable;
use super::state::{State, StateKind};
use super::timers::Timers;
use super::view::View;
use crate::model::map::Map;
use crate::model::plan::SignalAction;
use crate::model::{InstanceId, Mono, Plan, RunId, ServiceIndex, Signal};

/// The deciding part of keepalive.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) plan: Rc<Plan>,
    pub(super) services: ServiceTable,
    /// The instance of each run of which something is left.
    pub(super) runs: Map<RunId, InstanceId>,
    /// The last one that was begun.
    pub(super) last_run: RunId,
    pub(super) timers: Timers,
    pub(super) outbox: Outbox,
    /// Services whose instances have changed state since [`Self::propagate`] last looked at them.
    pub(super) dirty: VecDeque<ServiceIndex>,
    pub(super) phase: Phase,
    pub(super) requests: Vec<Pending>,
    /// The reloads that are under way.
    pub(super) rollouts: Map<ServiceIndex, Rollout>,
    pub(super) random: Random,
    pub(super) now: Mono,
    /// How many failures for good there have been.
    pub(super) failures: u32,
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
            runs: Map::new(),
            last_run: RunId::default(),
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
            Event::Spawned { run, pid } => self.on_spawned(run, pid),
            Event::SpawnRefused { run, errno } => self.on_spawn_refused(run, errno),
            Event::Executed { run } => self.on_executed(run),
            Event::ExecFailed { run, failure } => self.on_exec_failed(run, failure),
            Event::BindFailed { run, failure } => self.on_bind_failed(run, failure),
            Event::Ready { run, source } => self.on_ready(run, source),
            Event::Reloading { run, since } => self.on_reloading(run, since),
            Event::StoppingItself { run } => self.on_stopping_itself(run),
            Event::ResetFailures { run } => self.on_reset_failures(run),
            Event::WatchdogPing { run } => self.on_watchdog_ping(run),
            Event::WatchdogInterval { run, interval } => self.on_watchdog_interval(run, interval),
            Event::WatchdogTriggered { run } => self.on_watchdog_triggered(run),
            Event::TimeoutExtended { run, by } => self.on_timeout_extended(run, by),
            Event::MainPidChanged { run, pid } => self.on_main_pid_changed(run, pid),
            Event::Exited { run, exit, leftovers } => self.on_exited(run, exit, leftovers),
            Event::LeftoversGone { run } => self.on_leftovers_gone(run),
            Event::Signal(signal) => self.on_signal(signal),
            Event::TerminalClosed => self.on_terminal_closed(),
            Event::Request { id, request } => self.on_request(id, request),
            Event::ConfigLoaded { id, plan } => self.on_config_loaded(id, plan),
            Event::ConfigLoadFailed { id, reason } => self.on_config_load_failed(id, reason),
            Event::Withdrawn(id) => self.on_withdrawn(id),
            Event::NoChildren => self.on_no_children(),
            Event::Tick => self.on_tick(),
        }
        self.propagate();
    }

    /// Nothing follows from it any more, but what was decided before may still be on its way: not to the dead.
    fn on_event_after_the_end(&mut self, event: &Event) {
        if let Event::Exited { run, .. } = event {
            self.runs.remove(run);
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
                self.record(JournalEvent::ConfigReloadRequested { signal });
                self.act(Action::LoadConfig { id: None });
            }
            SignalAction::Ignore => self.record(JournalEvent::SignalIgnored { signal }),
        }
    }

    /// A closed terminal ends what runs on it, as it ends any program; nobody has asked for a reload.
    fn on_terminal_closed(&mut self) {
        match self.plan.signals.of(Signal::HUP) {
            SignalAction::Ignore => self.record(JournalEvent::SignalIgnored { signal: Signal::HUP }),
            SignalAction::Reload | SignalAction::Shutdown | SignalAction::Forward => self.on_stop_signal(Signal::HUP),
        }
    }

    fn forward(&mut self, signal: Signal) {
        let mut receivers = 0;
        for instance in self.services.ids() {
            let state = self.services[instance].state;
            if let Some(process) = state.process().filter(|_| state.kind() != StateKind::Stopping) {
                receivers += 1;
                self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
            }
        }
        self.record(JournalEvent::SignalForwarded { signal, receivers });
    }

    pub(super) fn act(&mut self, action: Action) {
        self.outbox.push(action);
    }

    pub(super) fn record(&mut self, fact: JournalEvent) {
        self.act(Action::JournalEntry(JournalEntry { at: self.now, fact }));
    }

    /// The next action that still has a purpose.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        while let Some(action) = self.outbox.pop() {
            if self.still_holds(&action) {
                return Some(action);
            }
        }
        None
    }

    fn still_holds(&self, action: &Action) -> bool {
        match action {
            Action::Spawn { run, instance, .. } => {
                self.runs.get(run) == Some(instance) && self.kind_of_run(*run) == Some(StateKind::Spawning)
            }
            Action::Signal { run, scope: Scope::Main | Scope::Group, .. }
            | Action::AnnounceStop { run }
            | Action::StartProbe { run }
            | Action::GiveUpProbe { run } => self.state_of_run(*run).is_some_and(State::has_process),
            Action::Signal { run, scope: Scope::Leftovers, .. } => {
                self.kind_of_run(*run) == Some(StateKind::CleaningUp)
            }
            Action::ReleaseRun { .. }
            | Action::SignalAll { .. }
            | Action::LoadConfig { .. }
            | Action::WithdrawConfigLoad { .. }
            | Action::CancelConfigLoad
            | Action::ReleaseInstance { .. }
            | Action::RemoveInstance { .. }
            | Action::ReleaseService { .. }
            | Action::PreferSockets { .. }
            | Action::Adopt(_)
            | Action::JournalEntry(_)
            | Action::Reply { .. }
            | Action::Exit(_) => true,
        }
    }

    /// The state of the instance that is in this run; `None`: nothing of the run is left.
    pub(super) fn state_of_run(&self, run: RunId) -> Option<&State> {
        Some(&self.services.find(*self.runs.get(&run)?)?.state)
    }

    fn kind_of_run(&self, run: RunId) -> Option<StateKind> {
        self.state_of_run(run).map(State::kind)
    }
}
