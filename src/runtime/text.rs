//! Counts and durations as text, and texts of several lines in the log.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use log::Level;

/// `1 process`, `2 processes`.
pub(super) struct Counted(pub(super) u64, pub(super) &'static str, pub(super) &'static str);

impl Display for Counted {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(count, one, many) = self;
        write!(formatter, "{count} {}", if *count == 1 { one } else { many })
    }
}

/// `web.0, web.1`, of more than five the first ones: `… and 3 more`.
pub(super) struct Listed<'a, T>(pub(super) &'a [T]);

impl<T: Display> Display for Listed<'_, T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        const MAX_NAMED: usize = 5;
        for (position, name) in self.0.iter().take(MAX_NAMED).enumerate() {
            write!(formatter, "{}{name}", if position == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// A duration: `400ms`, `3.2s`, `1m30s`, `2h5m`, `3d4h`.
pub(super) struct Span(pub(super) Duration);

impl Display for Span {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        match seconds {
            0 => write!(formatter, "{milliseconds}ms"),
            1..60 if milliseconds < 100 => write!(formatter, "{seconds}s"),
            1..60 => write!(formatter, "{seconds}.{}s", milliseconds / 100),
            60..3600 => write_two(formatter, seconds / 60, "m", seconds % 60, "s"),
            3600..86_400 => write_two(formatter, seconds / 3600, "h", seconds % 3600 / 60, "m"),
            _ => write_two(formatter, seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        }
    }
}

fn write_two(formatter: &mut Formatter<'_>, large: u64, unit: &str, small: u64, subunit: &str) -> fmt::Result {
    write!(formatter, "{large}{unit}")?;
    if small > 0 { write!(formatter, "{small}{subunit}") } else { Ok(()) }
}

/// Logs each line of `text`: control characters in a message, newlines too, would be made visible.
pub(super) fn log_lines(level: Level, text: &str) {
    for line in text.lines().filter(|line| !line.is_empty()) {
        log::log!(level, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(milliseconds: u64, expect: &str) {
        assert_eq!(Span(Duration::from_millis(milliseconds)).to_string(), expect);
    }

    #[test]
    fn durations_have_at_most_two_units() {
        check(0, "0ms");
        check(400, "400ms");
        check(1000, "1s");
        check(3250, "3.2s");
        check(60_000, "1m");
        check(90_000, "1m30s");
        check(7_500_000, "2h5m");
        check(273_600_000, "3d4h");
    }
}
