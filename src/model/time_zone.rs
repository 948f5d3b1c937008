//! Time zones: the files below /usr/share/zoneinfo, tzfile(5), RFC 9636, and the rules of the variable `TZ` of POSIX.

use super::calendar::{date, day_of, weekday};

const DAY: i64 = 86_400;
/// The largest difference to UTC in seconds, and the largest time of a rule, as RFC 9636 limits them.
const MAX_OFFSET: i64 = 26 * 3_600;
const MAX_RULE_TIME: i64 = 168 * 3_600;
/// The number of changes in a file. The largest files have about 240.
const MAX_CHANGES: usize = 4_096;
/// No change is at a time, in seconds, that is further from 1970.
const MAX_TIME: i64 = 1 << 59;

/// The difference between local time and UTC at each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone {
    /// The difference before the first change, in seconds.
    first: i64,
    /// When the difference changes, and what it is from then on; sorted.
    changes: Box<[(i64, i64)]>,
    /// What comes after the last change.
    rule: Option<Rule>,
}

/// A time during which the difference to UTC does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it begins, in seconds since 1970.
    pub since: i64,
    /// When it ends.
    pub until: i64,
    /// The seconds that local time is ahead of UTC.
    pub offset: i64,
    /// The same before it began.
    pub before: i64,
}

/// `CET-1CEST,M3.5.0,M10.5.0/3`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    offset: i64,
    begin: YearlyTime,
    end: YearlyTime,
}

/// A time of each year: the day, and the seconds from its local midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct YearlyTime(YearDay, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum YearDay {
    /// `M3.5.0`: month, week, day of the week. The week 5 is the last one.
    OfMonth(i64, i64, i64),
    /// `J60`: from 1, without the 29th of February.
    WithoutLeapDay(i64),
    /// `59`: from 0.
    FromZero(i64),
}

impl TimeZone {
    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self { first: 0, changes: Box::default(), rule: None }
    }

    /// Parses a file of version 2 or later. `None`: it is none, or has leap seconds.
    #[must_use]
    pub fn from_file(mut bytes: &[u8]) -> Option<Self> {
        let first = Header::take(&mut bytes)?;
        first.take_data(&mut bytes, 4)?;
        let header = Header::take(&mut bytes)?;
        let data = header.take_data(&mut bytes, 8)?;
        let footer = str::from_utf8(bytes.strip_prefix(b"\n")?).ok()?;
        let footer = footer.split_once('\n')?.0;
        let (times, data) = data.split_at_checked(header.times * 8)?;
        let (indexes, data) = data.split_at_checked(header.times)?;
        let types = data.get(..header.types * 6)?.as_chunks::<6>().0;
        let offset_of = |index: u8| {
            let [a, b, c, d, ..] = *types.get(usize::from(index))?;
            Some(i64::from(i32::from_be_bytes([a, b, c, d]))).filter(|offset| offset.abs() < MAX_OFFSET)
        };
        let times = times.as_chunks::<8>().0.iter().map(|time| i64::from_be_bytes(*time).clamp(-MAX_TIME, MAX_TIME));
        let changes: Option<Box<[_]>> =
            times.zip(indexes).map(|(time, index)| Some((time, offset_of(*index)?))).collect();
        let changes = changes?;
        let is_sorted = changes.is_sorted_by(|(one, _), (other, _)| one < other);
        let rule = if footer.is_empty() { None } else { Some(Rule::parse(footer)?) };
        is_sorted.then_some(Self { first: offset_of(0)?, changes, rule })
    }

    /// Parses a rule, as the variable `TZ` has it: `CET-1CEST,M3.5.0,M10.5.0/3`.
    #[must_use]
    pub fn from_rule(text: &str) -> Option<Self> {
        let rule = Rule::parse(text)?;
        Some(Self { first: rule.standard, changes: Box::default(), rule: Some(rule) })
    }

    /// The span that contains this time, in seconds since 1970.
    #[must_use]
    pub fn span_at(&self, time: i64) -> Span {
        let last = self.changes.last().copied();
        if let Some(rule) = self.rule.filter(|_| last.is_none_or(|(last, _)| last <= time)) {
            let mut changes: Vec<_> = last.into_iter().collect();
            let (year, ..) = date(time.div_euclid(DAY));
            changes.extend(rule.changes(year).into_iter().filter(|(at, _)| last.is_none_or(|(last, _)| *at > last)));
            let before = match self.changes.len().checked_sub(2).and_then(|position| self.changes.get(position)) {
                Some((_, offset)) => *offset,
                None if last.is_some() => self.first,
                None => rule.standard,
            };
            return span(&changes, before, time);
        }
        span(&self.changes, self.first, time)
    }
}

