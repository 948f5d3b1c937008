//! Durations and sizes of other programs, in the notation of keepalive.

use std::time::Duration;

use crate::model::units::format_duration;

pub(super) fn milliseconds(number: u64) -> String {
    format_duration(Duration::from_millis(number))
}

pub(super) fn seconds(number: u64) -> String {
    format_duration(Duration::from_secs(number))
}

/// `50MB`, `300M`, `1.5 GB`, `1024`: units of 1024 in supervisord, PM2, systemd and Compose. `None`: it is no size.
pub(super) fn size(text: &str) -> Option<String> {
    let text = text.trim();
    let split = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let unit = match unit.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => "B",
        "K" => "KiB",
        "M" => "MiB",
        "G" => "GiB",
        "T" => "TiB",
        _ => return None,
    };
    number.parse::<f64>().ok()?;
    Some(format!("{number}{unit}"))
}

/// `90`, `1min 30s`, `500ms`, `2 hours` of systemd, without a unit in seconds; `None`: it has no end, or is no time.
pub(super) fn time_span(text: &str) -> Option<String> {
    let mut total = 0.0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let split = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(split)?;
        let after = after.trim_start();
        let end = after.find(|letter: char| !letter.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let factor = match unit {
            "us" | "usec" | "µs" => 0.000_001,
            "ms" | "msec" => 0.001,
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(total).ok().map(format_duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_of_other_programs_are_understood() {
        for (text, expect) in
            [("90", Some("1m30s")), ("1min 30s", Some("1m30s")), ("500ms", Some("500ms")), ("infinity", None)]
        {
            assert_eq!(time_span(text).as_deref(), expect, "{text}");
        }
        for (text, expect) in [("50MB", Some("50MiB")), ("300M", Some("300MiB")), ("1024", Some("1024B")), ("x", None)]
        {
            assert_eq!(size(text).as_deref(), expect, "{text}");
        }
    }
}
