//! What is to be done, in the order in which it was decided, until somebody comes to do it.
//!
//! That may take a while: other things happen meanwhile, and some of what waits here is overtaken by them. Each action
//! has a [`Place`], so that what was decided before something can be told from what was decided after it.

use std::collections::VecDeque;

use super::instance::State;
use super::{Action, Scope, Supervisor};

/// Above this many entries an emptied queue gives its memory back: the burst of a start is not kept for ever.
const KEPT: usize = 64;

/// How many actions were decided before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

#[derive(Debug, Default)]
pub(super) struct Outbox {
    actions: VecDeque<Action>,
    /// How many have been taken out.
    taken: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn pop(&mut self) -> Option<(Place, Action)> {
        let Some(action) = self.actions.pop_front() else {
            if self.actions.capacity() > KEPT {
                self.actions.shrink_to(KEPT);
            }
            return None;
        };
        let place = Place(self.taken);
        self.taken = self.taken.wrapping_add(1);
        Some((place, action))
    }

    /// The place of whatever is decided next.
    pub(super) fn end(&self) -> Place {
        Place(self.taken.wrapping_add(self.actions.len() as u64))
    }

    pub(super) fn len(&self) -> usize {
        self.actions.len()
    }
}

impl Supervisor {
    /// The next action that nothing has overtaken.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        while let Some((place, action)) = self.outbox.pop() {
            if self.still_holds(place, &action) {
                return Some(action);
            }
        }
        None
    }

    fn still_holds(&self, place: Place, action: &Action) -> bool {
        match action {
            Action::Spawn { instance, .. } => {
                let state = self.services.find(*instance).map(|instance| instance.state);
                matches!(state, Some(State::Spawning { from }) if from <= place)
            }
            // A process that has got the same id since is another.
            Action::Signal { pid, scope: Scope::Main | Scope::Group, .. } => {
                self.processes.get(pid).is_some_and(|process| process.from <= place)
            }
            Action::Farewell { pid } => self.processes.get(pid).is_some_and(|process| process.from <= place),
            // Whoever has the id now can only have got it after all of them had gone.
            Action::Signal { pid, scope: Scope::Leftovers, .. } => !self.processes.contains_key(pid),
            Action::SignalAll { .. }
            | Action::LoadConfig { .. }
            | Action::WithdrawConfigLoad { .. }
            | Action::CancelConfigLoad
            | Action::ReleaseInstance { .. }
            | Action::RemoveInstance { .. }
            | Action::ReleaseService { .. }
            | Action::PreferSockets { .. }
            | Action::LogProbeFailure { .. }
            | Action::Adopt(_)
            | Action::JournalEntry(_)
            | Action::Reply { .. }
            | Action::Exit(_) => true,
        }
    }
}
