//! What the services say by sd_notify(3): one datagram socket for all of them.
//!
//! A message counts for the instance that its sender belongs to, by whichever process of it it was sent; from anyone else
//! it is refused. Nothing is decided here: what is said becomes events. `message` reads, [`super::fd_store`] keeps.

mod message;

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::close_queue::CloseQueue;
use super::fd_store::{FdStore, Offer};
use super::processes::Processes;
use super::rate_limited_log::RateLimitedLog;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::map::Map;
use crate::model::{InstanceId, Mono, Pid, RunId, errno};
use crate::supervisor::{Event, ReadySource};
use crate::sys::datagram::{self, Datagram};
use crate::sys::{self, Interest, Poller, procfs, random};
use message::{Access, Message, NotifyFields, Store, Watchdog};

/// The longest datagram, in bytes: as in systemd.
const MAX_DATAGRAM: usize = 4096;
/// So many datagrams are read in one turn: more than can wait, unless the kernel has been configured otherwise.
const MAX_DATAGRAMS_PER_TURN: u32 = 256;

/// The socket, and what status shows of what was reported on it.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// Opened when the first process is started that is given it; with its address.
    socket: Option<(OwnedFd, String)>,
    /// There is something to be read.
    is_readable: bool,
    /// The poller does not report it.
    is_muted: bool,
    /// So many datagrams may still be read in this turn.
    budget: u32,
    /// By runs whose main process has not ended.
    reported: Map<RunId, NotifyStatus>,
    /// By instances without a main process: what was reported in their last run.
    last: Map<InstanceId, NotifyStatus>,
    rejections: RateLimitedLog,
}

/// What status shows of what a run has reported of itself.
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
        self.read(context.now, &mut World { processes, fds, poller: context.poller })
    }
}

impl Notify {
    /// `NOTIFY_SOCKET`; the socket is opened if it is not.
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

    /// What the instance has reported in its present run, or after the end of its main process in its last.
    pub(super) fn status(&self, id: InstanceId, run: Option<RunId>) -> Option<&NotifyStatus> {
        run.and_then(|run| self.reported.get(&run)).or_else(|| self.last.get(&id.slot()))
    }

    pub(super) const fn begin_turn(&mut self) {
        self.budget = MAX_DATAGRAMS_PER_TURN;
        self.is_readable = false;
    }

    /// Mutes the socket while too many descriptors that services have sent wait to be closed.
    pub(super) fn update_interest(&mut self, poller: &Poller) {
        let is_wanted = CloseQueue::have_room();
        let Some((socket, _)) = self.socket.as_ref().filter(|_| is_wanted == self.is_muted) else { return };
        let interest = if is_wanted { Interest::Input } else { Interest::Nothing };
        if poller.modify(socket, Token::Notify, interest).is_ok() {
            self.is_muted = !is_wanted;
        }
    }

