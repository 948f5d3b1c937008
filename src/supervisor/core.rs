//! The supervisor: its data, the entry point of events and the exit of actions.

use std::collections::VecDeque;
use std::rc::Rc;

use super::event::{Action, Event, Scope, Step};
use super::measuring::Measuring;
use super::operator::{Pending, RequestId};
use super::outbox::Outbox;
use super::phase::Phase;
use super::planned::Calendar;
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

/// The state of keepalive: services, timers, requests, reloads.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) plan: Rc<Plan>,
    pub(super) services: ServiceTable,
    /// The instance of each current run.
    pub(super) runs: Map<RunId, InstanceId>,
    /// The id of the latest run.
    pub(super) last_run: RunId,
    pub(super) timers: Timers,
    pub(super) outbox: Outbox,
    /// Services whose instances have changed state since the last call of [`Self::propagate`].
    pub(super) dirty: VecDeque<ServiceIndex>,
    pub(super) phase: Phase,
    pub(super) requests: Vec<Pending>,
    /// The instances that are stopped in order, until they have stopped.
    pub(super) ordered_stops: Vec<InstanceId>,
    /// The reloads that are in progress.
    pub(super) rollouts: Map<ServiceIndex, Rollout>,
    pub(super) random: Random,
    pub(super) now: Mono,
    /// The number of instances that have failed and were not restarted.
    pub(super) failures: u32,
    /// The configuration is to be loaded again for these requests, or for a signal, when no reload is under way.
    pub(super) deferred_loads: Vec<Option<RequestId>>,
    pub(super) calendar: Calendar,
    pub(super) measuring: Measuring,
}

