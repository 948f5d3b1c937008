//! Does. The one loop: what becomes readable is made an event, what the supervisor decides is made to happen.
//!
//! This room must not decide anything about services. Nothing in it waits but `Runtime::turn`, and nothing in it
//! may take long: whatever comes in large numbers is worked off in bounded batches, with a look at everything else in
//! between. Start with [`run`].

mod by_instance;
mod child_pipes;
mod children;
mod close_queue;
mod config_loader;
mod control;
mod deaths;
mod ending;
mod fd_store;
mod foreground;
mod inherited_fds;
mod ipc;
mod journal;
mod kills;
mod logging;
mod notify;
mod oom;
mod probe;
mod reap_scheduler;
mod sockets;
mod start;
mod state;
mod subsystem;
mod successions;
mod text;
mod token;

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use crate::model::exit_code::OS_ERROR;
use crate::model::map::Map;
use crate::model::plan::Input;
use crate::model::{InstanceId, Mono, Pid, Plan, ServiceIndex, Signal, errno};
use crate::supervisor::{Action, Event, Outcome, Step, Supervisor};
use crate::sys::wait::WaitOptions;
use crate::sys::{
    self, DispositionReset, Origin, PidLiveness, Poller, Received, SignalQueue, SpawnMode, StringList, signals,
};
use children::Children;
use close_queue::CloseQueue;
use config_loader::ConfigLoader;
pub use config_loader::LoadConfig;
use control::Server;
use control::snapshot::Sources;
use fd_store::FdStore;
use ipc::Channels;
use journal::Journal;
use logging::Logging;
use notify::Notify;
use oom::OomCounter;
use probe::Probes;
use reap_scheduler::ReapScheduler;
use sockets::Sockets;
use state::States;
use subsystem::{Context, Subsystem};
use token::Token;

/// So many actions are done before everything that has happened meanwhile is looked at.
const ACTIONS_PER_TURN: u32 = 64;
/// Who waits so long has nothing to do.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// So many signals are taken from the kernel at once.
const SIGNALS_PER_READ: usize = 16;

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
            let (server, context, sources) = runtime.server();
            server.close(&context, sources);
            runtime.sockets.close();
            runtime.logging.finish(runtime.journal.counts().stop_begun);
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
    config_loader: ConfigLoader,
    close_queue: CloseQueue,
    supervisor: Supervisor,
    children: Children,
    sockets: Sockets,
    states: States,
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
    /// There has been nothing to do for the first time.
    is_settled: bool,
    journal: Journal,
    server: Server,
    notify: Notify,
    store: FdStore,
    /// Found by the last wait: these main processes have ended, these stored descriptors have come to their end.
    ends: Vec<Token>,
    probes: Probes,
    channels: Channels,
}

/// A subsystem, when it has its turn.
#[derive(Clone, Copy, Debug)]
enum Part {
    Logging,
    Server,
    ConfigLoader,
    CloseQueue,
}

