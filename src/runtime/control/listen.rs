//! Where clients come in: made at the start, taken away at the end.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{CONTROL, HTTP, Server};
use crate::control::{SocketPath, socket_paths};
use crate::model::errno;
use crate::model::plan::Control;
use crate::sys::{Poller, process, socket};

/// The file of our control socket, by which it is known again at the end.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Server {
    /// Listens where the plan says. What cannot be had is warned about, and keepalive goes on without it.
    pub(in crate::runtime) fn new(control: &Control, http: Option<SocketAddr>, poller: &Poller) -> Self {
        let mut server = Self::default();
        match control {
            Control::Off => {}
            Control::At(path) => match claim(path) {
                Ok(claimed) => server.control = Some(claimed),
                Err(RolloutError::Live) => {
                    let path = path.display();
                    log::error!("another keepalive uses the control socket {path}: set a different `control`");
                }
                Err(RolloutError::Other(reason)) => {
                    log::warn!("cannot create the control socket {}: {reason}", path.display());
                }
            },
            Control::Default => server.control = usual(),
        }
        if let Some(address) = http {
            match socket::listen_tcp(address) {
                Ok(listener) => server.http = Some(listener),
                Err(errno) => log::warn!("cannot listen on the `http` address {address}: {}", errno::words(errno)),
            }
        }
        let listeners = [(server.control.as_ref().map(|(fd, _)| fd), CONTROL), (server.http.as_ref(), HTTP)];
        for (listener, token) in listeners {
            let added = listener.map_or(Ok(()), |listener| poller.add(listener.as_fd(), token));
            if let Err(errno) = added {
                log::warn!("cannot accept clients: {}", errno::words(errno));
            }
        }
        server
    }

    /// Takes the control socket away, if it is still ours.
    pub(in crate::runtime) fn close(&mut self) {
        if let Some((listener, file)) = self.control.take() {
            if identity(&file.path).ok() == Some(file.identity) {
                std::fs::remove_file(&file.path).ok();
            }
            drop(listener);
        }
    }
}

/// The first of the usual places that can be had.
fn usual() -> Option<(OwnedFd, SocketFile)> {
    let mut obstacles: Vec<(PathBuf, RolloutError)> = Vec::new();
    let places = socket_paths(&|name| std::env::var_os(name), process::effective_user());
    for SocketPath { path, .. } in places {
        match claim(&path) {
            Ok(claimed) => {
                // Clients would find the other one.
                for (other, _) in obstacles.iter().filter(|(_, obstacle)| matches!(obstacle, RolloutError::Live)) {
                    let (own, other) = (path.display(), other.display());
                    log::warn!("another keepalive uses {other}: this one listens on {own} (`--socket {own}`)");
                }
                return Some(claimed);
            }
            Err(obstacle) => obstacles.push((path, obstacle)),
        }
    }
    let tried: Vec<String> = obstacles.iter().map(|(path, why)| format!("at {} ({why})", path.display())).collect();
    log::warn!("cannot create the control socket {}: client commands do not work", tried.join(" or "));
    None
}

/// Why there is no control socket at a path.
#[derive(Debug)]
enum RolloutError {
    /// Another keepalive's is there.
    Live,
    Other(String),
}

impl Display for RolloutError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => formatter.write_str("another keepalive uses it"),
            Self::Other(reason) => formatter.write_str(reason),
        }
    }
}

/// Makes the socket, in place of one that nobody answers at any more.
fn claim(path: &Path) -> Result<(OwnedFd, SocketFile), RolloutError> {
    let listener = match socket::listen_unix(path) {
        Err(Errno::EADDRINUSE) => {
            replace(path)?;
            socket::listen_unix(path)
        }
        other => other,
    };
    let listener = listener.map_err(|errno| RolloutError::Other(errno::words(errno).to_owned()))?;
    let identity = identity(path).map_err(|error| RolloutError::Other(error.to_string()))?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// Takes away what was left behind by somebody who has gone.
fn replace(path: &Path) -> Result<(), RolloutError> {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Err(RolloutError::Other("the file is not a socket".to_owned()));
    }
    match socket::connect_unix(path) {
        Err(Errno::ECONNREFUSED) => match std::fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(RolloutError::Other(format!("cannot remove the stale socket: {error}"))),
        },
        Err(Errno::ENOENT) => Ok(()),
        Ok(_) | Err(_) => Err(RolloutError::Live),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
