//! Who or what has requested something.

use super::run_result::RestartCause;
use crate::model::{MemoryUse, ServiceIndex};

/// Who or what has requested a start, a restart or a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// `autostart`.
    Autostart,
    /// An operator.
    Operator,
    /// This service depends on it.
    Dependent(ServiceIndex),
    /// A reload of the service.
    Reload,
    /// A new configuration.
    Config,
    /// A smaller number of instances.
    Scaling,
    /// `schedule`, `restart_schedule`.
    Schedule,
    /// `max_lifetime`.
    Lifetime,
    /// `max_memory`: what the process uses.
    Memory(MemoryUse),
    /// `watch`.
    Watch,
}

impl Requester {
    /// Whether nobody waits for the result: what works is replaced because of its configuration.
    #[must_use]
    pub const fn is_planned(self) -> bool {
        matches!(self, Self::Schedule | Self::Lifetime | Self::Memory(_))
    }

    /// The cause of a restart that it has requested.
    pub(super) const fn restart_cause(self) -> RestartCause {
        match self {
            Self::Autostart | Self::Operator | Self::Dependent(_) | Self::Scaling => RestartCause::Operator,
            Self::Reload | Self::Config => RestartCause::Reload,
            Self::Schedule => RestartCause::Schedule,
            Self::Lifetime => RestartCause::Lifetime,
            Self::Memory(_) => RestartCause::Memory,
            Self::Watch => RestartCause::Watch,
        }
    }
}