impl Runtime {
    fn new(plan: Rc<Plan>, environment: StringList, load_config: LoadConfig) -> Result<Self, Refused> {
        if !sys::process::is_init() {
            sys::process::become_subreaper().map_err(refused("become a subreaper"))?;
        }
        let signals = SignalQueue::new().map_err(refused("open a signal descriptor"))?;
        let poller = Poller::new().map_err(refused("open an epoll descriptor"))?;
        poller.add(signals.as_fd(), Token::Signals).map_err(refused("wait for signals"))?;
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
            plan,
            config_loader: ConfigLoader::new(load_config),
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
            is_settled: false,
            journal: Journal::new(now),
            notify: Notify::default(),
            store: FdStore::default(),
            ends: Vec::new(),
            probes: Probes::default(),
            channels: Channels::default(),
        })
    }

    fn run(&mut self) -> Outcome {
        let instances = self.plan.instances();
        let (version, pid, services) = (env!("CARGO_PKG_VERSION"), sys::process::id(), self.plan.services.len());
        log::info!("version {version}, pid {pid}: services {services}, instances {instances}");
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
        self.server.announce(self.journal.events().latest(), &self.poller);
        let timeout = self.timeout();
        if !self.is_settled && timeout.is_none_or(|timeout| timeout >= IDLE_AFTER) {
            self.is_settled = true;
            sys::memory::release_code_pages();
        }
        let signalled = self.wait(timeout);
        self.journal.counts_mut().turns += 1;
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
        self.take_turn(Part::Logging);
        self.journal.publish_coalesced(self.now);
        self.take_turn(Part::Server);
        self.probe();
        self.take_turn(Part::ConfigLoader);
        self.take_turn(Part::CloseQueue);
        self.notify.listen(&self.poller);
        self.happened(Event::Tick);
    }

    /// How long to wait; `None`: until something happens.
    fn timeout(&self) -> Option<Duration> {
        if self.budget == 0 || self.channels.is_busy() || self.subsystems().iter().any(|part| part.is_busy()) {
            return Some(Duration::ZERO);
        }
        let others = [self.until, self.search.due(self.children.count()), self.journal.due(), self.probes.due()];
        let due = self.subsystems().into_iter().filter_map(Subsystem::due).chain(others.into_iter().flatten()).min();
        due.map(|due| due.since(sys::now()))
    }

    fn subsystems(&self) -> [&dyn Subsystem; 4] {
        [&self.logging, &self.server, &self.config_loader, &self.close_queue]
    }

    fn take_turn(&mut self, part: Part) {
        let Self { plan, poller, journal, supervisor, logging, notify, channels, server, .. } = self;
        let mut context = Context { now: self.now, plan, poller, journal, supervisor };
        let events = match part {
            Part::Logging => logging.turn(&mut context, ()),
            Part::Server => server.turn(&mut context, Sources { logging, notify, channels }),
            Part::ConfigLoader => self.config_loader.turn(&mut context, ()),
            Part::CloseQueue => self.close_queue.turn(&mut context, ()),
        };
        for event in events {
            self.happened(event);
        }
    }

    /// The control server, and what it needs.
    fn server(&mut self) -> (&mut Server, Context<'_>, Sources<'_>) {
        let Self { plan, poller, journal, supervisor, logging, notify, channels, server, .. } = self;
        (server, Context { now: self.now, plan, poller, journal, supervisor }, Sources { logging, notify, channels })
    }

    /// Whether what makes many actions may come.
    fn has_capacity(&self) -> bool {
        subsystem::has_capacity(&self.supervisor)
    }

    fn listen_to_services(&mut self) {
        if self.notify.has_news() && self.has_capacity() {
            self.read_notifications();
        }
        for token in std::mem::take(&mut self.ends) {
            match token {
                Token::StoredFd(number) => self.store.on_end(number, &self.poller),
                Token::MainPidExited(pid) => self.on_successor_ended(pid),
                _ => {}
            }
        }
    }

    /// The one place that waits. Notes which pending_execs have come to something; whether signals are there to be taken.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        let mut signalled = false;
        self.logging.wait_for_room(&self.poller);
        self.notify.begin_turn();
        let ready = self.poller.wait(timeout).unwrap_or_default();
        for token in ready.iter().filter_map(|ready| Token::decode(ready.data())) {
            match token {
                Token::Signals => signalled = true,
                Token::ExecResult(pid) => self.started.push(pid),
                Token::LoggerExited | Token::LoggerWritable => self.logging.on_ready(token),
                Token::Notify => self.notify.is_ready(),
                Token::MainPidExited(_) | Token::StoredFd(_) => self.ends.push(token),
                Token::Probe(_) => self.probes.is_ready(token),
                Token::Channel(pid) => self.channels.is_ready(pid),
                Token::ControlListener | Token::HttpListener | Token::Client(_) => self.server.on_ready(token),
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
        self.supervisor.handle(self.now, event);
    }

    /// Does what is to be done, as far as the budget of this turn allows.
    fn act(&mut self) {
        while self.budget > 0 && self.outcome.is_none() {
            self.budget -= 1;
            match self.supervisor.poll() {
                Step::Wait { until } => {
                    self.budget += 1;
                    self.until = until;
                    return;
                }
                Step::Do(action) => self.perform(action),
            }
        }
    }

    /// The one place that matches on actions.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Exit(outcome) => self.outcome = Some(outcome),
            Action::Spawn { instance, restarts, definition } => self.spawn(instance, restarts, &definition),
            Action::LoadConfig { id } => {
                if let Some(failed) = self.config_loader.load(id, self.now) {
                    self.tell(failed);
                }
            }
            Action::WithdrawConfigLoad { id } => self.config_loader.withdraw(id),
            Action::CancelConfigLoad => self.config_loader.cancel(),
            Action::Adopt(plan) => self.adopt(&plan),
            Action::Farewell { pid } => self.channels.say_farewell(pid, &self.poller),
            Action::Signal { pid, scope, signal } => self.signal(pid, scope, signal),
            Action::SignalAll { signal } => self.signal_all(signal),
            Action::ReleaseInstance { instance } => self.release_instance(instance),
            Action::RemoveInstance { instance } => self.remove_instance(instance),
            Action::ReleaseService { service } => self.release_service(service),
            Action::PreferSockets { instance } => self.sockets.prefer_those_of(instance),
            Action::LogProbeFailure { pid } => self.probes.explain(pid),
            Action::JournalEntry(entry) => self.journal.record(&self.plan, entry),
            Action::Reply { id, result } => {
                let (server, context, sources) = self.server();
                server.reply(id, result, &context, sources);
            }
        }
    }

    /// From now on this is the plan.
    fn adopt(&mut self, plan: &Rc<Plan>) {
        let before = std::mem::replace(&mut self.plan, Rc::clone(plan));
        self.logging.adopt(plan, &self.poller);
        self.sockets.adopt(plan);
        self.sockets.release(plan, || self.children.living());
        config_loader::warn_about_fixed_keys(&before, plan);
    }

    /// It has come to rest.
    fn release_instance(&mut self, id: InstanceId) {
        self.sockets.release_instance(id);
        self.store.forget(id, &self.poller);
    }

    /// There is to be none of this name any more.
    fn remove_instance(&mut self, id: InstanceId) {
        self.logging.forget(id);
        self.notify.forget(id);
    }

    /// The configuration does not have it any more. When it returns it is a new one.
    fn release_service(&mut self, service: ServiceIndex) {
        self.states.forget(service);
        self.channels.forget(service);
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
