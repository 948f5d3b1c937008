//! Waiting for a state: look again until it is there, with one deadline.

use std::thread;
use std::time::{Duration, Instant};

/// No state that a test waits for takes longer on a loaded two-core machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks at a state.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until `look` finds something; fails with `what` when that never happens.
#[track_caller]
pub(crate) fn wait_for<T>(what: impl FnOnce() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never happened: {}", what());
        thread::sleep(PAUSE);
    }
}
