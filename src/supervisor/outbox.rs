//! The queue of actions, in the order in which they were decided.
//!
//! Other things happen while an action waits here. One that they have made pointless is not given out any more: a start
//! that was called off, a signal whose receiver has been reaped.

use std::collections::VecDeque;

use super::event::Action;

/// An empty queue gives its memory back above this capacity: the burst of a start is not kept for ever.
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
