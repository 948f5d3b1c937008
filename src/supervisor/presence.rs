//! What is known of a process that has been ready: whether it is there for others, and until when it has to say something.

use std::time::Duration;

use crate::model::Mono;

/// Whether a process that has been ready is there for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Ready,
    /// It has said that it is not at the moment.
    NotReady,
    /// It has got the signal to reload, and whether it reloads is not known before it says so. If it has not by then, it
    /// never will.
    ReloadSignalled {
        at: Mono,
        until: Mono,
        is_ready: bool,
    },
    /// It has said that it reloads, and is to say by then that it is ready again.
    Reloading {
        until: Mono,
    },
}

impl Presence {
    pub(super) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::ReloadSignalled { is_ready: true, .. })
    }

    /// When it is known that it will not say what it is to say.
    pub(super) const fn until(self) -> Option<Mono> {
        match self {
            Self::ReloadSignalled { until, .. } | Self::Reloading { until } => Some(until),
            Self::Ready | Self::NotReady => None,
        }
    }

    /// What it is when nobody waits any more for what comes of its being told to reload.
    pub(super) const fn settled(self) -> Self {
        match self {
            Self::Ready | Self::ReloadSignalled { is_ready: true, .. } => Self::Ready,
            Self::NotReady | Self::ReloadSignalled { is_ready: false, .. } | Self::Reloading { .. } => Self::NotReady,
        }
    }

    /// Whether it has been told to reload, and it is not known yet what has come of it.
    pub(super) const fn is_reload_signalled(self) -> bool {
        matches!(self, Self::ReloadSignalled { .. } | Self::Reloading { .. })
    }
}

/// How often it has to show that it is alive, and by when the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchdogDeadline {
    pub(super) every: Duration,
    pub(super) by: Mono,
}