/// The span around `time`. `first`: the offset before the first change.
fn span(changes: &[(i64, i64)], first: i64, time: i64) -> Span {
    let next = changes.partition_point(|(at, _)| *at <= time);
    let nth = |back: usize| next.checked_sub(back).and_then(|position| changes.get(position)).copied();
    let (since, offset) = nth(1).unwrap_or((i64::MIN, first));
    let before = nth(2).map_or(first, |(_, offset)| offset);
    Span { since, until: changes.get(next).map_or(i64::MAX, |(at, _)| *at), offset, before }
}

/// The numbers of entries in a block of a file.
struct Header {
    times: usize,
    types: usize,
    /// The bytes after the types, without leap seconds.
    rest: usize,
}

impl Header {
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<44>()?;
        *bytes = rest;
        let version = header.get(4)?;
        let numbers = header.get(20..)?.as_chunks::<4>().0;
        let mut numbers = numbers.iter().map(|number| u32::from_be_bytes(*number) as usize);
        let mut next = || numbers.next();
        let (utc, standard, leaps, times, types, letters) = (next()?, next()?, next()?, next()?, next()?, next()?);
        let is_valid = header.starts_with(b"TZif") && *version >= b'2' && leaps == 0 && times <= MAX_CHANGES;
        is_valid.then_some(Self { times, types, rest: letters.checked_add(standard)?.checked_add(utc)? })
    }

    /// The data of the block. `size`: that of a time, in bytes.
    fn take_data<'b>(&self, bytes: &mut &'b [u8], size: usize) -> Option<&'b [u8]> {
        let length = (self.times * (size + 1)).checked_add(self.types.checked_mul(6)?)?.checked_add(self.rest)?;
        let (data, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(data)
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        take_name(&mut rest)?;
        let standard = -take_time(&mut rest, MAX_OFFSET)?;
        if rest.is_empty() {
            return Some(Self { standard, summer: None });
        }
        take_name(&mut rest)?;
        let offset = match rest.as_bytes().first() {
            None | Some(b',') => standard + 3_600,
            Some(_) => -take_time(&mut rest, MAX_OFFSET)?,
        };
        // Without dates, those of the United States.
        let dates = if rest.is_empty() { "M3.2.0,M11.1.0" } else { rest.strip_prefix(',')? };
        let (begin, end) = dates.split_once(',')?;
        Some(Self {
            standard,
            summer: Some(Summer { offset, begin: YearlyTime::parse(begin)?, end: YearlyTime::parse(end)? }),
        })
    }

    /// The changes from the year before `year` to the year after it.
    fn changes(&self, year: i64) -> Vec<(i64, i64)> {
        let Some(Summer { offset, begin, end }) = self.summer else { return Vec::new() };
        let years = year - 1..=year + 1;
        let all =
            years.flat_map(|year| [(begin.of(year) - self.standard, offset), (end.of(year) - offset, self.standard)]);
        let mut changes = Vec::new();
        for change in all {
            let position = changes.partition_point(|other| *other < change);
            changes.insert(position, change);
        }
        changes
    }
}

impl YearlyTime {
    fn parse(text: &str) -> Option<Self> {
        let (day, mut time) = text.split_once('/').unwrap_or((text, "2"));
        let time = take_time(&mut time, MAX_RULE_TIME).filter(|_| time.is_empty())?;
        let number =
            |text: &str, least: i64, most: i64| text.parse().ok().filter(|number| (least..=most).contains(number));
        let day = if let Some(day) = day.strip_prefix('M') {
            let (month, day) = day.split_once('.')?;
            let (week, day) = day.split_once('.')?;
            YearDay::OfMonth(number(month, 1, 12)?, number(week, 1, 5)?, number(day, 0, 6)?)
        } else if let Some(day) = day.strip_prefix('J') {
            YearDay::WithoutLeapDay(number(day, 1, 365)?)
        } else {
            YearDay::FromZero(number(day, 0, 365)?)
        };
        Some(Self(day, time))
    }

    /// In a year: seconds since 1970 on the local clock.
    fn of(self, year: i64) -> i64 {
        let Self(day, time) = self;
        let first = day_of(year, 1, 1);
        let day = match day {
            YearDay::FromZero(number) => first + number,
            YearDay::WithoutLeapDay(number) => {
                let is_leap_year = day_of(year, 3, 1) - first == 60;
                first + number - 1 + i64::from(is_leap_year && number > 59)
            }
            YearDay::OfMonth(month, week, day) => {
                let first = day_of(year, month, 1);
                let next = if month == 12 { day_of(year + 1, 1, 1) } else { day_of(year, month + 1, 1) };
                let found = first + (day - weekday(first)).rem_euclid(7) + (week - 1) * 7;
                if found >= next { found - 7 } else { found }
            }
        };
        day * DAY + time
    }
}

