//! The clock of all deadlines: it stands still while keepalive is suspended.

use std::time::Duration;

use super::time::Mono;

/// A timer that is later than this, or work that takes longer, means that keepalive was not running. On a machine that is
/// only busy both are shorter.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// The time during which keepalive was running: the monotonic clock without the time during which keepalive was suspended by
/// `docker pause`, a frozen control group, SIGSTOP or a paused virtual machine. That time counts towards no deadline.
///
/// The kernel does not say when and how long a process was suspended. Three observations show that it was:
/// - A wait was interrupted. keepalive has no signal handlers, so only a suspension does that.
/// - A wait ended much later than its timeout.
/// - Something that never takes long took long.
///
/// All the time since the last reading is left out then, because the suspension may have begun just after that. Of late
/// timers in a row only the first one is taken for a suspension: on a machine that is always too busy, deadlines expire.
#[derive(Clone, Copy, Debug)]
pub struct AwakeClock {
    /// The last reading of the monotonic clock.
    read_at: Mono,
    /// The total time that is left out.
    suspended: Duration,
    /// The begin of the last suspension on the monotonic clock, and on this one.
    last: (Mono, Mono),
    /// Whether the last wait ended much later than its timeout.
    was_late: bool,
}

/// The end of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// By a descriptor or by the timeout.
    Normally,
    /// The wait was interrupted (EINTR): the process was suspended, and continued.
    Interrupted,
}

impl AwakeClock {
    /// A clock that has left nothing out yet. `monotonic`: the present reading of the monotonic clock.
    #[must_use]
    pub const fn new(monotonic: Mono) -> Self {
        Self { read_at: monotonic, suspended: Duration::ZERO, last: (monotonic, monotonic), was_late: false }
    }

    /// The time at the last reading of the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.read_at.before(self.suspended)
    }

    /// Reads the clock after a wait for at most `timeout`, for ever if that is `None`.
    pub fn on_wake(&mut self, monotonic: Mono, timeout: Option<Duration>, woken: Woken) -> Mono {
        let passed = monotonic.since(self.read_at);
        let late = timeout.filter(|timeout| passed > timeout.saturating_add(MAX_DELAY));
        let was_late = std::mem::replace(&mut self.was_late, late.is_some());
        self.advance(
            monotonic,
            match (woken, late) {
                (Woken::Normally, None) => passed,
                (Woken::Normally, Some(timeout)) if was_late => timeout,
                (Woken::Normally, Some(_)) | (Woken::Interrupted, _) => Duration::ZERO,
            },
        )
    }

    /// Reads the clock without a wait before.
    pub fn read(&mut self, monotonic: Mono) -> Mono {
        let passed = monotonic.since(self.read_at);
        self.advance(monotonic, if passed > MAX_DELAY { Duration::ZERO } else { passed })
    }

    /// Counts only the first `counted` of the time since the last reading.
    fn advance(&mut self, monotonic: Mono, counted: Duration) -> Mono {
        let left_out = monotonic.since(self.read_at).saturating_sub(counted);
        if !left_out.is_zero() {
            self.last = (self.read_at + counted, self.now() + counted);
            self.suspended += left_out;
        }
        self.read_at = monotonic;
        self.now()
    }

    /// The time on this clock at a time of the monotonic clock, such as one that a process has reported. Inexact for a time
    /// before the last suspension but one.
    #[must_use]
    pub fn at(&self, monotonic: Mono) -> Mono {
        let (began, awake) = self.last;
        if monotonic < began {
            awake.before(began.since(monotonic))
        } else {
            awake.max(monotonic.before(self.suspended))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Mono {
        Mono::from_nanos(milliseconds * 1_000_000)
    }

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn a_suspension_that_interrupts_a_wait_does_not_count() {
        let mut clock = AwakeClock::new(at(0));
        assert_eq!(clock.on_wake(at(500), SECOND, Woken::Normally), at(500));
        assert_eq!(clock.on_wake(at(700), None, Woken::Interrupted), at(500));
        assert_eq!(clock.on_wake(at(6_700), None, Woken::Normally), at(6_500));
    }

    #[test]
    fn a_timer_that_is_much_too_late_shows_a_suspension() {
        let mut clock = AwakeClock::new(at(0));
        assert_eq!(clock.on_wake(at(2_000), SECOND, Woken::Normally), at(2_000));
        assert_eq!(clock.on_wake(at(4_001), SECOND, Woken::Normally), at(2_000));
        assert_eq!(clock.on_wake(at(5_001), SECOND, Woken::Normally), at(3_000));
    }

    #[test]
    fn deadlines_expire_on_a_machine_on_which_each_timer_is_late() {
        let mut clock = AwakeClock::new(at(0));
        let times = [1, 2, 3, 4].map(|turn| clock.on_wake(at(turn * 3_000), SECOND, Woken::Normally));
        assert_eq!(times, [0, 1_000, 2_000, 3_000].map(at));
    }

    #[test]
    fn work_that_takes_very_long_does_not_count() {
        let mut clock = AwakeClock::new(at(0));
        assert_eq!(clock.read(at(1_000)), at(1_000));
        assert_eq!(clock.read(at(2_001)), at(1_000));
        assert_eq!(clock.on_wake(at(3_000), None, Woken::Normally), at(1_999));
    }

    #[test]
    fn times_of_the_monotonic_clock_are_converted() {
        let mut clock = AwakeClock::new(at(0));
        clock.on_wake(at(100), None, Woken::Normally);
        clock.on_wake(at(1_100), SECOND, Woken::Normally);
        clock.on_wake(at(8_100), SECOND, Woken::Normally);
        clock.on_wake(at(8_200), None, Woken::Normally);
        let converted = [50, 100, 1_100, 5_000, 8_100, 8_150].map(|time| clock.at(at(time)));
        assert_eq!(converted, [50, 100, 1_100, 1_100, 1_100, 1_150].map(at));
    }
}
