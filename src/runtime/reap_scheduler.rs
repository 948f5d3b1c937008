//! Schedules the scans of all children for those that have exited.
//!
//! SIGCHLD names a child that has exited, and looking at that one is cheap. But one SIGCHLD can stand for several children, so
//! all must be scanned as well. A scan takes about 0.1 µs for each child; with a thousand that was half of the cost of a
//! restart. So after a scan that finds nothing, the next scan waits longer than the one before. Nothing is lost: a zombie can
//! wait, and a requested scan is never dropped.

use std::time::Duration;

use crate::model::{Mono, Pid};

/// The maximum delay is one millisecond for this number of children. Fewer children are scanned at once.
const CHILDREN_PER_MILLISECOND: usize = 10;
/// The longest time until a zombie is reaped.
const MAX_DELAY: Duration = Duration::from_millis(100);
/// After this time without a scan the delays start again from the shortest one.
const SERIES_TIMEOUT: Duration = Duration::from_millis(200);

/// When to scan the children.
#[derive(Debug)]
pub(super) struct ReapScheduler {
    named: Option<Pid>,
    due: bool,
    has_found: bool,
    last: Mono,
    /// The number of consecutive scans that found nothing.
    empty_scans: u32,
}

impl ReapScheduler {
    /// The first scan is due at once: keepalive may have inherited children.
    pub(super) const fn new() -> Self {
        Self { named: None, due: true, has_found: false, last: Mono::from_nanos(0), empty_scans: 0 }
    }

    /// A child has exited: `named`, if it is known, and possibly others.
    pub(super) fn request(&mut self, named: Option<Pid>) {
        self.named = named.or(self.named);
        self.due = true;
    }

    /// The child that SIGCHLD has named. It may have been reaped since.
    pub(super) fn take_named(&mut self) -> Option<Pid> {
        self.named.take()
    }

    /// Whether a scan of all `children` is due.
    pub(super) fn is_due(&self, children: usize, now: Mono) -> bool {
        self.due(children).is_some_and(|due| due <= now)
    }

    /// When a scan of all `children` is due; `None` if none is requested.
    pub(super) fn due(&self, children: usize) -> Option<Mono> {
        let max_delay = u64::try_from(children / CHILDREN_PER_MILLISECOND).map_or(MAX_DELAY, Duration::from_millis);
        let wait = match self.empty_scans {
            0 => Duration::ZERO,
            row => Duration::from_millis(1 << (row - 1).min(16)).min(max_delay).min(MAX_DELAY),
        };
        let due = self.last + wait;
        self.due.then_some(due)
    }

    /// The scan has found a child that has exited.
    pub(super) fn on_found(&mut self) {
        self.has_found = true;
    }

    /// The scan is complete.
    pub(super) fn on_scan_done(&mut self, now: Mono) {
        let continues_series = now.since(self.last) < SERIES_TIMEOUT;
        self.empty_scans = match std::mem::take(&mut self.has_found) {
            true => 0,
            false if continues_series => self.empty_scans.saturating_add(1),
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
        let mut scheduler = ReapScheduler::new();
        for time in times {
            scheduler.request(Pid::new(7));
            scheduler.on_scan_done(at(*time));
        }
        scheduler.request(None);
        scheduler
    }

    #[test]
    fn the_first_scan_and_scans_of_few_children_are_due_at_once() {
        assert!(ReapScheduler::new().is_due(100_000, at(0)));
        assert!(after(&[1_000, 1_001, 1_002]).is_due(9, at(1_002)));
        let mut scheduler = after(&[]);
        scheduler.on_scan_done(at(5));
        assert_eq!(scheduler.due(9), None, "no child has exited since");
    }

    #[test]
    fn after_each_empty_scan_the_next_one_waits_longer() {
        for (times, wait) in [(vec![1_000], 1), (vec![1_000, 1_001], 2), (vec![1_000, 1_001, 1_003], 4)] {
            let last = *times.last().unwrap();
            assert_eq!(after(&times).due(1_000), Some(at(last + wait)), "{times:?}");
        }
        let many: Vec<u64> = (1_000..1_100).collect();
        assert_eq!(after(&many).due(1_000), Some(at(1_199)));
        assert_eq!(after(&many).due(100_000), Some(at(1_199)), "there is a maximum delay");
        assert_eq!(after(&many).due(300), Some(at(1_129)), "fewer children have a shorter delay");
        assert_eq!(after(&[1_000, 1_001, 1_300]).due(1_000), Some(at(1_301)), "a new series");
    }

    #[test]
    fn a_scan_that_finds_a_child_resets_the_delay() {
        let mut scheduler = after(&[1_000, 1_001, 1_002]);
        scheduler.on_found();
        scheduler.on_scan_done(at(1_003));
        scheduler.request(Pid::new(7));
        assert!(scheduler.is_due(1_000, at(1_003)));
        assert_eq!((scheduler.take_named(), scheduler.take_named()), (Pid::new(7), None));
        assert!(scheduler.is_due(1_000, at(1_003)), "it does not depend on the one that was named");
    }
}
