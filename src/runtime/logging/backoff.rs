//! The delay before the logger is restarted.

use std::time::Duration;

use crate::model::Mono;

/// More exits than this in [`EXIT_WINDOW`] delay the next start.
const MAX_EXITS: usize = 5;
const EXIT_WINDOW: Duration = Duration::from_secs(10);
/// The first delay. It doubles each time, up to [`MAX_DELAY`].
const MIN_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A logger that has run this long resets the delay.
const STABLE_AFTER: Duration = EXIT_WINDOW;

pub(super) struct Backoff {
    exits: Vec<Mono>,
    wait: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { exits: Vec::new(), wait: MIN_DELAY }
    }

    /// A logger that was started at `since` has exited. Returns the delay of the next one, if any.
    pub(super) fn on_exit(&mut self, since: Mono, now: Mono) -> Option<Duration> {
        if now.since(since) >= STABLE_AFTER {
            self.wait = MIN_DELAY;
        }
        self.exits.retain(|end| now.since(*end) < EXIT_WINDOW);
        self.exits.push(now);
        (self.exits.len() > MAX_EXITS).then(|| self.next())
    }

    fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(MAX_DELAY);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_a_logger_has_run_for_long() {
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut backoff = Backoff::new();
        let mut crash = |since, now| backoff.on_exit(at(since), at(now)).map(|wait| wait.as_secs());
        assert_eq!([1, 1, 2, 2, 3].map(|now| crash(now, now)), [None; 5]);
        assert_eq!([3, 4, 4, 5, 5, 6].map(|now| crash(now, now)), [1, 2, 4, 8, 16, 30].map(Some));
        assert_eq!(crash(40, 49), None);
        assert_eq!([49; 5].map(|now| crash(now, now)), [None, None, None, None, Some(30)]);
        assert_eq!(crash(100, 110), None);
        assert_eq!([110; 5].map(|now| crash(now, now)), [None, None, None, None, Some(1)]);
    }
}
