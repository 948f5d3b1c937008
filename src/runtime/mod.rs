//! Does. The one loop: what becomes readable is made an event, what the supervisor decides is made to happen.
//!
//! This room must not decide anything about services. Nothing in it waits but `Runtime::turn`, and nothing in it
//! may take long: whatever comes in large numbers is worked off in bounded batches, with a look at everything else in
//! between. Start with [`run`].

mod backoff;
mod by_instance;
mod child_pipes;
mod children;
mod close_queue;
mod config_loader;
mod control;
mod counts;
mod deaths;
mod ending;
mod events;
mod fd_store;
mod foreground;
mod inherited_fds;
mod ipc;
mod journal;
mod kills;
mod logging;
mod notify;
mod oom;
mod pipes;
mod probe;
mod reap_scheduler;
mod sockets;
mod start;
mod state;
mod successions;
mod text;
mod usage;

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use crate::model::exit_code::OS_ERROR;
use crate::model::map::Map;
use crate::model::plan::Input;
use crate::model::{InstanceId, Mono, Pid, Plan, ServiceIndex, Signal, errno};
use crate::supervisor::{Action, Event, Fault, JournalEntry, JournalEvent, Outcome, Reason, Step, Supervisor};
use crate::sys::poll::Ready;
use crate::sys::wait::WaitOptions;
use crate::sys::{
    self, DispositionReset, Origin, PidLiveness, Poller, Received, SignalQueue, SpawnMode, StringList, signals,
};
use children::Children;
use close_queue::CloseQueue;
use config_loader::ConfigLoader;
pub use config_loader::LoadConfig;
use control::Server;
use counts::Counts;
use events::{Coalescer, Events, What};
use fd_store::FdStore;
use ipc::Channels;
use logging::Logging;
use notify::Notify;
use oom::OomCounter;
use probe::Probes;
use reap_scheduler::ReapScheduler;
use sockets::Sockets;
use state::States;
use usage::Usage;

/// So many actions are done before everything that has happened meanwhile is looked at.
const ACTIONS_PER_TURN: u32 = 64;
/// Signals stay with the kernel, which holds each standard one once, while more actions than this wait for each instance:
/// forwarding makes an action for every instance of each, and a flood of them would fill the memory.
const MAX_PENDING_ACTIONS_PER_INSTANCE: usize = 4;
/// Who waits so long has nothing to do.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// So many signals are taken from the kernel at once.
const SIGNALS_PER_READ: usize = 16;

/// The token of the signal queue; start pipes have the pid of their process, [`control`] has all that are larger, but for
/// those of [`notify`] and [`fd_store`], of [`probe`], which are pids above 1 << 60, of [`ipc`], above 1 << 61, and the
/// last two, which are [`logging`]'s.
const SIGNALS: u64 = 0;

/// Runs the service set until it ends, and gives the exit code.
///
/// `environment` is what keepalive was started with, `NAME=value` each. `load_config` is how another configuration is got.
#[must_use]
pub fn run(plan: Plan, environment: StringList, load_config: LoadConfig) -> u8 {
    let plan = Rc::new(plan);
    let inherited = signals::block_all(DispositionReset::All);
    sys::process::set_cloexec_on_inherited_fds();
    let outcome = match Runtime::new(Rc::clone(&plan), environment, load_config) {
        Ok(mut runtime) => {
            runtime.outlives_terminal = inherited.ignored.contains(Signal::HUP);
            let outcome = runtime.run();
            runtime.close();
            runtime.sockets.close();
            runtime.logging.finish();
            outcome
        }
        Err(Refused { operation, errno }) => {
            let reason = format!("cannot {operation}: {}", errno::words(errno));
            ending::tell(&plan, &reason);
            return OS_ERROR;
        }
    };
    ending::conclude(&plan, &outcome);
    outcome.code
}

/// What keepalive cannot do without was refused by the system.
struct Refused {
    operation: &'static str,
    errno: Errno,
}

fn refused(operation: &'static str) -> impl Fn(Errno) -> Refused {
    move |errno| Refused { operation, errno }
}

