//! The pipe of `ready.fd` and the ipc channel of a new process: both ends, until the process has been created.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;

use super::inherited_fds::InheritedFds;
use crate::model::plan::{Ready, Service};
use crate::sys::{pipe, stream};

/// The pipes of one process. Most processes have none.
#[derive(Debug, Default)]
pub(super) struct ChildPipes {
    /// The descriptor number in the process, the end of keepalive and the end of the process.
    ready: Option<(u8, OwnedFd, OwnedFd)>,
    ipc: Option<(OwnedFd, OwnedFd)>,
}

impl ChildPipes {
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(super) fn new(definition: &Service) -> Result<Self, Errno> {
        let mut pipes = Self::default();
        if let Ready::Fd(number) = definition.ready {
            let (ours, theirs) = pipe::pipe()?;
            pipes.ready = Some((number, ours, theirs));
        }
        if definition.process.ipc {
            pipes.ipc = Some(stream::pair()?);
        }
        Ok(pipes)
    }

    /// The ends of the process.
    pub(super) fn inherited_fds(&self) -> InheritedFds<'_> {
        InheritedFds {
            ready: self.ready.as_ref().map(|(number, _, theirs)| (*number, theirs.as_fd())),
            ipc: self.ipc.as_ref().map(|(_, theirs)| theirs.as_fd()),
            ..InheritedFds::default()
        }
    }

    /// The ends of keepalive: of the pipe of `ready.fd`, and of the ipc channel.
    pub(super) fn into_ours(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        (self.ready.map(|(_, ours, _)| ours), self.ipc.map(|(ours, _)| ours))
    }
}
