//! The messages of sd_notify(3), which all services send to one datagram socket.
//!
//! A message applies to the run that its sender belongs to. Messages of other processes are rejected. Messages become events;
//! nothing is decided here. `message` parses them, [`super::fd_store`] keeps descriptors, `rejection` says why one is ignored.

mod message;
mod rejection;

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::close_queue::CloseQueue;
use super::fd_store::{FdStore, Offer};
use super::processes::Processes;
use super::rate_limited_log::RateLimitedLog;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::map::Map;
use crate::model::{InstanceId, Mono, Pid, RunId};
use crate::supervisor::{Event, ReadySource};
use crate::sys::datagram::{self, Datagram};
use crate::sys::{self, Interest, Poller, procfs, random};
use message::{Access, MAX_DATAGRAM, Message, NotifyFields, Store, Watchdog};
use rejection::Rejection;

/// The number of datagrams read in one turn: more than the kernel queues by default.
const MAX_DATAGRAMS_PER_TURN: u32 = 256;

/// The socket, and the data of messages that the status shows.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// The socket and its address. It is opened when the first process that uses it starts.
    socket: Option<(OwnedFd, String)>,
    /// The socket has datagrams.
    is_readable: bool,
    /// The poller does not watch the socket.
    is_paused: bool,
    /// The number of datagrams that can still be read in this turn.
    budget: u32,
    /// The status of runs whose main process has not exited.
    reported: Map<RunId, NotifyStatus>,
    /// The last status of instances without a main process.
    last: Map<InstanceId, NotifyStatus>,
    rejections: RateLimitedLog,
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
        None
    }

    fn on_ready(&mut self, _token: Token) {
        self.is_readable = true;
    }

    fn turn(&mut self, context: &mut Context<'_>, (processes, fds): Self::Needs<'_>) -> Vec<Event> {
        if !self.is_readable || !context.has_capacity() {
            return Vec::new();
        }
        self.read(context.now, &mut NotifyContext { processes, fds, poller: context.poller })
    }
}

impl Notify {
    /// `NOTIFY_SOCKET`. Opens the socket if it is not open.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, ENOSPC.
    pub(super) fn address(&mut self, poller: &Poller) -> Result<&str, Errno> {
        if self.socket.is_none() {
            let name = format!("keepalive/notify/{}-{:016x}", sys::process::id(), random::random_u64());
            let socket = datagram::bind_abstract(name.as_bytes())?;
            poller.add(&socket, Token::Notify)?;
            self.socket = Some((socket, format!("@{name}")));
        }
        Ok(self.socket.as_ref().map_or("", |(_, address)| address))
    }

    /// The status of the current run, or of the last one if there is no main process.
    pub(super) fn status(&self, id: InstanceId, run: Option<RunId>) -> Option<&NotifyStatus> {
        match run {
            Some(run) => self.reported.get(&run),
            None => self.last.get(&id.slot()),
        }
    }

    pub(super) const fn begin_turn(&mut self) {
        self.budget = MAX_DATAGRAMS_PER_TURN;
        self.is_readable = false;
    }

    /// Pauses the socket while too many descriptors of services wait to be closed.
    pub(super) fn update_interest(&mut self, poller: &Poller) {
        let is_wanted = CloseQueue::has_room();
        let Some((socket, _)) = self.socket.as_ref().filter(|_| is_wanted == self.is_paused) else { return };
        let interest = if is_wanted { Interest::Input } else { Interest::Nothing };
        if poller.modify(socket, Token::Notify, interest).is_ok() {
            self.is_paused = !is_wanted;
        }
    }