struct Runtime {
    plan: Rc<Plan>,
    load_config: LoadConfig,
    config_loader: ConfigLoader,
    close_queue: CloseQueue,
    supervisor: Supervisor,
    children: Children,
    sockets: Sockets,
    states: States,
    /// Services that the configuration does not name any more, and for which something may still be kept.
    retired: Vec<ServiceIndex>,
    logging: Logging,
    /// Starts whose result is not known yet.
    pending_execs: Map<Pid, OwnedFd>,
    /// Main processes that were reaped and have left others in their group or session.
    uncleared: Vec<Pid>,
    signals: SignalQueue,
    poller: Poller,
    probe: PidLiveness,
    oom: OomCounter,
    stops: WaitOptions,
    /// We were started with SIGHUP ignored, by nohup(1).
    outlives_terminal: bool,
    /// We have been stopped together with our terminal, and the SIGCONT that ended it is still to be taken.
    suspended: bool,
    now: Mono,
    /// How many actions may still be done in this turn.
    budget: u32,
    /// When the supervisor wants to be woken; true as long as the budget is not spent.
    until: Option<Mono>,
    outcome: Option<Outcome>,
    /// ChildEvent by the last wait: of these pending_execs the result is there.
    started: Vec<Pid>,
    search: ReapScheduler,
    /// Everything below keepalive gets this signal; what appears meanwhile gets it too.
    sweeping: Option<Signal>,
    told_orphans: Coalescer,
    /// There has been nothing to do for the first time.
    is_settled: bool,
    counts: Counts,
    events: Events,
    usage: Usage,
    server: Server,
    notify: Notify,
    store: FdStore,
    /// ChildEvent by the last wait: something has come to its end that has one of these tokens of [`notify`] or [`fd_store`].
    ends: Vec<u64>,
    probes: Probes,
    channels: Channels,
    begun: Mono,
    /// The same moment, since 1970.
    begun_at: Duration,
}

impl Runtime {
    fn new(plan: Rc<Plan>, environment: StringList, load_config: LoadConfig) -> Result<Self, Refused> {
        if !sys::process::is_init() {
            sys::process::become_subreaper().map_err(refused("become a subreaper"))?;
        }
        let signals = SignalQueue::new().map_err(refused("open a signal descriptor"))?;
        let poller = Poller::new().map_err(refused("open an epoll descriptor"))?;
        poller.add(signals.as_fd(), SIGNALS).map_err(refused("wait for signals"))?;
        let spawn_mode = if sys::spawn::mounts_can_hang() { SpawnMode::Fork } else { SpawnMode::Vfork };
        let children = Children::new(environment, spawn_mode).map_err(refused("open /dev/null"))?;
        let has_terminal = plan.services.iter().any(|service| service.process.input == Input::Terminal);
        let now = sys::now();
        let logging = Logging::new(Rc::clone(&plan), &poller);
        let probe = PidLiveness::new().map_err(refused("open an event descriptor"))?;
        // Whoever finds the control socket finds those of the services too.
        let sockets = Sockets::new(&plan);
        Ok(Self {
            supervisor: Supervisor::new(Rc::clone(&plan), now.as_nanos()),
            server: Server::new(&plan.control, plan.http, &poller),
            sockets,
            states: States::default(),
            retired: Vec::new(),
            plan,
            load_config,
            config_loader: ConfigLoader::default(),
            close_queue: CloseQueue::default(),
            children,
            logging,
            pending_execs: Map::new(),
            uncleared: Vec::new(),
            signals,
            poller,
            probe,
            oom: OomCounter::new(),
            stops: if has_terminal { WaitOptions::WithStops } else { WaitOptions::ExitsOnly },
            outlives_terminal: false,
            suspended: false,
            now,
            budget: 0,
            until: None,
            outcome: None,
            started: Vec::new(),
            search: ReapScheduler::new(),
            sweeping: None,
            told_orphans: Coalescer::default(),
            is_settled: false,
            counts: Counts::default(),
            events: Events::default(),
            usage: Usage::default(),
            notify: Notify::default(),
            store: FdStore::default(),
            ends: Vec::new(),
            probes: Probes::default(),
            channels: Channels::default(),
            begun: now,
            begun_at: sys::wall(),
        })
    }

