//! Durations and sizes in the notation of configurations and messages: `1m30s`, `512MiB`.

use std::fmt::Write as _;
use std::time::Duration;

/// The units of time, in nanoseconds.
const TIME_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Parses `250ms`, `5s`, `1.5s`, `1m30s`, `2h`, `1d`, `0`; `None` for anything else, including a number without a unit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    loop {
        let (amount, after) = parse_amount(rest, &TIME_UNITS)?;
        total = total.checked_add(amount)?;
        if after.is_empty() {
            return Some(Duration::from_nanos(total));
        }
        rest = after;
    }
}

/// The longest duration that can be parsed, in whole days.
pub const MAX_DURATION: &str = "213503d";

/// Whether [`parse_duration`] rejects `text` only because it exceeds [`MAX_DURATION`].
#[must_use]
pub fn exceeds_max_duration(text: &str) -> bool {
    let mut small = String::with_capacity(text.len());
    for character in text.chars() {
        if !(character.is_ascii_digit() && small.ends_with('1')) {
            small.push(if character.is_ascii_digit() { '1' } else { character });
        }
    }
    parse_duration(text).is_none() && parse_duration(&small).is_some()
}

/// Parses `64KiB`, `512MiB`, `1.5GiB`, `10MB`, `100B`, `0`; `None` for anything else, including a number without a unit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    parse_amount(text, &SIZE_UNITS).filter(|(_, after)| after.is_empty()).map(|(bytes, _)| bytes)
}

/// Whether `text` is a word of other programs for a duration without end.
#[must_use]
pub fn is_infinite(text: &str) -> bool {
    matches!(text, "infinity" | "infinite" | "unlimited" | "never")
}

/// What is probably meant by `5min`, `10 seconds` or `1H`, which are no durations of keepalive.
#[must_use]
pub fn meant_duration(text: &str) -> Option<String> {
    const UNITS: [(&str, &str); 6] = [("ms", "ms"), ("mo", ""), ("m", "m"), ("s", "s"), ("h", "h"), ("d", "d")];
    // `1h30`
    let unit = match text.trim_end_matches(|character: char| character.is_ascii_digit()).chars().next_back() {
        Some('d') => "h",
        Some('h') => "m",
        _ => "s",
    };
    let completed = [text, unit].concat();
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number && parse_duration(&completed).is_some() {
        return Some(completed);
    }
    meant(text, &UNITS).filter(|meant| parse_duration(meant).is_some())
}

/// What is probably meant by `512M`, `1 gb` or `1024`, which are no sizes of keepalive.
#[must_use]
pub fn meant_size(text: &str) -> Option<String> {
    const UNITS: [(&str, &str); 6] = [("k", "KiB"), ("m", "MiB"), ("g", "GiB"), ("t", "TiB"), ("b", "B"), ("", "B")];
    meant(text, &UNITS).filter(|meant| parse_size(meant).is_some())
}

/// Each number in `text` with the first of `units` that the word after it begins with: `2h 15min`. `None`: there is other text.
fn meant(text: &str, units: &[(&str, &str)]) -> Option<String> {
    let (mut rest, mut all) = (text, String::new());
    while !rest.is_empty() {
        let split = |text: &'_ str, is_part: fn(char) -> bool| text.find(|part| !is_part(part)).unwrap_or(text.len());
        let (number, after) = rest.split_at(split(rest, |character| character.is_ascii_digit() || character == '.'));
        let after = after.strip_prefix(' ').unwrap_or(after);
        let (word, after) = after.split_at(split(after, |character| character.is_ascii_alphabetic()));
        let word = word.to_ascii_lowercase();
        let is_meant = |(start, _): &&(&str, &str)| word.starts_with(start) && start.is_empty() == word.is_empty();
        let (_, unit) = units.iter().find(is_meant).filter(|_| !number.is_empty())?;
        all.extend([number, *unit]);
        rest = after.trim_start_matches(' ');
    }
    Some(all)
}

