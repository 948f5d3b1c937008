//! The logger process and the log pipes, as seen by PID 1.
//!
//! PID 1 holds both ends of all pipes, so that they survive a crash of the logger, and restarts the logger.

mod backoff;
mod finish;
mod hold_up;
mod last_lines;
mod last_run;
mod logger_process;
mod pipes;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;

use crate::logs::channel;
use crate::logs::line::{KEEPALIVE_NAME, MessageStyle, Stream};
use crate::logs::logger::{COUNTERS_PER_SLOT, DROPPED_MESSAGES, FIRST_SLOT_COUNTER, REJECTED_CLIENTS};
use crate::logs::protocol::{LogsQuery, Message};
use crate::model::map::Map;
use crate::model::plan::{Hook, Limit, ListenMode, LogStyle, Output, Process, Service};
use crate::model::{InstanceId, Mono, Pid, Plan, RunId, errno};
use crate::runtime::journal::events::EventKind;
use crate::runtime::runs::RunSpec;
use crate::runtime::subsystem::{Context, Subsystem};
use crate::runtime::token::Token;
use crate::supervisor::Event;
use crate::sys::counters::SharedCounters;
use crate::sys::timer::Timer;
use crate::sys::{Interest, Poller, packet, process};
use backoff::Backoff;
use hold_up::HoldUp;
use pipes::{PipeFactory, Slot, target_of};

/// The number of slots: more than the configuration allows instances.
const MAX_SLOTS: usize = 1 << 16;
/// The maximum number of old pipes of each stream, if the descriptor limit allows it. Beyond that runs share a pipe.
const MAX_OLD_PIPES: u64 = 64;
/// The number of old pipes of each stream that the descriptor limit is raised for.
const MIN_OLD_PIPES: u64 = 4;
/// The number of descriptors that keepalive needs besides those of the instances.
const OTHER_DESCRIPTORS: u64 = 256;

/// The output of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Count {
    pub(in crate::runtime) lines: u64,
    pub(in crate::runtime) bytes: u64,
}

struct Running {
    pid: Pid,
    since: Mono,
    /// Reports end of file when the logger exits.
    liveness_fd: OwnedFd,
}

/// The time in which the logger reads what is left in a pipe.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// The socket to the logger, which outlives each logger process.
struct LoggerChannel {
    /// The end of the logger. Data that it has not read is left for the next logger.
    peer: OwnedFd,
    counters: &'static SharedCounters,
    /// Expires if a pipe holds up the logger; `None`: the system has no timers.
    timer: Option<Timer>,
}

/// An instance has a slot for its main processes, and one for each of its hooks, whose lines have a name of their own.
type SlotKey = (InstanceId, Option<Hook>);

#[expect(clippy::struct_excessive_bools, reason = "independent facts about the logger")]
pub(in crate::runtime) struct Logging {
    plan: Rc<Plan>,
    /// The style at the start of keepalive.
    style: LogStyle,
    /// `None`: no output goes through keepalive.
    logger_channel: Option<LoggerChannel>,
    slots: Map<SlotKey, Slot>,
    /// Slot numbers are not reused: they identify lines in the ring.
    next_slot: u32,
    pipe_factory: PipeFactory,
    /// The maximum number of old pipes of each stream.
    old_pipes: usize,
    running: Option<Running>,
    hold_up: HoldUp,
    backoff: Backoff,
    start_at: Option<Mono>,
    /// Why the last start has failed, which has been logged.
    start_error: Option<Errno>,
    restarts: u64,
    has_exited: bool,
    waits_for_room: bool,
    /// All processes have been sent SIGKILL, including the logger: do not restart it now.
    is_killing_all: bool,
    /// The original descriptor limits, which services get. keepalive has raised its own.
    original_limits: Option<(u64, u64)>,
    /// The logger may have sent last lines.
    has_answers: bool,
    /// Those that are gone, and whose pipes have not been read completely.
    forgotten: Vec<SlotKey>,
    /// Why a pipe could not be created; logged once.
    last_pipe_error: Option<Errno>,
    /// When old pipes may have been read completely.
    drained_at: Option<Mono>,
}

