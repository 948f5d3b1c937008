//! What is known of a process that has been ready: whether others can use it now, and by when it has to report.

use std::time::Duration;

use crate::model::Mono;

/// Whether a process that has been ready is ready now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It has said that it is not ready at the moment: `RELOADING=1`.
    NotReady,
    /// It has been sent the signal to reload and has not reported yet. If it does not report by `until`, it never will.
    ReloadSignalled {
        at: Mono,
        until: Mono,
        is_ready: bool,
    },
    /// It has reported that it reloads; it has to report by `until` that it is ready again.
    Reloading {
        until: Mono,
    },
}

impl Readiness {
    pub(super) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::ReloadSignalled { is_ready: true, .. })
    }

    /// When a report that is expected counts as missing.
    pub(super) const fn until(self) -> Option<Mono> {
        match self {
            Self::ReloadSignalled { until, .. } | Self::Reloading { until } => Some(until),
            Self::Ready | Self::NotReady => None,
        }
    }

    /// The same without an expected report: the reload that waited for it is over.
    pub(super) const fn settled(self) -> Self {
        match self {
            Self::Ready | Self::ReloadSignalled { is_ready: true, .. } => Self::Ready,
            Self::NotReady | Self::ReloadSignalled { is_ready: false, .. } | Self::Reloading { .. } => Self::NotReady,
        }
    }

    /// Whether it has been sent the signal to reload and the outcome is open.
    pub(super) const fn is_reload_pending(self) -> bool {
        matches!(self, Self::ReloadSignalled { .. } | Self::Reloading { .. })
    }
}

/// How often a process has to send `WATCHDOG=1`, and by when the next one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchdogDeadline {
    pub(super) every: Duration,
    pub(super) by: Mono,
}
