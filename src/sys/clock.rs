//! The clocks, clock_gettime(2).

use std::time::Duration;

use nix::sys::time::TimeSpec;

use crate::model::Mono;

/// `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> Mono {
    let time = Duration::from(read(libc::CLOCK_MONOTONIC));
    Mono::from_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// `CLOCK_REALTIME`: the time since 1970-01-01 00:00 UTC; zero if the clock is set to an earlier time.
#[must_use]
pub fn wall() -> Duration {
    let time = read(libc::CLOCK_REALTIME);
    if time.tv_sec() < 0 { Duration::ZERO } else { Duration::from(time) }
}

/// `CLOCK_REALTIME_COARSE`: as [`wall`], but the time that the kernel gives to files, which is up to a tick behind.
#[must_use]
pub fn file_time() -> Duration {
    Duration::from(read(libc::CLOCK_REALTIME_COARSE))
}

fn read(clock: libc::clockid_t) -> TimeSpec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec. The call cannot fail: these clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    TimeSpec::from(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_backwards() {
        let first = now();
        assert!(now() >= first);
    }

    #[test]
    fn the_wall_clock_counts_from_1970() {
        let year_2024 = Duration::from_secs(1_704_067_200);
        assert!(wall() > year_2024);
    }
}