impl Subsystem for Logging {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.start_at.into_iter().chain(self.hold_up.due()).chain(self.drained_at).min()
    }

    fn on_ready(&mut self, token: Token) {
        self.has_exited |= token == Token::LoggerExited;
        self.has_answers |= token == Token::LoggerSocket;
        self.hold_up.has_expired |= token == Token::LoggerTimer;
    }

    /// Restarts the logger when it has exited, and replaces one that a pipe holds up.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        if std::mem::take(&mut self.has_answers) {
            self.receive_last_lines();
        }
        let slots = &mut self.slots;
        self.forgotten.retain(|instance| slots.get_mut(instance).is_some_and(Slot::has_undrained));
        if self.drained_at.is_some_and(|due| due <= context.now) {
            self.drained_at = None;
            self.slots.values_mut().for_each(Slot::close_drained);
        }
        let restarts = self.restarts;
        if std::mem::take(&mut self.has_exited) {
            self.on_exit(context.poller, context.now);
        }
        self.check_hold_up(context.poller, context.now);
        if self.start_at.is_some_and(|due| due <= context.now) {
            self.start(context.poller, context.now);
        }
        if self.restarts > restarts {
            context.journal.publish(EventKind::LoggerRestarted);
        }
        Vec::new()
    }
}

impl Logging {
    /// Starts the logger if the plan needs one. Where that is impossible outputs are inherited.
    pub(in crate::runtime) fn new(plan: Rc<Plan>, poller: &Poller, now: Mono) -> Self {
        channel::set_style(MessageStyle { style: plan.log, width: None });
        let mut logging = Self {
            style: plan.log,
            pipe_factory: PipeFactory::new(plan.log),
            plan,
            logger_channel: None,
            slots: Map::new(),
            next_slot: 0,
            old_pipes: 0,
            running: None,
            hold_up: HoldUp::default(),
            backoff: Backoff::new(),
            start_at: None,
            start_error: None,
            restarts: 0,
            has_exited: false,
            waits_for_room: false,
            is_killing_all: false,
            original_limits: None,
            has_answers: false,
            forgotten: Vec::new(),
            last_pipe_error: None,
            drained_at: None,
        };
        logging.begin(poller, now);
        logging
    }

    /// Applies a new plan. Changes of outputs take effect at the next start of a process.
    pub(in crate::runtime) fn apply_config(&mut self, plan: &Rc<Plan>, poller: &Poller, now: Mono) {
        self.plan = Rc::clone(plan);
        self.begin(poller, now);
    }

    /// Starts the logger if it is needed and not running.
    fn begin(&mut self, poller: &Poller, now: Mono) {
        if self.logger_channel.is_some() || !self.plan.captures_output() {
            return self.raise_descriptor_limit(self.instances());
        }
        match LoggerChannel::new(poller) {
            Ok(logger_channel) => {
                self.logger_channel = Some(logger_channel);
                channel::set_style(MessageStyle { style: self.style, width: longest_name(&self.plan) });
                self.raise_descriptor_limit(self.instances());
                self.start(poller, now);
            }
            Err(errno) => log::warn!("cannot start the logger: {}; output is inherited", errno::words(errno)),
        }
    }

    fn instances(&self) -> u64 {
        u64::from(self.plan.instances()).max(self.slots.len() as u64)
    }

