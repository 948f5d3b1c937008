//! When all children are looked through for dead ones.
//!
//! SIGCHLD names a child that has ended, and looking at that one costs the same however many there are. It may stand for
//! more than one, though, so all have to be looked through as well; the kernel takes some 25 ns for each of them, which
//! with a thousand was half of what a restart cost. So a search of many waits until it is worth it. Nothing is lost: a
//! dead child can wait, and the search that is due is never forgotten.

use std::time::Duration;

use crate::model::{Mono, Pid};

/// A search of so many children is worth a millisecond of waiting; fewer are looked through at once.
const CHILDREN_A_MILLISECOND: usize = 100;
/// The longest that a dead child waits.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The search for dead children.
#[derive(Debug)]
pub(super) struct Search {
    named: Option<Pid>,
    due: bool,
    last: Option<Mono>,
}

impl Search {
    /// Due at once: what was there before us may have left us dead children.
    pub(super) const fn new() -> Self {
        Self { named: None, due: true, last: None }
    }

    /// A child has ended, this one if it is named; perhaps others have too.
    pub(super) fn want(&mut self, named: Option<Pid>) {
        self.named = named.or(self.named);
        self.due = true;
    }

    /// The child that is known to have ended. (It may have been reaped since then.)
    pub(super) fn take_named(&mut self) -> Option<Pid> {
        self.named.take()
    }

    /// When all `children` are to be looked through; `None`: none has ended.
    pub(super) fn due(&self, children: usize) -> Option<Mono> {
        let wait = u64::try_from(children / CHILDREN_A_MILLISECOND).map_or(LONGEST_WAIT, Duration::from_millis);
        let due = self.last.map_or(Mono::from_nanos(0), |last| last + wait.min(LONGEST_WAIT));
        self.due.then_some(due)
    }

    /// All have been looked through; nobody else is dead.
    pub(super) fn done(&mut self, now: Mono) {
        (self.due, self.last) = (false, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Mono {
        Mono::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn the_first_search_and_that_of_few_are_due_at_once() {
        let mut search = Search::new();
        assert!(search.due(100_000).is_some_and(|due| due <= at(0)));
        search.done(at(5));
        assert_eq!(search.due(10), None);
        search.want(None);
        assert_eq!(search.due(10), Some(at(5)));
    }

    #[test]
    fn a_search_of_many_comes_a_while_after_the_last_one() {
        let mut search = Search::new();
        search.done(at(5));
        search.want(Pid::new(7));
        search.want(None);
        assert_eq!(search.due(1_000), Some(at(15)));
        assert_eq!(search.due(50), Some(at(5)), "when there are fewer it need not wait");
        assert_eq!(search.due(1_000_000), Some(at(105)));
        assert_eq!((search.take_named(), search.take_named()), (Pid::new(7), None));
        assert_eq!(search.due(1_000), Some(at(15)), "it does not depend on the one that was named");
    }
}
