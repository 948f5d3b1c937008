//! The data of one turn of the event loop.

use super::signal_source::SignalSource;
use crate::model::Mono;
use crate::supervisor::Outcome;
use crate::sys::Poller;

/// The sources of events.
pub(super) struct Inputs {
    pub(super) poller: Poller,
    pub(super) signals: SignalSource,
}

/// The current turn of the event loop.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Mono,
    /// The number of actions that can still be performed.
    pub(super) budget: u32,
    /// The deadline of the supervisor; valid if the budget is not used up.
    pub(super) until: Option<Mono>,
    /// Set by `Action::Exit`.
    pub(super) outcome: Option<Outcome>,
    /// The loop has been idle once.
    pub(super) is_settled: bool,
}

/// The subsystems that have a turn.
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
    Inspector,
}
