//! The data that the server shows.

use std::path::Path;
use std::time::Duration;

use super::port_owners::PortOwners;
use super::usage::Usage;
use crate::model::plan::Kind;
use crate::model::{Mono, Pid, Plan};
use crate::runtime::ipc::Channels;
use crate::runtime::journal::counts::Counts;
use crate::runtime::journal::events::Events;
use crate::runtime::logging::Logging;
use crate::runtime::notify::Notify;
use crate::runtime::probe::Probes;
use crate::runtime::processes::Processes;
use crate::runtime::subsystem::Context;
use crate::supervisor::{InstanceView, ServiceView, StateName, View};
use crate::sys::{process, wall};

/// The size of a piece of a body, in bytes. A piece may be slightly longer.
const PIECE_SIZE: usize = 32 << 10;

/// The data that bodies are written from.
pub(in crate::runtime) struct StatusSnapshot<'a> {
    pub(in crate::runtime) plan: &'a Plan,
    pub(in crate::runtime) view: View<'a>,
    pub(super) usage: &'a Usage,
    pub(super) port_owners: &'a PortOwners,
    pub(in crate::runtime) counts: &'a Counts,
    pub(in crate::runtime) logging: &'a Logging,
    pub(in crate::runtime) events: &'a Events,
    pub(in crate::runtime) notify: &'a Notify,
    pub(in crate::runtime) channels: &'a Channels,
    pub(in crate::runtime) probes: &'a Probes,
    /// The configuration file.
    pub(in crate::runtime) config: Option<&'a Path>,
    pub(in crate::runtime) pid: Pid,
    pub(in crate::runtime) now: Mono,
    pub(in crate::runtime) started_at: Mono,
    /// `started_at` as Unix time.
    pub(in crate::runtime) started_at_wall: Duration,
    /// The wall clock, as Unix time.
    pub(in crate::runtime) wall: Duration,
}

/// Other subsystems whose data the server shows.
#[derive(Clone, Copy)]
pub(in crate::runtime) struct Sources<'a> {
    pub(in crate::runtime) logging: &'a Logging,
    pub(in crate::runtime) notify: &'a Notify,
    pub(in crate::runtime) channels: &'a Channels,
    pub(in crate::runtime) probes: &'a Probes,
    pub(in crate::runtime) processes: &'a Processes,
}

impl<'a> StatusSnapshot<'a> {
    pub(super) fn new(
        (usage, port_owners): (&'a Usage, &'a PortOwners),
        config: Option<&'a Path>,
        context: &'a Context<'_>,
        sources: Sources<'a>,
    ) -> Self {
        let Sources { logging, notify, channels, probes, processes: _ } = sources;
        Self {
            plan: context.plan,
            view: context.supervisor.view(),
            usage,
            port_owners,
            counts: context.journal.counts(),
            logging,
            events: context.journal.events(),
            notify,
            channels,
            probes,
            config,
            pid: process::id(),
            now: context.now,
            started_at: context.journal.started_at(),
            started_at_wall: context.journal.started_at_wall(),
            wall: wall(),
        }
    }
}

/// The position in the services and instances: the next one to write. `number` 0 includes the head of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) service: usize,
    pub(super) number: usize,
    /// The head of the body has been written.
    pub(super) has_started: bool,
}

pub(super) fn is_full(out: &[u8]) -> bool {
    out.len() >= PIECE_SIZE
}

/// The instance of a service that most needs attention.
pub(super) fn neediest(service: ServiceView<'_>) -> Option<InstanceView<'_>> {
    const ORDER: [StateName; 9] = [
        StateName::Failed,
        StateName::Backoff,
        StateName::Stopping,
        StateName::Starting,
        StateName::Waiting,
        StateName::Running,
        StateName::Scheduled,
        StateName::Stopped,
        StateName::Completed,
    ];
    let rank = |state: StateName| ORDER.iter().position(|other| *other == state);
    service.instances().min_by_key(|instance| (rank(instance.state), instance.ready))
}

/// The word for the state of the service: that of [`neediest`]. One that runs, of which an instance has failed for good, is
/// degraded.
pub(super) fn word_of(service: ServiceView<'_>) -> &'static str {
    let state = neediest(service).map_or(StateName::Stopped, |instance| instance.state);
    if state == StateName::Failed && service.is_active { "degraded" } else { state.as_str() }
}

/// Whether it runs and is ready, or as a oneshot has succeeded.
pub(super) fn is_ready(instance: &InstanceView<'_>, plan: &Plan) -> bool {
    let kind = plan.services.get(instance.id.service.position()).map(|service| service.kind);
    if kind == Some(Kind::Oneshot) {
        matches!(instance.state, StateName::Completed | StateName::Scheduled)
    } else {
        instance.ready
    }
}
