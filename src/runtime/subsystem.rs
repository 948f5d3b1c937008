//! The interface of the subsystems: the parts of the event loop that own state.

use std::rc::Rc;

use super::journal::Journal;
use super::token::Token;
use crate::model::{AwakeClock, Mono, Plan};
use crate::supervisor::{Event, Supervisor};
use crate::sys::Poller;

/// While more actions than this are pending for each instance, events that cause many actions are held back: a forwarded
/// signal causes one for each instance, and a flood of signals would exhaust the memory. Signals stay in the kernel, which
/// keeps each standard signal once.
const MAX_PENDING_ACTIONS_PER_INSTANCE: usize = 4;

/// A part of the event loop that owns state.
pub(super) trait Subsystem {
    /// Other subsystems that it uses in its turn.
    type Needs<'a>;

    /// Its earliest deadline.
    fn due(&self) -> Option<Mono>;

    /// Whether it has work left, so that the next turn must not wait.
    fn is_busy(&self) -> bool {
        false
    }

    /// One of its descriptors is ready. Only records the token: the work is done in [`Self::turn`]. Subsystems without
    /// descriptors do not implement this; the reaper finds their helper processes.
    fn on_ready(&mut self, _token: Token) {}

    /// Performs a bounded amount of work, and returns events for the supervisor.
    fn turn(&mut self, context: &mut Context<'_>, needs: Self::Needs<'_>) -> Vec<Event>;
}

/// When subsystems need their next turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NextTurn {
    /// One of them has work left.
    pub(super) is_busy: bool,
    /// The earliest deadline.
    pub(super) due: Option<Mono>,
}

impl NextTurn {
    /// The next turn of `part` and of those before.
    pub(super) fn with(self, part: &impl Subsystem) -> Self {
        Self { is_busy: self.is_busy || part.is_busy(), due: self.due.into_iter().chain(part.due()).min() }
    }
}

/// What every subsystem can use in its turn.
pub(super) struct Context<'a> {
    /// The start of the turn.
    pub(super) now: Mono,
    pub(super) clock: AwakeClock,
    pub(super) plan: &'a Rc<Plan>,
    pub(super) poller: &'a Poller,
    pub(super) journal: &'a mut Journal,
    /// For reading only: events are returned by [`Subsystem::turn`].
    pub(super) supervisor: &'a Supervisor,
}

impl Context<'_> {
    /// Whether the supervisor can take events that cause many actions.
    pub(super) fn has_capacity(&self) -> bool {
        has_capacity(self.supervisor)
    }
}

/// Whether `supervisor` can take events that cause many actions.
pub(super) fn has_capacity(supervisor: &Supervisor) -> bool {
    has_backlog_below(supervisor, MAX_PENDING_ACTIONS_PER_INSTANCE)
}

/// Whether at most `per_instance` actions are pending for each instance.
pub(super) fn has_backlog_below(supervisor: &Supervisor, per_instance: usize) -> bool {
    supervisor.backlog() <= per_instance * supervisor.instances() as usize
}
