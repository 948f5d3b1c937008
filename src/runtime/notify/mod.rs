//! The messages of sd_notify(3).
//!
//! Each run has a socket of its own (`socket`), so that a message belongs to a run by the socket that it comes from. keepalive
//! looks at each message before it takes it: one that carries descriptors is taken by another process
//! ([`super::fd_store`]). Messages become events; nothing is decided here. `message` parses them, `rejection` says why one is
//! ignored.

mod message;
mod rejection;
mod socket;

use std::collections::VecDeque;
use std::time::Duration;

use super::fd_store::{End, FdStore, Keep, Outcome, Refused, Taken, Usage};
use super::processes::Processes;
use super::rate_limited_log::{self, MessageKind};
use super::runs::RunSpec;
use super::runs::{Membership, Run};
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::map::Map;
use crate::model::{AwakeClock, InstanceId, Mono, Pid, RunId, ServiceIndex};
use crate::supervisor::{Event, ReadySource};
use crate::sys::datagram::{self, Sender};
use crate::sys::{Interest, Poller, process};
use message::{Access, MAX_DATAGRAM, Message, NotifyFields, Store, Watchdog};
use nix::errno::Errno;
use rejection::Rejection;
use socket::{Directory, NotifySocket, Readers};

/// The number of datagrams read in one turn.
const MAX_DATAGRAMS_PER_TURN: u32 = 256;
/// The number of datagrams read from one socket in one turn: more than the kernel queues by default.
const MAX_DATAGRAMS_PER_SOCKET: u32 = 32;

/// How long a socket is not read after so many datagrams in one turn: its sender waits, and others get the time.
const FLOOD_PAUSE: Duration = Duration::from_millis(20);
/// The sockets, and the data of messages that the status shows.
#[derive(Debug, Default)]
pub(super) struct Notify {
    directory: Directory,
    sockets: Map<RunId, Source>,
    /// The runs whose sockets have datagrams, in the order in which they are read.
    readable: VecDeque<RunId>,
    /// The status of runs whose main process has not exited.
    reported: Map<RunId, NotifyStatus>,
    /// The last status of instances without a main process.
    last: Map<InstanceId, NotifyStatus>,
}

/// The socket of a run.
#[derive(Debug)]
struct Source {
    service: ServiceIndex,
    socket: NotifySocket,
    /// Its next datagram is being taken by another process, with the descriptors that it carries: nobody else reads.
    taken_for: Option<Sender>,
    /// It is not read until then, because its sender floods it.
    paused_until: Option<Mono>,
}

impl Source {
    fn close(self) {
        let readers = if self.taken_for.is_some() { Readers::Other } else { Readers::Keepalive };
        self.socket.close(self.service, readers);
    }
}

/// The data of messages that the status shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NotifyStatus {
    /// `STATUS`
    pub(super) status: Box<str>,
    /// `ERRNO`
    pub(super) errno: Option<i32>,
    /// `EXIT_STATUS`
    pub(super) exit_status: Option<u8>,
    access: Access,
}

impl Subsystem for Notify {
    type Needs<'a> = (&'a mut Processes, &'a mut FdStore);

    fn due(&self) -> Option<Mono> {
        self.sockets.values().filter_map(|source| source.paused_until).min()
    }

    fn is_busy(&self) -> bool {
        !self.readable.is_empty()
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::Notify(run) = token
            && !self.readable.contains(&run)
        {
            self.readable.push_back(run);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (processes, fds): Self::Needs<'_>) -> Vec<Event> {
        let (clock, poller, has_capacity) = (context.clock, context.poller, context.has_capacity());
        let mut others = NotifyContext { processes, fds, clock, poller };
        let mut events = Vec::new();
        for taken in others.fds.take_answers() {
            self.on_taken(taken, &mut others, &mut events);
        }
        self.resume(context.now, poller);
        let mut budget = MAX_DATAGRAMS_PER_TURN;
        while has_capacity
            && budget > 0
            && let Some(run) = self.readable.pop_front()
        {
            let read = self.read(run, MAX_DATAGRAMS_PER_SOCKET.min(budget), &mut others, &mut events);
            budget -= read;
            if read == MAX_DATAGRAMS_PER_SOCKET {
                self.pause(run, context.now, poller);
            }
        }
        events
    }
}

impl Notify {
    /// Call it before the first service is started: a reload may bring the first one that needs the directory.
    pub(super) fn new() -> Self {
        let mut notify = Self::default();
        notify.directory.make();
        notify
    }