    fn run(&mut self) -> Outcome {
        let instances = self.plan.instances();
        let (version, pid, services) = (env!("CARGO_PKG_VERSION"), sys::process::id(), self.plan.services.len());
        let services = text::Counted(services as u64, "service", "services");
        let instances = text::Counted(instances.into(), "instance", "instances");
        log::info!("version {version}, pid {pid}: {services}, {instances}");
        self.tell(Event::Boot);
        loop {
            self.budget = ACTIONS_PER_TURN;
            self.act();
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            self.turn();
        }
    }

    /// Waits once, takes in what has happened, does at once what follows from it.
    fn turn(&mut self) {
        self.wake_followers();
        let timeout =
            if self.budget == 0 || self.usage.is_searching() || self.server.is_busy() || self.channels.is_busy() {
                Some(Duration::ZERO)
            } else {
                let wakes = [
                    self.until,
                    self.search.due(self.children.count()),
                    self.server.due(),
                    self.told_orphans.due(self.counts.orphans),
                ];
                let others = [self.logging.due(), self.probes.due(), self.config_loader.due(), self.close_queue.due()];
                let wakes = wakes.into_iter().chain(others);
                wakes.flatten().min().map(|wake| wake.since(sys::now()))
            };
        if !self.is_settled && timeout.is_none_or(|timeout| timeout >= IDLE_AFTER) {
            self.is_settled = true;
            sys::memory::release_code_pages();
        }
        let signalled = self.wait(timeout);
        self.counts.turns += 1;
        for pid in std::mem::take(&mut self.started) {
            self.poll_exec_result(pid);
            self.act();
        }
        self.listen_to_services();
        self.talk();
        if signalled && self.has_capacity() {
            self.take_signals();
        }
        self.reap();
        let restarts = self.logging.restarts();
        self.logging.look(&self.poller, self.now);
        if self.logging.restarts() > restarts {
            self.happens(What::LoggerRestarted);
        }
        self.tell_of_orphans();
        self.serve();
        self.probe();
        self.look_at_reading();
        self.close_queue.turn(self.now);
        self.notify.listen(&self.poller);
        self.happened(Event::Tick);
    }

    /// Whether what makes many actions may come.
    fn has_capacity(&self) -> bool {
        self.has_backlog_below(MAX_PENDING_ACTIONS_PER_INSTANCE)
    }

    fn has_backlog_below(&self, for_each: usize) -> bool {
        self.supervisor.backlog() <= for_each * self.supervisor.instances() as usize
    }

    fn listen_to_services(&mut self) {
        if self.notify.has_news() && self.has_capacity() {
            self.read_notifications();
        }
        for token in std::mem::take(&mut self.ends) {
            if token >= fd_store::FIRST_TOKEN {
                self.store.on_end(token, &self.poller);
            } else {
                self.on_successor_ended(token);
            }
        }
    }

