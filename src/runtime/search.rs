//! When all children are looked through for dead ones.
//!
//! SIGCHLD names a child that has ended, and looking at that one costs the same however many there are. It may stand for
//! more than one, though, so all have to be looked through as well; the kernel takes some 0.1 µs for each of them, which
//! with a thousand was half of what a restart cost. So after a search of many that was in vain the next one waits until
//! it is worth it. Nothing is lost: a dead child can wait, and the search that is due is never forgotten.

use std::time::Duration;

use crate::model::{Mono, Pid};

/// A search of so many children that was in vain is worth a millisecond of waiting; fewer are looked through at once.
const CHILDREN_A_MILLISECOND: usize = 10;
/// The longest that a dead child waits.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The search for dead children.
#[derive(Debug)]
pub(super) struct Search {
    named: Option<Pid>,
    due: bool,
    has_found: bool,
    /// When the last one was in vain; `None` if it was not.
    in_vain: Option<Mono>,
}

impl Search {
    /// Due at once: what was there before us may have left us dead children.
    pub(super) const fn new() -> Self {
        Self { named: None, due: true, has_found: false, in_vain: None }
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

    /// Whether all `children` are to be looked through at `now`.
    pub(super) fn is_due(&self, children: usize, now: Mono) -> bool {
        self.due(children).is_some_and(|due| due <= now)
    }

    /// When all `children` are to be looked through; `None`: none has ended.
    pub(super) fn due(&self, children: usize) -> Option<Mono> {
        let wait = u64::try_from(children / CHILDREN_A_MILLISECOND).map_or(LONGEST_WAIT, Duration::from_millis);
        let due = self.in_vain.map_or(Mono::from_nanos(0), |last| last + wait.min(LONGEST_WAIT));
        self.due.then_some(due)
    }

    /// Somebody was found.
    pub(super) fn found(&mut self) {
        self.has_found = true;
    }

    /// All have been looked through; nobody else is dead.
    pub(super) fn done(&mut self, now: Mono) {
        self.in_vain = if std::mem::take(&mut self.has_found) { None } else { Some(now) };
        self.due = false;
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
        assert_eq!(search.due(9), None);
        search.want(None);
        assert_eq!(search.due(9), Some(at(5)));
    }

    #[test]
    fn a_search_of_many_comes_a_while_after_the_last_one() {
        let mut search = Search::new();
        search.done(at(5));
        search.want(Pid::new(7));
        search.want(None);
        assert_eq!(search.due(1_000), Some(at(105)));
        assert_eq!(search.due(9), Some(at(5)), "when there are fewer it need not wait");
        assert_eq!(search.due(1_000_000), Some(at(105)));
        assert_eq!((search.take_named(), search.take_named()), (Pid::new(7), None));
        assert_eq!(search.due(1_000), Some(at(105)), "it does not depend on the one that was named");
    }

    #[test]
    fn after_one_that_was_not_in_vain_the_next_is_due_at_once() {
        let mut search = Search::new();
        search.found();
        search.done(at(5));
        search.want(Pid::new(7));
        assert!(search.is_due(1_000, at(5)));
        search.done(at(6));
        search.want(Pid::new(8));
        assert!(!search.is_due(500, at(55)) && search.is_due(500, at(56)));
    }
}
