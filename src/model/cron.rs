//! The five fields of crontab(5): minute, hour, day of month, month, day of week.
//!
//! The rules are those of Vixie's cron, which Debian and others use: if day of month and day of week are both restricted, a
//! day that matches either of them matches. A field that begins with `*` is not restricted, also as `*/2`. `7` is Sunday.

use super::calendar;

const MINUTES_OF_DAY: i64 = 1_440;

/// The times of a day, and the days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// The numbers in each field, as bits.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of month and day of week are both restricted.
    is_either_day: bool,
    /// Minute or hour begins with `*`.
    is_repeated: bool,
}

/// Why a text is no [`Cron`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub hint: String,
}

/// A field: its name, its smallest and its largest number, and the names of its numbers.
struct Field(&'static str, u8, u8, &'static str);

const FIELDS: [Field; 5] = [
    Field("minute", 0, 59, ""),
    Field("hour", 0, 23, ""),
    Field("day of month", 1, 31, ""),
    Field("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    Field("day of week", 0, 7, "sun mon tue wed thu fri sat"),
];

const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

const ORDER: &str = "write minute, hour, day of month, month and day of week, such as `0 4 * * *`";

impl Cron {
    /// Parses five fields, or a name such as `@daily`.
    ///
    /// # Errors
    /// The first field that is wrong, or why the whole is.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        let name = text.to_ascii_lowercase();
        let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields);
        let fields: Vec<_> = named.unwrap_or(text).split_ascii_whitespace().collect();
        let [minute, hour, day, _, weekday] = fields[..] else { return Err(wrong_form(text, &fields)) };
        let mut sets = [0; 5];
        for ((set, field), text) in sets.iter_mut().zip(&FIELDS).zip(&fields) {
            *set = bits(field, text)?;
        }
        let [minutes, hours, days, months, weekdays] = sets;
        let is_star = |field: &str| field.starts_with('*');
        let cron = Self {
            minutes,
            hours,
            days,
            months,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            is_either_day: !is_star(day) && !is_star(weekday),
            is_repeated: is_star(minute) || is_star(hour),
        };
        let has_day = (0..366 * 41).any(|day| cron.has_day(day));
        if has_day {
            Ok(cron)
        } else {
            Err(error("no day matches", "such as the 30th of February, which does not exist"))
        }
    }

    /// Whether minute or hour begins with `*`: it is meant to run again and again, not at a time of the day.
    #[must_use]
    pub const fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// The first minute from `from` on, and before `until`. All are minutes since 1970-01-01 00:00 on a local clock.
    #[must_use]
    pub fn next(&self, from: i64, until: i64) -> Option<i64> {
        let (mut day, mut minute) = (from.div_euclid(MINUTES_OF_DAY), from.rem_euclid(MINUTES_OF_DAY));
        while day * MINUTES_OF_DAY + minute < until {
            if let Some(minute) = self.has_day(day).then(|| self.next_of_day(minute)).flatten() {
                return Some(day * MINUTES_OF_DAY + minute).filter(|found| *found < until);
            }
            (day, minute) = (day + 1, 0);
        }
        None
    }

    fn has_day(&self, day: i64) -> bool {
        let (_, month, number) = calendar::date(day);
        let (is_day, is_weekday) = (has(self.days, number), has(self.weekdays, calendar::weekday(day)));
        has(self.months, month) && if self.is_either_day { is_day || is_weekday } else { is_day && is_weekday }
    }

    /// The first minute of a day that matches, from this one on.
    fn next_of_day(&self, from: i64) -> Option<i64> {
        (from / 60..24).filter(|hour| has(self.hours, *hour)).find_map(|hour| {
            let first = (from - hour * 60).max(0);
            let later = self.minutes >> first;
            (later != 0).then(|| hour * 60 + first + i64::from(later.trailing_zeros()))
        })
    }
}

const fn has(bits: u64, number: i64) -> bool {
    bits >> number & 1 == 1
}

fn error(message: impl Into<String>, hint: impl Into<String>) -> CronError {
    CronError { message: message.into(), hint: hint.into() }
}