    /// Opens the socket of a run that is to be started, and returns `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, ENOSPC.
    pub(super) fn open(&mut self, run: RunId, spec: &RunSpec, poller: &Poller) -> Result<&str, Errno> {
        let service = spec.instance.service;
        let socket = self.directory.open(run, &spec.definition)?;
        if let Err(errno) = poller.add(&socket.socket, Token::Notify(run)) {
            socket.close(service, Readers::Keepalive);
            return Err(errno);
        }
        self.sockets.insert(run, Source { service, socket, taken_for: None, paused_until: None });
        Ok(self.sockets.get(&run).map_or("", |source| &source.socket.address))
    }

    /// Closes the socket of a run.
    pub(super) fn close(&mut self, run: RunId, poller: &Poller) {
        if let Some(source) = self.sockets.remove(&run) {
            poller.remove(&source.socket.socket).ok();
            source.close();
        }
        self.readable.retain(|readable| *readable != run);
    }

    /// Closes all sockets.
    pub(super) fn close_all(&mut self) {
        for (_, source) in std::mem::take(&mut self.sockets).into_entries() {
            source.close();
        }
        self.directory.remove();
    }

    /// The status of the current run, or of the last one if there is no main process.
    pub(super) fn status(&self, id: InstanceId, run: Option<RunId>) -> Option<&NotifyStatus> {
        match run {
            Some(run) => self.reported.get(&run),
            None => self.last.get(&id.slot()),
        }
    }

    /// The instance has a new process: the last status is not shown any more.
    pub(super) fn on_started(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    /// The main process of a run has exited.
    pub(super) fn on_ended(&mut self, run: RunId, id: InstanceId, poller: &Poller) {
        self.close(run, poller);
        match self.reported.remove(&run) {
            Some(status) => self.last.insert(id.slot(), status),
            None => self.last.remove(&id.slot()),
        };
    }

    /// The instance has been removed.
    pub(super) fn forget(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    /// The main process of a run is dead: reads what has been sent before.
    pub(super) fn read_all(&mut self, run: RunId, others: &mut NotifyContext<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        self.read(run, MAX_DATAGRAMS_PER_TURN, others, &mut events);
        events
    }

    fn pause(&mut self, run: RunId, now: Mono, poller: &Poller) {
        if let Some(source) = self.sockets.get_mut(&run).filter(|source| source.taken_for.is_none()) {
            poller.modify(&source.socket.socket, Token::Notify(run), Interest::Nothing).ok();
            source.paused_until = Some(now + FLOOD_PAUSE);
        }
    }

    fn resume(&mut self, now: Mono, poller: &Poller) {
        let mut resumed = Vec::new();
        for (run, source) in self.sockets.iter_mut() {
            if source.paused_until.take_if(|until| *until <= now).is_some() && source.taken_for.is_none() {
                poller.modify(&source.socket.socket, Token::Notify(*run), Interest::Input).ok();
                resumed.push(*run);
            }
        }
        resumed.into_iter().for_each(|run| self.on_ready(Token::Notify(run)));
    }

    /// Whether a message of a run is being taken by another process: others may come after it.
    pub(super) fn is_taken_from(&self, run: RunId) -> bool {
        self.sockets.get(&run).is_some_and(|source| source.taken_for.is_some())
    }
}

impl Notify {
    /// Reads at most `limit` messages of a run. Returns how many have been read.
    fn read(&mut self, run: RunId, limit: u32, others: &mut NotifyContext<'_>, events: &mut Vec<Event>) -> u32 {
        let mut buffer = [0; MAX_DATAGRAM];
        for count in 0..limit {
            let Some(source) = self.sockets.get(&run).filter(|source| source.taken_for.is_none()) else { return count };
            let Ok(datagram) = datagram::peek(&source.socket.socket, &mut buffer) else { return count };
            let text = buffer.get(..datagram.length).unwrap_or_default();
            let message = if datagram.is_truncated {
                Err(Rejection::TooLong(number_of(datagram.sender)))
            } else {
                Message::parse(text).map_err(|error| Rejection::Invalid(number_of(datagram.sender), error))
            };
            let usage = self.on_message(run, datagram.sender, message, others, events);
            if datagram.has_descriptors {
                self.take_descriptors(run, datagram.sender, usage, others);
                return count + 1;
            }
            // Without descriptors the kernel has nothing to close.
            if let Some(source) = self.sockets.get(&run)
                && datagram::discard(&source.socket.socket).is_err()
            {
                return count;
            }
        }
        limit
    }

    /// Handles a message. Returns what is to be done with the descriptors that it carries.
    fn on_message<'a>(
        &mut self,
        run: RunId,
        sender: Sender,
        message: Result<Message<'a>, Rejection>,
        others: &mut NotifyContext<'_>,
        events: &mut Vec<Event>,
    ) -> Usage<'a> {
        let handled = message.and_then(|message| match message {
            // All earlier messages have been handled.
            Message::Barrier => Ok(Usage::Close),
            Message::Fields(fields) => self.on_fields(run, sender, &fields, others, events),
        });
        handled.unwrap_or_else(|rejection| {
            others.reject(run, &rejection);
            Usage::Close
        })
    }

