//! Timestamps in the format of RFC 3339, in UTC with milliseconds.

use std::io::Write as _;
use std::time::Duration;

use crate::model::calendar::date;
use crate::model::milliseconds;

/// A point in time and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    milliseconds: u64,
    text: [u8; 24],
}

impl Timestamp {
    /// `milliseconds` since 1970. Years after 9999 are shown as 9999.
    #[must_use]
    pub fn at(milliseconds: u64) -> Self {
        const LAST_SECOND: u64 = 253_402_300_799;
        let seconds = (milliseconds / 1_000).min(LAST_SECOND);
        let (year, month, day) = date((seconds / 86_400).cast_signed());
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        let mut text = *b"1970-01-01T00:00:00.000Z";
        let mut rest = text.as_mut_slice();
        let fraction = milliseconds % 1_000;
        // The text has the length of the array.
        write!(rest, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z").ok();
        Self { milliseconds, text }
    }

    /// Parses `2026-11-21T08:00:00.123Z` in UTC, also with a space instead of the `T`, without the `Z`, and without the end
    /// of the time, from the hour on.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z').unwrap_or(text).replace(' ', "T");
        if text.len() < b"1970-01-01".len() {
            return None;
        }
        // The texts have the order of the times.
        let (mut first, mut after) = (0, 253_402_300_800_000);
        while first < after {
            let middle = first + (after - first) / 2;
            if Self::at(middle).as_str() < text.as_str() { first = middle + 1 } else { after = middle }
        }
        Some(Self::at(first)).filter(|found| found.as_str().starts_with(&text))
    }

    /// `time` since 1970.
    #[must_use]
    pub fn since_epoch(time: Duration) -> Self {
        Self::at(milliseconds(time))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn milliseconds(&self) -> u64 {
        self.milliseconds
    }

    /// `2026-11-21T08:00:00.123Z`
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The same, as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, expect: &str) {
        assert_eq!(Timestamp::at(seconds * 1_000 + 7).as_str(), expect);
    }

    #[test]
    fn a_time_is_parsed_as_it_is_printed() {
        for (text, expect) in [
            ("2026-11-21T08:00:00.123Z", Some(1_795_248_000_123)),
            ("2026-11-21 08:00:00", Some(1_795_248_000_000)),
            ("2026-11-21T08:00Z", Some(1_795_248_000_000)),
            ("2026-11-21 08:0", Some(1_795_248_000_000)),
            ("2024-02-29", Some(1_709_164_800_000)),
            ("1970-01-01", Some(0)),
            ("9999-12-31T23:59:59.999Z", Some(253_402_300_799_999)),
            ("2026-02-29", None),
            ("2026-11-21T24:00", None),
            ("2026-11-21T08:00+01:00", None),
            ("2026-11", None),
            ("9999-99-99", None),
            ("yesterday!", None),
        ] {
            assert_eq!(Timestamp::parse(text).map(|time| time.milliseconds()), expect, "{text}");
        }
    }

    #[test]
    fn days_match_the_calendar() {
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(1_709_164_799, "2024-02-28T23:59:59.007Z");
        check(1_709_251_199, "2024-02-29T23:59:59.007Z");
        check(1_795_248_000, "2026-11-21T08:00:00.007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.007Z");
        check(253_402_300_799, "9999-12-31T23:59:59.007Z");
        check(253_402_300_800, "9999-12-31T23:59:59.007Z");
    }
}
