//! The notification sockets: one for each run, so that a message belongs to a run by the socket that it comes from.
//!
//! A service can be held up by messages with descriptors that cannot be closed, whoever sends them. So only its own processes
//! know the path of its socket: the name is random, other users cannot list the directory, and /proc/net/unix shows the name
//! that the socket had when it was bound, before its file was renamed. An abstract address cannot be kept secret in this way.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;

use crate::model::plan::{Credentials, Service};
use crate::model::{RunId, ServiceIndex};
use crate::sys::deferred_close::Owner;
use crate::sys::{datagram, deferred_close, process, random};

/// Everybody may use a socket whose name he knows, only keepalive may list the sockets and make some.
const DIRECTORY_MODE: u32 = 0o711;
/// A service that changes its user itself must be able to send.
const MODE_FOR_ALL: u32 = 0o666;
const MODE_FOR_USER: u32 = 0o600;

/// The directory of the sockets.
#[derive(Debug, Default)]
pub(super) enum Directory {
    #[default]
    NotMade,
    Made(LockedDirectory),
    /// No directory can be written: the sockets have abstract addresses.
    Impossible,
}

/// A directory that no other keepalive uses. In other PID namespaces there may be one with the same pid.
#[derive(Debug)]
pub(super) struct LockedDirectory {
    path: PathBuf,
    /// `None`: the file system has no locks.
    _lock: Option<Flock<OwnedFd>>,
}

impl LockedDirectory {
    /// Whether other users cannot reach it: `XDG_RUNTIME_DIR` belongs to one user.
    fn is_private(&self) -> bool {
        let place = self.path.parent().and_then(|place| fs::metadata(place).ok());
        place.is_none_or(|place| place.mode() & 0o001 == 0)
    }
}

/// Who may be reading from a socket. To look at a datagram while another process takes it would leave keepalive with the last
/// reference to its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    Keepalive,
    Other,
}

/// The notification socket of a run.
#[derive(Debug)]
pub(super) struct NotifySocket {
    pub(super) socket: OwnedFd,
    /// `NOTIFY_SOCKET`.
    pub(super) address: String,
    /// The file, unless the address is abstract.
    path: Option<PathBuf>,
}

impl Directory {
    /// Makes the directory, unless it has been tried. Before there are services, none can hold this up: a process that reads
    /// the place, and waits for memory on the way, does.
    pub(super) fn make(&mut self) {
        if matches!(self, Self::NotMade) {
            *self = make().map_or(Self::Impossible, Self::Made);
        }
    }

    /// Opens the socket of a run.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(super) fn open(&mut self, run: RunId, service: &Service) -> Result<NotifySocket, Errno> {
        self.make();
        if let Self::Made(directory) = self
            && (service.process.credentials.is_none() || !directory.is_private())
            && let Some(opened) = open_in(&directory.path, run, service.process.credentials.as_ref())?
        {
            return Ok(opened);
        }
        let name = format!("keepalive/notify/{}-{:016x}", process::id(), random::random_u64());
        Ok(NotifySocket { socket: datagram::bind_abstract(name.as_bytes())?, address: format!("@{name}"), path: None })
    }

    /// Removes the directory.
    pub(super) fn remove(&mut self) {
        if let Self::Made(directory) = std::mem::take(self) {
            fs::remove_dir(directory.path).ok();
        }
    }
}

impl NotifySocket {
    /// Closes the socket and removes its file.
    pub(super) fn close(self, service: ServiceIndex, readers: Readers) {
        let owner = Owner::Service(service);
        if let Some(path) = self.path {
            fs::remove_file(path).ok();
        }
        match readers {
            Readers::Keepalive => datagram::close(owner, self.socket),
            Readers::Other => deferred_close(owner, [self.socket]),
        }
    }
}

/// Makes the directory in the first place where that is possible.
fn make() -> Option<LockedDirectory> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let places = [Some(PathBuf::from("/run")), runtime, Some(PathBuf::from("/tmp"))];
    places.into_iter().flatten().find_map(|place| make_in(&place))
}

fn make_in(place: &Path) -> Option<LockedDirectory> {
    let pid = process::id();
    let names = [format!("keepalive-{pid}.notify"), format!("keepalive-{pid}-{:016x}.notify", random::random_u64())];
    names.into_iter().find_map(|name| make_at(place.join(name)))
}

/// A directory of this name that has been left by an earlier keepalive is used again, without its files.
fn make_at(path: PathBuf) -> Option<LockedDirectory> {
    let is_ready = match DirBuilder::new().mode(DIRECTORY_MODE).create(&path) {
        Ok(()) => fs::set_permissions(&path, Permissions::from_mode(DIRECTORY_MODE)).is_ok(),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::symlink_metadata(&path).is_ok_and(|found| {
            let is_ours = found.is_dir() && found.uid() == process::effective_user();
            is_ours && found.mode() & 0o7777 == DIRECTORY_MODE
        }),
        Err(_) => false,
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = open(&path, flags, Mode::empty()).ok().filter(|_| is_ready)?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            for file in fs::read_dir(&path).into_iter().flatten().flatten() {
                fs::remove_file(file.path()).ok();
            }
            Some(LockedDirectory { path, _lock: Some(lock) })
        }
        Err((_, Errno::EWOULDBLOCK)) => None,
        Err(_) => Some(LockedDirectory { path, _lock: None }),
    }
}

