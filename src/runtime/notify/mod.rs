//! What the services say by sd_notify(3): one datagram socket for all of them.
//!
//! A message counts for the instance that its sender belongs to, by whichever process of it it was sent; from anyone else
//! it is refused. Nothing is decided here: what is said becomes events. `message` reads, [`super::fd_store`] keeps.

mod message;

use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::Runtime;
use super::children::Child;
use super::close_queue::CloseQueue;
use super::fd_store::Offer;
use crate::model::map::Map;
use crate::model::plan::{Ready, Service};
use crate::model::{ExitStatus, InstanceId, Mono, Pid, errno};
use crate::supervisor::Event;
use crate::sys::datagram::{self, Datagram};
use crate::sys::{self, Interest, Poller, procfs, random};
use message::{Access, Message, NotifyFields, Store, Watchdog};

/// The token of the socket. Tokens from here on, up to those of [`super::fd_store`], are ours.
pub(super) const SOCKET: u64 = 1 << 48;
/// With a pid added: that main process, which may not be our child, has ended.
pub(super) const FIRST_TOKEN: u64 = SOCKET + 1;

/// A datagram may not be longer, in bytes: as with systemd.
const LONGEST: usize = 4096;
/// So many datagrams are read in one turn: more than can wait, unless the kernel has been told otherwise.
const DATAGRAMS_PER_TURN: u32 = 256;
/// No more than one complaint in so long.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

/// The socket, and what has been said by it that is to be shown.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// Opened when the first process is started that is to have it; with its address.
    socket: Option<(OwnedFd, String)>,
    /// Something is there to be read.
    has_news: bool,
    /// Nobody waits for anything to be there.
    is_deaf: bool,
    /// So many datagrams may still be read in this turn.
    budget: u32,
    /// By main process.
    said: Map<Pid, NotifyStatus>,
    /// What was said in its last run by an instance that does not run.
    last: Map<InstanceId, NotifyStatus>,
    rate_limited_log: RateLimitedLog,
}

/// What a main process has said of itself, or others on its behalf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NotifyStatus {
    /// `STATUS`
    pub(super) status: Box<str>,
    /// `ERRNO`
    pub(super) errno: Option<i32>,
    /// `EXIT_STATUS`
    pub(super) exit_status: Option<u8>,
    away: Option<Away>,
    access: Access,
}

/// Why it is not there for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Reloading,
    /// For good.
    Stopping,
}

/// What is refused, told of rarely however often it happens.
#[derive(Debug, Default)]
struct RateLimitedLog {
    last: Option<Mono>,
    untold: u64,
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
            poller.add(&socket, SOCKET)?;
            self.socket = Some((socket, format!("@{name}")));
        }
        Ok(self.socket.as_ref().map_or("", |(_, address)| address))
    }

    /// What the instance has said in this run, or if it does not run in its last.
    pub(super) fn said(&self, id: InstanceId, main: Option<Pid>) -> Option<&NotifyStatus> {
        match main {
            Some(main) => self.said.get(&main),
            None => self.last.get(&id.slot()),
        }
    }

    pub(super) const fn begin_turn(&mut self) {
        self.budget = DATAGRAMS_PER_TURN;
        self.has_news = false;
    }

    pub(super) const fn has_news(&self) -> bool {
        self.has_news
    }

    /// Listens, or does not while too much that has been handed over waits to be closed.
    pub(super) fn listen(&mut self, poller: &Poller) {
        let is_wanted = CloseQueue::have_room();
        let Some((socket, _)) = self.socket.as_ref().filter(|_| is_wanted == self.is_deaf) else { return };
        let interest = if is_wanted { Interest::Input } else { Interest::Nothing };
        if poller.modify(socket, SOCKET, interest).is_ok() {
            self.is_deaf = !is_wanted;
        }
    }

    const fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Something is there to be read.
    pub(super) const fn is_ready(&mut self) {
        self.has_news = true;
    }

    /// It has been started anew.
    pub(super) fn on_started(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    /// Its main process has ended.
    pub(super) fn on_ended(&mut self, id: InstanceId, main: Pid) {
        match self.said.remove(&main) {
            Some(said) => self.last.insert(id.slot(), said),
            None => self.last.remove(&id.slot()),
        };
    }

    pub(super) fn forget(&mut self, id: InstanceId) {
        self.last.remove(&id.slot());
    }

    fn next(&mut self, buffer: &mut [u8]) -> Option<Datagram> {
        let (socket, _) = self.socket.as_ref()?;
        self.budget = self.budget.checked_sub(1)?;
        datagram::receive(socket, buffer).ok()
    }

    fn complain(&mut self, now: Mono, what: fmt::Arguments<'_>) {
        let RateLimitedLog { last, untold } = &mut self.rate_limited_log;
        if last.is_some_and(|last| now.since(last) < BETWEEN_COMPLAINTS) {
            *untold += 1;
            return;
        }
        match std::mem::take(untold) {
            0 => log::warn!("notify: {what}"),
            untold => log::warn!("notify: {what} ({untold} similar messages suppressed)"),
        }
        *last = Some(now);
    }
}

