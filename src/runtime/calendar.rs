//! The timer of schedules: it expires at a time of the wall clock, and when the clock is set.

use std::time::Duration;

use super::token::Token;
use crate::supervisor::Event;
use crate::sys::timer::WallTimer;
use crate::sys::{self, Poller};

/// Where the kernel has no such timer, the clock is read so often while something is scheduled: it may be set.
const READ_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Calendar {
    timer: TimerState,
    /// When the timer expires.
    set_to: Option<i64>,
    must_read: bool,
}

#[derive(Debug, Default)]
enum TimerState {
    /// Nothing was scheduled yet.
    #[default]
    Unused,
    Open(WallTimer),
    /// The kernel has none.
    Missing,
}

impl Calendar {
    /// The timer has expired, or the clock was set.
    pub(super) fn on_ready(&mut self) {
        if let TimerState::Open(timer) = &self.timer {
            timer.clear();
        }
        (self.set_to, self.must_read) = (None, true);
    }

    /// Sets the timer to `deadline`. Returns the time until the clock must be read without it.
    pub(super) fn set(&mut self, deadline: Option<i64>, poller: &Poller) -> Option<Duration> {
        let is_missing = matches!(self.timer, TimerState::Missing);
        if deadline == self.set_to && !(is_missing && deadline.is_some()) {
            return None;
        }
        self.set_to = deadline;
        let Some(at) = deadline else {
            if let TimerState::Open(timer) = &self.timer {
                timer.clear();
            }
            return None;
        };
        let rest = at.saturating_sub(wall_clock());
        if rest <= 0 {
            (self.set_to, self.must_read) = (None, true);
            return Some(Duration::ZERO);
        }
        if let TimerState::Unused = self.timer {
            self.timer = open(poller);
        }
        if let TimerState::Open(timer) = &self.timer {
            if timer.set(at).is_ok() {
                return None;
            }
            poller.remove(timer).ok();
            self.timer = TimerState::Missing;
        }
        self.must_read = true;
        Some(Duration::from_secs(rest.unsigned_abs()).min(READ_INTERVAL))
    }

    /// The time, if the supervisor needs it.
    pub(super) fn read(&mut self, deadline: Option<i64>) -> Option<Event> {
        (std::mem::take(&mut self.must_read) && deadline.is_some()).then(|| Event::WallClock(wall_clock()))
    }
}

fn open(poller: &Poller) -> TimerState {
    match WallTimer::new() {
        Ok(timer) if poller.add(&timer, Token::WallTimer).is_ok() => TimerState::Open(timer),
        Ok(_) | Err(_) => TimerState::Missing,
    }
}

/// Seconds since 1970.
fn wall_clock() -> i64 {
    i64::try_from(sys::clock::wall().as_secs()).unwrap_or(i64::MAX)
}
