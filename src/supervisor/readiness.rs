//! Whether a process that has been ready is ready now, and the deadlines of its reports.

use std::time::Duration;

use crate::model::Mono;

/// Whether a process that has been ready is ready now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It has sent `RELOADING=1`.
    NotReady,
    /// It has been sent the reload signal and has not reported yet. After `until` keepalive does not expect a report.
    ReloadSignalled {
        at: Mono,
        until: Mono,
        is_ready: bool,
    },
    /// It has reported that it reloads, in answer to the reload signal. It must report by `until` that it is ready again.
    Reloading {
        until: Mono,
    },
}

impl Readiness {
    pub(super) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::ReloadSignalled { is_ready: true, .. })
    }

    /// When an expected report is overdue.
    pub(super) const fn until(self) -> Option<Mono> {
        match self {
            Self::ReloadSignalled { until, .. } | Self::Reloading { until } => Some(until),
            Self::Ready | Self::NotReady => None,
        }
    }

    /// The same readiness without an expected report: the reload that waited for it has ended.
    pub(super) const fn settled(self) -> Self {
        match self {
            Self::Ready | Self::ReloadSignalled { is_ready: true, .. } => Self::Ready,
            Self::NotReady | Self::ReloadSignalled { is_ready: false, .. } | Self::Reloading { .. } => Self::NotReady,
        }
    }

    /// Whether it has been sent the reload signal and the reload has not ended.
    pub(super) const fn is_reload_pending(self) -> bool {
        matches!(self, Self::ReloadSignalled { .. } | Self::Reloading { .. })
    }
}

/// How often a process must send `WATCHDOG=1`, and when the next message is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchdogDeadline {
    pub(super) every: Duration,
    pub(super) by: Mono,
}

/// `max_lifetime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    Unlimited,
    /// It is replaced at this time.
    Until(Mono),
    /// It is replaced as soon as no other instance of the service is.
    Over,
}

impl Lifetime {
    pub(super) const fn until(self) -> Option<Mono> {
        if let Self::Until(until) = self { Some(until) } else { None }
    }
}
