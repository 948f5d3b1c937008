//! Timers as descriptors: timerfd_create(2), timerfd_settime(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer on `CLOCK_MONOTONIC` that is readable when it has expired. A forked process has the same one.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// A timer that is not set, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM; ENOSYS or EPERM in a sandbox.
    pub fn new() -> Result<Self, Errno> {
        TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).map(Self)
    }

    /// Lets it expire after `first`, and then again after each `interval`. An expiration that nobody has seen is forgotten.
    pub fn set(&self, first: Duration, interval: Duration) {
        let expiration = Expiration::IntervalDelayed(first.into(), interval.into());
        self.0.set(expiration, TimerSetTimeFlags::empty()).ok();
    }

    /// Lets it never expire.
    pub fn clear(&self) {
        self.0.unset().ok();
    }

    /// It is not readable until it expires again. Returns whether it was.
    #[must_use]
    pub fn acknowledge(&self) -> bool {
        self.0.wait().is_ok()
    }
}

/// A timer on `CLOCK_REALTIME` that is readable when it has expired, and when the clock was set.
#[derive(Debug)]
pub struct WallTimer(TimerFd);

impl WallTimer {
    /// A timer that is not set, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// As [`Timer::new`].
    pub fn new() -> Result<Self, Errno> {
        TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).map(Self)
    }

    /// Lets it expire at this time, in seconds since 1970.
    ///
    /// # Errors
    /// EINVAL: the kernel cannot tell that the clock is set.
    pub fn set(&self, at: i64) -> Result<(), Errno> {
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.0.set(Expiration::OneShot(TimeSpec::new(at, 0)), flags)
    }

    /// Lets it never expire. It is not readable any more.
    pub fn clear(&self) {
        self.0.unset().ok();
    }
}

impl AsFd for WallTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe::{is_readable, wait_for_input};

    const SOON: Duration = Duration::from_nanos(1);
    const NEVER: Duration = Duration::from_secs(1 << 20);

    #[test]
    fn a_timer_expires_again_and_again_until_it_is_cleared() {
        let timer = Timer::new().unwrap();
        assert!(!timer.acknowledge());
        timer.set(SOON, Duration::from_millis(1));
        for _ in 0..3 {
            assert!(wait_for_input(&timer, NEVER));
            assert!(timer.acknowledge());
        }
        assert!(wait_for_input(&timer, NEVER));
        timer.clear();
        assert!(!is_readable(&timer));
    }

    #[test]
    fn a_timer_of_the_wall_clock_expires_at_its_time() {
        let timer = WallTimer::new().unwrap();
        let now = i64::try_from(crate::sys::clock::wall().as_secs()).unwrap();
        timer.set(now + 3_600).unwrap();
        assert!(!is_readable(&timer));
        timer.set(now).unwrap();
        assert!(wait_for_input(&timer, NEVER));
        timer.clear();
        assert!(!is_readable(&timer));
    }

    #[test]
    fn a_timer_that_is_set_again_forgets_that_it_has_expired() {
        let timer = Timer::new().unwrap();
        timer.set(SOON, NEVER);
        assert!(wait_for_input(&timer, NEVER));
        timer.set(NEVER, NEVER);
        assert!(!timer.acknowledge());
    }
}
