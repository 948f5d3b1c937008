//! Points in time.

use std::ops::Add;
use std::time::Duration;

/// A point in time: nanoseconds of `CLOCK_MONOTONIC` (clock_gettime(2)).
///
/// Not `std::time::Instant`: a test can make one, a trace can print one, and it stays valid across execve(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The point `nanoseconds` after the clock's zero.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` until now, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    /// Saturates: a deadline that cannot be reached is one that never comes.
    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_more_than_the_clock_holds_saturates() {
        assert_eq!(Mono::from_nanos(5) + Duration::MAX, Mono::from_nanos(u64::MAX));
    }

    #[test]
    fn a_later_start_gives_no_time_at_all() {
        assert_eq!(Mono::from_nanos(5).since(Mono::from_nanos(9)), Duration::ZERO);
    }
}
