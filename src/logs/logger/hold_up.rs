//! What PID 1 needs to notice that a pipe holds up the logger.
//!
//! A process that writes to a pipe holds the lock of the pipe meanwhile, and a page fault can stop it there: read(2) and
//! ioctl(2) of this pipe then wait, although it is non-blocking, and not even SIGKILL ends that. So the logger says in
//! memory that it shares with PID 1 which pipe it is about to read, and keeps setting a timer that they share. The timer
//! expires only if the logger does not come to set it again: PID 1 is not woken while all is well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Mono;
use crate::sys::timer::Timer;

/// The timer expires so long after it was set, and then again after this time, and wakes PID 1.
const EXPIRES_AFTER: Duration = Duration::from_secs(2);
/// The timer is set again at the earliest after this time, so that it costs nothing.
const SET_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The system call on a pipe in which the logger is: the number of the pipe, and how many calls there were on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark(u64);

impl ReadMark {
    const BITS: u32 = 32;
    /// In no such call.
    const NONE: u64 = 0;

    fn new(serial: u64, calls: u32) -> Self {
        Self(serial << Self::BITS | u64::from(calls.max(1)))
    }

    /// Reads it from the memory at [`super::READ_MARK`]; `None`: the logger is in no such call.
    #[must_use]
    pub fn load(word: &AtomicU64) -> Option<Self> {
        Some(Self(word.load(Ordering::Relaxed))).filter(|mark| mark.0 != Self::NONE)
    }

    /// Removes what a logger that has been killed has left there.
    pub fn clear(word: &AtomicU64) {
        word.store(Self::NONE, Ordering::Relaxed);
    }

    /// Whether it is a call on the pipe with this number.
    #[must_use]
    pub fn is_of(self, serial: u64) -> bool {
        self.0 >> Self::BITS == serial & u64::from(u32::MAX)
    }
}

/// Marks the system calls on one pipe.
#[derive(Debug)]
pub(super) struct PipeCalls {
    word: Option<&'static AtomicU64>,
    serial: u64,
    calls: u32,
}

impl PipeCalls {
    pub(super) const fn new(word: Option<&'static AtomicU64>, serial: u64) -> Self {
        Self { word, serial, calls: 0 }
    }

    /// Performs a system call that a writer can hold up.
    pub(super) fn perform<T>(&mut self, call: impl FnOnce() -> T) -> T {
        self.calls = self.calls.wrapping_add(1);
        let store = |mark| _ = self.word.map(|word| word.store(mark, Ordering::Relaxed));
        store(ReadMark::new(self.serial, self.calls).0);
        let result = call();
        store(ReadMark::NONE);
        result
    }
}

/// The timer, as the logger uses it.
#[derive(Debug)]
pub(super) struct HoldUpTimer {
    timer: Option<Timer>,
    set_at: Option<Mono>,
}

impl HoldUpTimer {
    /// `None`: the system has no timers, and PID 1 does not notice.
    pub(super) const fn new(timer: Option<Timer>) -> Self {
        Self { timer, set_at: None }
    }

    /// The logger is awake, and may read pipes from now on.
    pub(super) fn on_awake(&mut self, now: Mono) {
        if let Some(timer) = &self.timer
            && self.set_at.is_none_or(|set_at| now.since(set_at) >= SET_AGAIN_AFTER)
        {
            timer.set(EXPIRES_AFTER, EXPIRES_AFTER);
            self.set_at = Some(now);
        }
    }

    /// The logger is idle.
    pub(super) fn on_idle(&mut self) {
        if let Some(timer) = &self.timer {
            timer.clear();
        }
        self.set_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::counters::SharedCounters;

    #[test]
    fn a_call_is_marked_until_it_returns_and_each_one_differently() {
        let counters: &'static SharedCounters = Box::leak(Box::new(SharedCounters::new(1).unwrap()));
        let word = counters.get(0).unwrap();
        let mark = || ReadMark::load(word);
        let (mut first, mut second) = (PipeCalls::new(Some(word), 0), PipeCalls::new(Some(word), 1 << 32 | 7));
        let marks = [first.perform(mark), first.perform(mark), second.perform(mark)].map(Option::unwrap);
        assert_eq!(mark(), None);
        assert_ne!(marks[0], marks[1]);
        assert_eq!(
            marks.map(|mark| [0, 7, 8].map(|serial| mark.is_of(serial))),
            [[true, false, false], [true, false, false], [false, true, false]]
        );
        // After 2³² calls.
        first.calls = u32::MAX;
        assert!(first.perform(mark).is_some());
    }
}