/// Parses a number with a unit at the start of `text` and returns the amount and the rest of the text.
fn parse_amount<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u64, &'t str)> {
    let is_number = |character: char| character.is_ascii_digit() || character == '.';
    let (number, rest) = text.split_at(text.find(|character| !is_number(character))?);
    let (unit, after) = rest.split_at(rest.find(is_number).unwrap_or(rest.len()));
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len()).ok()?;
    let part = scale.checked_mul(fraction.parse().ok()?)?.checked_div(10_u64.checked_pow(digits)?)?;
    Some((scale.checked_mul(whole.parse().ok()?)?.checked_add(part)?, after))
}

/// Formats a duration as `1d2h`, `1m30s`, `1.5s`, `250ms`, `0s`, rounded down to milliseconds.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.subsec_millis();
    let mut seconds = duration.as_secs();
    if seconds == 0 && milliseconds > 0 {
        return format!("{milliseconds}ms");
    }
    let mut text = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= length {
            text.push_str(&format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    if milliseconds > 0 {
        let decimals = format!("{milliseconds:03}");
        // Writing to a String cannot fail.
        let _ = write!(text, "{seconds}.{}s", decimals.trim_end_matches('0'));
    } else if seconds > 0 || text.is_empty() {
        let _ = write!(text, "{seconds}s");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, milliseconds: Option<u64>) {
        assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations_are_numbers_with_units() {
        check("250ms", Some(250));
        check("5s", Some(5_000));
        check("1m30s", Some(90_000));
        check("1.5s", Some(1_500));
        check("0.25s", Some(250));
        check("2h", Some(7_200_000));
        check("1d", Some(86_400_000));
        check("0", Some(0));
        check("0s", Some(0));
    }

    #[test]
    fn a_duration_that_is_too_long_is_distinguished_from_invalid_text() {
        for text in ["213504d", "99999999999999999999s", "1000000000000000ms".repeat(2).as_str(), "1m99999999999d"] {
            assert!(exceeds_max_duration(text), "{text}");
        }
        for text in ["", "5", "5 s", "99999999999999999999", "99999999999999999999x", MAX_DURATION, "5s"] {
            assert!(!exceeds_max_duration(text), "{text}");
        }
        assert!(parse_duration(MAX_DURATION).is_some());
    }

    #[test]
    fn text_that_is_not_a_duration_is_rejected() {
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "5S",
            "5sec",
            "1m30",
            ".s",
            "5.s",
            ".5s",
            "1.2.3s",
            "1e3s",
            "99999999999d",
            "+5s",
            "0.1234567890123456789012s",
            "５s",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn durations_and_sizes_of_other_programs_are_understood_for_hints() {
        for (text, expect) in [
            ("5min", Some("5m")),
            ("10 sec", Some("10s")),
            ("1.5S", Some("1.5s")),
            ("100msec", Some("100ms")),
            ("1h30", Some("1h30m")),
            ("1m30", Some("1m30s")),
            ("1min 20s", Some("1m20s")),
            ("2h 15min", Some("2h15m")),
            ("1h30min", Some("1h30m")),
            ("1h!", None),
            ("5", None),
            ("2weeks", None),
            ("1month", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(meant_duration(text).as_deref(), expect, "{text}");
        }
        for (text, expect) in [
            ("512M", Some("512MiB")),
            ("512mb", Some("512MiB")),
            ("1 G", Some("1GiB")),
            ("64k", Some("64KiB")),
            ("1024", Some("1024B")),
            ("50%", None),
            ("many", None),
        ] {
            assert_eq!(meant_size(text).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        assert_eq!(parse_size("1.5GiB"), Some(3 << 29));
        assert_eq!(parse_size("10MB"), Some(10_000_000));
        assert_eq!(parse_size("0"), Some(0));
        for text in ["64", "64K", "64M", "64mib", "-1B", "1KiB2B", "99999999TiB", ""] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn parsing_a_formatted_duration_gives_the_same_duration() {
        for milliseconds in [0, 1, 250, 1_000, 1_500, 1_050, 60_000, 90_000, 3_600_000, 86_400_000, 90_061_001] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration), "{}", format_duration(duration));
        }
        assert_eq!(format_duration(Duration::from_millis(90_500)), "1m30.5s");
        assert_eq!(format_duration(Duration::from_secs(60)), "1m");
    }
}
