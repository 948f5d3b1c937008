//! The event loop: the only place that waits, and the only one that performs actions.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::config_loader::LoadConfig;
use super::control::Server;
use super::control::snapshot::Sources;
use super::deaths::Reaped;
use super::ending::{Refused, refused};
use super::helpers::Helpers;
use super::inspector::Needs;
use super::ipc::Channels;
use super::journal::Journal;
use super::logging::Logging;
use super::notify::{Notify, NotifyContext};
use super::probe::Probes;
use super::process_factory::ProcessFactory;
use super::processes::Processes;
use super::resources::Resources;
use super::runs::RunSpec;
use super::signal_source::OnHangup;
use super::start::Start;
use super::subsystem::{self, Context, NextTurn, Subsystem as _};
use super::text::Counted;
use super::token::Token;
use super::turn::{Inputs, Part, Turn};
use crate::model::plan::{Health, Input};
use crate::model::{AwakeClock, InstanceId, Pid, Plan, RunId, Signal, StartStep};
use crate::supervisor::{Action, Event, Outcome, StateName, Step, Supervisor};
use crate::sys::wait::WaitOptions;
use crate::sys::{self, ChildEvent, Poller, SignalQueue, StringList};

/// The number of actions in one turn, so that new events are not delayed.
const MAX_ACTIONS_PER_TURN: u32 = 64;
/// The number of children reaped in one turn, so that other events are not delayed.
const MAX_DEATHS_PER_TURN: u32 = 256;
/// While more actions than this are pending for each instance, notify messages stay in the kernel, even those of processes
/// that have exited.
const MAX_PENDING_ACTIONS_AT_DEATH: usize = 64;

pub(super) struct Runtime {
    plan: Rc<Plan>,
    supervisor: Supervisor,
    processes: Processes,
    resources: Resources,
    logging: Logging,
    journal: Journal,
    server: Server,
    notify: Notify,
    probes: Probes,
    channels: Channels,
    helpers: Helpers,
    inputs: Inputs,
    turn: Turn,
}

impl Runtime {
    pub(super) fn new(
        plan: Rc<Plan>,
        environment: StringList,
        (config, load_config): (Option<PathBuf>, LoadConfig),
        on_hangup: OnHangup,
    ) -> Result<Self, Refused> {
        if !sys::process::is_init() {
            sys::process::become_subreaper().map_err(refused("become a subreaper"))?;
        }
        let queue = SignalQueue::new().map_err(refused("open a signal descriptor"))?;
        let poller = Poller::new().map_err(refused("open an epoll descriptor"))?;
        poller.add(queue.as_fd(), Token::Signals).map_err(refused("wait for signals"))?;
        let server = Server::new(&plan, config, &poller);
        let factory =
            ProcessFactory::new(environment, server.control_socket()).map_err(refused("replace /dev/null"))?;
        let has_terminal = plan.services.iter().any(|service| service.process.input == Input::Terminal);
        let wait_options = if has_terminal { WaitOptions::WithStops } else { WaitOptions::ExitsOnly };
        let processes = Processes::new(factory, wait_options).map_err(refused("open an event descriptor"))?;
        let clock = AwakeClock::new(sys::now());
        let logging = Logging::new(Rc::clone(&plan), &poller, clock.now());
        let resources = Resources::new(&plan);
        let helpers = Helpers::new(load_config, &plan, &poller, clock.now());
        Ok(Self {
            supervisor: Supervisor::new(Rc::clone(&plan), clock.now().as_nanos()),
            server,
            plan,
            processes,
            resources,
            logging,
            journal: Journal::new(clock.now()),
            notify: Notify::new(),
            probes: Probes::default(),
            channels: Channels::default(),
            helpers,
            inputs: Inputs::new(poller, queue, on_hangup),
            turn: Turn::new(clock),
        })
    }

