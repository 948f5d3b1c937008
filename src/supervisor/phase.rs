//! Whether keepalive is up, stops everything in order, or has ended.

use super::record::Outcome;
use crate::model::Mono;

#[derive(Debug)]
pub(super) enum Phase {
    Up,
    Draining(Drain),
    /// [`super::Action::Exit`] has been given out.
    Over,
}

#[derive(Debug)]
pub(super) struct Drain {
    /// When `shutdown_timeout` is over.
    pub(super) deadline: Mono,
    pub(super) outcome: Outcome,
    pub(super) stage: DrainStage,
    /// Whether a signal to shut down has come since it began: the next one forces it.
    pub(super) signalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainStage {
    /// The services are being stopped in order.
    Services,
    /// They are down; what they left has been asked to end.
    Leftovers { until: Mono },
    /// Everything has got SIGKILL.
    Killed { until: Mono },
}

impl Drain {
    /// When something is to happen without any other event.
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
