//! The phase of keepalive as a whole: it is running, is shutting down, or has ended.

use super::record::Outcome;
use crate::model::Mono;

#[derive(Debug)]
pub(super) enum Phase {
    Running,
    /// keepalive is shutting down.
    Draining(Drain),
    /// [`super::Action::Exit`] has been decided.
    Ended,
}

#[derive(Debug)]
pub(super) struct Drain {
    /// When `shutdown_timeout` elapses.
    pub(super) deadline: Mono,
    pub(super) outcome: Outcome,
    pub(super) stage: DrainStage,
    /// When the first SIGINT was received. A second one forces the shutdown.
    pub(super) interrupted_at: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainStage {
    /// The services are being stopped, dependents first.
    Services,
    /// The services have stopped. Leftover processes have been sent SIGTERM.
    Leftovers { until: Mono },
    /// All processes have been sent SIGKILL.
    Killed { until: Mono },
}

impl Drain {
    /// When the shutdown continues without an event.
    pub(super) fn until(&self) -> Mono {
        match self.stage {
            DrainStage::Services => self.deadline,
            DrainStage::Leftovers { until } => until.min(self.deadline),
            DrainStage::Killed { until } => until,
        }
    }

    pub(super) const fn is_forced(&self) -> bool {
        matches!(self.stage, DrainStage::Killed { .. })
    }
}