impl Runtime {
    /// Reads what has been said, before anybody who has said it is reaped.
    pub(super) fn read_notifications(&mut self) {
        if !self.notify.is_open() {
            return;
        }
        let mut buffer = [0; LONGEST];
        while CloseQueue::have_room()
            && let Some(mut datagram) = self.notify.next(&mut buffer)
        {
            let text = buffer.get(..datagram.length).unwrap_or_default();
            self.on_datagram(&mut datagram, text);
            sys::deferred_close(datagram.descriptors);
        }
    }

    /// Takes of its descriptors those that are to be kept.
    fn on_datagram(&mut self, datagram: &mut Datagram, text: &[u8]) {
        let now = self.now;
        let sender = datagram.sender.map_or(0, Pid::get);
        let fields = match Message::parse(text) {
            _ if datagram.is_truncated => {
                let what = format_args!("message from pid {sender} ignored: longer than {LONGEST} bytes");
                return self.notify.complain(now, what);
            }
            // Everything before it has been done.
            Ok(Message::Barrier) => return,
            Err(fault) => {
                let what = format_args!("message from pid {sender} ignored: {}", fault.as_str());
                return self.notify.complain(now, what);
            }
            Ok(Message::NotifyFields(fields)) => fields,
        };
        let main = datagram.sender.and_then(|sender| self.children.owner_of(sender));
        let child = main.and_then(|main| Some((main, self.children.get(main)?.clone())));
        let Some((main, child)) = child.filter(|(_, child)| child.definition.uses_notify_socket()) else {
            let what =
                format_args!("message from pid {sender} rejected: not a process of a service that uses sd_notify");
            return self.notify.complain(now, what);
        };
        let may_speak = match self.notify.said.get(&main).map_or(Access::All, |said| said.access) {
            Access::All => true,
            Access::Main => sender == main.get(),
            Access::Nobody => false,
        };
        if !may_speak {
            let what = format_args!("message from pid {sender} rejected by NOTIFYACCESS of pid {main}");
            return self.notify.complain(now, what);
        }
        self.on_news(main, &child, &fields, &datagram.descriptors);
        self.on_store(main, &child, &fields, datagram);
    }

    fn on_news(&mut self, main: Pid, child: &Child, fields: &NotifyFields<'_>, descriptors: &[OwnedFd]) {
        let successor = match descriptors {
            [holder] if fields.brings_main => procfs::pid_of_pidfd(holder),
            _ => fields.main_pid,
        };
        let main = match successor {
            Some(successor) if successor != main => self.on_main_pid(main, successor),
            _ => main,
        };
        self.on_presence(main, &child.definition, fields);
        if let Some(access) = fields.access {
            self.notify.said.entry(main).access = access;
        }
        if let Some(status) = fields.status.filter(|status| *status != self.notify.status_of(main)) {
            self.notify.said.entry(main).status = status.into();
        }
        if fields.errno.is_some() {
            self.notify.said.entry(main).errno = fields.errno;
        }
        if fields.exit_status.is_some() {
            self.notify.said.entry(main).exit_status = fields.exit_status;
        }
        if fields.forgives {
            self.happened(Event::ResetFailures { pid: main });
        }
        if let Some(by) = fields.extend {
            self.happened(Event::Extended { pid: main, by });
        }
        match fields.watchdog {
            Some(Watchdog::Alive) => self.happened(Event::Alive { pid: main }),
            Some(Watchdog::InTrouble) => self.happened(Event::WatchdogTriggered { pid: main }),
            None => {}
        }
        if let Some(interval) = fields.watchdog_every {
            self.happened(Event::WatchdogEvery { pid: main, interval });
        }
    }

