//! Resources that outlive processes and are passed to the next ones: sockets, `state` memory, stored descriptors.

use super::fd_store::FdStore;
use super::runs::Runs;
use super::sockets::Sockets;
use super::state::States;
use crate::model::Plan;

/// The resources of all services.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) sockets: Sockets,
    pub(super) states: States,
    pub(super) fds: FdStore,
}

impl Resources {
    /// Binds the sockets of the plan. This happens before the control socket is created.
    pub(super) fn new(plan: &Plan) -> Self {
        Self { sockets: Sockets::new(plan), ..Self::default() }
    }

    /// Closes the sockets that neither the plan nor a running process uses.
    pub(super) fn release_sockets(&mut self, plan: &Plan, runs: &Runs) {
        self.sockets.release(plan, || runs.living().map(|run| (run.spec.instance, &*run.spec.definition)));
    }
}