/// Why this is not five fields.
fn wrong_form(text: &str, fields: &[&str]) -> CronError {
    let first = fields.first().copied().unwrap_or_default();
    match first.to_ascii_lowercase().as_str() {
        "@reboot" => {
            return error(
                "`@reboot` is no time",
                "remove the key: keepalive starts it at once, unless `autostart = false`",
            );
        }
        "@every" => {
            return error("`@every` is not supported", "write the minutes, such as `*/5 * * * *` for every 5 minutes");
        }
        name if name.starts_with('@') => {
            return error(
                format!("unknown name `{first}`"),
                "write `@hourly`, `@daily`, `@weekly`, `@monthly` or `@yearly`",
            );
        }
        name if name.contains("tz=") => return error("the time zone is a key of its own", "set `timezone`"),
        _ => {}
    }
    match fields {
        [_, five @ ..] if five.len() == 5 => {
            error("found 6 fields: seconds are not supported", format!("remove the first field: `{}`", five.join(" ")))
        }
        _ if text.is_empty() => error("found no fields", ORDER),
        _ => error(format!("expected 5 fields, found {}", fields.len()), ORDER),
    }
}

/// The numbers that a field lists.
fn bits(field: &Field, text: &str) -> Result<u64, CronError> {
    let Field(name, least, most, _) = field;
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step = match step.map(str::parse::<u8>) {
            None => None,
            Some(Ok(step @ 1..)) => Some(step),
            Some(Ok(0) | Err(_)) => {
                return Err(error(
                    format!("wrong step in the field {name}: `{part}`"),
                    "write a number from 1 on: `*/5`",
                ));
            }
        };
        let (first, last) = match (range, range.split_once('-'), step) {
            ("*", ..) => (*least, *most),
            (_, Some((first, last)), _) => (number(field, first)?, number(field, last)?),
            (one, None, None) => (number(field, one)?, number(field, one)?),
            (one, None, Some(_)) => (number(field, one)?, *most),
        };
        // Friday to Sunday.
        let last = if *most == 7 && last == 0 && first > 0 { 7 } else { last };
        if first > last {
            let hint = format!("write `{first}-{most},{least}-{last}`");
            return Err(error(format!("the range in the field {name} ends before it begins: `{part}`"), hint));
        }
        let last = if range == "*" && *most == 7 { 6 } else { last };
        (first..=last).step_by(usize::from(step.unwrap_or(1))).for_each(|number| bits |= 1 << number);
    }
    Ok(bits)
}