    fn counter(&self, position: usize) -> u64 {
        let counter = self.logger_channel.as_ref().and_then(|logger_channel| logger_channel.counters.get(position));
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The process of the logger, which ends last.
    pub(in crate::runtime) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// The loggers that have been killed because a pipe held them up, and have not ended.
    pub(in crate::runtime) fn killed(&self) -> &[Pid] {
        self.hold_up.killed()
    }

    /// What services get in the place of the limit of descriptors that we have raised for ourselves.
    pub(in crate::runtime) fn limit_of_services(&self, of: &Process) -> Option<Limit> {
        let (soft, hard) = self.original_limits?;
        let is_set = of.limits.iter().any(|limit| limit.resource == process::RLIMIT_NOFILE);
        (!is_set).then_some(Limit {
            name: "nofile",
            resource: process::RLIMIT_NOFILE,
            soft: Some(soft),
            hard: Some(hard),
        })
    }

    /// Where stdout and stderr of a run go that go through the logger.
    pub(in crate::runtime) fn outputs(&mut self, run: RunId, spec: &RunSpec) -> [Option<BorrowedFd<'_>>; 2] {
        let RunSpec { instance, definition: service, .. } = spec;
        if self.logger_channel.is_none() || !service.process.captures_output() {
            return [None, None];
        }
        if let Err(errno) = self.ensure_pipes(run, spec)
            && self.last_pipe_error.replace(errno) != Some(errno)
        {
            log::warn!("cannot create a pipe for {}: {}; its output is inherited", service.name, errno::words(errno));
        }
        let pipes = self.slots.get(&(*instance, spec.hook)).map(|slot| &slot.pipes);
        let stderr = if self.pipe_factory.shares_pipe(&service.process) { 0 } else { 1 };
        [0, stderr].map(|stream| Some(pipes?.get(stream)?.as_ref()?.write_end.as_fd()))
    }

    /// Creates new pipes for each run, so that the next run does not continue its last line. If that fails, the current pipes
    /// are used again.
    fn ensure_pipes(&mut self, run: RunId, spec: &RunSpec) -> Result<(), Errno> {
        let (key, process) = ((spec.instance, spec.hook), &spec.definition.process);
        if !self.slots.contains_key(&key) {
            if self.next_slot as usize >= MAX_SLOTS {
                return Err(Errno::EMFILE);
            }
            self.slots.insert(key, Slot::new(self.next_slot));
            self.next_slot += 1;
            self.raise_descriptor_limit(self.instances());
        }
        let shares_pipe = self.pipe_factory.shares_pipe(process);
        let Some(slot) = self.slots.get_mut(&key) else { return Ok(()) };
        slot.latest_run = run;
        slot.close_drained();
        let mut result = Ok(());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let target = match stream {
                Stream::Stderr if shares_pipe => None,
                Stream::Stdout | Stream::Stderr => target_of(process, stream),
            };
            let Some(target) = target else {
                slot.retire(stream);
                continue;
            };
            if slot.has(stream) && (channel::is_congested() || slot.old(stream) >= self.old_pipes) {
                continue;
            }
            let copied = self.pipe_factory.make(slot, (stream, target), run, spec).and_then(|pipe| {
                let copy = self.running.as_ref().map(|_| pipe.read_end.try_clone()).transpose();
                copy.map(|copy| (pipe, copy)).map_err(|_| Errno::EMFILE)
            });
            match copied {
                Ok((pipe, copy)) => {
                    if copy.is_some() {
                        channel::send(Message::Pipe(pipe.source.clone()), copy);
                    }
                    slot.put(stream, pipe);
                }
                Err(_) if slot.has(stream) => {}
                Err(errno) => result = Err(errno),
            }
        }
        result
    }

    /// The process has exited: its output is written before later messages.
    pub(in crate::runtime) fn on_ended(&mut self, run: RunId, instance: InstanceId) {
        let mut hooks = Hook::ALL.into_iter().map(|hook| (instance, Some(hook)));
        let key = hooks.find(|key| self.slots.get(key).is_some_and(|slot| slot.latest_run == run));
        let key = key.unwrap_or((instance, None));
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.close_drained();
        channel::send(Message::RunEnded(slot.key_of(run)), None);
        if key.1.is_some() {
            self.retire(key);
        }
    }

    /// The last write ends of old pipes may have been closed, and the logger will have read them soon.
    pub(in crate::runtime) fn close_drained_soon(&mut self, now: Mono) {
        self.drained_at.get_or_insert(now + DRAIN_TIME);
    }

    /// All processes are sent SIGKILL, including the logger.
    pub(in crate::runtime) const fn on_kill_all(&mut self) {
        self.is_killing_all = true;
    }

    /// Watches the socket to the logger if messages wait for room.
    pub(in crate::runtime) fn watch_for_room(&mut self, poller: &Poller) {
        let waits = self.logger_channel.is_some() && channel::flush();
        if waits == self.waits_for_room {
            return;
        }
        self.waits_for_room = waits;
        let interest = if waits { Interest::Either } else { Interest::Input };
        channel::with_socket(|socket| poller.modify(socket, Token::LoggerSocket, interest).ok());
    }

    /// Raises the descriptor limit of keepalive to what `instances` need: for each stream both ends of a pipe and the old ones,
    /// and the other resources of the instances.
    fn raise_descriptor_limit(&mut self, instances: u64) {
        let (mut soft, hard) = process::descriptor_limits();
        let others = self.plan.services.iter().map(|service| descriptors_of(service)).sum::<u64>() + OTHER_DESCRIPTORS;
        let of_pipes = if self.logger_channel.is_some() { instances * 2 * (2 + MIN_OLD_PIPES) } else { 0 };
        let wanted = of_pipes + others;
        if wanted > soft && soft < hard && self.original_limits.is_none() && process::set_descriptor_limit(hard).is_ok()
        {
            self.original_limits = Some((soft, hard));
            soft = hard;
        }
        let of_stream = soft.saturating_sub(others) / (2 * instances.max(1));
        self.old_pipes = usize::try_from(of_stream.saturating_sub(2).min(MAX_OLD_PIPES)).unwrap_or(0);
    }
}

