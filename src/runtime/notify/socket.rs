//! The notification sockets: one for each run, so that a message belongs to a run by the socket that it comes from.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

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
    Made(PathBuf),
    /// No directory can be written: the sockets have abstract addresses.
    Impossible,
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
            && let Some(opened) = open_in(directory, run, service)?
        {
            return Ok(opened);
        }
        let name = format!("keepalive/notify/{}-{:016x}", process::id(), random::random_u64());
        Ok(NotifySocket { socket: datagram::bind_abstract(name.as_bytes())?, address: format!("@{name}"), path: None })
    }

    /// Removes the directory.
    pub(super) fn remove(&mut self) {
        if let Self::Made(directory) = std::mem::take(self) {
            fs::remove_dir(directory).ok();
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
fn make() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let places = [Some(PathBuf::from("/run")), runtime, Some(PathBuf::from("/tmp"))];
    let name = format!("keepalive-{}.notify", process::id());
    places.into_iter().flatten().map(|place| place.join(&name)).find(|path| make_at(path))
}

/// A directory of this name that has been left by an earlier keepalive is used again.
fn make_at(path: &Path) -> bool {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)).is_ok(),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::symlink_metadata(path).is_ok_and(|found| {
            let is_ours = found.is_dir() && found.uid() == process::effective_user();
            is_ours && found.mode() & 0o7777 == DIRECTORY_MODE
        }),
        Err(_) => false,
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
