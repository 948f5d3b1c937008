//! A rate limit for messages that other processes can cause at any rate.
//!
//! Each service has a budget of its own for each kind of message, so that the flood of one hides nothing of another. What
//! exceeds the budget is counted, and the count is logged when the interval ends, or at most an interval later.

use std::fmt::Arguments;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::Level;

use crate::model::map::Map;
use crate::model::{Mono, ServiceIndex};

/// The number of messages of one kind in [`INTERVAL`].
const MAX_MESSAGES: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// What a message is about: those of one kind are similar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MessageKind {
    /// A process cannot be created for keepalive's own work.
    HelperShortage,
    /// The system refuses keepalive memory.
    MemoryShortage,
    /// A notify message, or a part of it, is ignored.
    NotifyRejected,
    MainPidChanged,
    OrphanReaped,
    /// A client or a service has sent descriptors where none are accepted.
    DescriptorsRejected,
}

/// At most [`MAX_MESSAGES`] in [`INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The start of the interval, and how many have passed since then.
    interval: Option<(Mono, u32)>,
    suppressed: u64,
}

impl Budget {
    /// Whether one more may pass.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        let (since, used) = self.interval.filter(|(since, _)| now.since(*since) < INTERVAL).unwrap_or((now, 0));
        // The count of the previous interval comes first.
        let passes = used < MAX_MESSAGES && self.suppressed == 0;
        if passes {
            self.interval = Some((since, used + 1));
        } else {
            self.suppress();
        }
        passes
    }

    /// Counts one that does not pass.
    pub(super) const fn suppress(&mut self) {
        self.suppressed += 1;
    }

    /// When the number of those that did not pass is to be reported; `None`: all have passed.
    pub(super) fn due(&self) -> Option<Mono> {
        self.interval.filter(|_| self.suppressed > 0).map(|(since, _)| since + INTERVAL)
    }

    /// The number of those that did not pass, to be reported now. Begins a new interval, in which the report is the first
    /// that passes.
    pub(super) fn take_suppressed(&mut self, now: Mono) -> u64 {
        self.interval = Some((now, 1));
        std::mem::take(&mut self.suppressed)
    }

    /// Whether nothing has happened for so long that the budget is as good as a new one.
    pub(super) fn is_unused(&self, now: Mono) -> bool {
        self.suppressed == 0 && self.interval.is_none_or(|(since, _)| now.since(since) >= INTERVAL)
    }
}

type Key = (MessageKind, Option<ServiceIndex>);

struct Limited {
    budget: Budget,
    /// The level of the last message that was logged.
    level: Level,
    /// The last message that was logged, as an example for those that are not.
    last: String,
}

impl Default for Limited {
    fn default() -> Self {
        Self { budget: Budget::default(), level: Level::Debug, last: String::new() }
    }
}

/// The budgets in use.
struct RateLimits {
    limits: Map<Key, Limited>,
    /// The time of the last [`flush`], which happens in each turn of the event loop.
    now: Mono,
}

impl RateLimits {
    const fn new() -> Self {
        Self { limits: Map::new(), now: Mono::from_nanos(0) }
    }
}

/// Static, because the log is, too.
static LIMITS: Mutex<RateLimits> = Mutex::new(RateLimits::new());

fn limits() -> MutexGuard<'static, RateLimits> {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs a warning. `service`: whose processes cause it, if that is known.
pub(super) fn warn(kind: MessageKind, service: Option<ServiceIndex>, message: Arguments<'_>) {
    log(Level::Warn, (kind, service), message);
}

/// As [`warn`], but at level info.
pub(super) fn info(kind: MessageKind, service: Option<ServiceIndex>, message: Arguments<'_>) {
    log(Level::Info, (kind, service), message);
}

/// As [`warn`], but at level debug.
pub(super) fn debug(kind: MessageKind, service: Option<ServiceIndex>, message: Arguments<'_>) {
    log(Level::Debug, (kind, service), message);
}

fn log(level: Level, key: Key, message: Arguments<'_>) {
    if level <= log::max_level()
        && let Some(text) = {
            let mut limits = limits();
            let now = limits.now;
            limits.admit(level, key, now, message)
        }
    {
        log::log!(level, "{text}");
    }
}

/// When [`flush`] has something to log.
pub(super) fn due() -> Option<Mono> {
    limits().limits.values().filter_map(|limited| limited.budget.due()).min()
}

/// Logs how many messages have been suppressed.
pub(super) fn flush(now: Mono) {
    limits().now = now;
    let reports = limits().take_reports(now);
    for (level, text) in reports {
        log::log!(level, "{text}");
    }
}

/// As [`flush`], before keepalive exits, without waiting for the end of the interval.
pub(super) fn flush_all() {
    let now = limits().now;
    flush(now + INTERVAL);
}

impl RateLimits {
    /// The text of the message, if it may be logged.
    fn admit(&mut self, level: Level, key: Key, now: Mono, message: Arguments<'_>) -> Option<String> {
        let limited = self.limits.entry(key);
        if !limited.budget.take(now) {
            return None;
        }
        limited.level = level;
        limited.last = message.to_string();
        Some(limited.last.clone())
    }

    fn take_reports(&mut self, now: Mono) -> Vec<(Level, String)> {
        let mut reports = Vec::new();
        self.limits.retain(|_, limited| {
            if limited.budget.due().is_some_and(|due| due <= now) {
                let count = limited.budget.take_suppressed(now);
                reports
                    .push((limited.level, format!("{count} similar messages suppressed, such as: {}", limited.last)));
            }
            !limited.budget.is_unused(now)
        });
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (MessageKind::MainPidChanged, Some(ServiceIndex(1)));

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    /// Logs `count` messages and returns how many of them passed.
    fn log(limits: &mut RateLimits, key: Key, count: usize, seconds: u64) -> usize {
        (0..count).filter(|_| limits.admit(Level::Info, key, at(seconds), format_args!("changed")).is_some()).count()
    }

    #[test]
    fn a_flood_is_limited_and_counted_at_the_end_of_each_interval() {
        let mut limits = RateLimits::new();
        assert_eq!(log(&mut limits, KEY, 1_000, 1), 10);
        assert_eq!(limits.take_reports(at(10)), [], "not yet");
        let report = |count: u32| vec![(Level::Info, format!("{count} similar messages suppressed, such as: changed"))];
        assert_eq!(limits.take_reports(at(11)), report(990));
        assert_eq!(log(&mut limits, KEY, 1_000, 12), 9, "the report counts, too");
        assert_eq!(limits.take_reports(at(21)), report(991));
        assert_eq!(limits.take_reports(at(31)), []);
        assert!(limits.limits.is_empty(), "what is not used is forgotten");
    }

    #[test]
    fn services_and_kinds_have_budgets_of_their_own() {
        let mut limits = RateLimits::new();
        assert_eq!(log(&mut limits, KEY, 100, 1), 10);
        assert_eq!(log(&mut limits, (MessageKind::NotifyRejected, KEY.1), 5, 1), 5);
        assert_eq!(log(&mut limits, (KEY.0, Some(ServiceIndex(2))), 5, 1), 5);
        assert_eq!(log(&mut limits, (KEY.0, None), 5, 1), 5);
        assert_eq!(limits.take_reports(at(11)).len(), 1);
    }
}
