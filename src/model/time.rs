//! Points in time.

use std::ops::Add;
use std::time::Duration;

/// A point in time: nanoseconds of `CLOCK_MONOTONIC` (clock_gettime(2)).
///
/// Unlike `std::time::Instant` it can be made by a test, printed in a trace, and stays valid across execve(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The point in time at this reading of the clock.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// The reading of the clock in nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point in time that is `duration` earlier, at the earliest the start of the clock.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time that has passed since `earlier`; zero if `earlier` is later than this.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The milliseconds of `duration`. The number of the standard library has 128 bits, which take 1 KB of code to print.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Mono {
    type Output = Self;

    /// Saturates at the largest value, a deadline that never expires.
    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_a_huge_duration_saturates() {
        assert_eq!(Mono::from_nanos(5) + Duration::MAX, Mono::from_nanos(u64::MAX));
    }

    #[test]
    fn the_time_since_a_later_point_is_zero() {
        assert_eq!(Mono::from_nanos(5).since(Mono::from_nanos(9)), Duration::ZERO);
    }
}
