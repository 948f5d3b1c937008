//! What outlives the processes of services and is given to the next ones: sockets, memory, stored descriptors.

use super::fd_store::FdStore;
use super::runs::Runs;
use super::sockets::Sockets;
use super::state::States;
use crate::model::Plan;

/// All that is kept for services.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) sockets: Sockets,
    pub(super) states: States,
    pub(super) fds: FdStore,
}

impl Resources {
    /// Binds the sockets of the plan: whoever finds the control socket finds those of the services too.
    pub(super) fn new(plan: &Plan) -> Self {
        Self { sockets: Sockets::new(plan), ..Self::default() }
    }

    /// Closes the sockets that neither the plan nor any process that runs has a use for.
    pub(super) fn release_sockets(&mut self, plan: &Plan, runs: &Runs) {
        self.sockets.release(plan, || runs.living().map(|run| (run.spec.instance, &*run.spec.definition)));
    }
}