    fn on_fields<'a>(
        &mut self,
        run: RunId,
        sender: Sender,
        fields: &NotifyFields<'a>,
        others: &mut NotifyContext<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Usage<'a>, Rejection> {
        let number = number_of(sender);
        // Its main process may have been reaped while another process took the message before this one.
        let Some(of) = others.processes.runs.of_id(run).filter(|of| may_send(others.processes, of, sender)) else {
            return Err(Rejection::UnknownSender(number));
        };
        let main = of.pid;
        let may_notify = match self.reported.get(&run).map_or(Access::All, |status| status.access) {
            Access::All => true,
            Access::Main => number == main.get(),
            Access::Nobody => false,
        };
        if !may_notify {
            return Err(Rejection::NoAccess { sender: number, main });
        }
        if let Some(pid) = fields.main_pid.filter(|pid| *pid != main)
            && let Err(rejection) = others.change_main_pid(run, (main, pid), Some(sender), events)
        {
            others.reject(run, &rejection);
        }
        self.apply_fields(run, fields, others.clock, events);
        Ok(others.usage(run, fields))
    }

    /// Lets another process take the next datagram.
    fn take_descriptors(&mut self, run: RunId, sender: Sender, usage: Usage<'_>, others: &mut NotifyContext<'_>) {
        let Some(source) = self.sockets.get_mut(&run) else { return };
        let Some((main, instance)) = others.processes.runs.of_id(run).map(|run| (run.pid, run.spec.instance)) else {
            return self.close(run, others.poller);
        };
        let socket = std::os::fd::AsFd::as_fd(&source.socket.socket);
        match others.fds.take((run, instance), socket, usage, (others.clock.now(), others.poller)) {
            Ok(()) => {
                others.poller.modify(&source.socket.socket, Token::Notify(run), Interest::Nothing).ok();
                source.taken_for = Some(sender);
            }
            Err(errno) => {
                others.reject(run, &Rejection::CannotTake { main, errno });
                self.close(run, others.poller);
            }
        }
    }

    /// A datagram with descriptors has been taken, or cannot be.
    fn on_taken(&mut self, taken: Taken, others: &mut NotifyContext<'_>, events: &mut Vec<Event>) {
        let Taken { run, outcome } = taken;
        let Some(source) = self.sockets.get_mut(&run) else { return };
        let (Refused { surplus, has_lost }, main_pid) = match outcome {
            Outcome::Taken(refused, main_pid) => (refused, main_pid),
            Outcome::Lost(End::Exited) => (Refused::default(), None),
            Outcome::Lost(End::Hangs) => return self.close(run, others.poller),
        };
        let sender = source.taken_for.take();
        others.poller.modify(&source.socket.socket, Token::Notify(run), Interest::Input).ok();
        self.on_ready(Token::Notify(run));
        let Some(of) = others.processes.runs.of_id(run) else { return };
        let (main, limit) = (of.pid, of.spec.definition.process.fd_store);
        let refused = if surplus > 0 {
            Err(Rejection::StoreFull { main, surplus, limit })
        } else if has_lost {
            Err(Rejection::NoDescriptors { main })
        } else if let Some(pid) = main_pid.filter(|pid| *pid != main) {
            others.change_main_pid(run, (main, pid), sender, events)
        } else {
            Ok(())
        };
        if let Err(rejection) = refused {
            others.reject(run, &rejection);
        }
    }

