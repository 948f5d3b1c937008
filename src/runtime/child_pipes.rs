//! The pipe of `ready.fd`, the ipc channel and the socket for stored descriptors of a new process: both ends, until the
//! process has been created.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;

use super::inherited_fds::InheritedFds;
use crate::model::plan::{Ready, Service};
use crate::sys::{needed, pipe, stream};

/// The pipes of one process. Most processes have none.
#[derive(Debug, Default)]
pub(super) struct ChildPipes {
    /// The descriptor number in the process, the end of keepalive and the end of the process.
    ready: Option<(u8, OwnedFd, OwnedFd)>,
    ipc: Option<(OwnedFd, OwnedFd)>,
    /// The end of the process that holds the stored descriptors, and the end of the new process.
    stored: Option<(OwnedFd, OwnedFd)>,
}

/// The ends that keepalive keeps or passes on.
#[derive(Debug)]
pub(super) struct KeptEnds {
    /// Of the pipe of `ready.fd`.
    pub(super) ready: Option<OwnedFd>,
    /// Of the ipc channel.
    pub(super) ipc: Option<OwnedFd>,
    /// Of the socket over which stored descriptors go.
    pub(super) stored: Option<OwnedFd>,
}

impl ChildPipes {
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    ///
    /// `stored`: the names of the stored descriptors of the instance.
    pub(super) fn new(definition: &Service, stored: &[Box<str>]) -> Result<Self, Errno> {
        let mut pipes = Self::default();
        if let Ready::Fd(number) = definition.ready {
            let (ours, theirs) = pipe::pipe()?;
            pipes.ready = Some((number, ours, theirs));
        }
        if definition.process.ipc {
            needed::check(&needed::BY_ANSWERS).map_err(|refused| refused.errno)?;
            pipes.ipc = Some(stream::pair()?);
        }
        if !stored.is_empty() && definition.process.listen_fds {
            pipes.stored = Some(stream::pair()?);
        }
        Ok(pipes)
    }

    /// The ends of the process.
    pub(super) fn inherited_fds(&self) -> InheritedFds<'_> {
        InheritedFds {
            ready: self.ready.as_ref().map(|(number, _, theirs)| (*number, theirs.as_fd())),
            ipc: self.ipc.as_ref().map(|(_, theirs)| theirs.as_fd()),
            stored_socket: self.stored.as_ref().map(|(_, theirs)| theirs.as_fd()),
            ..InheritedFds::default()
        }
    }

    /// Closes the ends of the process.
    pub(super) fn into_ours(self) -> KeptEnds {
        KeptEnds {
            ready: self.ready.map(|(_, ours, _)| ours),
            ipc: self.ipc.map(|(ours, _)| ours),
            stored: self.stored.map(|(ours, _)| ours),
        }
    }
}
