//! The processes that keepalive forks for work that may take any time.

use super::close_queue::CloseQueue;
use super::config_loader::ConfigLoader;
use super::inspector::Inspector;
use super::logging::Logging;
use super::resources::Resources;
use crate::model::Pid;

/// The helper processes of all kinds but the logger, and those that belong to a service.
pub(super) struct Helpers {
    pub(super) config_loader: ConfigLoader,
    pub(super) close_queue: CloseQueue,
    pub(super) inspector: Inspector,
}

impl Helpers {
    /// The logger, the inspectors, and the processes that hold descriptors. They must outlive a SIGTERM to all processes.
    pub(super) fn pids(&self, logging: &Logging, resources: &Resources) -> Vec<Pid> {
        let others = resources.fds.holders().chain(self.inspector.pids());
        logging.pid().into_iter().chain(others).collect()
    }
}
