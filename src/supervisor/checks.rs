//! What is known of the health checks of a process.

use crate::model::Mono;
use crate::model::plan::Health;

/// The checks of a process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checks {
    pub(super) stage: CheckStage,
    pub(super) status: HealthStatus,
    /// The number of consecutive failures that count.
    pub(super) failures: u32,
    /// The end of `start_period`: failures of checks that began before do not count.
    pub(super) counts_from: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckStage {
    /// The next check begins then.
    Due(Mono),
    InProgress {
        since: Mono,
    },
    /// keepalive is shutting down.
    Ended,
}

/// What the checks of a process have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// No check has succeeded yet.
    Starting,
    /// The last result that counts was a success, or there were not enough failures since.
    Healthy,
    /// `retries` consecutive checks have failed.
    Unhealthy,
}

impl HealthStatus {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Healthy, Self::Unhealthy];

    /// The word for it, as in Docker.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Checks {
    pub(super) fn new(health: &Health, now: Mono) -> Self {
        let (stage, counts_from) = (CheckStage::Due(now + health.interval), now + health.start_period);
        Self { stage, status: HealthStatus::Starting, failures: 0, counts_from }
    }

    /// When the next check begins.
    pub(super) const fn due(&self) -> Option<Mono> {
        if let CheckStage::Due(at) = self.stage { Some(at) } else { None }
    }

    pub(super) const fn is_in_progress(&self) -> bool {
        matches!(self.stage, CheckStage::InProgress { .. })
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.status == HealthStatus::Unhealthy
    }
}
