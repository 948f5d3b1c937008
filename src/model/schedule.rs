//! When something runs: the times of a [`Cron`] on the clocks of a [`TimeZone`].

use std::rc::Rc;

use super::cron::Cron;
use super::time_zone::TimeZone;

/// How far ahead the next time is searched: the dates of a calendar repeat after at most 40 years, except around 2100.
const HORIZON: i64 = 41 * 366 * 86_400;
/// The end of the year 9999.
const MAX_TIME: i64 = 253_402_300_800;

/// `schedule`, `restart_schedule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// As it is written in the configuration.
    pub text: Box<str>,
    /// The name of the time zone.
    pub zone_name: Box<str>,
    /// The fields.
    pub cron: Cron,
    /// `timezone`.
    pub zone: Rc<TimeZone>,
}

impl Schedule {
    /// The first time from `from` on, in seconds since 1970.
    ///
    /// When clocks are put forward, a time of the day that is left out is due right after that. When they are put back, a time
    /// of the day that comes twice is due the first time. A schedule that repeats, whose minute or hour begins with `*`, is due
    /// whenever the clock shows such a time.
    #[must_use]
    pub fn next(&self, from: i64) -> Option<i64> {
        let mut at = from.clamp(0, MAX_TIME);
        let end = at + HORIZON;
        while at < end {
            let span = self.zone.span_at(at);
            // The first minute that begins at this time or later.
            let minute = |time: i64, offset: i64| (time + offset + 59).div_euclid(60);
            let until = span.until.min(end);
            let mut first = minute(at, span.offset);
            if !self.cron.is_repeated() && span.since > 0 {
                let (before, after) = (minute(span.since, span.before), minute(span.since, span.offset));
                // The minutes that the clock leaves out, or shows again.
                if at == span.since && self.cron.next(before, after).is_some() {
                    return Some(at);
                }
                first = first.max(before.min(minute(until, span.offset)));
            }
            if let Some(found) = self.cron.next(first, minute(until, span.offset)) {
                return Some(found * 60 - span.offset);
            }
            at = until;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::calendar::{date, day_of};

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn schedule(text: &str, zone: &str) -> Schedule {
        let zone = if zone == "UTC" { TimeZone::utc() } else { TimeZone::from_rule(zone).unwrap() };
        Schedule { text: text.into(), zone_name: "".into(), cron: Cron::parse(text).unwrap(), zone: Rc::new(zone) }
    }

    /// `2026-03-29T01:30` in UTC.
    fn seconds(text: &str) -> i64 {
        let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
        day_of(number(0..4), number(5..7), number(8..10)) * 86_400 + number(11..13) * 3_600 + number(14..16) * 60
    }

    fn check(schedule: &Schedule, from: &str, expected: &[&str]) {
        let mut from = seconds(from);
        for expect in expected {
            let next = schedule.next(from).unwrap();
            let (year, month, day) = date(next.div_euclid(86_400));
            let (hour, minute) = (next.rem_euclid(86_400) / 3_600, next % 3_600 / 60);
            let next_text = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}");
            assert_eq!((&*next_text, next % 60), (*expect, 0), "{}", schedule.text);
            from = next + 1;
        }
    }

    #[test]
    fn times_are_those_of_the_time_zone() {
        check(&schedule("0 4 * * *", "UTC"), "2026-12-01T10:30", &["2026-12-02T04:00", "2026-12-03T04:00"]);
        check(&schedule("0 4 * * *", BERLIN), "2026-12-01T10:30", &["2026-12-02T03:00"]);
        check(&schedule("0 4 * * *", BERLIN), "2026-07-01T10:30", &["2026-07-02T02:00"]);
        check(&schedule("30 23 31 12 *", "AAA-14"), "2026-12-31T12:00", &["2027-12-31T09:30"]);
        check(&schedule("0 0 1 1 *", "AAA12"), "2026-12-31T12:00", &["2027-01-01T12:00"]);
        check(&schedule("0 * * * *", "IST-5:30"), "2026-12-01T10:00", &["2026-12-01T10:30", "2026-12-01T11:30"]);
    }

    // cron(8): "jobs that would have run in the skipped interval will be run soon after the change". In Berlin 02:00 to 03:00
    // is left out on 2026-03-29, at 01:00 UTC.
    #[test]
    fn a_time_of_the_day_that_is_left_out_is_due_right_after_that() {
        let from = "2026-03-28T00:00";
        check(&schedule("30 2 * * *", BERLIN), from, &["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]);
        check(&schedule("0 2 * * *", BERLIN), from, &["2026-03-28T01:00", "2026-03-29T01:00", "2026-03-30T00:00"]);
        check(
            &schedule("0,30 2,3 * * *", BERLIN),
            "2026-03-29T00:00",
            &["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"],
        );
        check(&schedule("59 1 * * *", BERLIN), from, &["2026-03-28T00:59", "2026-03-29T00:59", "2026-03-29T23:59"]);
        check(&schedule("0 3 * * *", BERLIN), from, &["2026-03-28T02:00", "2026-03-29T01:00", "2026-03-30T01:00"]);
        // Not if it is not due on this day.
        check(&schedule("30 2 * * 1", BERLIN), "2026-03-29T00:00", &["2026-03-30T00:30"]);
    }

    // cron(8): "Only jobs that run at a particular time (not specified as @hourly, nor with '*' in the hour or minute specifier)
    // are affected. Jobs which are specified with wildcards are run based on the new time immediately."
    #[test]
    fn a_schedule_that_repeats_follows_the_clock() {
        check(&schedule("30 * * * *", BERLIN), "2026-03-29T00:00", &["2026-03-29T00:30", "2026-03-29T01:30"]);
        check(&schedule("*/30 2 * * *", BERLIN), "2026-03-29T00:00", &["2026-03-30T00:00"]);
        check(
            &schedule("30 * * * *", BERLIN),
            "2026-10-25T00:00",
            &["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"],
        );
    }

    // In Berlin 02:00 to 03:00 comes twice on 2026-10-25, the second time from 01:00 UTC on.
    #[test]
    fn a_time_of_the_day_that_comes_twice_is_due_the_first_time() {
        let from = "2026-10-24T12:00";
        check(&schedule("30 2 * * *", BERLIN), from, &["2026-10-25T00:30", "2026-10-26T01:30"]);
        check(&schedule("0 2 * * *", BERLIN), from, &["2026-10-25T00:00", "2026-10-26T01:00"]);
        check(&schedule("0 3 * * *", BERLIN), from, &["2026-10-25T02:00", "2026-10-26T02:00"]);
        check(&schedule("0,30 2,3 * * *", BERLIN), from, &["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T02:00"]);
    }

    #[test]
    fn each_time_is_found_from_every_second_before_it() {
        for text in ["*/7 * * * *", "30 2 * * *", "15 1-4 * * *", "0 0 1 * *"] {
            let schedule = schedule(text, BERLIN);
            for day in ["2026-03-28T22:00", "2026-10-24T22:00"].map(seconds) {
                let mut expected = schedule.next(day).unwrap();
                for second in (day..day + 9 * 3_600).step_by(13) {
                    if second > expected {
                        expected = schedule.next(second).unwrap();
                    }
                    assert_eq!(schedule.next(second), Some(expected), "{text} {second}");
                }
            }
        }
    }

    #[test]
    fn any_reading_of_the_clock_has_an_answer() {
        for from in [i64::MIN, -1, 0, MAX_TIME, i64::MAX] {
            assert!(schedule("0 0 29 2 *", BERLIN).next(from).is_some());
        }
    }
}
