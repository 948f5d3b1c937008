//! The descriptors that a process inherits besides stdin, stdout and stderr, and the environment variables that announce
//! them.
//!
//! The numbers are fixed: sockets from 3 on, in the order of `listen`, then stored descriptors; `ready.fd` at its configured
//! number; the ipc channel and `state` at the lowest free numbers after the sockets and stored descriptors.

use std::io::Write as _;
use std::os::fd::BorrowedFd;

use crate::model::plan::{Service, State};
use crate::sys::{self, StringList};

/// `SD_LISTEN_FDS_START` of sd_listen_fds(3).
const FIRST_FD: u8 = 3;

/// The descriptors of one process. The default is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InheritedFds<'a> {
    /// The listening sockets, in the order of `listen`.
    pub(super) sockets: &'a [BorrowedFd<'a>],
    /// The names of the stored descriptors of its instance.
    pub(super) stored: &'a [Box<str>],
    /// The socket over which these come.
    pub(super) stored_socket: Option<BorrowedFd<'a>>,
    /// `ready.fd`: its number, and the pipe that the process writes a newline to.
    pub(super) ready: Option<(u8, BorrowedFd<'a>)>,
    /// Its end of the ipc channel.
    pub(super) ipc: Option<BorrowedFd<'a>>,
    /// The `state` memory, and the size that it must get; `None` if it is a file, which the child opens.
    pub(super) state: Option<(BorrowedFd<'a>, Option<u64>)>,
    /// `NOTIFY_SOCKET`.
    pub(super) notify: Option<&'a str>,
}

/// The descriptors with their numbers in the process.
#[derive(Clone, Debug, Default)]
pub(super) struct FdLayout<'a> {
    pub(super) descriptors: Vec<(u8, BorrowedFd<'a>)>,
    /// The number of the first stored descriptor, and how many there are.
    pub(super) stored: (u8, u8),
    /// The number and the minimum size of the `state` file.
    pub(super) file: Option<(u8, u64)>,
    /// The number of the `state` memory, and the size that it must get.
    pub(super) resize: Option<(u8, u64)>,
    /// The number of sockets and stored descriptors.
    listening: usize,
    ipc: Option<u8>,
    state: Option<u8>,
}

impl<'a> InheritedFds<'a> {
    /// Assigns the numbers. Does not allocate if there are no descriptors.
    pub(super) fn layout(&self, service: &Service) -> FdLayout<'a> {
        // Not all stored descriptors may fit: they may have been stored under another configuration.
        let end = self.ready.map_or(u8::MAX, |(number, _)| number);
        // Stored descriptors are announced by LISTEN_FDS only.
        let stored = if service.process.listen_fds { self.stored } else { &[] };
        let sockets = self.sockets.iter().copied();
        let mut layout = FdLayout { descriptors: (FIRST_FD..end).zip(sockets).collect(), ..FdLayout::default() };
        let first = usize::from(FIRST_FD) + layout.descriptors.len();
        let count = stored.len().min(usize::from(end).saturating_sub(first));
        layout.stored = (u8::try_from(first).unwrap_or(u8::MAX), u8::try_from(count).unwrap_or(0));
        layout.listening = layout.descriptors.len() + count;
        let begin = usize::from(FIRST_FD) + layout.listening;
        let begin = u8::try_from(begin).unwrap_or(u8::MAX);
        let mut free = (begin..=u8::MAX).filter(|number| self.ready.is_none_or(|(taken, _)| taken != *number));
        let mut place = |fd: BorrowedFd<'a>| {
            let number = free.next()?;
            layout.descriptors.push((number, fd));
            Some(number)
        };
        layout.ipc = self.ipc.and_then(&mut place);
        layout.state = self.state.and_then(|(memory, _)| place(memory));
        layout.resize = layout.state.zip(self.state.and_then(|(_, size)| size));
        if let Some(State { persist: Some(_), size }) = &service.process.state {
            layout.file = free.next().map(|number| (number, *size));
            layout.state = layout.file.map(|(number, _)| number);
        }
        layout.descriptors.extend(self.ready);
        layout
    }

    /// Appends the environment variables that announce the descriptors.
    ///
    /// `LISTEN_PID` and `WATCHDOG_PID` are the pid of keepalive, which [`sys::Spawner::spawn`] replaces by that of the child.
    pub(super) fn describe(&self, layout: &FdLayout<'_>, service: &Service, env: &mut StringList) {
        let own = sys::process::id();
        let mut set = |name: &str, value: &dyn std::fmt::Display| {
            env.push_with(|buffer| drop(write!(buffer, "{name}={value}")));
        };
        let is_announced = layout.listening > 0 && service.process.listen_fds;
        if is_announced {
            set("LISTEN_FDS", &layout.listening);
            set("LISTEN_PID", &own);
        }
        if let Some(socket) = self.notify {
            set("NOTIFY_SOCKET", &socket);
        }
        if service.process.fd_store > 0 {
            set("FDSTORE", &service.process.fd_store);
        }
        if let Some(interval) = service.watchdog {
            set("WATCHDOG_USEC", &u64::try_from(interval.as_micros()).unwrap_or(u64::MAX));
            set("WATCHDOG_PID", &own);
        }
        if let Some(number) = layout.ipc {
            set("NODE_CHANNEL_FD", &number);
            set("NODE_CHANNEL_SERIALIZATION_MODE", &"json");
            set("KEEPALIVE_IPC_FD", &number);
        }
        if let Some(number) = layout.state {
            set("KEEPALIVE_STATE_FD", &number);
        }
        if is_announced {
            let names = service.process.listen.iter().map(|listen| &*listen.name);
            let names = names.chain(self.stored.iter().map(|name| &**name));
            env.push_with(|buffer| {
                buffer.extend_from_slice(b"LISTEN_FDNAMES");
                for (position, name) in names.take(layout.listening).enumerate() {
                    buffer.push(if position == 0 { b'=' } else { b':' });
                    buffer.extend_from_slice(name.as_bytes());
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
    use std::time::Duration;

    use super::*;
    use crate::model::Template;
    use crate::model::plan::{Address, Listen, Process};

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn service(names: &[&str]) -> Service {
        let mut service = Service::new("web", Process::new(Box::default()));
        let listen = |name: &&str| Listen {
            name: (*name).into(),
            address: Address::Unix { path: "@x".into(), mode: 0, owner: None }.into(),
            nonblocking: false,
        };
        Rc::make_mut(&mut service.process).listen = names.iter().map(listen).collect();
        service
    }

    /// Checks the descriptors by number, and the environment.
    fn check(inherited_fds: &InheritedFds<'_>, service: &Service, expect: (&[(u8, BorrowedFd<'_>)], &[&str])) {
        let layout = inherited_fds.layout(service);
        let mut numbers: Vec<(u8, i32)> = layout.descriptors.iter().map(|(to, fd)| (*to, fd.as_raw_fd())).collect();
        numbers.sort_unstable();
        let expected: Vec<(u8, i32)> = expect.0.iter().map(|(to, fd)| (*to, fd.as_raw_fd())).collect();
        assert_eq!(numbers, expected);
        let mut env = StringList::new();
        inherited_fds.describe(&layout, service, &mut env);
        let own = sys::process::id().to_string();
        let env: Vec<String> = env.iter().map(|entry| String::from_utf8_lossy(entry).replace(&own, "OWN")).collect();
        assert_eq!(env, expect.1);
    }

    #[test]
    fn a_service_without_descriptors_gets_no_variables() {
        check(&InheritedFds::default(), &Service::new("web", Process::new(Box::default())), (&[], &[]));
    }

    // sd_listen_fds(3): from 3 on, in the order of the configuration, stored descriptors after the sockets.
    #[test]
    fn sockets_come_before_stored_descriptors_and_the_rest() {
        let (a, b, ipc, state, ready) = (null(), null(), null(), null(), null());
        let stored = [Box::from("first"), Box::from("first")];
        let inherited_fds = InheritedFds {
            sockets: &[a.as_fd(), b.as_fd()],
            stored: &stored,
            ready: Some((8, ready.as_fd())),
            ipc: Some(ipc.as_fd()),
            stored_socket: None,
            state: Some((state.as_fd(), None)),
            notify: Some("@there"),
        };
        let mut service = service(&["http", "admin"]);
        service.watchdog = Some(Duration::from_millis(1500));
        assert_eq!(inherited_fds.layout(&service).stored, (5, 2));
        let descriptors = [(3, a.as_fd()), (4, b.as_fd()), (7, ipc.as_fd()), (8, ready.as_fd()), (9, state.as_fd())];
        let env = [
            "LISTEN_FDS=4",
            "LISTEN_PID=OWN",
            "NOTIFY_SOCKET=@there",
            "WATCHDOG_USEC=1500000",
            "WATCHDOG_PID=OWN",
            "NODE_CHANNEL_FD=7",
            "NODE_CHANNEL_SERIALIZATION_MODE=json",
            "KEEPALIVE_IPC_FD=7",
            "KEEPALIVE_STATE_FD=9",
            "LISTEN_FDNAMES=http:admin:first:first",
        ];
        check(&inherited_fds, &service, (&descriptors, &env));
    }

    // gunicorn with `-b fd://3` also takes the sockets of LISTEN_FDS, and exits because it has one of them twice.
    #[test]
    fn a_service_without_listen_fds_gets_only_its_sockets() {
        let (socket, ready) = (null(), null());
        let (sockets, ready) = ([socket.as_fd()], ready.as_fd());
        // Stored by a process of an earlier definition.
        let stored = [Box::from("kept")];
        let inherited_fds =
            InheritedFds { sockets: &sockets, stored: &stored, ready: Some((9, ready)), ..InheritedFds::default() };
        let mut service = service(&["http"]);
        Rc::make_mut(&mut service.process).listen_fds = false;
        check(&inherited_fds, &service, (&[(3, socket.as_fd()), (9, ready)], &[]));
    }

    #[test]
    fn a_descriptor_without_a_free_number_is_not_announced() {
        let (a, ready) = (null(), null());
        let stored = [Box::from("kept"), Box::from("not")];
        let (sockets, ready) = ([a.as_fd()], ready.as_fd());
        let inherited_fds =
            InheritedFds { sockets: &sockets, stored: &stored, ready: Some((5, ready)), ..InheritedFds::default() };
        let descriptors = [(3, a.as_fd()), (5, ready)];
        assert_eq!(inherited_fds.layout(&service(&["http"])).stored, (4, 1));
        let env = ["LISTEN_FDS=2", "LISTEN_PID=OWN", "LISTEN_FDNAMES=http:kept"];
        check(&inherited_fds, &service(&["http"]), (&descriptors, &env));
    }

    #[test]
    fn a_state_file_has_a_number_and_no_descriptor() {
        let mut service = Service::new("web", Process::new(Box::default()));
        let persist = Some(Template::Fixed(c"/data/state".to_owned()));
        Rc::make_mut(&mut service.process).state = Some(State { size: 7, persist });
        assert_eq!(InheritedFds::default().layout(&service).file, Some((3, 7)));
        check(&InheritedFds::default(), &service, (&[], &["KEEPALIVE_STATE_FD=3"]));
    }
}
