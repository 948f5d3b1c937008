//! The logger as PID 1 has it: the pipes of all instances, both ends, so that none breaks when the logger does; and the
//! logger's own life.

mod backoff;
mod finish;
mod pipes;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::logs::channel;
use crate::logs::line::{Colour, KEEPALIVE_NAME, MessageStyle, Stream};
use crate::logs::logger::{
    self, COUNTERS_PER_SLOT, DROPPED_MESSAGES, FIRST_SLOT_COUNTER, LoggerArgs, REJECTED_CLIENTS,
};
use crate::logs::protocol::{LogsQuery, Message};
use crate::model::map::Map;
use crate::model::plan::{Limit, ListenMode, LogStyle, Process, Service};
use crate::model::{ExitStatus, InstanceId, Mono, Pid, Plan, errno};
use crate::runtime::journal::events::What;
use crate::runtime::subsystem::{Context, Subsystem};
use crate::runtime::token::Token;
use crate::supervisor::Event;
use crate::sys::counters::SharedCounters;
use crate::sys::fork::{self, ForkResult};
use crate::sys::{self, Poller, packet, pipe, process, wait};
use backoff::{Backoff, FIRST_DELAY};
use pipes::{Maker, Slot};

/// More slots than the configuration allows instances.
const MAX_SLOTS: usize = 1 << 16;
/// So many old pipes are kept of each stream at most, where we may have so many descriptors. What is read later than that,
/// or leaves more processes behind that keep them open, shares a pipe.
const OLD_PIPES: u64 = 64;
/// And so many at least, if that is permitted.
const OLD_PIPES_WANTED: u64 = 4;
/// What keepalive needs besides the descriptors of each instance.
const OTHER_DESCRIPTORS: u64 = 256;

/// What went through one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Count {
    pub(in crate::runtime) lines: u64,
    pub(in crate::runtime) bytes: u64,
}

struct Running {
    pid: Pid,
    since: Mono,
    /// Closed by its end.
    liveness_fd: OwnedFd,
}

/// The way to a logger, which outlives each logger.
struct LoggerChannel {
    /// The logger's end of the socket: what it has not read yet waits for the next one.
    peer: OwnedFd,
    counters: &'static SharedCounters,
}

pub(in crate::runtime) struct Logging {
    plan: Rc<Plan>,
    /// As it was when keepalive was started.
    style: LogStyle,
    /// `None`: no output goes through keepalive.
    way: Option<LoggerChannel>,
    slots: Map<InstanceId, Slot>,
    /// Numbers of slots are not used again: the ring knows lines by them.
    next_slot: u32,
    maker: Maker,
    /// So many old pipes are kept of each stream.
    old_pipes: usize,
    running: Option<Running>,
    backoff: Backoff,
    start_at: Option<Mono>,
    restarts: u64,
    has_ended: bool,
    waits_for_room: bool,
    /// Everything below us is being killed, the logger too: the next one comes when that is over.
    is_killing_all: bool,
    /// What services get, as we have allowed ourselves more.
    original_limits: Option<(u64, u64)>,
    /// Why a pipe could not be made; told once.
    pipe_trouble: Option<Errno>,
}

impl Subsystem for Logging {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.start_at
    }

    fn on_ready(&mut self, token: Token) {
        self.has_ended |= token == Token::LoggerExited;
    }

    /// Starts another logger when this one has ended.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        let restarts = self.restarts;
        if std::mem::take(&mut self.has_ended) {
            self.on_end(context.poller, context.now);
        }
        if self.start_at.is_some_and(|due| due <= context.now) {
            self.start(context.poller, context.now);
        }
        if self.restarts > restarts {
            context.journal.publish(What::LoggerRestarted);
        }
        Vec::new()
    }
}

impl Logging {
    /// Starts the logger if the plan needs one. Where that is impossible outputs are inherited.
    pub(in crate::runtime) fn new(plan: Rc<Plan>, poller: &Poller) -> Self {
        channel::set_style(MessageStyle { style: plan.log, width: None });
        let mut logging = Self {
            style: plan.log,
            plan,
            way: None,
            slots: Map::new(),
            next_slot: 0,
            maker: Maker::default(),
            old_pipes: 0,
            running: None,
            backoff: Backoff::new(),
            start_at: None,
            restarts: 0,
            has_ended: false,
            waits_for_room: false,
            is_killing_all: false,
            original_limits: None,
            pipe_trouble: None,
        };
        logging.begin(poller);
        logging
    }

    /// From now on this is the plan. What services write goes where their definitions say when they are next started.
    pub(in crate::runtime) fn adopt(&mut self, plan: &Rc<Plan>, poller: &Poller) {
        self.plan = Rc::clone(plan);
        self.begin(poller);
    }

    /// Starts the logger if it is needed and has not been.
    fn begin(&mut self, poller: &Poller) {
        if self.way.is_some() || !self.plan.captures_output() {
            return self.make_room(self.instances());
        }
        match LoggerChannel::new() {
            Ok(way) => {
                self.way = Some(way);
                channel::set_style(MessageStyle { style: self.style, width: Some(longest_name(&self.plan)) });
                self.make_room(self.instances());
                self.start(poller, sys::now());
            }
            Err(errno) => log::warn!("cannot start the logger: {}; output is inherited", errno::words(errno)),
        }
    }