fn number(field: &Field, text: &str) -> Result<u8, CronError> {
    let Field(name, least, most, names) = field;
    let named = || names.split(' ').position(|name| !name.is_empty() && name.eq_ignore_ascii_case(text));
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        if is_number { text.parse().ok() } else { named().and_then(|at| u8::try_from(at).ok()?.checked_add(*least)) };
    number.filter(|number| (*least..=*most).contains(number)).ok_or_else(|| {
        let or = match (names.get(..3), names.get(names.len().saturating_sub(3)..)) {
            (Some(first), Some(last)) => format!(", or from `{first}` to `{last}`"),
            _ => String::new(),
        };
        error(format!("wrong {name}: `{text}`"), format!("write `*`, or numbers from {least} to {most}{or}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::calendar::day_of;

    fn minute(text: &str) -> i64 {
        let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
        let day = day_of(number(0..4), number(5..7), number(8..10));
        day * MINUTES_OF_DAY + number(11..13) * 60 + number(14..16)
    }

    fn text(minute: i64) -> String {
        let (year, month, day) = calendar::date(minute.div_euclid(MINUTES_OF_DAY));
        let of_day = minute.rem_euclid(MINUTES_OF_DAY);
        format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", of_day / 60, of_day % 60)
    }

    fn times(cron: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(cron).unwrap();
        let mut from = minute(from);
        let mut found = Vec::new();
        while found.len() < count {
            let next = cron.next(from, from + 50 * 366 * MINUTES_OF_DAY).unwrap();
            found.push(text(next));
            from = next + 1;
        }
        found
    }

    // crontab(5) of Vixie's cron; the dates are those of a calendar.
    #[test]
    fn the_next_times_are_those_of_cron() {
        let from = "2026-12-01 10:30";
        for (cron, expected) in [
            ("* * * * *", vec!["2026-12-01 10:30", "2026-12-01 10:31"]),
            ("*/20 * * * *", vec!["2026-12-01 10:40", "2026-12-01 11:00", "2026-12-01 11:20"]),
            ("5/20 * * * *", vec!["2026-12-01 10:45", "2026-12-01 11:05", "2026-12-01 11:25"]),
            ("10-30/10,31 * * * *", vec!["2026-12-01 10:30", "2026-12-01 10:31", "2026-12-01 11:10"]),
            ("0 4 * * *", vec!["2026-12-02 04:00", "2026-12-03 04:00"]),
            ("30 10 1 * *", vec!["2026-12-01 10:30", "2027-01-01 10:30"]),
            ("0 0 31 * *", vec!["2026-12-31 00:00", "2027-01-31 00:00", "2027-03-31 00:00"]),
            ("0 0 29 2 *", vec!["2028-02-29 00:00", "2032-02-29 00:00"]),
            ("0 0 29 feb */7", vec!["2032-02-29 00:00", "2060-02-29 00:00"]),
            ("0 9 * * mon-FRI", vec!["2026-12-02 09:00", "2026-12-03 09:00", "2026-12-04 09:00", "2026-12-07 09:00"]),
            ("0 0 * * 7", vec!["2026-12-06 00:00", "2026-12-13 00:00"]),
            ("0 0 * * fri-sun", vec!["2026-12-04 00:00", "2026-12-05 00:00", "2026-12-06 00:00", "2026-12-11 00:00"]),
            ("0 0 * * 5-7/2", vec!["2026-12-04 00:00", "2026-12-06 00:00", "2026-12-11 00:00"]),
            ("@weekly", vec!["2026-12-06 00:00"]),
            ("@Yearly", vec!["2027-01-01 00:00", "2028-01-01 00:00"]),
            ("@monthly", vec!["2027-01-01 00:00", "2027-02-01 00:00"]),
            ("@hourly", vec!["2026-12-01 11:00", "2026-12-01 12:00"]),
            ("\t@midnight ", vec!["2026-12-02 00:00"]),
        ] {
            assert_eq!(times(cron, from, expected.len()), expected, "{cron}");
        }
    }

    // crontab(5): "If both fields are restricted (i.e., do not contain the "*" character), the command will be run when either
    // field matches the current time." `*/2` begins with the character, so that both must match.
    #[test]
    fn either_day_matches_if_both_are_restricted() {
        let from = "2026-12-01 00:00";
        let either = ["2026-12-04 00:00", "2026-12-11 00:00", "2026-12-13 00:00", "2026-12-18 00:00"];
        assert_eq!(times("0 0 13 * 5", from, 4), either);
        // Friday or Sunday, and the 13th.
        assert_eq!(times("0 0 13 * */5", from, 2), ["2026-12-13 00:00", "2027-06-13 00:00"]);
    }

    #[test]
    fn mistakes_are_explained() {
        for (cron, message, hint) in [
            ("", "found no fields", ORDER),
            ("0 4 * *", "expected 5 fields, found 4", ORDER),
            ("0 0 4 * * *", "found 6 fields: seconds are not supported", "remove the first field: `0 4 * * *`"),
            ("60 * * * *", "wrong minute: `60`", "write `*`, or numbers from 0 to 59"),
            ("0 24 * * *", "wrong hour: `24`", "write `*`, or numbers from 0 to 23"),
            ("0 0 0 * *", "wrong day of month: `0`", "write `*`, or numbers from 1 to 31"),
            ("0 0 L * *", "wrong day of month: `L`", "write `*`, or numbers from 1 to 31"),
            ("0 0 * 13 *", "wrong month: `13`", "write `*`, or numbers from 1 to 12, or from `jan` to `dec`"),
            ("0 0 * * 8", "wrong day of week: `8`", "write `*`, or numbers from 0 to 7, or from `sun` to `sat`"),
            ("0 0 * * mond", "wrong day of week: `mond`", "write `*`, or numbers from 0 to 7, or from `sun` to `sat`"),
            ("0 0 * * 5#2", "wrong day of week: `5#2`", "write `*`, or numbers from 0 to 7, or from `sun` to `sat`"),
            ("1,,2 * * * *", "wrong minute: ``", "write `*`, or numbers from 0 to 59"),
            ("-5 * * * *", "wrong minute: ``", "write `*`, or numbers from 0 to 59"),
            ("*/0 * * * *", "wrong step in the field minute: `*/0`", "write a number from 1 on: `*/5`"),
            ("0 22-4 * * *", "the range in the field hour ends before it begins: `22-4`", "write `22-23,0-4`"),
            ("0 0 30 2 *", "no day matches", "such as the 30th of February, which does not exist"),
            (
                "@reboot",
                "`@reboot` is no time",
                "remove the key: keepalive starts it at once, unless `autostart = false`",
            ),
            ("@every 5m", "`@every` is not supported", "write the minutes, such as `*/5 * * * *` for every 5 minutes"),
            ("@noon", "unknown name `@noon`", "write `@hourly`, `@daily`, `@weekly`, `@monthly` or `@yearly`"),
            ("CRON_TZ=UTC 0 4 * * *", "the time zone is a key of its own", "set `timezone`"),
        ] {
            assert_eq!(Cron::parse(cron), Err(error(message, hint)), "{cron}");
        }
    }
}
