//! What the parts of the loop have in common, so that a turn can go through all of them.

use std::rc::Rc;

use super::journal::Journal;
use super::token::Token;
use crate::model::{Mono, Plan};
use crate::supervisor::{Event, Supervisor};
use crate::sys::Poller;

/// What makes many actions waits while more actions than this wait for each instance: forwarding a signal makes an action
/// for every instance, and a flood of them would fill the memory. Signals stay with the kernel, which holds each standard
/// one once.
const MAX_PENDING_ACTIONS_PER_INSTANCE: usize = 4;

/// A part of the loop that owns its state.
pub(super) trait Subsystem {
    /// What of other subsystems it uses in its turn.
    type Needs<'a>
    where
        Self: Sized;

    /// When it must run again although nothing becomes ready.
    fn due(&self) -> Option<Mono>;

    /// Whether it has work left, so that the next turn does not wait.
    fn is_busy(&self) -> bool {
        false
    }

    /// One of its descriptors is ready. Only takes note. Some have none: their processes are found by the reaper.
    fn on_ready(&mut self, _token: Token) {}

    /// Does its share of a turn; gives back what the supervisor has to know.
    fn turn(&mut self, context: &mut Context<'_>, needs: Self::Needs<'_>) -> Vec<Event>
    where
        Self: Sized;
}

/// What every subsystem may use in its turn.
pub(super) struct Context<'a> {
    /// When the turn began.
    pub(super) now: Mono,
    pub(super) plan: &'a Rc<Plan>,
    pub(super) poller: &'a Poller,
    pub(super) journal: &'a mut Journal,
    /// To be read: what it has to know is given back by the turn.
    pub(super) supervisor: &'a Supervisor,
}

impl Context<'_> {
    /// Whether the supervisor may be given what makes many actions.
    pub(super) fn has_capacity(&self) -> bool {
        has_capacity(self.supervisor)
    }
}

/// Whether `supervisor` may be given what makes many actions.
pub(super) fn has_capacity(supervisor: &Supervisor) -> bool {
    has_backlog_below(supervisor, MAX_PENDING_ACTIONS_PER_INSTANCE)
}

/// Whether no more than so many actions wait for each instance.
pub(super) fn has_backlog_below(supervisor: &Supervisor, for_each: usize) -> bool {
    supervisor.backlog() <= for_each * supervisor.instances() as usize
}
