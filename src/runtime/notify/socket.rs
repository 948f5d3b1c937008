//! The notification sockets: one for each run, so that a message belongs to a run by the socket that it comes from.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;

use crate::model::RunId;
use crate::model::plan::Service;
use crate::sys::{datagram, deferred_close, process, random};

/// Everybody may find the sockets, only keepalive may make some.
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
    /// Opens the socket of a run.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(super) fn open(&mut self, run: RunId, service: &Service) -> Result<NotifySocket, Errno> {
        if matches!(self, Self::NotMade) {
            *self = make().map_or(Self::Impossible, Self::Made);
        }
        if let Self::Made(directory) = self
            && (service.process.credentials.is_none() || !directory.is_private())
            && let Some(opened) = open_in(&directory.path, run, service)?
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
    pub(super) fn close(self, readers: Readers) {
        if let Some(path) = self.path {
            fs::remove_file(path).ok();
        }
        match readers {
            Readers::Keepalive => datagram::close(self.socket),
            Readers::Other => deferred_close(vec![self.socket]),
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

/// A directory of this name that has been left by an earlier keepalive is used again.
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
        Ok(lock) => Some(LockedDirectory { path, _lock: Some(lock) }),
        Err((_, Errno::EWOULDBLOCK)) => None,
        Err(_) => Some(LockedDirectory { path, _lock: None }),
    }
}

/// `None`: a socket cannot be made there.
fn open_in(directory: &Path, run: RunId, service: &Service) -> Result<Option<NotifySocket>, Errno> {
    let path = directory.join(format!("{}-{}", service.name, run.get()));
    // One that an earlier keepalive has left.
    fs::remove_file(&path).ok();
    let socket = match datagram::bind_path(&path) {
        Ok(socket) => socket,
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
        Err(_) => return Ok(None),
    };
    let credentials = service.process.credentials.as_ref();
    let is_ready = match credentials {
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
    use super::*;

    #[test]
    fn another_keepalive_with_the_same_pid_has_a_directory_of_its_own() {
        let place = std::env::temp_dir();
        let [first, second] = [(); 2].map(|()| make_in(&place).unwrap());
        assert_ne!(first.path, second.path);
        let path = first.path.clone();
        drop(first);
        let third = make_in(&place).unwrap();
        assert_eq!(third.path, path, "an abandoned one is used again");
        for directory in [second, third] {
            fs::remove_dir(directory.path).unwrap();
        }
    }
}
