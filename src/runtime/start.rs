//! How the main process of a run comes to be: what it is given, and what is known of it from then on.

use std::os::fd::AsFd as _;

use super::child_pipes::ChildPipes;
use super::inherited_fds::InheritedFds;
use super::ipc::Channels;
use super::logging::Logging;
use super::notify::Notify;
use super::probe::Probes;
use super::processes::Processes;
use super::resources::Resources;
use super::runs::RunSpec;
use super::state::Company;
use crate::model::{Pid, RunId, StartFailure, StartStep};
use crate::supervisor::Event;
use crate::sys::{ExecResult, Poller};

/// What takes part in a start.
pub(super) struct Start<'a> {
    pub(super) processes: &'a mut Processes,
    pub(super) resources: &'a mut Resources,
    pub(super) logging: &'a mut Logging,
    pub(super) notify: &'a mut Notify,
    pub(super) probes: &'a mut Probes,
    pub(super) channels: &'a mut Channels,
    pub(super) poller: &'a Poller,
}

/// A process that has been made.
struct Made {
    pid: Pid,
    progress: ExecResult,
    pipes: ChildPipes,
}

impl Start<'_> {
    /// Starts a run. Gives back what the supervisor has to know, the answer to its action first.
    pub(super) fn start(mut self, run: RunId, spec: RunSpec) -> Vec<Event> {
        let Made { pid, progress, pipes } = match self.make(run, &spec) {
            Ok(made) => made,
            Err(refused) => return vec![refused],
        };
        let mut events = vec![Event::Spawned { run, pid }];
        self.notify.on_started(spec.instance);
        let (ready, ipc) = pipes.into_ours();
        if let Some(pipe) = ready {
            self.probes.listen(run, spec.clone(), pipe, self.poller);
        }
        if let Some(channel) = ipc {
            self.channels.open(run, spec.instance, &spec.definition.name, channel, self.poller);
        }
        events.extend(self.processes.on_made(run, spec, pid));
        events.extend(self.processes.on_progress(run, progress, self.poller));
        events
    }

    /// The process, or the event that says why there is none.
    fn make(&mut self, run: RunId, spec: &RunSpec) -> Result<Made, Event> {
        let out_of = |errno| Event::SpawnFailed { run, errno };
        let refused = |failure: StartFailure| match failure.is_shortage() {
            true => out_of(failure.errno),
            false => Event::BindFailed { run, failure },
        };
        let RunSpec { instance, definition, .. } = spec;
        let company = match self.processes.has_processes_of(*instance) {
            true => Company::Others,
            false => Company::Nobody,
        };
        let sockets = self.resources.sockets.for_instance(*instance, definition).map_err(refused)?;
        let state = self.resources.states.for_instance(*instance, definition, company);
        let state = state.map_err(|errno| refused(StartFailure { step: StartStep::State, errno }))?;
        let pipes = ChildPipes::new(definition).map_err(out_of)?;
        let notify =
            definition.uses_notify_socket().then(|| self.notify.address(self.poller)).transpose().map_err(out_of)?;
        let inherited_fds = InheritedFds {
            sockets: &sockets,
            stored: self.resources.fds.of(*instance),
            state: state.as_ref().map(|memory| memory.as_fd()),
            notify,
            ..pipes.inherited_fds()
        };
        let made = self.processes.factory.spawn(spec, &inherited_fds, self.logging);
        let (pid, progress) = made.map_err(out_of)?;
        Ok(Made { pid, progress, pipes })
    }
}
