//! Does. The one loop: what becomes readable is made an event, what the supervisor decides is made to happen.
//!
//! This room does not decide anything about services. Nothing in it waits but `Runtime::wait`, and nothing in it may take
//! long: whatever comes in large numbers is worked off in bounded batches, with a look at everything else in between.
//!
//! Start with [`run`], then `Runtime::turn` for what happens in which order and `Runtime::act` for what each action does.
//! What is known of a process stands in `runs`; each part of the loop that owns state is a `Subsystem`.

mod by_instance;
mod child_pipes;
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
mod json;
mod kills;
mod logging;
mod notify;
mod oom;
mod probe;
mod process_factory;
mod processes;
mod rate_limited_log;
mod reap_scheduler;
mod resources;
mod runs;
mod signal_source;
mod sockets;
mod start;
mod state;
mod subsystem;
mod text;
mod token;
mod turn;
mod wording;

use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use crate::model::exit_code::OS_ERROR;
use crate::model::plan::Input;
use crate::model::{InstanceId, Pid, Plan, RunId, Signal, errno};
use crate::supervisor::{Action, Event, Outcome, Step, Supervisor};
use crate::sys::wait::WaitOptions;
use crate::sys::{self, ChildEvent, DispositionReset, Poller, SignalQueue, SpawnMode, StringList, signals};
use close_queue::CloseQueue;
use config_loader::ConfigLoader;
pub use config_loader::LoadConfig;
use control::Server;
use control::snapshot::Sources;
use deaths::Reaped;
use ipc::Channels;
use journal::Journal;
use logging::Logging;
use notify::Notify;
use probe::Probes;
use process_factory::ProcessFactory;
use processes::Processes;
use resources::Resources;
use runs::RunSpec;
use signal_source::{OnHangup, SignalSource};
use start::Start;
use subsystem::{Context, Subsystem};
use token::Token;
use turn::{Inputs, Part, Turn};

