//! Which children have copies of keepalive's descriptors: a child of clone(2) has all of them until it closes them or executes
//! its program. So a descriptor that keepalive has closed can still be open in children that were created before.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;
use crate::model::Mono;

/// The time in which a child of fork(2) closes what it does not need.
const FORK_TIME: Duration = Duration::from_millis(50);

static COPIES: Mutex<Copies> =
    Mutex::new(Copies { next: 0, children: Vec::new(), forked_at: Mono::from_nanos(0), forks: 0 });

struct Copies {
    /// The number of the next child.
    next: u64,
    /// Those of clone(2) that have not executed their programs, the oldest one first.
    children: Vec<u64>,
    /// The time of the last fork(2).
    forked_at: Mono,
    /// How many there were.
    forks: u64,
}

fn copies() -> MutexGuard<'static, Copies> {
    COPIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child of clone(2): from before it is created until it has executed its program, or is dead.
#[derive(Debug)]
pub(super) struct DescriptorCopies(u64);

impl DescriptorCopies {
    pub(super) fn new() -> Self {
        let mut copies = copies();
        let number = copies.next;
        copies.next += 1;
        copies.children.push(number);
        Self(number)
    }
}

impl Drop for DescriptorCopies {
    fn drop(&mut self) {
        copies().children.retain(|number| *number != self.0);
    }
}

/// A child is going to be created by fork(2).
pub(super) fn before_fork() {
    let mut copies = copies();
    copies.forked_at = clock::now();
    copies.forks += 1;
}

/// A moment, and the children that had copies then.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// The children with lower numbers.
    next: u64,
    /// When children of fork(2) have closed theirs.
    forks_over_at: Mono,
    /// How many children of fork(2) there have been.
    forks: u64,
}

/// Returns the children that have copies now.
pub(super) fn begin_handover() -> Handover {
    let copies = copies();
    Handover { next: copies.next, forks_over_at: copies.forked_at + FORK_TIME, forks: copies.forks }
}

impl Handover {
    /// Adds the children that have been created since, but for the first one of fork(2), which keeps its copies.
    pub(super) fn extend(&mut self) {
        let later = begin_handover();
        self.next = later.next;
        if later.forks > self.forks + 1 {
            self.forks_over_at = later.forks_over_at;
        }
    }

    /// Whether some of the children have not executed their programs yet.
    #[must_use]
    pub fn are_in_children(&self) -> bool {
        copies().children.first().is_some_and(|oldest| *oldest < self.next)
    }

    /// When helper processes have closed their copies.
    #[must_use]
    pub const fn forks_over_at(&self) -> Mono {
        self.forks_over_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_waits_for_the_children_that_have_been_created_before() {
        let before = DescriptorCopies::new();
        let handover = begin_handover();
        let _after = DescriptorCopies::new();
        assert!(handover.are_in_children());
        drop(before);
        // Other tests create children, too.
        while handover.are_in_children() {
            std::thread::yield_now();
        }
    }
}
