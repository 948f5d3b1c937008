//! What a process is given besides stdin, stdout and stderr, and what its environment says of it.
//!
//! The numbers are fixed: its sockets from 3 on, in the order of `listen`, then what it has stored; `ready.fd` where it is
//! configured to be; its channel and its state at the lowest numbers after the first two that are free.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::model::plan::{Service, State};
use crate::sys::{self, StringList};

/// Where descriptors that are passed on begin: `SD_LISTEN_FDS_START` of sd_listen_fds(3).
const FIRST: u8 = 3;

/// What the process of one instance is given. By default nothing: name what there is, `..Gear::default()` the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gear<'a> {
    /// Its listening sockets, in the order of `listen`.
    pub(super) sockets: &'a [BorrowedFd<'a>],
    /// What has been stored for it, and by what names.
    pub(super) stored: &'a [(Box<str>, OwnedFd)],
    /// Where it writes a newline when it is ready.
    pub(super) ready: Option<(u8, BorrowedFd<'a>)>,
    /// Its end of the channel of JSON lines.
    pub(super) ipc: Option<BorrowedFd<'a>>,
    /// The memory that survives it; not if that is a file.
    pub(super) state: Option<BorrowedFd<'a>>,
    /// `NOTIFY_SOCKET`.
    pub(super) notify: Option<&'a str>,
}

/// At which numbers it gets them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places<'a> {
    /// Each number once.
    pub(super) descriptors: Vec<(u8, BorrowedFd<'a>)>,
    /// Where it gets the file of `state`, and how large that is at least.
    pub(super) file: Option<(u8, u64)>,
    /// How many the first two kinds are together.
    listening: usize,
    ipc: Option<u8>,
    state: Option<u8>,
}

impl<'a> Gear<'a> {
    /// Allocates nothing if there is nothing to place.
    pub(super) fn places(&self, service: &Service) -> Places<'a> {
        // Of what is stored, as much as there is room for: the configuration that it was stored by may have gone.
        let end = self.ready.map_or(u8::MAX, |(number, _)| number);
        let passed_on = self.sockets.iter().copied().chain(self.stored.iter().map(|(_, stored)| stored.as_fd()));
        let mut places = Places { descriptors: (FIRST..end).zip(passed_on).collect(), ..Places::default() };
        places.listening = places.descriptors.len();
        let begin = usize::from(FIRST) + places.listening;
        let begin = u8::try_from(begin).unwrap_or(u8::MAX);
        let mut free = (begin..=u8::MAX).filter(|number| self.ready.is_none_or(|(taken, _)| taken != *number));
        let mut place = |fd: BorrowedFd<'a>| {
            let number = free.next()?;
            places.descriptors.push((number, fd));
            Some(number)
        };
        places.ipc = self.ipc.and_then(&mut place);
        places.state = self.state.and_then(&mut place);
        if let Some(State { persist: Some(_), size }) = &service.process.state {
            places.file = free.next().map(|number| (number, *size));
            places.state = places.file.map(|(number, _)| number);
        }
        places.descriptors.extend(self.ready);
        places
    }

    /// Appends what tells the process of all this.
    ///
    /// `LISTEN_PID` and `WATCHDOG_PID` are our own id, in place of which [`sys::Spawner::spawn`] puts the child's.
    pub(super) fn describe(&self, places: &Places<'_>, service: &Service, env: &mut StringList) {
        let own = sys::process::id();
        let mut set = |name: &str, value: &dyn std::fmt::Display| {
            env.push_with(|buffer| drop(write!(buffer, "{name}={value}")));
        };
        if places.listening > 0 {
            set("LISTEN_FDS", &places.listening);
            set("LISTEN_PID", &own);
        }
        if let Some(socket) = self.notify {
            set("NOTIFY_SOCKET", &socket);
        }
        if let Some(interval) = service.watchdog {
            set("WATCHDOG_USEC", &interval.as_micros());
            set("WATCHDOG_PID", &own);
        }
        if let Some(number) = places.ipc {
            set("NODE_CHANNEL_FD", &number);
            set("NODE_CHANNEL_SERIALIZATION_MODE", &"json");
            set("KEEPALIVE_IPC_FD", &number);
        }
        if let Some(number) = places.state {
            set("KEEPALIVE_STATE_FD", &number);
        }
        if places.listening > 0 {
            let names = service.process.listen.iter().map(|listen| &*listen.name);
            let names = names.chain(self.stored.iter().map(|(name, _)| &**name));
            env.push_with(|buffer| {
                buffer.extend_from_slice(b"LISTEN_FDNAMES");
                for (position, name) in names.take(places.listening).enumerate() {
                    buffer.push(if position == 0 { b'=' } else { b':' });
                    buffer.extend_from_slice(name.as_bytes());
                }
            });
        }
    }
}
