//! The queue of actions, in the order in which they were decided.
//!
//! An action may become pointless while it waits here, such as a signal to a process that has been reaped.
//! `Supervisor::next_action` drops it.

use std::collections::VecDeque;

use super::event::Action;

/// The capacity, in actions, that an empty queue keeps. The memory of a burst, such as a start, is returned.
const MAX_IDLE_CAPACITY: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<Action>);

impl Outbox {
    pub(super) fn push(&mut self, action: Action) {
        self.0.push_back(action);
    }

    pub(super) fn pop(&mut self) -> Option<Action> {
        let action = self.0.pop_front();
        if action.is_none() && self.0.capacity() > MAX_IDLE_CAPACITY {
            self.0.shrink_to(MAX_IDLE_CAPACITY);
        }
        action
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
