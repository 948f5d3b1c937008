//! What belongs to one turn of the loop.

use super::signal_source::SignalSource;
use crate::model::Mono;
use crate::supervisor::Outcome;
use crate::sys::Poller;

/// What the loop waits for.
pub(super) struct Inputs {
    pub(super) poller: Poller,
    pub(super) signals: SignalSource,
}

/// The present turn of the loop.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Mono,
    /// How many actions may still be done.
    pub(super) budget: u32,
    /// When the supervisor has to be woken; valid while the budget is not spent.
    pub(super) until: Option<Mono>,
    /// keepalive ends like this.
    pub(super) outcome: Option<Outcome>,
    /// There has been nothing to do for the first time.
    pub(super) is_settled: bool,
}

/// A subsystem, when it has its turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Processes,
    Notify,
    FdStore,
    Channels,
    Logging,
    Server,
    Probes,
    ConfigLoader,
    CloseQueue,
}