    fn apply_fields(&mut self, run: RunId, fields: &NotifyFields<'_>, clock: AwakeClock, events: &mut Vec<Event>) {
        let since = fields.at.map(|at| clock.at(at));
        events.extend(fields.stops.then_some(Event::StoppingReported { run }));
        events.extend(fields.reloads.then_some(Event::Reloading { run, since }));
        events.extend(fields.is_ready.then_some(Event::Ready { run, source: ReadySource::Notify }));
        self.keep_status(run, fields);
        events.extend(fields.resets_failures.then_some(Event::ResetFailures { run }));
        events.extend(fields.extend.map(|by| Event::TimeoutExtended { run, by }));
        events.extend(fields.watchdog.map(|watchdog| match watchdog {
            Watchdog::Ping => Event::WatchdogPing { run },
            Watchdog::Trigger => Event::WatchdogTriggered { run },
        }));
        events.extend(fields.watchdog_every.map(|interval| Event::WatchdogInterval { run, interval }));
    }

    /// Keeps the data that the status shows.
    fn keep_status(&mut self, run: RunId, fields: &NotifyFields<'_>) {
        let NotifyFields { access, status, errno, exit_status, .. } = fields;
        if access.is_none() && status.is_none() && errno.is_none() && exit_status.is_none() {
            return;
        }
        let reported = self.reported.entry(run);
        reported.access = access.unwrap_or(reported.access);
        if let Some(status) = status.filter(|status| *status != &*reported.status) {
            reported.status = status.into();
        }
        reported.errno = errno.or(reported.errno);
        reported.exit_status = exit_status.or(reported.exit_status);
    }
}

/// Other subsystems that messages affect.
pub(super) struct NotifyContext<'a> {
    pub(super) processes: &'a mut Processes,
    pub(super) fds: &'a mut FdStore,
    pub(super) clock: AwakeClock,
    pub(super) poller: &'a Poller,
}

impl NotifyContext<'_> {
    /// Logs why a message for `run` is ignored.
    fn reject(&self, run: RunId, rejection: &Rejection) {
        let service = self.processes.runs.of_id(run).map(|run| run.spec.instance.service);
        rate_limited_log::warn(MessageKind::NotifyRejected, service, format_args!("notify: {rejection}"));
    }

    /// Makes `pid` the main process of the run, in place of `main`.
    fn change_main_pid(
        &mut self,
        run: RunId,
        (main, pid): (Pid, Pid),
        sender: Option<Sender>,
        events: &mut Vec<Event>,
    ) -> Result<(), Rejection> {
        if self.processes.runs.get(run).is_none() {
            // It has ended, and its leftover processes are being stopped.
            return Err(Rejection::Ended { main, pid });
        }
        events.extend(self.processes.poll_exec_result(run, self.poller));
        let changed = self.processes.change_main_pid(run, pid, sender, self.poller);
        events.extend(changed.ok_or(Rejection::ForeignMainPid { main, pid })?);
        Ok(())
    }

    /// What is to be done with the descriptors of a message. Drops stored ones.
    fn usage<'a>(&mut self, run: RunId, fields: &NotifyFields<'a>) -> Usage<'a> {
        let Some(run) = self.processes.runs.of_id(run) else { return Usage::Close };
        let limit = run.spec.definition.process.fd_store;
        match fields.store {
            Store::Drop { name } => {
                self.fds.drop_named(run.spec.instance, name, self.clock.now());
                Usage::Close
            }
            Store::Keep { name, drop_on_hangup } => Usage::Keep(Keep { name, drop_on_hangup, limit }),
            Store::Nothing if fields.has_main_pidfd && fields.main_pid.is_none() => Usage::ReadPid,
            Store::Nothing => Usage::Close,
        }
    }
}

/// Whether `sender` may send messages for a run: one of its processes, or a process of no run with the same user.
fn may_send(processes: &Processes, run: &Run, sender: Sender) -> bool {
    let Some(pid) = sender.pid else { return false };
    match processes.runs.membership(pid) {
        Membership::Run(of) => of == run.id,
        Membership::Unknown => {
            let user = run.spec.definition.process.credentials.as_ref().map(|credentials| credentials.uid);
            sender.uid == user.unwrap_or_else(process::effective_user)
        }
        Membership::None => false,
    }
}

/// The id of the sender; 0 if it is in another PID namespace.
fn number_of(sender: Sender) -> rejection::Sender {
    sender.pid.map_or(0, Pid::get)
}