    /// The instance has a new process: the last status is not shown any more.
    pub(super) fn on_started(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    /// The main process of a run has exited.
    pub(super) fn on_ended(&mut self, run: RunId, id: InstanceId) {
        match self.reported.remove(&run) {
            Some(status) => self.last.insert(id.slot(), status),
            None => self.last.remove(&id.slot()),
        };
    }

    /// The instance has been removed.
    pub(super) fn forget(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    fn next(&mut self, buffer: &mut [u8]) -> Option<Datagram> {
        let (socket, _) = self.socket.as_ref()?;
        self.budget = self.budget.checked_sub(1)?;
        datagram::receive(socket, buffer).ok()
    }
}

impl Notify {
    /// Reads the messages. This must happen before their senders are reaped, because their pids identify them.
    pub(super) fn read(&mut self, now: Mono, context: &mut NotifyContext<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        if self.socket.is_none() {
            return events;
        }
        let mut buffer = [0; MAX_DATAGRAM];
        while CloseQueue::has_room()
            && let Some(mut datagram) = self.next(&mut buffer)
        {
            let text = buffer.get(..datagram.length).unwrap_or_default();
            if let Err(rejection) = self.on_datagram(&mut datagram, text, context, &mut events) {
                self.rejections.warn(now, format_args!("notify: {rejection}"));
            }
            sys::deferred_close(datagram.descriptors);
        }
        events
    }

    /// Handles a message. Takes the descriptors that are stored out of it.
    ///
    /// # Errors
    /// Why the message, or a part of it, is ignored.
    fn on_datagram(
        &mut self,
        datagram: &mut Datagram,
        text: &[u8],
        context: &mut NotifyContext<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Rejection> {
        let sender = datagram.sender.map_or(0, Pid::get);
        let fields = match Message::parse(text) {
            _ if datagram.is_truncated => return Err(Rejection::TooLong(sender)),
            // All earlier messages have been handled.
            Ok(Message::Barrier) => return Ok(()),
            Err(error) => return Err(Rejection::Invalid(sender, error)),
            Ok(Message::Fields(fields)) => fields,
        };
        let owner = datagram.sender.and_then(|sender| context.processes.runs.owner_of(sender));
        let Some(owner) = owner.filter(|run| run.spec.definition.uses_notify_socket()) else {
            return Err(Rejection::UnknownSender(sender));
        };
        let (run, main) = (owner.id, owner.pid);
        let may_notify = match self.reported.get(&run).map_or(Access::All, |status| status.access) {
            Access::All => true,
            Access::Main => sender == main.get(),
            Access::Nobody => false,
        };
        if !may_notify {
            return Err(Rejection::NoAccess { sender, main });
        }
        let changed = match self.new_main_pid(&fields, &datagram.descriptors) {
            Some(pid) if pid != main => context.change_main_pid(run, main, pid, events),
            _ => Ok(()),
        };
        self.apply_fields(run, &fields, events);
        changed.and(context.store(run, &fields, datagram))
    }

    fn new_main_pid(&self, fields: &NotifyFields<'_>, descriptors: &[OwnedFd]) -> Option<Pid> {
        match descriptors {
            [pidfd] if fields.has_main_pidfd => procfs::pid_of_pidfd(pidfd),
            _ => fields.main_pid,
        }
    }

    fn apply_fields(&mut self, run: RunId, fields: &NotifyFields<'_>, events: &mut Vec<Event>) {
        events.extend(fields.stops.then_some(Event::StoppingReported { run }));
        events.extend(fields.reloads.then_some(Event::Reloading { run, since: fields.at }));
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
    pub(super) poller: &'a Poller,
}

impl NotifyContext<'_> {
    /// Makes `pid` the main process of the run, in place of `main`.
    fn change_main_pid(&mut self, run: RunId, main: Pid, pid: Pid, events: &mut Vec<Event>) -> Result<(), Rejection> {
        let changed = self.processes.change_main_pid(run, pid, self.poller);
        events.extend(changed.ok_or(Rejection::ForeignMainPid { main, pid })?);
        Ok(())
    }

    fn store(&mut self, run: RunId, fields: &NotifyFields<'_>, datagram: &mut Datagram) -> Result<(), Rejection> {
        let Some(run) = self.processes.runs.get(run) else { return Ok(()) };
        let (main, instance) = (run.pid, run.spec.instance);
        let (name, drop_on_hangup) = match fields.store {
            Store::Nothing => return Ok(()),
            Store::Drop { name } => {
                self.fds.drop_named(instance, name, self.poller);
                return Ok(());
            }
            Store::Keep { name, drop_on_hangup } => (name, drop_on_hangup),
        };
        let limit = run.spec.definition.process.fd_store;
        let offer = Offer { name, drop_on_hangup, limit: limit.try_into().unwrap_or(usize::MAX) };
        let refused = self.fds.keep(instance, offer, &mut datagram.descriptors, self.poller);
        if refused.surplus > 0 {
            return Err(Rejection::StoreFull { main, surplus: refused.surplus, limit });
        }
        if datagram.descriptors_truncated || refused.no_capacity > 0 {
            return Err(Rejection::NoDescriptors { main });
        }
        Ok(())
    }
}