    /// That it stops is final. That it is ready counts where it is asked, or after it has said that it reloads.
    fn on_presence(&mut self, main: Pid, definition: &Rc<Service>, fields: &NotifyFields<'_>) {
        let mut away = self.notify.said.get(&main).and_then(|said| said.away);
        if away == Some(Away::Stopping) {
            return;
        }
        if fields.stops {
            self.notify.said.entry(main).away = Some(Away::Stopping);
            return self.happened(Event::Stopping { pid: main });
        }
        if fields.reloads {
            away = Some(Away::Reloading);
            self.notify.said.entry(main).away = away;
            self.happened(Event::Reloading { pid: main, since: fields.at });
        }
        if fields.is_ready && (away.is_some() || definition.ready == Ready::Notify) {
            if let Some(said) = self.notify.said.get_mut(&main) {
                said.away = None;
            }
            self.happened(Event::Ready { pid: main });
        }
    }

    /// Who is the main process from now on.
    fn on_main_pid(&mut self, main: Pid, successor: Pid) -> Pid {
        let is_alive = procfs::stat(successor).is_some_and(|stat| !stat.is_dead());
        let belongs = is_alive && self.children.owner_of(successor) == Some(main);
        if !belongs || self.children.get(successor).is_some() || self.uncleared.contains(&successor) {
            let what = format_args!(
                "cannot change the main pid from {main} to {successor}: not a process of the same instance"
            );
            self.notify.complain(self.now, what);
            return main;
        }
        self.replace_main(main, successor);
        successor
    }

    fn replace_main(&mut self, main: Pid, successor: Pid) {
        self.poll_exec_result(main);
        self.children.succeed(main, successor, &self.probe, &self.poller);
        if let Some(said) = self.notify.said.remove(&main) {
            self.notify.said.insert(successor, said);
        }
        log::info!("main pid changed from {main} to {successor}");
        self.happened(Event::MainPidChanged { pid: main, successor });
    }

    /// A main process has ended that has taken another's place. If it is our child we hear of it as of any other. If not,
    /// somebody else hears how it has ended, and the place is free for the one that was there before.
    pub(super) fn on_successor_ended(&mut self, token: u64) {
        let pid = token.checked_sub(FIRST_TOKEN).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::new);
        let Some(pid) = pid else { return };
        self.children.successions_mut().stop_watching(pid, &self.poller);
        let Some(child) = self.children.get(pid).cloned() else { return };
        let own = sys::process::id().get();
        let is_ours = |pid: &Pid| procfs::stat(*pid).is_some_and(|stat| stat.ppid == own && !stat.is_dead());
        // In this order: if its parent ends in between, it has become our child.
        let before = self.children.successions().before(pid).find(is_ours);
        let parent = procfs::stat(pid).map(|stat| stat.ppid);
        if parent == Some(own) {
            return self.search.want(Some(pid));
        }
        match before {
            Some(before) => {
                self.replace_main(pid, before);
                if parent.is_some() {
                    self.children.successions_mut().give_back(pid, before);
                }
            }
            None => {
                log::warn!("pid {pid} ended with an unknown exit status: it is not a child of keepalive");
                self.conclude(pid, &child, ExitStatus::Code(u8::MAX));
            }
        }
    }

    fn on_store(&mut self, main: Pid, child: &Child, fields: &NotifyFields<'_>, datagram: &mut Datagram) {
        let id = child.instance;
        let (name, until_end) = match fields.store {
            Store::Nothing => return,
            Store::Drop { name } => return self.store.drop_named(id, name, &self.poller),
            Store::Keep { name, until_end } => (name, until_end),
        };
        let limit = child.definition.process.fd_store;
        let offer = Offer { name, until_end, limit: limit.try_into().unwrap_or(usize::MAX) };
        let refused = self.store.keep(id, offer, &mut datagram.descriptors, &self.poller);
        if refused.surplus > 0 {
            let surplus = refused.surplus;
            let what =
                format_args!("dropped {surplus} of the file descriptors that pid {main} stored: `fd_store` is {limit}");
            self.notify.complain(self.now, what);
        }
        if datagram.descriptors_truncated || refused.roomless > 0 {
            let reason = errno::words(Errno::EMFILE);
            let what = format_args!("cannot store all file descriptors of pid {main}: {reason}");
            self.notify.complain(self.now, what);
        }
    }
}

impl Notify {
    fn status_of(&self, main: Pid) -> &str {
        self.said.get(&main).map_or("", |said| &said.status)
    }
}
