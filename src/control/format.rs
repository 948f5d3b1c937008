//! Numbers for people, in six characters at most. Written without allocating, since a table can have thousands.

use std::fmt::{Display, from_fn};

/// `512B`, `12.3M`, `987M`.
pub(super) fn bytes(bytes: u64) -> impl Display {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    from_fn(move |out| {
        if bytes < 1024 {
            return write!(out, "{bytes}B");
        }
        let (mut whole, mut rest) = (bytes / 1024, bytes % 1024);
        let mut unit = 0;
        while whole >= 1024 && unit + 1 < UNITS.len() {
            (whole, rest) = (whole / 1024, whole % 1024);
            unit += 1;
        }
        let unit = UNITS.get(unit).copied().unwrap_or('P');
        // Tenths by integer arithmetic.
        if whole < 100 { write!(out, "{whole}.{}{unit}", rest * 10 / 1024) } else { write!(out, "{whole}{unit}") }
    })
}

/// The age of something: `5s`, `2m10s`, `3h05m`, `12d3h`, `400d`.
pub(super) fn age(milliseconds: u64) -> impl Display {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    from_fn(move |out| match seconds {
        0..60 => write!(out, "{seconds}s"),
        60..3_600 => write!(out, "{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => write!(out, "{hours}h{:02}m", minutes % 60),
        86_400..8_640_000 => write!(out, "{days}d{}h", hours % 24),
        _ => write!(out, "{days}d"),
    })
}

/// CPU time: `0.05s`, `12.3s`, and then as [`age`].
pub(super) fn spent(milliseconds: u64) -> impl Display {
    from_fn(move |out| match milliseconds {
        0..10_000 => write!(out, "{}.{:02}s", milliseconds / 1000, milliseconds % 1000 / 10),
        10_000..60_000 => write!(out, "{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => age(milliseconds).fmt(out),
    })
}

/// Thousandths of a processor as per cent: `0.3`, `99.9`, `250`.
pub(super) fn percent(thousandths: u64) -> impl Display {
    from_fn(move |out| {
        if thousandths < 1_000 {
            write!(out, "{}.{}", thousandths / 10, thousandths % 10)
        } else {
            write!(out, "{}", thousandths / 10)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sizes_have_a_decimal() {
        let check = |number, expect| assert_eq!(bytes(number).to_string(), expect, "{number}");
        check(0, "0B");
        check(1023, "1023B");
        check(1024, "1.0K");
        check(1536, "1.5K");
        check(102_400, "100K");
        check(1_048_575, "1023K");
        check(1_048_576, "1.0M");
        check(13 << 20, "13.0M");
        check(1 << 40, "1.0T");
        check(u64::MAX, "16383P");
    }

    #[test]
    fn ages_have_two_units() {
        let check = |seconds: u64, expect| assert_eq!(age(seconds * 1000).to_string(), expect, "{seconds}");
        check(0, "0s");
        check(59, "59s");
        check(60, "1m00s");
        check(130, "2m10s");
        check(3_600, "1h00m");
        check(86_399, "23h59m");
        check(86_400, "1d0h");
        check(99 * 86_400 + 23 * 3_600, "99d23h");
        check(100 * 86_400, "100d");
    }

    #[test]
    fn cpu_time_has_decimals() {
        let check = |milliseconds, expect| assert_eq!(spent(milliseconds).to_string(), expect, "{milliseconds}");
        check(0, "0.00s");
        check(56, "0.05s");
        check(9_999, "9.99s");
        check(12_345, "12.3s");
        check(130_000, "2m10s");
    }

    #[test]
    fn shares_of_processors_have_a_decimal_below_one() {
        let check = |thousandths, expect| assert_eq!(percent(thousandths).to_string(), expect, "{thousandths}");
        check(0, "0.0");
        check(3, "0.3");
        check(999, "99.9");
        check(1_000, "100");
        check(2_505, "250");
    }
}
