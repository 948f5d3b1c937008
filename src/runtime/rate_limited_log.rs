//! A rate limit for warnings that other processes can cause at any rate.

use std::fmt::Arguments;
use std::time::Duration;

use crate::model::Mono;

/// The minimum time between two warnings.
const INTERVAL: Duration = Duration::from_secs(10);

/// Logs at most one warning in [`INTERVAL`] and counts the others.
#[derive(Debug, Default)]
pub(super) struct RateLimitedLog {
    last: Option<Mono>,
    suppressed: u64,
}

impl RateLimitedLog {
    pub(super) fn warn(&mut self, now: Mono, warning: Arguments<'_>) {
        if self.last.is_some_and(|last| now.since(last) < INTERVAL) {
            self.suppressed += 1;
            return;
        }
        match std::mem::take(&mut self.suppressed) {
            0 => log::warn!("{warning}"),
            suppressed => log::warn!("{warning} ({suppressed} similar messages suppressed)"),
        }
        self.last = Some(now);
    }
}