/// The number of descriptors that keepalive keeps for `service`: sockets, `state`, stored descriptors, ipc channels.
fn descriptors_of(Service { instances, process, .. }: &Service) -> u64 {
    let instances = u64::from(*instances);
    let for_each = u64::from(process.fd_store) + u64::from(process.state.is_some()) + u64::from(process.ipc);
    let sockets = process.listen.len() as u64;
    match process.listen_mode {
        ListenMode::Shared => sockets + instances * for_each,
        ListenMode::Reuseport => instances * (sockets + for_each),
    }
}

/// For the control server.
impl Logging {
    /// Whether a logger is running or about to be started.
    pub(in crate::runtime) const fn is_on(&self) -> bool {
        self.logger_channel.is_some()
    }

    /// Passes the connection of a client to the logger, which answers the request.
    ///
    /// # Errors
    /// There is no logger at the moment: returns the connection.
    pub(in crate::runtime) fn hand_over(&self, client: OwnedFd, query: LogsQuery) -> Result<(), OwnedFd> {
        if self.running.is_none() || channel::is_congested() {
            return Err(client);
        }
        channel::send(Message::Client(query), Some(client));
        Ok(())
    }

    /// The output of `instance` on stdout and stderr; zero for streams that do not go through the logger.
    pub(in crate::runtime) fn counts(&self, instance: InstanceId) -> [Count; 2] {
        let Some(slot) = self.slots.get(&(instance, None)) else { return [Count::default(); 2] };
        [0, 1].map(|stream| Count {
            lines: self.counter(slot_counter(slot.number, stream)),
            bytes: self.counter(slot_counter(slot.number, stream) + 1),
        })
    }

    /// The number of restarts of the logger.
    pub(in crate::runtime) const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The number of keepalive's own messages that were dropped.
    pub(in crate::runtime) fn dropped_lines(&self) -> u64 {
        channel::dropped_messages() + self.counter(DROPPED_MESSAGES)
    }

    /// The number of log clients that were rejected because there were too many.
    pub(in crate::runtime) fn refused_clients(&self) -> u64 {
        self.counter(REJECTED_CLIENTS)
    }

    /// The instance has been removed. Output in its pipes is still written. A new instance with the same name continues its
    /// counters.
    pub(in crate::runtime) fn forget(&mut self, instance: InstanceId) {
        self.retire((instance, None));
    }

    /// Nothing is about to write to the pipes of a slot.
    fn retire(&mut self, key: SlotKey) {
        if let Some(slot) = self.slots.get_mut(&key) {
            [Stream::Stdout, Stream::Stderr].into_iter().for_each(|stream| slot.retire(stream));
            self.forgotten.retain(|other| *other != key);
            self.forgotten.push(key);
        }
    }
}

impl LoggerChannel {
    fn new(poller: &Poller) -> Result<Self, Errno> {
        let timer = Timer::new().ok();
        let counters = SharedCounters::new(FIRST_SLOT_COUNTER + MAX_SLOTS * COUNTERS_PER_SLOT)?;
        let (near_end, peer) = packet::pair()?;
        poller.add(&near_end, Token::LoggerSocket)?;
        timer.iter().try_for_each(|timer| poller.add(timer, Token::LoggerTimer))?;
        channel::connect(near_end);
        Ok(Self { peer, counters: Box::leak(Box::new(counters)), timer })
    }
}

/// The position of the counter of lines. The counter of bytes follows it.
const fn slot_counter(slot: u32, stream: usize) -> usize {
    FIRST_SLOT_COUNTER + slot as usize * COUNTERS_PER_SLOT + stream * 2
}

/// The length of the longest name in front of lines; `None`: no lines have names.
fn longest_name(plan: &Plan) -> Option<usize> {
    let has_names = |service: &&Rc<Service>| [service.process.stdout, service.process.stderr].contains(&Output::Prefix);
    let name = |service: &Rc<Service>| format!("{}.{}", service.name, service.instances.saturating_sub(1)).len();
    plan.services.iter().filter(has_names).map(name).max().map(|width| width.max(KEEPALIVE_NAME.len()))
}