    fn instances(&self) -> u64 {
        u64::from(self.plan.instances()).max(self.slots.len() as u64)
    }

    fn counter(&self, position: usize) -> u64 {
        let counter = self.way.as_ref().and_then(|way| way.counters.get(position));
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The process of the logger, which ends last.
    pub(in crate::runtime) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| running.pid)
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

    /// Where stdout and stderr of `instance` go that go through the logger.
    pub(in crate::runtime) fn outputs(
        &mut self,
        instance: InstanceId,
        service: &Service,
    ) -> [Option<BorrowedFd<'_>>; 2] {
        if self.way.is_none() || !service.process.captures_output() {
            return [None, None];
        }
        if let Err(errno) = self.ensure_pipes(instance, service)
            && self.pipe_trouble.replace(errno) != Some(errno)
        {
            log::warn!("cannot create a pipe for {}: {}; its output is inherited", service.name, errno::words(errno));
        }
        let pipes = self.slots.get(&instance).map(|slot| &slot.pipes);
        [0, 1].map(|stream| Some(pipes?.get(stream)?.as_ref()?.write_end.as_fd()))
    }

    /// New ones for each run, so that its last line is not continued by the next one. Where that is not possible, those
    /// that there are remain.
    fn ensure_pipes(&mut self, instance: InstanceId, service: &Service) -> Result<(), Errno> {
        if !self.slots.contains_key(&instance) {
            if self.next_slot as usize >= MAX_SLOTS {
                return Err(Errno::EMFILE);
            }
            self.slots.insert(instance, Slot::new(self.next_slot));
            self.next_slot += 1;
            self.make_room(self.instances());
        }
        let Some(slot) = self.slots.get_mut(&instance) else { return Ok(()) };
        slot.forget_old();
        let mut result = Ok(());
        for stream in [Stream::Stdout, Stream::Stderr] {
            if slot.has(stream) && (channel::is_congested() || slot.old(stream) >= self.old_pipes) {
                continue;
            }
            let Some(pipe) = self.maker.make(slot, stream, instance, service).transpose() else { continue };
            let copied = pipe.and_then(|pipe| {
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

    /// The process of `instance` has ended: what it has written is out before what is logged from now on.
    pub(in crate::runtime) fn on_ended(&mut self, instance: InstanceId) {
        if let Some(slot) = self.slots.get_mut(&instance) {
            slot.forget_old();
            channel::send(Message::RunEnded { slot: slot.number }, None);
        }
    }

    /// Everything is being killed, the logger with it.
    pub(in crate::runtime) const fn on_kill_all(&mut self) {
        self.is_killing_all = true;
    }

    /// Has the loop wake when there is room on the way to the logger, if something waits for that.
    pub(in crate::runtime) fn wait_for_room(&mut self, poller: &Poller) {
        let waits = self.way.is_some() && channel::flush();
        if waits == self.waits_for_room {
            return;
        }
        self.waits_for_room = waits;
        channel::with_socket(|socket| {
            if waits { poller.add_writable(socket, Token::LoggerWritable).ok() } else { poller.remove(socket).ok() }
        });
    }

    fn on_end(&mut self, poller: &Poller, now: Mono) {
        let Some(running) = &self.running else { return };
        let status = match wait::reap_without_sigchld(running.pid) {
            // It closes its descriptors just before it can be reaped. The next turn, which comes at once, finds it.
            Ok(None) => return,
            Ok(status) => status,
            Err(_) => None,
        };
        let since = running.since;
        poller.remove(&running.liveness_fd).ok();
        self.running = None;
        if self.is_killing_all {
            return;
        }
        let how = status.map_or_else(String::new, |status: ExitStatus| format!(" ({status})"));
        self.restarts += 1;
        let Some(wait) = self.backoff.on_end(since, now) else {
            self.start(poller, now);
            log::warn!("logger restarted{how}");
            return;
        };
        channel::use_stderr();
        self.start_at = Some(now + wait);
        log::warn!("logger is crash-looping{how}: next restart in {}s", wait.as_secs());
    }

    fn start(&mut self, poller: &Poller, now: Mono) {
        self.start_at = None;
        if let Err(errno) = self.try_start(poller) {
            channel::use_stderr();
            let wait = self.backoff.next();
            self.start_at = Some(now + wait);
            if wait == FIRST_DELAY {
                log::warn!("cannot start the logger: {}; retrying", errno::words(errno));
            }
            return;
        }
        channel::use_logger();
    }

    fn try_start(&mut self, poller: &Poller) -> Result<(), Errno> {
        self.slots.values_mut().for_each(Slot::forget_old);
        let (life, held) = pipe::pipe()?;
        match fork::fork_without_sigchld()? {
            ForkResult::Child => self.become_logger(held),
            ForkResult::Parent(pid) => {
                poller.add(&life, Token::LoggerExited)?;
                self.running = Some(Running { pid, since: sys::now(), liveness_fd: life });
                Ok(())
            }
        }
    }

    /// In the copy of us, whose values are its own.
    fn become_logger(&mut self, liveness_fd: OwnedFd) -> ! {
        let Some(LoggerChannel { peer, counters }) = self.way.take() else { process::exit_now(1) };
        let pipes = std::mem::take(&mut self.slots).into_entries().flat_map(|(_, slot)| slot.into_read_ends());
        logger::run(LoggerArgs {
            socket: peer,
            liveness_fd,
            pipes: pipes.collect(),
            style: self.style,
            width: longest_name(&self.plan),
            colour: match std::env::var_os("NO_COLOR") {
                Some(wish) if !wish.is_empty() => Colour::Without,
                Some(_) | None => Colour::With,
            },
            counters,
        })
    }

    /// Allows us the descriptors that so many instances need: for each of their streams both ends of a pipe, and the old
    /// ones; and what is kept for them besides.
    fn make_room(&mut self, instances: u64) {
        let (mut soft, hard) = process::descriptor_limits();
        let others = self.plan.services.iter().map(|service| kept_for(service)).sum::<u64>() + OTHER_DESCRIPTORS;
        let of_pipes = if self.way.is_some() { instances * 2 * (2 + OLD_PIPES_WANTED) } else { 0 };
        let wanted = of_pipes + others;
        if wanted > soft && soft < hard && self.original_limits.is_none() && process::set_descriptor_limit(hard).is_ok()
        {
            self.original_limits = Some((soft, hard));
            soft = hard;
        }
        let of_stream = soft.saturating_sub(others) / (2 * instances.max(1));
        self.old_pipes = usize::try_from(of_stream.saturating_sub(2).min(OLD_PIPES)).unwrap_or(0);
    }
}

/// How many descriptors are kept for the processes of `service`: sockets, state, what is stored, the way to each of them.
fn kept_for(Service { instances, process, .. }: &Service) -> u64 {
    let instances = u64::from(*instances);
    let for_each = u64::from(process.fd_store) + u64::from(process.state.is_some()) + u64::from(process.ipc);
    let sockets = process.listen.len() as u64;
    match process.listen_mode {
        ListenMode::Shared => sockets + instances * for_each,
        ListenMode::Reuseport => instances * (sockets + for_each),
    }
}

/// What the control server asks for.
impl Logging {
    /// Whether there is a logger, now or soon.
    pub(in crate::runtime) const fn is_on(&self) -> bool {
        self.way.is_some()
    }

    /// Hands the connection of somebody who wants to read the log over to the logger, which answers all of it.
    ///
    /// # Errors
    /// The connection: there is no logger at the moment.
    pub(in crate::runtime) fn hand_over(&self, client: OwnedFd, query: LogsQuery) -> Result<(), OwnedFd> {
        if self.running.is_none() || channel::is_congested() {
            return Err(client);
        }
        channel::send(Message::Client(query), Some(client));
        Ok(())
    }

    /// What has gone through stdout and stderr of `instance`; zero for what does not go through the logger.
    pub(in crate::runtime) fn counts(&self, instance: InstanceId) -> [Count; 2] {
        let Some(slot) = self.slots.get(&instance) else { return [Count::default(); 2] };
        [0, 1].map(|stream| Count {
            lines: self.counter(slot_counter(slot.number, stream)),
            bytes: self.counter(slot_counter(slot.number, stream) + 1),
        })
    }

    /// How often a logger was started in the place of one that had ended.
    pub(in crate::runtime) const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How many lines of keepalive's own were dropped because nobody took them.
    pub(in crate::runtime) fn dropped_lines(&self) -> u64 {
        channel::dropped_messages() + self.counter(DROPPED_MESSAGES)
    }

    /// How many readers of the log were refused as there were too many.
    pub(in crate::runtime) fn refused_clients(&self) -> u64 {
        self.counter(REJECTED_CLIENTS)
    }

    /// An instance that there is not to be any more. What is in its pipes is still written; should there be one of its
    /// name again, it goes on counting.
    pub(in crate::runtime) fn forget(&mut self, instance: InstanceId) {
        if let Some(slot) = self.slots.get_mut(&instance) {
            slot.retire_all();
        }
    }
}

impl LoggerChannel {
    fn new() -> Result<Self, Errno> {
        let counters = SharedCounters::new(FIRST_SLOT_COUNTER + MAX_SLOTS * COUNTERS_PER_SLOT)?;
        let (near_end, peer) = packet::pair()?;
        channel::connect(near_end);
        Ok(Self { peer, counters: Box::leak(Box::new(counters)) })
    }
}

/// The position of the counter of lines; that of bytes follows.
const fn slot_counter(slot: u32, stream: usize) -> usize {
    FIRST_SLOT_COUNTER + slot as usize * COUNTERS_PER_SLOT + stream * 2
}

fn longest_name(plan: &Plan) -> usize {
    let name = |service: &Rc<Service>| format!("{}.{}", service.name, service.instances.saturating_sub(1)).len();
    plan.services.iter().map(name).max().unwrap_or(0).max(KEEPALIVE_NAME.len())
}
