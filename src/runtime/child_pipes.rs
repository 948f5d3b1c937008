//! Our ends of what a process is given to talk to us with, and its own until it has been made.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;

use super::Runtime;
use super::inherited_fds::InheritedFds;
use crate::model::Pid;
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
        let mut ends = Self::default();
        if let Ready::Fd(number) = definition.ready {
            let (ours, theirs) = pipe::pipe()?;
            ends.ready = Some((number, ours, theirs));
        }
        if definition.process.ipc {
            ends.ipc = Some(stream::pair()?);
        }
        Ok(ends)
    }

    /// What of them the process gets.
    pub(super) fn inherited_fds(&self) -> InheritedFds<'_> {
        InheritedFds {
            ready: self.ready.as_ref().map(|(number, _, theirs)| (*number, theirs.as_fd())),
            ipc: self.ipc.as_ref().map(|(_, theirs)| theirs.as_fd()),
            ..InheritedFds::default()
        }
    }
}

impl Runtime {
    /// The process has its ends, we listen at ours.
    pub(super) fn keep(&mut self, ends: ChildPipes, pid: Pid) {
        let Some(of) = self.children.get(pid) else { return };
        if let Some((_, ours, _)) = ends.ready {
            self.probes.listen(pid, of.clone(), ours, &self.poller);
        }
        if let Some((ours, _)) = ends.ipc {
            self.channels.open(pid, of.instance, &of.definition.name, ours, &self.poller);
        }
    }
}
