//! Starts the main process of a run: prepares its descriptors, spawns it, registers it with the subsystems.

use std::os::fd::AsFd as _;

use nix::errno::Errno;

use super::child_pipes::{ChildPipes, KeptEnds};
use super::close_queue::CloseQueue;
use super::inherited_fds::InheritedFds;
use super::ipc::Channels;
use super::logging::Logging;
use super::notify::Notify;
use super::probe::Probes;
use super::processes::Processes;
use super::resources::Resources;
use super::runs::RunSpec;
use super::state::MemoryUse;
use crate::model::{Mono, Pid, RunId, StartFailure, StartStep};
use crate::supervisor::Event;
use crate::sys::{PendingExec, Poller};

/// The subsystems that take part in a start.
pub(super) struct Start<'a> {
    pub(super) processes: &'a mut Processes,
    pub(super) resources: &'a mut Resources,
    pub(super) logging: &'a mut Logging,
    pub(super) notify: &'a mut Notify,
    pub(super) probes: &'a mut Probes,
    pub(super) channels: &'a mut Channels,
    pub(super) close_queue: &'a CloseQueue,
    pub(super) poller: &'a Poller,
    pub(super) now: Mono,
}

/// A process that has been created.
struct Spawned {
    pid: Pid,
    pending: PendingExec,
    pipes: ChildPipes,
}

impl Start<'_> {
    /// Starts a run. The first event is the answer to `Action::Spawn`.
    pub(super) fn start(mut self, run: RunId, spec: RunSpec) -> Vec<Event> {
        let Spawned { pid, pending, pipes } = match self.spawn(run, &spec) {
            Ok(spawned) => spawned,
            Err(refused) => return vec![refused],
        };
        let mut events = vec![Event::Spawned { run, pid }];
        if spec.hook.is_none() {
            self.notify.on_started(spec.instance);
        }
        let KeptEnds { ready, ipc, stored } = pipes.into_ours();
        if let Some(socket) = stored {
            // After the end of the process has been closed here: nothing that is sent can end up in keepalive.
            self.resources.fds.give(spec.instance, socket.as_fd(), self.now);
        }
        if let Some(pipe) = ready {
            self.probes.listen(run, spec.clone(), pipe, self.now);
        }
        if let Some(channel) = ipc {
            self.channels.open(run, spec.instance, &spec.definition.name, channel, self.poller);
        }
        events.extend(self.processes.on_made(run, spec, pid));
        events.extend(self.processes.watch_exec(run, pending, self.poller));
        events
    }

    /// Creates the process, or returns the event that says why that failed.
    fn spawn(&mut self, run: RunId, spec: &RunSpec) -> Result<Spawned, Event> {
        let refused = |failure: StartFailure| match failure.is_shortage() {
            true => Event::SpawnFailed { run, errno: failure.errno },
            false => Event::BindFailed { run, failure },
        };
        let at = |step| move |errno| refused(StartFailure { step, errno });
        let RunSpec { instance, definition, .. } = spec;
        if self.close_queue.is_behind(instance.service) {
            return Err(Event::SpawnFailed { run, errno: Errno::EBUSY });
        }
        let memory_use = match self.processes.has_processes_of(*instance) {
            true => MemoryUse::Shared,
            false => MemoryUse::Exclusive,
        };
        if spec.hook.is_some() {
            let inherited_fds = InheritedFds::default();
            let made = self.processes.factory.spawn(run, spec, &inherited_fds, self.logging);
            let (pid, pending) = made.map_err(at(StartStep::Create))?;
            return Ok(Spawned { pid, pending, pipes: ChildPipes::default() });
        }
        let sockets = self.resources.sockets.for_instance(*instance, definition).map_err(refused)?;
        let state = self.resources.states.for_instance(*instance, definition, memory_use);
        let state = state.map_err(at(StartStep::StateMemory))?;
        let stored = self.resources.fds.names(*instance);
        let pipes = ChildPipes::new(definition, stored).map_err(at(StartStep::Channels))?;
        let uses_notify = definition.uses_notify_socket();
        let address = uses_notify.then(|| self.notify.open(run, spec, self.poller)).transpose();
        let notify = address.map_err(at(StartStep::Channels))?;
        let inherited_fds = InheritedFds {
            sockets: &sockets,
            stored,
            state: state.as_ref().map(|state| (state.memory.as_fd(), state.resize)),
            notify,
            ..pipes.inherited_fds()
        };
        let made = self.processes.factory.spawn(run, spec, &inherited_fds, self.logging);
        match made {
            Ok((pid, pending)) => Ok(Spawned { pid, pending, pipes }),
            Err(errno) => {
                self.notify.close(run, self.poller);
                Err(at(StartStep::Create)(errno))
            }
        }
    }
}