impl Supervisor {
    /// A supervisor that has started no service yet. The first event must be [`Event::Boot`].
    ///
    /// `seed` determines the jitter of restart delays.
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
            phase: Phase::Running,
            requests: Vec::new(),
            ordered_stops: Vec::new(),
            rollouts: Map::new(),
            random: Random::new(seed),
            now: Mono::default(),
            failures: 0,
            deferred_loads: Vec::new(),
            calendar: Calendar::default(),
            measuring: Measuring::default(),
        }
    }

    /// Handles an event that happened at `now`. The actions that follow are available from [`Self::poll`].
    pub fn handle(&mut self, now: Mono, event: Event) {
        self.now = now;
        if matches!(self.phase, Phase::Ended) {
            return self.on_event_after_end(&event);
        }
        match event {
            Event::Boot => self.on_boot(),
            Event::Spawned { run, pid } => self.on_spawned(run, pid),
            Event::SpawnFailed { run, errno } => self.on_spawn_failed(run, errno),
            Event::Executed { run } => self.on_executed(run),
            Event::ExecFailed { run, failure } => self.on_exec_failed(run, failure),
            Event::BindFailed { run, failure } => self.on_bind_failed(run, failure),
            Event::Ready { run, source } => self.on_ready(run, source),
            Event::ProbeFailed { run, failure } => self.on_probe_failed(run, failure),
            Event::Checked { run, failure } => self.on_checked(run, failure),
            Event::Reloading { run, since } => self.on_reloading(run, since),
            Event::StoppingReported { run } => self.on_stopping_reported(run),
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
            Event::WallClock(now) => self.on_wall_clock(now),
            Event::MemoryMeasured(used) => self.on_memory_measured(used),
            Event::FilesChanged { service } => self.on_files_changed(service),
            Event::Tick => self.on_tick(),
        }
        self.propagate();
    }

    /// Removes a run that has exited, so that queued signals to it are dropped. Nothing else follows from events any more.
    fn on_event_after_end(&mut self, event: &Event) {
        if let Event::Exited { run, .. } = event {
            self.runs.remove(run);
        }
    }

    /// Returns the next step. [`Step::Wait`] means that no actions are left, so its deadline is up to date.
    ///
    /// Actions that have become pointless while they were queued are dropped: a start that has been cancelled, a signal to a
    /// process that has been reaped.
    pub fn poll(&mut self) -> Step {
        match self.next_action() {
            Some(action) => Step::Do(action),
            None => Step::Wait { until: self.next_deadline() },
        }
    }

    /// The number of queued actions. A single event may cause one action for each instance, so callers should hold back such
    /// events while this is large.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    /// The number of instances.
    #[must_use]
    pub const fn instances(&self) -> u32 {
        self.services.total().instances()
    }

    /// The state, for status, metrics and tests.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { plan: &self.plan, table: &self.services, is_stopping: !matches!(self.phase, Phase::Running) }
    }

    fn next_deadline(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Running => self.timers.first().into_iter().chain(self.measuring_due()).min(),
            Phase::Draining(drain) => Some(self.timers.first().map_or(drain.until(), |first| first.min(drain.until()))),
            Phase::Ended => None,
        }
    }

    fn on_tick(&mut self) {
        while let Some(instance) = self.timers.pop_due(self.now) {
            self.on_deadline(instance);
        }
        self.measure_memory_if_due();
        self.on_drain_deadline();
    }

    fn on_signal(&mut self, signal: Signal) {
        match self.plan.signals.of(signal) {
            SignalAction::Forward => self.forward(signal),
            SignalAction::Shutdown => self.on_shutdown_signal(signal),
            SignalAction::Kill => self.on_kill_signal(signal),
            SignalAction::Reload if self.is_draining() => self.record(JournalEvent::SignalIgnored { signal }),
            SignalAction::Reload => {
                self.record(JournalEvent::ConfigReloadRequested { signal });
                self.act(Action::LoadConfig { id: None });
            }
            SignalAction::Ignore => self.record(JournalEvent::SignalIgnored { signal }),
        }
    }

    /// A closed terminal stops keepalive, as it stops any program, even if SIGHUP is configured to reload.
    fn on_terminal_closed(&mut self) {
        match self.plan.signals.of(Signal::HUP) {
            SignalAction::Ignore => self.record(JournalEvent::SignalIgnored { signal: Signal::HUP }),
            SignalAction::Kill => self.on_kill_signal(Signal::HUP),
            SignalAction::Reload | SignalAction::Shutdown | SignalAction::Forward => {
                self.on_shutdown_signal(Signal::HUP)
            }
        }
    }

    fn forward(&mut self, signal: Signal) {
        let mut receivers = 0;
        for instance in self.services.ids() {
            let state = self.services[instance].state;
            if let Some(process) = state.main_process().filter(|_| state.kind() != StateKind::Stopping) {
                receivers += 1;
                self.act(Action::Signal { run: process.run, scope: Scope::Main, signal });
            }
        }
        self.record(JournalEvent::SignalForwarded { signal, receivers });
    }

    pub(super) fn act(&mut self, action: Action) {
        self.outbox.push(action);
    }

    pub(super) fn record(&mut self, event: JournalEvent) {
        self.act(Action::WriteJournal(JournalEntry { at: self.now, event }));
    }

    /// The next action that has not become pointless.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        while let Some(action) = self.outbox.pop() {
            if self.is_still_valid(&action) {
                return Some(action);
            }
        }
        None
    }

    fn is_still_valid(&self, action: &Action) -> bool {
        match action {
            Action::Spawn { run, instance, .. } => {
                let is_awaited = || self.kind_of_run(*run) == Some(StateKind::Spawning) || self.is_side_run(*run);
                self.runs.get(run) == Some(instance) && is_awaited()
            }
            Action::Signal { run, .. } if self.is_side_run(*run) => true,
            Action::Signal { run, scope: Scope::Main | Scope::Group, .. }
            | Action::AnnounceStop { run }
            | Action::StartProbe { run }
            | Action::AbortProbe { run } => self.state_of_run(*run).is_some_and(State::has_process),
            Action::StartCheck { run, .. } => self.state_of_run(*run).is_some_and(State::is_being_checked),
            Action::Signal { run, scope: Scope::Leftovers, .. } => {
                self.kind_of_run(*run) == Some(StateKind::CleaningUp)
            }
            // A check that has been started must end, even if its process has exited.
            Action::AbortCheck { .. }
            | Action::ReleaseRun { .. }
            | Action::MeasureMemory
            | Action::SignalAll { .. }
            | Action::LoadConfig { .. }
            | Action::WithdrawConfigLoad { .. }
            | Action::CancelConfigLoad
            | Action::ReleaseInstance { .. }
            | Action::RemoveInstance { .. }
            | Action::ReleaseService { .. }
            | Action::PreferSockets { .. }
            | Action::ApplyConfig(_)
            | Action::WriteJournal(_)
            | Action::Reply { .. }
            | Action::Exit(_) => true,
        }
    }

    /// The state of the instance of this run; `None` if the run has ended.
    fn state_of_run(&self, run: RunId) -> Option<&State> {
        Some(&self.services.find(*self.runs.get(&run)?)?.state)
    }

    fn kind_of_run(&self, run: RunId) -> Option<StateKind> {
        self.state_of_run(run).map(State::kind)
    }
}