/// `CET` or `<+01>`.
fn take_name(rest: &mut &str) -> Option<()> {
    let end = match rest.strip_prefix('<') {
        Some(name) => name.find('>')? + 2,
        None => rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len()),
    };
    *rest = rest.get(end..).filter(|_| end >= 3)?;
    Some(())
}

/// `1`, `-5:30`, `+12:00:00` in seconds.
fn take_time(rest: &mut &str, most: i64) -> Option<i64> {
    let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let sign = if rest.starts_with('-') { -1 } else { 1 };
    let end = unsigned.find(|letter: char| !letter.is_ascii_digit() && letter != ':').unwrap_or(unsigned.len());
    let (text, after) = unsigned.split_at_checked(end)?;
    let mut numbers = text.split(':').map(str::parse::<u16>);
    let hours = i64::from(numbers.next()?.ok()?);
    let [minutes, seconds] = [numbers.next(), numbers.next()].map(|number| number.map_or(Some(0), Result::ok));
    let time = hours * 3_600 + i64::from(minutes?) * 60 + i64::from(seconds?);
    *rest = after;
    (numbers.next().is_none() && time < most).then_some(sign * time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule, the offset at the beginning of 2028, and the changes from then on.
    type Known = (&'static str, i64, &'static [(i64, i64)]);

    /// The rules of some time zones, as Python's `zoneinfo` finds them in the files of Debian's tzdata.
    const KNOWN: [Known; 8] = [
        (
            "CET-1CEST,M3.5.0,M10.5.0/3",
            3_600,
            &[(1_837_645_200, 7_200), (1_856_394_000, 3_600), (1_869_094_800, 7_200), (1_887_843_600, 3_600)],
        ),
        (
            "EST5EDT,M3.2.0,M11.1.0",
            -18_000,
            &[(1_836_457_200, -14_400), (1_857_016_800, -18_000), (1_867_906_800, -14_400), (1_888_466_400, -18_000)],
        ),
        (
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            39_600,
            &[(1_838_214_000, 37_800), (1_853_940_600, 39_600), (1_869_663_600, 37_800), (1_885_995_000, 39_600)],
        ),
        (
            "IST-1GMT0,M10.5.0,M3.5.0/1",
            0,
            &[(1_837_645_200, 3_600), (1_856_394_000, 0), (1_869_094_800, 3_600), (1_887_843_600, 0)],
        ),
        (
            "<+00>0<+02>-2,M3.5.0/1,M10.5.0/3",
            0,
            &[(1_837_645_200, 7_200), (1_856_394_000, 0), (1_869_094_800, 7_200), (1_887_843_600, 0)],
        ),
        (
            "<-04>4<-03>,M9.1.6/24,M4.1.6/24",
            -10_800,
            &[(1_838_257_200, -14_400), (1_851_566_400, -10_800), (1_870_311_600, -14_400), (1_883_016_000, -10_800)],
        ),
        (
            "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
            -7_200,
            &[(1_837_645_200, -3_600), (1_856_394_000, -7_200), (1_869_094_800, -3_600), (1_887_843_600, -7_200)],
        ),
        (
            "IST-2IDT,M3.4.4/26,M10.5.0",
            7_200,
            &[(1_837_468_800, 10_800), (1_856_386_800, 7_200), (1_868_918_400, 10_800), (1_887_836_400, 7_200)],
        ),
    ];
    /// 2028-01-01 00:00 UTC.
    const BEGIN: i64 = 1_830_297_600;

    fn check(zone: &TimeZone, first: i64, changes: &[(i64, i64)], name: &str) {
        let (mut since, mut offset, mut before) = (None, first, None);
        for change in changes.iter().map(Some).chain([None]) {
            let from = since.unwrap_or(BEGIN);
            let until = change.map_or(from + 1, |(at, _)| *at);
            for time in [from, from + (until - from) / 2, until - 1] {
                let span = zone.span_at(time);
                assert_eq!(span.offset, offset, "{name} {time}");
                assert!(change.is_none() || span.until == until, "{name} {time} {span:?}");
                assert!(since.is_none_or(|since| span.since == since), "{name} {time} {span:?}");
                assert!(before.is_none_or(|before| span.before == before), "{name} {time} {span:?}");
            }
            if let Some((at, next)) = change {
                (since, before, offset) = (Some(*at), Some(offset), *next);
            }
        }
    }

    #[test]
    fn rules_change_when_the_files_of_the_system_do() {
        for (rule, first, changes) in KNOWN {
            check(&TimeZone::from_rule(rule).unwrap(), first, changes, rule);
        }
    }

    #[test]
    fn rules_without_summer_time_and_days_of_the_year_are_understood() {
        let span = |rule: &str, time| TimeZone::from_rule(rule).unwrap().span_at(time);
        let always = Span { since: i64::MIN, until: i64::MAX, offset: 19_800, before: 19_800 };
        assert_eq!(span("IST-5:30", BEGIN), always);
        // POSIX: J60 is the first of March in every year, 59 is the 29th of February in a leap year.
        assert_eq!(span("AAA0BBB,J60/0,300", BEGIN).until, day_of(2028, 3, 1) * DAY);
        assert_eq!(span("AAA0BBB,59/0,300", BEGIN).until, day_of(2028, 2, 29) * DAY);
        // It is summer time all year.
        assert_eq!(span("EST5EDT,0/0,J365/25", BEGIN + 40 * DAY).offset, -14_400);
        assert_eq!(span("EST5EDT", BEGIN), span("EST5EDT,M3.2.0,M11.1.0", BEGIN));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "UTC",
            "CE-1",
            "CET-1CEST,",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.6.0,M10.5.0",
            "CET-1CEST,M3.5.7,M10.5.0",
            "CET-1CEST,J0,J10",
            "CET-1CEST,366,10",
            "CET-27",
            "CET-1:2:3:4",
            "<+01-1",
            "CET-1 ",
            "CET-1CEST,M3.5.0/169,M10.5.0",
            "CET-1CEST,M3.5.0/,M10.5.0",
            "Europe/Berlin",
            "CET-1CEST,M3.5.0,M10.5.0,",
        ] {
            assert_eq!(TimeZone::from_rule(text), None, "{text}");
        }
    }

    /// A file of version 2: offsets, changes to one of them, and the rule at the end.
    fn file(offsets: &[i32], changes: &[(i64, u8)], footer: &str) -> Vec<u8> {
        let header = |times: usize, types: usize| {
            let numbers = [0, 0, 0, times, types, 4].map(|number: usize| u32::try_from(number).unwrap().to_be_bytes());
            [&b"TZif2"[..], &[0; 15], &numbers.concat()].concat()
        };
        let types = offsets.iter().flat_map(|offset| [&offset.to_be_bytes()[..], &[0, 0]].concat());
        let mut bytes = [header(0, 1), vec![0; 10], header(changes.len(), offsets.len())].concat();
        bytes.extend(changes.iter().flat_map(|(time, _)| time.to_be_bytes()));
        bytes.extend(changes.iter().map(|(_, index)| *index));
        bytes.extend(types);
        bytes.extend(format!("CET\0\n{footer}\n").bytes());
        bytes
    }

    fn berlin() -> Vec<u8> {
        let changes = [(1_837_645_200, 1), (1_856_394_000, 0)];
        file(&[3_600, 7_200], &changes, "CET-1CEST,M3.5.0,M10.5.0/3")
    }

    #[test]
    fn a_file_is_followed_by_its_rule() {
        let (rule, first, changes) = KNOWN[0];
        check(&TimeZone::from_file(&berlin()).unwrap(), first, changes, rule);
        let without_rule = TimeZone::from_file(&file(&[-60, 60], &[(BEGIN, 1)], "")).unwrap();
        let last = Span { since: BEGIN, until: i64::MAX, offset: 60, before: -60 };
        assert_eq!(without_rule.span_at(BEGIN), last);
        assert_eq!(without_rule.span_at(BEGIN - 1), Span { since: i64::MIN, until: BEGIN, offset: -60, before: -60 });
    }

    #[test]
    fn a_damaged_file_is_refused_or_understood_but_never_believed_blindly() {
        let whole = berlin();
        for length in 0..whole.len() {
            assert_eq!(TimeZone::from_file(&whole[..length]), None, "{length}");
        }
        for position in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[position] = byte;
                for time in [0, BEGIN, i64::from(i32::MAX), 253_402_300_799] {
                    TimeZone::from_file(&damaged).map(|zone| zone.span_at(time));
                }
            }
        }
        let sorted = [(BEGIN, 1), (BEGIN, 0)];
        assert_eq!(TimeZone::from_file(&file(&[0, 60], &sorted, "")), None);
        assert_eq!(TimeZone::from_file(&file(&[0, 60], &[(BEGIN, 2)], "")), None);
        assert_eq!(TimeZone::from_file(&file(&[0, 100_000], &[(BEGIN, 1)], "")), None);
    }
}