    /// The one place that waits. Notes which pending_execs have come to something; whether signals are there to be taken.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        let mut signalled = false;
        self.logging.wait_for_room(&self.poller);
        self.notify.begin_turn();
        let ready = self.poller.wait(timeout).unwrap_or_default();
        for token in ready.iter().map(Ready::data) {
            match token {
                SIGNALS => signalled = true,
                logging::LIFE | logging::ROOM => self.logging.is_ready(token),
                notify::SOCKET => self.notify.is_ready(),
                notify::FIRST_TOKEN..=fd_store::LAST_TOKEN => self.ends.push(token),
                probe::FIRST_TOKEN..=probe::LAST_TOKEN => self.probes.is_ready(token),
                ipc::FIRST_TOKEN..=ipc::LAST_TOKEN => self.channels.is_ready(token),
                control::FIRST_TOKEN.. => self.server.is_ready(token),
                pid => self.started.extend(i32::try_from(pid).ok().and_then(Pid::new)),
            }
        }
        self.now = sys::now();
        signalled
    }

    /// Tells the supervisor, and does at once what follows.
    fn happened(&mut self, event: Event) {
        self.tell(event);
        self.act();
    }

    /// Only tells the supervisor: for the answer to one of its actions, which [`Self::act`] is doing.
    fn tell(&mut self, event: Event) {
        if let Event::MainPidChanged { pid, successor } = event {
            self.probes.on_succeeded(pid, successor);
            self.channels.on_succeeded(pid, successor, &self.poller);
        }
        if let Event::Withdrawn(id) = event {
            self.config_loader.forget(id);
        }
        self.supervisor.handle(self.now, event);
    }

    /// Does what is to be done, as far as the budget of this turn allows. The one place that matches on actions.
    fn act(&mut self) {
        while self.budget > 0 && self.outcome.is_none() {
            self.budget -= 1;
            match self.supervisor.poll() {
                Step::Wait { until } => {
                    self.budget += 1;
                    self.until = until;
                    return;
                }
                Step::Do(Action::Exit(outcome)) => self.outcome = Some(outcome),
                Step::Do(Action::Spawn { instance, restarts, definition }) => {
                    self.spawn(instance, restarts, &definition)
                }
                Step::Do(Action::Configure { id }) => self.configure(id),
                Step::Do(Action::Adopt(plan)) => self.adopt(&plan),
                Step::Do(Action::Farewell { pid }) => self.channels.say_farewell(pid, &self.poller),
                Step::Do(Action::Signal { pid, scope, signal }) => self.signal(pid, scope, signal),
                Step::Do(Action::SignalAll { signal }) => self.signal_all(signal),
                Step::Do(Action::JournalEntry(record)) => self.record(record),
                Step::Do(Action::Reply { id, result }) => self.reply(id, result),
            }
        }
    }

    /// One fact is a line, a count and an event.
    fn record(&mut self, record: JournalEntry) {
        self.counts.record(&record);
        if matches!(record.fact, JournalEvent::Draining { .. }) {
            self.logging.on_draining(self.now);
            self.call_off_reading();
        }
        if let JournalEvent::ReloadEnded { service, failure } = &record.fact {
            self.counts.reloaded(*service, failure.as_ref());
        }
        if let JournalEvent::Reconfigured(changes) = record.fact {
            self.counts.changes = changes;
        }
        self.sockets.on_fact(&record.fact);
        if let JournalEvent::Scaled { service, from, to } = record.fact {
            for number in to..from {
                let id = InstanceId { service, number };
                self.logging.forget(id);
                self.notify.forget(id);
            }
        }
        if let JournalEvent::Transition { instance, to, .. } = record.fact
            && to.is_at_rest()
            && !instance.is_surge()
        {
            self.store.forget(instance, &self.poller);
        }
        journal::write(&self.plan, &record.fact);
        if let JournalEvent::Transition { pid: Some(pid), reason: Reason::Fault(Fault::NotReady(_)), .. } = record.fact
        {
            self.probes.explain(pid);
        }
        self.happens(What::JournalEvent(record.fact));
    }

    fn happens(&mut self, what: What) {
        self.events.push(sys::wall(), what);
    }

    fn tell_of_orphans(&mut self) {
        let total = self.counts.orphans;
        if let Some(count) = self.told_orphans.take(total, self.now) {
            self.happens(What::Orphans { count, total });
        }
    }

    fn take_signals(&mut self) {
        let nothing = Received { signal: Signal::CHLD, origin: Origin::Kernel };
        let mut received = [nothing; SIGNALS_PER_READ];
        let count = self.signals.read(&mut received).unwrap_or(0);
        for Received { signal, origin } in received.into_iter().take(count) {
            match (signal, origin) {
                (Signal::CHLD, Origin::Child(pid)) => self.search.want(Some(pid)),
                (Signal::CHLD, _) => self.search.want(None),
                // It was for the job that we are, and has continued it.
                (Signal::CONT, _) if std::mem::take(&mut self.suspended) => {}
                // A terminal sends these to everyone whom they concern; a service in a session of its own is not.
                (Signal::WINCH | Signal::TTIN | Signal::TTOU | Signal::CONT, Origin::Kernel) => {}
                (Signal::TSTP, Origin::Kernel) => self.suspend(),
                (Signal::HUP, Origin::Kernel) if self.outlives_terminal => {}
                (Signal::HUP, Origin::Kernel) => self.happened(Event::HungUp),
                _ => self.happened(Event::Signal(signal)),
            }
        }
    }

    /// Ctrl-Z on a developer's terminal: the shell wants it back.
    fn suspend(&mut self) {
        self.suspended = !sys::process::is_init() && signals::suspend_self();
    }
}
