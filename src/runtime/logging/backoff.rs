//! How long the next logger is waited with. It starts nothing and knows no clock.

use std::time::Duration;

use crate::model::Mono;

/// With so many ends in so much time the next start waits.
const MAX_EXITS: usize = 5;
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// The first wait; each is twice as long as the one before.
pub(super) const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// After one that has lived so long, the first wait is the next.
const LONG_LIFE: Duration = Duration::from_secs(60);

pub(super) struct Backoff {
    ends: Vec<Mono>,
    wait: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { ends: Vec::new(), wait: FIRST_DELAY }
    }

    /// One that had begun at `since` has ended: how long the next one waits, if it does.
    pub(super) fn on_end(&mut self, since: Mono, now: Mono) -> Option<Duration> {
        if now.since(since) >= LONG_LIFE {
            self.wait = FIRST_DELAY;
        }
        self.ends.retain(|end| now.since(*end) < ENDS_WITHIN);
        self.ends.push(now);
        (self.ends.len() > MAX_EXITS).then(|| self.next())
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(MAX_DELAY);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_one_has_lived_for_long() {
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut backoff = Backoff::new();
        let mut crash = |since, now| backoff.on_end(at(since), at(now)).map(|wait| wait.as_secs());
        assert_eq!([1, 1, 2, 2, 3].map(|now| crash(now, now)), [None; 5]);
        assert_eq!([3, 4, 4, 5, 5, 6].map(|now| crash(now, now)), [1, 2, 4, 8, 16, 30].map(Some));
        assert_eq!(crash(40, 99), None);
        assert_eq!([99; 5].map(|now| crash(now, now)), [None, None, None, None, Some(30)]);
        assert_eq!(crash(100, 160), None);
        assert_eq!([160; 5].map(|now| crash(now, now)), [None, None, None, None, Some(1)]);
    }
}