    pub(super) fn run(&mut self) -> Result<Outcome, Refused> {
        let instances = self.plan.instances();
        let (version, pid, services) = (env!("CARGO_PKG_VERSION"), sys::process::id(), self.plan.services.len());
        let services = Counted(services as u64, "service", "services");
        let instances = Counted(instances.into(), "instance", "instances");
        log::info!("version {version}, pid {pid}: {services}, {instances}");
        if !sys::procfs::is_own() {
            log::warn!(
                "/proc is missing or foreign: CPU and memory are unknown, processes that leave their group are not found"
            );
        }
        self.send_event(Event::Boot);
        loop {
            self.turn.budget = MAX_ACTIONS_PER_TURN;
            self.act();
            if let Some(outcome) = self.turn.outcome.take() {
                return Ok(outcome);
            }
            self.turn()?;
        }
    }

    pub(super) fn plan(&self) -> Rc<Plan> {
        Rc::clone(&self.plan)
    }

    /// The shutdown is complete: sends what is left and closes what others can see. Returns the last lines of what has failed,
    /// and who uses its address.
    pub(super) fn end(&mut self, outcome: &Outcome) -> (String, Option<(String, String)>) {
        let (server, context, sources) = self.server();
        server.close(&context, sources);
        self.resources.sockets.close();
        self.notify.close_all();
        self.helpers.end(&mut self.resources, &self.logging, &self.inputs.poller);
        self.logging.finish(self.turn.now, self.journal.counts().shutdown_started_at);
        (self.logging.last_lines_of(&outcome.cause), self.helpers.inspector.take_port_owner())
    }

    /// Waits once, then lets each subsystem produce its events, and performs the actions that follow from them.
    ///
    /// The order matters: the success of an execve comes before the reports of the program, and the reports of a process are
    /// read before it is reaped.
    fn turn(&mut self) -> Result<(), Refused> {
        self.server.wake_followers(self.journal.events().latest(), self.turn.now, &self.inputs.poller);
        self.logging.watch_for_room(&self.inputs.poller);
        let timeout = self.timeout();
        if self.turn.may_settle(timeout) && !self.is_starting() {
            self.turn.is_settled = true;
            self.inputs.poller.release_code_pages_before_wait();
        }
        self.wait(timeout).map_err(refused("wait for events"))?;
        self.journal.counts_mut().turns += 1;
        for part in [Part::Processes, Part::FdStore, Part::Notify, Part::Channels] {
            self.take_turn(part);
        }
        let events = self.inputs.read(&self.supervisor, &mut self.processes.schedule);
        self.dispatch_all(events);
        self.reap();
        self.take_turn(Part::Logging);
        self.journal.publish_coalesced(&self.plan, self.turn.now);
        for part in [Part::Server, Part::Probes, Part::ConfigLoader, Part::CloseQueue, Part::Inspector, Part::Watchers]
        {
            self.take_turn(part);
        }
        self.dispatch(Event::Tick);
        self.turn.watch_memory();
        Ok(())
    }

    /// Whether a process has not executed its program yet, or is not ready yet.
    fn is_starting(&self) -> bool {
        let mut instances = self.supervisor.view().instances();
        self.processes.is_starting() || instances.any(|instance| instance.state == StateName::Starting)
    }

    fn timeout(&mut self) -> Option<Duration> {
        let has_questions = self.processes.has_orders()
            || self.processes.has_unsettled_exits(|run| self.notify.is_taken_from(run))
            || self.resources.sockets.has_in_use();
        let next = self.next_turn();
        if self.turn.budget == 0 || has_questions || next.is_busy {
            return Some(Duration::ZERO);
        }
        let calendar = self.inputs.set_calendar(&self.supervisor, self.turn.now);
        let due = [next.due, self.turn.until, self.journal.due(), self.resources.sockets.helpers.due(), calendar];
        due.into_iter().flatten().min().map(|due| self.turn.time_until(due))
    }

