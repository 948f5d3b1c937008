//! When all children are looked through for dead ones.
//!
//! SIGCHLD names a child that has ended, and looking at that one costs the same however many there are. It may stand for
//! more than one, though, so all have to be looked through as well; the kernel takes some 0.1 µs for each of them, which
//! with a thousand was half of what a restart cost. So in a row of searches that are in vain each waits longer than the
//! one before, until it is worth it. Nothing is lost: a dead child can wait, and the search that is due is never
//! forgotten.

use std::time::Duration;

use crate::model::{Mono, Pid};

/// A search of so many children is worth a millisecond of waiting; fewer are looked through at once.
const CHILDREN_A_MILLISECOND: usize = 10;
/// The longest that a dead child waits.
const MAX_REAP_DELAY: Duration = Duration::from_millis(100);
/// A search in vain that comes so long after the last one begins a new row.
const END_OF_ROW: Duration = Duration::from_millis(200);

/// The search for dead children.
#[derive(Debug)]
pub(super) struct ReapScheduler {
    named: Option<Pid>,
    due: bool,
    has_found: bool,
    last: Mono,
    /// How many were in vain, in a row.
    empty_scans: u32,
}

impl ReapScheduler {
    /// Due at once: what was there before us may have left us dead children.
    pub(super) const fn new() -> Self {
        Self { named: None, due: true, has_found: false, last: Mono::from_nanos(0), empty_scans: 0 }
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
        let worth = u64::try_from(children / CHILDREN_A_MILLISECOND).map_or(MAX_REAP_DELAY, Duration::from_millis);
        let wait = match self.empty_scans {
            0 => Duration::ZERO,
            row => Duration::from_millis(1 << (row - 1).min(16)).min(worth).min(MAX_REAP_DELAY),
        };
        let due = self.last + wait;
        self.due.then_some(due)
    }

    /// Somebody was found.
    pub(super) fn found(&mut self) {
        self.has_found = true;
    }

    /// All have been looked through; nobody else is dead.
    pub(super) fn done(&mut self, now: Mono) {
        let goes_on = now.since(self.last) < END_OF_ROW;
        self.empty_scans = match std::mem::take(&mut self.has_found) {
            true => 0,
            false if goes_on => self.empty_scans.saturating_add(1),
            false => 1,
        };
        (self.due, self.last) = (false, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Mono {
        Mono::from_nanos(milliseconds * 1_000_000)
    }

    fn after(times: &[u64]) -> ReapScheduler {
        let mut search = ReapScheduler::new();
        for time in times {
            search.want(Pid::new(7));
            search.done(at(*time));
        }
        search.want(None);
        search
    }

    #[test]
    fn the_first_search_and_that_of_few_are_due_at_once() {
        assert!(ReapScheduler::new().is_due(100_000, at(0)));
        assert!(after(&[1_000, 1_001, 1_002]).is_due(9, at(1_002)));
        let mut search = after(&[]);
        search.done(at(5));
        assert_eq!(search.due(9), None, "nobody has ended since");
    }

    #[test]
    fn in_a_row_in_vain_each_waits_longer() {
        for (times, wait) in [(vec![1_000], 1), (vec![1_000, 1_001], 2), (vec![1_000, 1_001, 1_003], 4)] {
            let last = *times.last().unwrap();
            assert_eq!(after(&times).due(1_000), Some(at(last + wait)), "{times:?}");
        }
        let many: Vec<u64> = (1_000..1_100).collect();
        assert_eq!(after(&many).due(1_000), Some(at(1_199)));
        assert_eq!(after(&many).due(100_000), Some(at(1_199)), "there is a longest wait");
        assert_eq!(after(&many).due(300), Some(at(1_129)), "of fewer it is worth less");
        assert_eq!(after(&[1_000, 1_001, 1_300]).due(1_000), Some(at(1_301)), "a new row");
    }

    #[test]
    fn one_that_was_not_in_vain_ends_the_row() {
        let mut search = after(&[1_000, 1_001, 1_002]);
        search.found();
        search.done(at(1_003));
        search.want(Pid::new(7));
        assert!(search.is_due(1_000, at(1_003)));
        assert_eq!((search.take_named(), search.take_named()), (Pid::new(7), None));
        assert!(search.is_due(1_000, at(1_003)), "it does not depend on the one that was named");
    }
}
