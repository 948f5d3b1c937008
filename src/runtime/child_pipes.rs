//! The pipes and channels by which a process talks to keepalive: both ends, until the process has been made.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;

use super::inherited_fds::InheritedFds;
use crate::model::plan::{Ready, Service};
use crate::sys::{pipe, stream};

/// What is made for one process; nothing for most.
#[derive(Debug, Default)]
pub(super) struct ChildPipes {
    /// Its number with the process, and both ends: ours, and that of the process.
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

    /// What of them the process gets.
    pub(super) fn inherited_fds(&self) -> InheritedFds<'_> {
        InheritedFds {
            ready: self.ready.as_ref().map(|(number, _, theirs)| (*number, theirs.as_fd())),
            ipc: self.ipc.as_ref().map(|(_, theirs)| theirs.as_fd()),
            ..InheritedFds::default()
        }
    }

    /// Our ends, after the process has been made: of the pipe by which it reports that it is ready, and of its ipc channel.
    pub(super) fn into_ours(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        (self.ready.map(|(_, ours, _)| ours), self.ipc.map(|(ours, _)| ours))
    }
}