/// So many actions are done before everything that has happened meanwhile is looked at.
const MAX_ACTIONS_PER_TURN: u32 = 64;
/// So many dead children are reaped before everything else is looked at.
const MAX_DEATHS_PER_TURN: u32 = 256;
/// While more actions than this wait for each instance, what services report stays with the kernel, even the last of it.
const MAX_PENDING_ACTIONS_AT_DEATH: usize = 64;
/// A loop that waits so long has nothing to do.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Runs the service set until it ends, and gives the exit code.
///
/// `environment` is what keepalive was started with, `NAME=value` each. `load_config` reads the configuration again.
#[must_use]
pub fn run(plan: Plan, environment: StringList, load_config: LoadConfig) -> u8 {
    let plan = Rc::new(plan);
    let inherited = signals::block_all(DispositionReset::All);
    sys::process::set_cloexec_on_inherited_fds();
    let on_hangup = if inherited.ignored.contains(Signal::HUP) { OnHangup::Ignore } else { OnHangup::Stop };
    let outcome = match Runtime::new(Rc::clone(&plan), environment, load_config, on_hangup) {
        Ok(mut runtime) => {
            let outcome = runtime.run();
            let (server, context, sources) = runtime.server();
            server.close(&context, sources);
            runtime.resources.sockets.close();
            runtime.logging.finish(runtime.journal.counts().stop_begun);
            outcome
        }
        Err(Refused { operation, errno }) => {
            let reason = format!("cannot {operation}: {}", errno::words(errno));
            ending::report(&plan, &reason);
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
    supervisor: Supervisor,
    processes: Processes,
    resources: Resources,
    logging: Logging,
    config_loader: ConfigLoader,
    close_queue: CloseQueue,
    journal: Journal,
    server: Server,
    notify: Notify,
    probes: Probes,
    channels: Channels,
    inputs: Inputs,
    turn: Turn,
}

impl Runtime {
    fn new(
        plan: Rc<Plan>,
        environment: StringList,
        load_config: LoadConfig,
        on_hangup: OnHangup,
    ) -> Result<Self, Refused> {
        if !sys::process::is_init() {
            sys::process::become_subreaper().map_err(refused("become a subreaper"))?;
        }
        let queue = SignalQueue::new().map_err(refused("open a signal descriptor"))?;
        let poller = Poller::new().map_err(refused("open an epoll descriptor"))?;
        poller.add(queue.as_fd(), Token::Signals).map_err(refused("wait for signals"))?;
        let spawn_mode = if sys::spawn::mounts_can_hang() { SpawnMode::Fork } else { SpawnMode::Vfork };
        let factory = ProcessFactory::new(environment, spawn_mode).map_err(refused("open /dev/null"))?;
        let has_terminal = plan.services.iter().any(|service| service.process.input == Input::Terminal);
        let wait_options = if has_terminal { WaitOptions::WithStops } else { WaitOptions::ExitsOnly };
        let processes = Processes::new(factory, wait_options).map_err(refused("open an event descriptor"))?;
        let now = sys::now();
        let logging = Logging::new(Rc::clone(&plan), &poller);
        let resources = Resources::new(&plan);
        Ok(Self {
            supervisor: Supervisor::new(Rc::clone(&plan), now.as_nanos()),
            server: Server::new(&plan.control, plan.http, &poller),
            plan,
            processes,
            resources,
            logging,
            config_loader: ConfigLoader::new(load_config),
            close_queue: CloseQueue::default(),
            journal: Journal::new(now),
            notify: Notify::default(),
            probes: Probes::default(),
            channels: Channels::default(),
            inputs: Inputs { poller, signals: SignalSource::new(queue, on_hangup) },
            turn: Turn { now, budget: 0, until: None, outcome: None, is_settled: false },
        })
    }

    fn run(&mut self) -> Outcome {
        let instances = self.plan.instances();
        let (version, pid, services) = (env!("CARGO_PKG_VERSION"), sys::process::id(), self.plan.services.len());
        let services = text::Counted(services as u64, "service", "services");
        let instances = text::Counted(instances.into(), "instance", "instances");
        log::info!("version {version}, pid {pid}: {services}, {instances}");
        self.send_event(Event::Boot);
        loop {
            self.turn.budget = MAX_ACTIONS_PER_TURN;
            self.act();
            if let Some(outcome) = self.turn.outcome.take() {
                return outcome;
            }
            self.turn();
        }
    }

    /// Waits once, takes in what has happened, does at once what follows from it. The order has its reasons: an execve that
    /// has succeeded comes before anything that its program reports, and what processes have reported is read before they
    /// are reaped.
    fn turn(&mut self) {
        self.server.announce(self.journal.events().latest(), &self.inputs.poller);
        let timeout = self.timeout();
        if !self.turn.is_settled && timeout.is_none_or(|timeout| timeout >= IDLE_AFTER) {
            self.turn.is_settled = true;
            sys::memory::release_code_pages();
        }
        self.wait(timeout);
        self.journal.counts_mut().turns += 1;
        for part in [Part::Processes, Part::Notify, Part::FdStore, Part::Channels] {
            self.take_turn(part);
        }
        if self.has_capacity() {
            let events = self.inputs.signals.read(&mut self.processes.schedule);
            self.dispatch_all(events);
        }
        self.reap();
        self.take_turn(Part::Logging);
        self.journal.publish_coalesced(self.turn.now);
        for part in [Part::Server, Part::Probes, Part::ConfigLoader, Part::CloseQueue] {
            self.take_turn(part);
        }
        self.notify.update_interest(&self.inputs.poller);
        self.dispatch(Event::Tick);
    }

    /// How long to wait; `None`: until something happens.
    fn timeout(&self) -> Option<Duration> {
        if self.turn.budget == 0 || self.subsystems().iter().any(|part| part.is_busy()) {
            return Some(Duration::ZERO);
        }
        let others = [self.turn.until, self.journal.due()];
        let due = self.subsystems().into_iter().filter_map(Subsystem::due).chain(others.into_iter().flatten()).min();
        due.map(|due| due.since(sys::now()))
    }

    fn subsystems(&self) -> [&dyn Subsystem; 9] {
        let Self { processes, notify, resources, channels, logging, server, probes, config_loader, .. } = self;
        [processes, notify, &resources.fds, channels, logging, server, probes, config_loader, &self.close_queue]
    }

    /// The one place that waits. What is ready is noted by its subsystem, which sees to it in its turn.
    fn wait(&mut self, timeout: Option<Duration>) {
        self.logging.wait_for_room(&self.inputs.poller);
        self.notify.begin_turn();
        self.inputs.signals.begin_turn();
        let ready = self.inputs.poller.wait(timeout).unwrap_or_default();
        for token in ready.iter().filter_map(|ready| Token::decode(ready.data())) {
            match token {
                Token::Signals => self.inputs.signals.on_ready(),
                Token::ExecResult(_) | Token::MainPidExited(_) => self.processes.on_ready(token),
                Token::LoggerExited | Token::LoggerWritable => self.logging.on_ready(token),
                Token::Notify => self.notify.on_ready(token),
                Token::StoredFd(_) => self.resources.fds.on_ready(token),
                Token::Probe(_) => self.probes.on_ready(token),
                Token::Channel(_) => self.channels.on_ready(token),
                Token::ControlListener | Token::HttpListener | Token::Client(_) => self.server.on_ready(token),
            }
        }
        self.turn.now = sys::now();
    }

    fn take_turn(&mut self, part: Part) {
        let Self { plan, supervisor, journal, processes, resources, logging, notify, probes, channels, .. } = self;
        let (server, close_queue, poller) = (&mut self.server, &mut self.close_queue, &self.inputs.poller);
        let mut context = Context { now: self.turn.now, plan, poller, journal, supervisor };
        let events = match part {
            Part::Processes => processes.turn(&mut context, ()),
            Part::Notify => notify.turn(&mut context, (processes, &mut resources.fds)),
            Part::FdStore => resources.fds.turn(&mut context, ()),
            Part::Channels => channels.turn(&mut context, ()),
            Part::Logging => logging.turn(&mut context, ()),
            Part::Server => server.turn(&mut context, Sources { logging, notify, channels }),
            Part::Probes => probes.turn(&mut context, (&mut processes.factory, logging)),
            Part::ConfigLoader => self.config_loader.turn(&mut context, ()),
            Part::CloseQueue => close_queue.turn(&mut context, ()),
        };
        self.dispatch_all(events);
    }

    /// The control server, and what it needs.
    fn server(&mut self) -> (&mut Server, Context<'_>, Sources<'_>) {
        let Self { plan, supervisor, journal, logging, notify, channels, server, inputs, .. } = self;
        let context = Context { now: self.turn.now, plan, poller: &inputs.poller, journal, supervisor };
        (server, context, Sources { logging, notify, channels })
    }

    /// Whether the supervisor may be given what makes many actions.
    fn has_capacity(&self) -> bool {
        subsystem::has_capacity(&self.supervisor)
    }

    /// Finds dead children, as many as one turn allows.
    fn reap(&mut self) {
        if let Some(child) = self.processes.peek_named() {
            self.on_child_event(child);
        }
        if !self.processes.is_scan_due(self.turn.now) {
            return;
        }
        for _ in 0..MAX_DEATHS_PER_TURN {
            let event = self.processes.peek(self.turn.now);
            self.on_child_event(event);
            if matches!(event, ChildEvent::Nothing | ChildEvent::NoChildren) {
                return self.end_scan(event);
            }
        }
    }

    /// No child is dead any more, or there is none.
    fn end_scan(&mut self, last: ChildEvent) {
        let ended = self.processes.take_ended();
        self.dispatch_all(ended);
        if last == ChildEvent::NoChildren {
            self.dispatch(Event::NoChildren);
        } else {
            self.processes.sweep_again(self.logging.pid());
        }
    }

    fn on_child_event(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Dead(pid) => self.on_dead(pid),
            ChildEvent::Stopped(pid, signal) => {
                if self.processes.on_stopped(pid, signal) {
                    self.inputs.signals.on_continued();
                }
            }
            ChildEvent::Nothing | ChildEvent::NoChildren => {}
        }
    }

    /// A child has ended and has not been reaped. What it has reported is read first: its pid says who it was.
    fn on_dead(&mut self, pid: Pid) {
        if subsystem::has_backlog_below(&self.supervisor, MAX_PENDING_ACTIONS_AT_DEATH) {
            let events = self.notify.read(
                self.turn.now,
                &mut notify::World {
                    processes: &mut self.processes,
                    fds: &mut self.resources.fds,
                    poller: &self.inputs.poller,
                },
            );
            self.dispatch_all(events);
        }
        let events = match self.processes.runs.of_main(pid).map(|run| run.id) {
            Some(run) => self.processes.reap_main(run, &self.inputs.poller),
            None => self.reap_other(pid),
        };
        self.dispatch_all(events);
    }

    /// A dead child that is no main process: a helper of a subsystem, a former main process, or an orphan.
    fn reap_other(&mut self, pid: Pid) -> Vec<Event> {
        if let Some(events) = self.config_loader.on_dead(pid, &self.plan, self.turn.now) {
            return events;
        }
        if self.close_queue.on_dead(pid) {
            return Vec::new();
        }
        if let Some(events) = self.probes.on_helper_dead(pid, &self.inputs.poller, self.turn.now) {
            return events;
        }
        match self.processes.reap_other(pid, &self.inputs.poller) {
            Reaped::Orphan => {
                self.journal.on_orphan_reaped();
                log::debug!("reaped orphaned process {pid}, {} in total", self.journal.counts().orphans);
                Vec::new()
            }
            Reaped::Former(event) => event.into_iter().collect(),
        }
    }

    /// Sends the supervisor an event, and does at once what follows.
    fn dispatch(&mut self, event: Event) {
        self.send_event(event);
        self.act();
    }

    fn dispatch_all(&mut self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.dispatch(event));
    }

    /// Only sends the supervisor an event: the answer to one of its actions, which [`Self::act`] is doing.
    fn send_event(&mut self, event: Event) {
        if let Event::Executed { run } = event
            && let Some(run) = self.processes.runs.get(run)
        {
            self.journal.on_executed(run.spec.instance, self.turn.now);
        }
        self.supervisor.handle(self.turn.now, event);
    }

    /// Does what is to be done, as far as the budget of this turn allows.
    fn act(&mut self) {
        while self.turn.budget > 0 && self.turn.outcome.is_none() {
            match self.supervisor.poll() {
                Step::Wait { until } => {
                    self.turn.until = until;
                    return;
                }
                Step::Do(action) => {
                    self.turn.budget -= 1;
                    self.perform(action);
                }
            }
        }
    }

    /// The one place that matches on actions.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { run, instance, restarts, definition } => {
                self.spawn(run, RunSpec { instance: instance.slot(), restarts, definition });
            }
            Action::StartProbe { run } => self.start_probe(run),
            Action::GiveUpProbe { run } => self.probes.give_up(run, &self.inputs.poller),
            Action::ReleaseRun { run, instance } => self.release_run(run, instance.slot()),
            Action::AnnounceStop { run } => self.channels.announce_stop(run, &self.inputs.poller),
            Action::Signal { run, scope, signal } => self.processes.signal(run, scope, signal),
            Action::SignalAll { signal } => self.signal_all(signal),
            Action::LoadConfig { id } => {
                if let Some(failed) = self.config_loader.load(id, self.turn.now) {
                    self.send_event(failed);
                }
            }
            Action::WithdrawConfigLoad { id } => self.config_loader.withdraw(id),
            Action::CancelConfigLoad => self.config_loader.cancel(),
            Action::Adopt(plan) => self.adopt(&plan),
            Action::ReleaseInstance { instance } => self.release_instance(instance),
            Action::RemoveInstance { instance } => {
                self.logging.forget(instance);
                self.notify.forget(instance);
            }
            Action::ReleaseService { service } => {
                self.resources.states.forget(service);
                self.channels.forget(service);
            }
            Action::PreferSockets { instance } => self.resources.sockets.prefer_those_of(instance.slot()),
            Action::JournalEntry(entry) => self.journal.record(&self.plan, entry),
            Action::Reply { id, result } => {
                let (server, context, sources) = self.server();
                server.reply(id, result, &context, sources);
            }
            Action::Exit(outcome) => self.turn.outcome = Some(outcome),
        }
    }

    fn spawn(&mut self, run: RunId, spec: RunSpec) {
        let start = Start {
            processes: &mut self.processes,
            resources: &mut self.resources,
            logging: &mut self.logging,
            notify: &mut self.notify,
            probes: &mut self.probes,
            channels: &mut self.channels,
            poller: &self.inputs.poller,
        };
        let events = start.start(run, spec);
        self.turn.now = sys::now();
        events.into_iter().for_each(|event| self.send_event(event));
    }

    fn start_probe(&mut self, run: RunId) {
        if let Some(run) = self.processes.runs.get(run) {
            self.probes.start(run.id, run.spec.clone(), self.turn.now);
        }
    }

    /// The main process of a run has ended.
    fn release_run(&mut self, run: RunId, instance: InstanceId) {
        self.probes.forget(run, &self.inputs.poller);
        self.channels.on_ended(run, &self.inputs.poller);
        self.logging.on_ended(instance);
        self.notify.on_ended(run, instance);
        self.resources.release_sockets(&self.plan, &self.processes.runs);
    }

    /// It has come to rest.
    fn release_instance(&mut self, id: InstanceId) {
        self.resources.sockets.release_instance(id);
        self.resources.fds.forget(id, &self.inputs.poller);
    }

    /// From now on this is the plan.
    fn adopt(&mut self, plan: &Rc<Plan>) {
        let before = std::mem::replace(&mut self.plan, Rc::clone(plan));
        self.logging.adopt(plan, &self.inputs.poller);
        self.resources.sockets.adopt(plan);
        self.resources.release_sockets(plan, &self.processes.runs);
        config_loader::warn_about_fixed_keys(&before, plan);
    }

    fn signal_all(&mut self, signal: Signal) {
        if signal == Signal::KILL && sys::process::is_init() {
            self.logging.on_kill_all();
        }
        if !self.processes.signal_all(signal, self.logging.pid()) {
            self.send_event(Event::NoChildren);
        }
    }
}
