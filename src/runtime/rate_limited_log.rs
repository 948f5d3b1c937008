//! A rate limit for warnings that other processes can cause at any rate.

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
    pub(super) fn warn(&mut self, now: Mono, reason: &str) {
        if self.last.is_some_and(|last| now.since(last) < INTERVAL) {
            self.suppressed += 1;
            return;
        }
        match std::mem::take(&mut self.suppressed) {
            0 => log::warn!("notify: {reason}"),
            suppressed => log::warn!("notify: {reason} ({suppressed} similar messages suppressed)"),
        }
        self.last = Some(now);
    }
}