/// `None`: a socket cannot be made there.
fn open_in(directory: &Path, run: RunId, user: Option<&Credentials>) -> Result<Option<NotifySocket>, Errno> {
    // The name that everybody can see; as long as the other one, since bind(2) limits the length.
    let bound = directory.join(format!("{:016x}", run.get()));
    let socket = match datagram::bind_path(&bound) {
        Ok(socket) => socket,
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
        Err(_) => return Ok(None),
    };
    let path = directory.join(format!("{:016x}", random::random_u64()));
    if fs::rename(&bound, &path).is_err() {
        fs::remove_file(&bound).ok();
        return Ok(None);
    }
    let is_ready = match user {
        None => fs::set_permissions(&path, Permissions::from_mode(MODE_FOR_ALL)).is_ok(),
        Some(user) => {
            fs::set_permissions(&path, Permissions::from_mode(MODE_FOR_USER)).is_ok()
                && std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)).is_ok()
        }
    };
    let Some(address) = path.to_str().filter(|_| is_ready).map(str::to_owned) else {
        fs::remove_file(&path).ok();
        return Ok(None);
    };
    Ok(Some(NotifySocket { socket, address, path: Some(path) }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A directory in which the sockets of one test are.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("keepalive-notify-{:016x}", random::random_u64()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn another_keepalive_with_the_same_pid_has_a_directory_of_its_own() {
        let place = Place::new();
        let [first, second] = [(); 2].map(|()| make_in(&place.0).unwrap());
        assert_ne!(first.path, second.path);
        let path = first.path.clone();
        drop(first);
        let third = make_in(&place.0).unwrap();
        assert_eq!(third.path, path, "an abandoned one is used again");
    }

    #[test]
    fn the_sockets_of_a_killed_keepalive_are_removed_by_the_next_one_but_not_those_of_others() {
        let place = Place::new();
        let [killed, other] = [(); 2].map(|()| make_in(&place.0).unwrap());
        for directory in [&killed, &other] {
            for run in 1..3 {
                open_in(&directory.path, RunId::new(run), None).unwrap().unwrap();
            }
            assert_eq!(names(&directory.path).len(), 2);
        }
        drop(killed);
        let mut next = Directory::Made(make_in(&place.0).unwrap());
        assert_eq!(names(&place.0).len(), 2);
        assert_eq!(names(&other.path).len(), 2);
        // Not even the last one has left anything.
        next.remove();
        assert_eq!(names(&place.0), [other.path.file_name().unwrap().to_str().unwrap()]);
    }

    // proc_net(5): /proc/net/unix can be read by everybody.
    #[test]
    fn the_path_of_a_socket_is_shown_nowhere_and_differs_for_each_run() {
        let place = Place::new();
        let directory = make_in(&place.0).unwrap();
        let opened: Vec<_> =
            (1..3).map(|run| open_in(&directory.path, RunId::new(run), None).unwrap().unwrap()).collect();
        let shown = fs::read_to_string("/proc/net/unix").unwrap();
        assert!(shown.contains(directory.path.to_str().unwrap()), "the socket is not listed");
        for NotifySocket { socket, address, path } in opened {
            assert!(!shown.contains(&address), "{address}");
            let found = fs::symlink_metadata(path.unwrap()).unwrap();
            assert!(found.file_type().is_socket());
            assert_eq!(found.mode() & 0o777, MODE_FOR_ALL);
            UnixDatagram::unbound().unwrap().send_to(b"READY=1", &address).unwrap();
            assert_eq!(datagram::peek(&socket, &mut [0; 9]).map(|datagram| datagram.length), Ok(7));
        }
        // The names that are shown do not lead to the sockets.
        assert!(names(&directory.path).iter().all(|name| !shown.contains(name)));
    }

    #[test]
    fn a_path_that_clients_cannot_use_is_not_taken() {
        // sun_path of unix(7) has room for 107 bytes; the name of a socket has 16.
        let place = Place::new();
        for (length, fits) in [(107, true), (108, false)] {
            let padding = length - 17 - place.0.as_os_str().len() - 1;
            let directory = place.0.join("x".repeat(padding));
            fs::create_dir(&directory).unwrap();
            let opened = open_in(&directory, RunId::new(u64::MAX), None).unwrap();
            assert_eq!(opened.map(|opened| opened.address.len()), fits.then_some(length));
            assert_eq!(names(&directory).len(), usize::from(fits));
        }
    }
}