    /// The instance has another process: what its last run has reported is not shown any more.
    pub(super) fn on_started(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    /// The main process of a run has ended.
    pub(super) fn on_ended(&mut self, run: RunId, id: InstanceId) {
        match self.reported.remove(&run) {
            Some(status) => self.last.insert(id.slot(), status),
            None => self.last.remove(&id.slot()),
        };
    }

    /// The instance is gone.
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
    /// Reads what processes have reported; it has to be read before any of them is reaped, which makes it unknown who they
    /// were.
    pub(super) fn read(&mut self, now: Mono, world: &mut World<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        if self.socket.is_none() {
            return events;
        }
        let mut buffer = [0; MAX_DATAGRAM];
        while CloseQueue::have_room()
            && let Some(mut datagram) = self.next(&mut buffer)
        {
            let text = buffer.get(..datagram.length).unwrap_or_default();
            if let Err(reason) = self.on_datagram(&mut datagram, text, world, &mut events) {
                self.rejections.warn(now, &reason);
            }
            sys::deferred_close(datagram.descriptors);
        }
        events
    }

    /// Takes of its descriptors those that are to be kept.
    ///
    /// # Errors
    /// Why the message, or a part of it, is ignored.
    fn on_datagram(
        &mut self,
        datagram: &mut Datagram,
        text: &[u8],
        world: &mut World<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let sender = datagram.sender.map_or(0, Pid::get);
        let fields = match Message::parse(text) {
            _ if datagram.is_truncated => {
                return Err(format!("message from pid {sender} ignored: longer than {MAX_DATAGRAM} bytes"));
            }
            // Everything before it has been done.
            Ok(Message::Barrier) => return Ok(()),
            Err(fault) => return Err(format!("message from pid {sender} ignored: {}", fault.as_str())),
            Ok(Message::NotifyFields(fields)) => fields,
        };
        let owner = datagram.sender.and_then(|sender| world.processes.runs.owner_of(sender));
        let Some(owner) = owner.filter(|run| run.spec.definition.uses_notify_socket()) else {
            return Err(format!("message from pid {sender} rejected: not a process of a service that uses sd_notify"));
        };
        let (run, main) = (owner.id, owner.pid);
        let may_notify = match self.reported.get(&run).map_or(Access::All, |status| status.access) {
            Access::All => true,
            Access::Main => sender == main.get(),
            Access::Nobody => false,
        };
        if !may_notify {
            return Err(format!("message from pid {sender} rejected by NOTIFYACCESS of pid {main}"));
        }
        let changed = match self.new_main_pid(&fields, &datagram.descriptors) {
            Some(pid) if pid != main => world.change_main_pid(run, pid, events),
            _ => Ok(()),
        };
        self.on_fields(run, &fields, events);
        changed.and(world.store(run, &fields, datagram))
    }

    fn new_main_pid(&self, fields: &NotifyFields<'_>, descriptors: &[OwnedFd]) -> Option<Pid> {
        match descriptors {
            [pidfd] if fields.brings_main => procfs::pid_of_pidfd(pidfd),
            _ => fields.main_pid,
        }
    }

    fn on_fields(&mut self, run: RunId, fields: &NotifyFields<'_>, events: &mut Vec<Event>) {
        events.extend(fields.stops.then_some(Event::StoppingItself { run }));
        events.extend(fields.reloads.then_some(Event::Reloading { run, since: fields.at }));
        events.extend(fields.is_ready.then_some(Event::Ready { run, source: ReadySource::Notify }));
        self.keep_status(run, fields);
        events.extend(fields.forgives.then_some(Event::ResetFailures { run }));
        events.extend(fields.extend.map(|by| Event::TimeoutExtended { run, by }));
        events.extend(fields.watchdog.map(|watchdog| match watchdog {
            Watchdog::Alive => Event::WatchdogPing { run },
            Watchdog::Trigger => Event::WatchdogTriggered { run },
        }));
        events.extend(fields.watchdog_every.map(|interval| Event::WatchdogInterval { run, interval }));
    }

    /// What status shows of it.
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

/// What messages are about.
pub(super) struct World<'a> {
    pub(super) processes: &'a mut Processes,
    pub(super) fds: &'a mut FdStore,
    pub(super) poller: &'a Poller,
}

impl World<'_> {
    fn change_main_pid(&mut self, run: RunId, pid: Pid, events: &mut Vec<Event>) -> Result<(), String> {
        let main = self.processes.runs.get(run).map_or(0, |run| run.pid.get());
        let changed = self.processes.change_main_pid(run, pid, self.poller);
        let refused = || format!("cannot change the main pid from {main} to {pid}: not a process of the same instance");
        events.extend(changed.ok_or_else(refused)?);
        Ok(())
    }

    fn store(&mut self, run: RunId, fields: &NotifyFields<'_>, datagram: &mut Datagram) -> Result<(), String> {
        let Some(run) = self.processes.runs.get(run) else { return Ok(()) };
        let (main, instance) = (run.pid, run.spec.instance);
        let (name, until_end) = match fields.store {
            Store::Nothing => return Ok(()),
            Store::Drop { name } => {
                self.fds.drop_named(instance, name, self.poller);
                return Ok(());
            }
            Store::Keep { name, until_end } => (name, until_end),
        };
        let limit = run.spec.definition.process.fd_store;
        let offer = Offer { name, until_end, limit: limit.try_into().unwrap_or(usize::MAX) };
        let refused = self.fds.keep(instance, offer, &mut datagram.descriptors, self.poller);
        if refused.surplus > 0 {
            let surplus = refused.surplus;
            return Err(format!(
                "dropped {surplus} of the file descriptors that pid {main} stored: `fd_store` is {limit}"
            ));
        }
        if datagram.descriptors_truncated || refused.roomless > 0 {
            let reason = errno::words(Errno::EMFILE);
            return Err(format!("cannot store all file descriptors of pid {main}: {reason}"));
        }
        Ok(())
    }
}
