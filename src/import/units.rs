//! Durations and sizes of other programs, in the notation of keepalive.

use std::time::Duration;

use crate::model::units::format_duration;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_other_programs_are_understood() {
        for (text, expect) in [("50MB", Some("50MiB")), ("300M", Some("300MiB")), ("1024", Some("1024B")), ("x", None)]
        {
            assert_eq!(size(text).as_deref(), expect, "{text}");
        }
    }
}
