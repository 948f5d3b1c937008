//! The Gregorian calendar: days since 1970-01-01, and their dates.
//!
//! Years are counted from March on, so that the day that a leap year adds is the last one of its year.

const DAYS_OF_400_YEARS: i64 = 146_097;
/// From the first of March of the year 0 to the beginning of 1970.
const DAYS_BEFORE_1970: i64 = 719_468;

/// Year, month from 1, and day from 1 of a day since 1970-01-01.
#[must_use]
pub const fn date(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_BEFORE_1970;
    let (era, day) = (day.div_euclid(DAYS_OF_400_YEARS), day.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // 153 days for each five months from March on.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, day)
}

/// The day since 1970-01-01 of a date.
#[must_use]
pub const fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * DAYS_OF_400_YEARS + 365 * year + year / 4 - year / 100 + day_of_year - DAYS_BEFORE_1970
}

/// The day of the week of a day since 1970-01-01, which was a Thursday; 0 is Sunday.
#[must_use]
pub const fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_has_the_date_that_has_this_day() {
        let mut previous = date(-800_001);
        for day in -800_000..800_000 {
            let (year, month, number) = date(day);
            assert_eq!(day_of(year, month, number), day);
            let follows = (year, month, number) == (previous.0, previous.1, previous.2 + 1)
                || (number == 1 && ((year, month) == (previous.0, previous.1 + 1) || (month == 1 && previous.1 == 12)));
            assert!(follows, "{previous:?} {year} {month} {number}");
            previous = (year, month, number);
        }
    }

    #[test]
    fn the_days_of_the_week_are_known() {
        assert_eq!(weekday(day_of(2026, 12, 1)), 2);
        assert_eq!(weekday(day_of(2000, 2, 29)), 2);
        assert_eq!(weekday(day_of(1969, 12, 28)), 0);
    }
}
