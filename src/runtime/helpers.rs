//! The processes that keepalive forks for work that may take any time.

use super::close_queue::CloseQueue;
use super::config_loader::{ConfigLoader, LoadConfig};
use super::ended_helpers;
use super::inspector::Inspector;
use super::logging::Logging;
use super::resources::Resources;
use super::subsystem::{NextTurn, Subsystem as _};
use super::token::Token;
use super::watch::Watchers;
use crate::model::{Mono, Pid, Plan};
use crate::sys::{self, Poller, StandardError};

/// The helper processes of all kinds but the logger, and those that belong to a service.
pub(super) struct Helpers {
    pub(super) config_loader: ConfigLoader,
    pub(super) close_queue: CloseQueue,
    pub(super) inspector: Inspector,
    pub(super) watchers: Watchers,
}

impl Helpers {
    pub(super) fn new(load_config: LoadConfig, plan: &Plan, poller: &Poller, now: Mono) -> Self {
        let (close_queue, inspector, mut watchers) = (CloseQueue::default(), Inspector::default(), Watchers::default());
        watchers.apply_config(plan, poller, now);
        Self { config_loader: ConfigLoader::new(load_config), close_queue, inspector, watchers }
    }

    /// The logger, the inspectors, and the processes that hold descriptors or write messages. They must outlive a SIGTERM to all processes.
    pub(super) fn pids(&self, logging: &Logging, resources: &Resources) -> Vec<Pid> {
        let mut pids = StandardError.writers();
        pids.extend(logging.pid());
        pids.extend(self.close_queue.holder());
        pids.extend(self.own_pids(logging, resources));
        pids
    }

    /// `next` with the helpers that are subsystems.
    pub(super) fn next_turn(&self, next: NextTurn) -> NextTurn {
        next.with(&self.config_loader).with(&self.close_queue).with(&self.inspector).with(&self.watchers)
    }

    pub(super) fn on_ready(&mut self, token: Token) {
        self.close_queue.on_ready(token);
        self.inspector.on_ready(token);
        self.watchers.on_ready(token);
    }

    /// Logs what is still to be logged and ends all but the logger, so that none outlives keepalive.
    pub(super) fn end(&mut self, resources: &mut Resources, logging: &Logging, poller: &Poller) {
        for address in resources.sockets.take_in_use() {
            self.inspector.ask_for_port_owner(&address, sys::now(), poller);
        }
        self.inspector.finish(poller);
        self.close_queue.finish();
        let mut pids = self.own_pids(logging, resources);
        pids.extend(self.close_queue.idle_holder());
        ended_helpers::kill_all(&pids);
    }

    /// Those of [`Self::pids`] that end with keepalive.
    fn own_pids(&self, logging: &Logging, resources: &Resources) -> Vec<Pid> {
        let mut pids = logging.killed().to_vec();
        pids.extend_from_slice(resources.sockets.helpers.pids());
        pids.extend(self.watchers.pids());
        self.inspector.add_pids(&mut pids);
        resources.fds.add_holders(&mut pids);
        pids
    }
}
