//! Waiting for a state: look again until it is there, with one deadline.

use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

/// No state that a test waits for takes longer on a machine that has nothing else to do.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a state.
const PAUSE: Duration = Duration::from_millis(50);

/// A deadline for the state and not for the machine: where four processes want each processor, a second of the clock is
/// a quarter of a second of it.
#[derive(Debug)]
pub(crate) struct Deadline {
    left: Duration,
    last: Instant,
}

impl Deadline {
    pub(crate) fn new() -> Self {
        Self { left: DEADLINE, last: Instant::now() }
    }

    pub(crate) fn is_over(&mut self) -> bool {
        let now = Instant::now();
        self.left = self.left.saturating_sub(now.duration_since(self.last) / crowd());
        self.last = now;
        self.left.is_zero()
    }

    /// The deadline in real time on this machine, for blocking waits without further checks.
    pub(crate) fn by_the_clock() -> Duration {
        DEADLINE * crowd()
    }
}

/// How many processes there are for each processor, of those that want to run, now or in the last minute, or wait for a
/// disk. proc(5), `/proc/loadavg`
fn crowd() -> u32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut fields = text.split_whitespace();
    let number = |field: Option<&str>| field?.split(['.', '/']).next()?.parse::<u32>().ok();
    let last_minute = number(fields.next()).unwrap_or(0);
    let now = number(fields.nth(2)).unwrap_or(0);
    let processors = available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    (last_minute.max(now) / processors).max(1)
}

/// Looks again and again until `look` finds something; fails with `what` when that never happens.
#[track_caller]
pub(crate) fn wait_for<T>(what: impl FnOnce() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let mut deadline = Deadline::new();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(!deadline.is_over(), "timed out waiting for this: {}", what());
        thread::sleep(PAUSE);
    }
}