    fn next_turn(&self) -> NextTurn {
        let Self { processes, notify, resources, channels, logging, server, probes, helpers, .. } = self;
        let first = NextTurn::default().with(processes).with(notify).with(&resources.fds).with(channels);
        helpers.next_turn(first.with(logging).with(server).with(probes))
    }

    /// The only place that waits. Passes each token that is ready to its subsystem.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        self.inputs.signals.begin_turn();
        let ready = self.inputs.poller.wait(timeout)?;
        for token in ready.iter().filter_map(|ready| Token::decode(ready.data())) {
            match token {
                Token::Signals => self.inputs.signals.on_ready(),
                Token::WallTimer => self.inputs.calendar.on_ready(),
                Token::ExecResult(_) | Token::HelperExecResult | Token::MainPidExited(_) | Token::OomCounter => {
                    self.processes.on_ready(token);
                }
                Token::LoggerExited | Token::LoggerSocket | Token::LoggerTimer => self.logging.on_ready(token),
                Token::Notify(_) => self.notify.on_ready(token),
                Token::DescriptorHolder(_) => self.resources.fds.on_ready(token),
                Token::Probe(_) | Token::Check(_) => self.probes.on_ready(token),
                Token::Channel(_) => self.channels.on_ready(token),
                Token::Inspector(_) | Token::Holder | Token::Watcher(_) => self.helpers.on_ready(token),
                Token::ControlListener | Token::HttpListener | Token::Client(_) => {
                    self.turn.is_settled = false;
                    self.server.on_ready(token);
                }
            }
        }
        self.turn.on_wake(&self.inputs.poller, timeout);
        Ok(())
    }

    fn take_turn(&mut self, part: Part) {
        let Self { plan, supervisor, journal, processes, resources, logging, notify, probes, channels, .. } = self;
        let (server, poller) = (&mut self.server, &self.inputs.poller);
        let Helpers { config_loader, close_queue, inspector, watchers } = &mut self.helpers;
        let mut context = Context { now: self.turn.now, clock: self.turn.clock, plan, poller, journal, supervisor };
        let mut exits = Vec::new();
        let events = match part {
            Part::Processes => processes.turn(&mut context, ()),
            Part::Notify => notify.turn(&mut context, (processes, &mut resources.fds)),
            Part::FdStore => resources.fds.turn(&mut context, ()),
            Part::Channels => channels.turn(&mut context, ()),
            Part::Logging => logging.turn(&mut context, ()),
            Part::Server => server.turn(&mut context, Sources { logging, notify, channels, probes, processes }),
            Part::Probes => probes.turn(&mut context, (&mut processes.factory, logging, close_queue)),
            Part::ConfigLoader => config_loader.turn(&mut context, ()),
            Part::CloseQueue => close_queue.turn(&mut context, logging),
            Part::Watchers => watchers.turn(&mut context, ()),
            Part::Inspector => {
                let needs = Needs { processes, sockets: &mut resources.sockets, server };
                let events = inspector.turn(&mut context, needs);
                for (question, answer) in inspector.take_strays() {
                    exits.extend(processes.on_answer(&question, answer.as_deref()));
                }
                if let Some(answer) = inspector.take_usage() {
                    let sources = Sources { logging, notify, channels, probes, processes };
                    server.on_measured(answer.as_deref(), &context, sources);
                }
                events
            }
        };
        self.dispatch_all(exits);
        self.dispatch_all(events);
    }

    fn server(&mut self) -> (&mut Server, Context<'_>, Sources<'_>) {
        let Self { plan, supervisor, journal, processes, logging, notify, channels, probes, server, inputs, .. } = self;
        let context =
            Context { now: self.turn.now, clock: self.turn.clock, plan, poller: &inputs.poller, journal, supervisor };
        (server, context, Sources { logging, notify, channels, probes, processes })
    }

    /// Finds and reaps children that have exited, at most [`MAX_DEATHS_PER_TURN`].
    fn reap(&mut self) {
        if let Some(child) = self.processes.peek_named() {
            self.on_child_event(child);
        }
        if !self.processes.is_scan_due(self.turn.now) {
            return self.settle_exits();
        }
        for _ in 0..MAX_DEATHS_PER_TURN {
            let event = self.processes.peek(self.turn.now);
            self.on_child_event(event);
            if matches!(event, ChildEvent::Nothing | ChildEvent::NoChildren) {
                self.settle_exits();
                return self.end_scan(event);
            }
        }
        self.settle_exits();
    }

    /// Reports exits whose messages have been read, or lets an inspector look for strays first.
    fn settle_exits(&mut self) {
        let Self { processes, logging, resources, helpers, notify, .. } = self;
        let events = processes.settle_exits(|run| notify.is_taken_from(run), || helpers.pids(logging, resources));
        self.dispatch_all(events);
    }

    /// No further child has exited, or there are no children.
    fn end_scan(&mut self, last: ChildEvent) {
        let ended = self.processes.take_ended();
        self.dispatch_all(ended);
        if last == ChildEvent::NoChildren {
            self.dispatch(Event::NoChildren);
        } else {
            let helpers = self.helpers.pids(&self.logging, &self.resources);
            self.processes.sweep_again(&helpers);
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

    /// A child has exited and has not been reaped. Its notify messages are read first: its exit is reported after them.
    fn on_dead(&mut self, pid: Pid) {
        let run = self.processes.runs.of_pid(pid).map(|run| run.id);
        if let Some(run) = run
            && subsystem::has_backlog_below(&self.supervisor, MAX_PENDING_ACTIONS_AT_DEATH)
        {
            let mut others = NotifyContext {
                processes: &mut self.processes,
                fds: &mut self.resources.fds,
                clock: self.turn.clock,
                poller: &self.inputs.poller,
            };
            let events = self.notify.read_all(run, &mut others);
            self.dispatch_all(events);
        }
        let events = match self.processes.runs.of_main(pid).map(|run| run.id) {
            Some(run) => self.processes.reap_main(run, &self.inputs.poller),
            None => self.reap_other(pid),
        };
        self.dispatch_all(events);
    }

    /// Reaps a child that is no main process: a helper of a subsystem, a former main process, or an orphan.
    fn reap_other(&mut self, pid: Pid) -> Vec<Event> {
        if let Some(events) = self.helpers.config_loader.on_dead(pid, &self.plan, self.turn.now) {
            if let Some((id, warnings)) = self.helpers.config_loader.take_warnings() {
                self.server.warn(id, warnings);
            }
            return events;
        }
        if self.helpers.close_queue.on_dead(pid, self.turn.now) || self.channels.on_dead(pid, &self.inputs.poller) {
            return Vec::new();
        }
        let (factory, poller) = (&mut self.processes.factory, &self.inputs.poller);
        if let Some(events) = self.probes.on_helper_dead(pid, factory, poller, self.turn.now) {
            return events;
        }
        match self.processes.reap_other(pid, &self.inputs.poller) {
            Reaped::Orphan => {
                self.journal.on_orphan_reaped(pid);
                Vec::new()
            }
            Reaped::Former(event) => event.into_iter().collect(),
        }
    }

    /// Sends the supervisor an event, and performs the actions that follow.
    fn dispatch(&mut self, event: Event) {
        self.send_event(event);
        self.act();
    }

    fn dispatch_all(&mut self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.dispatch(event));
    }

    /// Sends the supervisor an event that answers the action that [`Self::act`] is performing.
    fn send_event(&mut self, event: Event) {
        if let Event::Executed { run } = event
            && let Some(run) = self.processes.runs.get(run).filter(|run| run.spec.hook.is_none())
        {
            self.journal.on_executed(run.spec.instance, self.turn.now);
        }
        if let Event::ExecFailed { run, failure } = event
            && failure.step == StartStep::Stored
            && let Some(run) = self.processes.runs.get(run)
        {
            self.resources.fds.distrust(run.spec.instance);
        }
        self.supervisor.handle(self.turn.now, event);
    }

    /// Performs the pending actions, within the budget of this turn.
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

    /// The only place that matches on actions.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { run, instance, hook, ended, restarts, instances, definition } => {
                self.spawn(run, RunSpec::new((instance.slot(), hook, ended), restarts, instances, definition));
            }
            Action::StartProbe { run } => self.start_probe(run, None),
            Action::AbortProbe { run } => self.probes.stop(run, &self.inputs.poller),
            Action::StartCheck { run, health } => self.start_probe(run, Some(health)),
            Action::MeasureMemory => self.helpers.inspector.measure_memory(),
            Action::AbortCheck { run } => self.probes.stop_check(run, &self.inputs.poller),
            Action::ReleaseRun { run, instance } => self.release_run(run, instance.slot()),
            Action::AnnounceStop { run } => self.channels.announce_stop(run, &self.inputs.poller),
            Action::Signal { run, scope, signal } => self.processes.signal(run, scope, signal),
            Action::SignalAll { signal } => self.signal_all(signal),
            Action::LoadConfig { id } => {
                if let Some(failed) = self.helpers.config_loader.load(id, self.turn.now) {
                    self.send_event(failed);
                }
            }
            Action::WithdrawConfigLoad { id } => self.helpers.config_loader.withdraw(id),
            Action::CancelConfigLoad => self.helpers.config_loader.cancel(),
            Action::ApplyConfig(plan) => self.apply_config(&plan),
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
            Action::WriteJournal(entry) => self.journal.record(&self.plan, self.logging.on_entry(&entry), entry),
            Action::Reply { id, result } => {
                let (server, context, sources) = self.server();
                server.reply(id, result, &context, sources);
            }
            Action::Exit(outcome) => self.turn.outcome = Some(outcome),
        }
    }

    fn spawn(&mut self, run: RunId, spec: RunSpec) {
        let events = Start {
            processes: &mut self.processes,
            resources: &mut self.resources,
            logging: &mut self.logging,
            notify: &mut self.notify,
            probes: &mut self.probes,
            channels: &mut self.channels,
            close_queue: &self.helpers.close_queue,
            poller: &self.inputs.poller,
            now: self.turn.now,
        }
        .start(run, spec);
        self.server.port_owners.is_looking |= self.resources.sockets.has_in_use();
        self.turn.on_started();
        events.into_iter().for_each(|event| self.send_event(event));
    }

    fn start_probe(&mut self, run: RunId, health: Option<Rc<Health>>) {
        if let Some(run) = self.processes.runs.get(run) {
            self.probes.start(run.id, run.spec.clone(), health, &self.inputs.poller, self.turn.now);
        }
    }

    /// The main process of a run has exited.
    fn release_run(&mut self, run: RunId, instance: InstanceId) {
        self.probes.stop(run, &self.inputs.poller);
        self.channels.on_ended(run, &self.inputs.poller);
        self.logging.on_ended(run, instance);
        self.notify.on_ended(run, instance, &self.inputs.poller);
        self.resources.release_sockets(&self.plan, &self.processes.runs);
    }

    fn release_instance(&mut self, id: InstanceId) {
        self.resources.sockets.release_instance(id);
        self.resources.fds.forget(id, self.turn.now);
    }

    fn apply_config(&mut self, plan: &Rc<Plan>) {
        self.plan = Rc::clone(plan);
        self.logging.apply_config(plan, &self.inputs.poller, self.turn.now);
        self.helpers.watchers.apply_config(plan, &self.inputs.poller, self.turn.now);
        self.resources.sockets.apply_config(plan);
        self.resources.release_sockets(plan, &self.processes.runs);
    }

    fn signal_all(&mut self, signal: Signal) {
        if signal == Signal::KILL && sys::process::is_init() {
            self.logging.on_kill_all();
        }
        if !self.processes.signal_all(signal, &self.helpers.pids(&self.logging, &self.resources)) {
            self.send_event(Event::NoChildren);
        }
    }
}
