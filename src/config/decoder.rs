//! The walk over a parsed document: typed access that notes what is wrong and goes on.

use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::env_file::Entries;
use super::expand::Variables;
use super::report::{Fault, Place, Source, order_of};
use super::users::Users;
use super::{Environment, expand};
use crate::model::plan::{Address, Output};
use crate::model::{Signal, units};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;
/// A key with its place.
pub(super) type Key<'i> = Spanned<DeString<'i>>;

/// How many characters of a value are quoted in a message.
const QUOTE_LIMIT: usize = 40;

/// What the keys of one table are.
pub(super) struct Schema {
    /// What is understood.
    pub(super) keys: &'static [&'static str],
    /// What later versions will understand.
    pub(super) later: &'static [&'static str],
    /// Other programs' words for some keys.
    pub(super) foreign: &'static [(&'static str, &'static str)],
}

impl Schema {
    /// The key that was probably meant by `name`, which is none.
    pub(super) fn meant_by(&self, name: &str) -> Option<&'static str> {
        let foreign = self.foreign.iter().find(|(word, _)| *word == name).map(|(_, known)| *known);
        foreign.or_else(|| nearest(name, self.keys.iter().chain(self.later).copied()))
    }
}

/// The state of reading one configuration.
pub(super) struct Decoder<'w> {
    pub(super) outside: &'w Environment<'w>,
    pub(super) users: &'w Users,
    /// Of the document that is being read: its position in the list of sources.
    pub(super) source: usize,
    pub(super) text: &'w [u8],
    /// What its relative paths are relative to.
    pub(super) directory: &'w Path,
    /// Whether `${VAR}` is expanded; on a command line that is the shell's business.
    pub(super) expands_variables: bool,
    /// Where the output of a service goes that does not say it.
    pub(super) default_output: Output,
    pub(super) errors: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// What nobody else may have: addresses to listen on and files of state, each with its place.
    pub(super) claims: Vec<(UniqueResource, Place)>,
    /// The `env_file`s read so far; their sources come after the `documents` in the list of sources.
    pub(super) env_files: Vec<EnvFile>,
    pub(super) documents: usize,
    /// Whether the document is no TOML, so that things may be missing that are there.
    pub(super) is_broken: bool,
}

/// What nobody else may have.
#[derive(Debug)]
pub(super) enum UniqueResource {
    /// To listen on.
    Address(Address),
    /// Of a state.
    File(String),
}

/// An `env_file` that has been read, once for all services that name it.
pub(super) struct EnvFile {
    pub(super) source: Source,
    pub(super) path: std::path::PathBuf,
    pub(super) entries: Entries,
}

impl<'w> Decoder<'w> {
    pub(super) fn error(&mut self, span: Range<usize>, message: &str, hint: &str) {
        let place = Place { source: self.source, span: Some(span) };
        self.errors.push(Fault { place, message: message.to_owned(), hint: hint.to_owned() });
    }

    pub(super) fn warning(&mut self, span: Range<usize>, message: &str, hint: &str) {
        let place = Place { source: self.source, span: Some(span) };
        self.warnings.push(Fault { place, message: message.to_owned(), hint: hint.to_owned() });
    }

    /// Nobody else may have `what`.
    pub(super) fn claim(&mut self, what: UniqueResource, span: Range<usize>) {
        self.claims.push((what, Place { source: self.source, span: Some(span) }));
    }

    /// `value` is not what is expected there.
    pub(super) fn unexpected(&mut self, value: &Value<'_>, expected: &str, hint: &str) {
        self.error(value.span(), &format!("expected {expected}, found {}", found(value)), hint);
    }

    /// Notes the keys that `schema` does not know. `title` is what a message calls the table.
    pub(super) fn check_keys(&mut self, table: &DeTable<'_>, title: &str, schema: &Schema) {
        for (key, _) in table {
            let name: &str = key.get_ref();
            if schema.keys.contains(&name) {
                continue;
            }
            if schema.later.contains(&name) {
                self.error(key.span(), &format!("`{name}` is not supported yet"), "remove it");
                continue;
            }
            let hint = match schema.meant_by(name) {
                Some(known) if schema.later.contains(&known) => {
                    format!("did you mean `{known}`? it is not supported yet")
                }
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known keys: {}", schema.keys.join(", ")),
            };
            self.error(key.span(), &format!("unknown key `{name}` in {title}"), &hint);
        }
    }

    pub(super) fn string<'a>(&mut self, value: &'a Value<'_>, expected: &str, hint: &str) -> Option<&'a str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.unexpected(value, expected, hint);
        }
        text
    }

    pub(super) fn table<'a, 'i>(&mut self, value: &'a Value<'i>, hint: &str) -> Option<&'a DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.unexpected(value, "a table", hint);
        }
        table
    }

    /// The elements of an array.
    pub(super) fn array<'a, 'i>(&mut self, value: &'a Value<'i>, hint: &str) -> &'a [Value<'i>] {
        match value.get_ref().as_array() {
            Some(array) => array,
            None => {
                self.unexpected(value, "an array", hint);
                &[]
            }
        }
    }

    pub(super) fn boolean(&mut self, table: &DeTable<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            let is_quoted = matches!(value.get_ref().as_str(), Some("true" | "false"));
            self.unexpected(value, "`true` or `false`", if is_quoted { "write it without quotes" } else { "" });
        }
        boolean
    }

    pub(super) fn duration(&mut self, table: &DeTable<'_>, key: &str, default: Duration) -> Duration {
        table.get(key).and_then(|value| self.duration_of(value)).unwrap_or(default)
    }

    pub(super) fn duration_of(&mut self, value: &Value<'_>) -> Option<Duration> {
        let duration = value.get_ref().as_str().and_then(units::parse_duration);
        if duration.is_none() {
            let number = value.get_ref().as_integer().map(|number| number.as_str()).or(value.get_ref().as_str());
            let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let hint = match number.filter(is_number) {
                _ if value.get_ref().as_str().is_some_and(units::exceeds_max_duration) => {
                    format!("the maximum is `\"{}\"`", units::MAX_DURATION)
                }
                Some(number) => format!("add a unit: `\"{number}s\"` or `\"{number}ms\"`"),
                None => "such as `\"250ms\"`, `\"5s\"`, `\"1m30s\"`".to_owned(),
            };
            self.unexpected(value, "a duration", &hint);
        }
        duration
    }

    /// A duration that is not zero.
    pub(super) fn some_time(&mut self, table: &DeTable<'_>, key: &str) -> Option<Duration> {
        let value = table.get(key)?;
        let duration = self.duration_of(value)?;
        if duration.is_zero() {
            self.unexpected(value, "a duration above zero", "");
        }
        Some(duration)
    }

    pub(super) fn size_of(&mut self, value: &Value<'_>) -> Option<u64> {
        let size = value.get_ref().as_str().and_then(units::parse_size);
        if size.is_none() {
            self.unexpected(value, "a size", "such as `\"64KiB\"`, `\"512MiB\"`");
        }
        size
    }

    pub(super) fn integer(&mut self, table: &DeTable<'_>, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        self.integer_of(table.get(key)?, range, "")
    }

    pub(super) fn integer_of(&mut self, value: &Value<'_>, range: RangeInclusive<i64>, or: &str) -> Option<i64> {
        let number = as_integer(value).filter(|number| range.contains(number));
        if number.is_none() {
            let expected = match *range.end() {
                i64::MAX => format!("a whole number of at least {}{or}", range.start()),
                end => format!("a whole number from {} to {end}{or}", range.start()),
            };
            let quoted =
                value.get_ref().as_str().filter(|text| text.parse().is_ok_and(|number| range.contains(&number)));
            let hint = quoted.map_or_else(String::new, |text| format!("write it without quotes: `{text}`"));
            self.unexpected(value, &expected, &hint);
        }
        number
    }

    /// An integer or a float in decimal notation. `range` is for comparing, `expected` for telling.
    pub(super) fn number(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        (range, expected): (RangeInclusive<f64>, &str),
        default: f64,
    ) -> f64 {
        let Some(value) = table.get(key) else { return default };
        let integer = value.get_ref().as_integer().map(|number| number.as_str());
        let text = integer.or_else(|| value.get_ref().as_float().map(|number| number.as_str()));
        if let Some(number) = text.and_then(parse_decimal).filter(|number| range.contains(number)) {
            return number;
        }
        self.unexpected(value, expected, "");
        default
    }

    /// One of `words`, each with what it means.
    pub(super) fn choice<T: Copy>(&mut self, table: &DeTable<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = table.get(key)?;
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let position = self.choice_of(value, &names)?;
        words.get(position).map(|(_, meaning)| *meaning)
    }

    /// The position in `words`.
    pub(super) fn choice_of(&mut self, value: &Value<'_>, words: &[&str]) -> Option<usize> {
        let text = value.get_ref().as_str().unwrap_or_default();
        if let Some(position) = words.iter().position(|word| *word == text) {
            return Some(position);
        }
        let hint = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `\"{word}\"`?"),
            None => String::new(),
        };
        self.unexpected(value, &alternatives(words), &hint);
        None
    }

    pub(super) fn signal(&mut self, value: &Value<'_>) -> Option<Signal> {
        let signal = match value.get_ref().as_str() {
            Some(text) => Signal::parse(text),
            None => as_integer(value).and_then(|number| Signal::new(u8::try_from(number).ok()?)),
        };
        if signal.is_none() {
            let hint = nearest_signal(value.get_ref().as_str().unwrap_or_default());
            self.unexpected(value, "a signal", &hint.unwrap_or_else(|| "such as `\"SIGTERM\"`".to_owned()));
        }
        signal
    }

    /// Where in the document the part `at` of the string `value` stands; the whole of it where escapes make that
    /// uncertain.
    pub(super) fn part(&self, value: &Value<'_>, at: &Range<usize>) -> Range<usize> {
        let whole = value.span();
        let text = value.get_ref().as_str().unwrap_or_default();
        let raw = self.text.get(whole.clone()).unwrap_or_default();
        // Lengths of the opening quotes: none, those of one line, those of several, and the newline after these.
        let is_content = |quotes: usize| raw.get(quotes..quotes + text.len()) == Some(text.as_bytes());
        let widths: &[usize] = match raw {
            [b'"', b'"', b'"', ..] | [b'\'', b'\'', b'\'', ..] if text.len() + 6 <= raw.len() => &[5, 4, 3],
            [b'"' | b'\'', ..] if text.len() + 2 == raw.len() => &[1],
            _ if text.len() == raw.len() => &[0],
            _ => return whole,
        };
        let Some(quotes) = widths.iter().copied().find(|quotes| is_content(*quotes)) else { return whole };
        whole.start + quotes + at.start..whole.start + quotes + at.end
    }

    pub(super) fn flaw(&mut self, value: &Value<'_>, flaw: &expand::ExpandError) {
        self.error(self.part(value, &flaw.at), &flaw.message, &flaw.hint);
    }

    /// What `${VAR}` can be: one of `own` or of keepalive's own environment.
    pub(super) fn variables<'s>(&self, own: &'s [(Vec<u8>, Vec<u8>)]) -> Option<Variables<'s>>
    where
        'w: 's,
    {
        self.expands_variables.then_some(Variables { own, inherited: self.outside.variables })
    }
}

/// The entries of a table in the order of the file.
pub(super) fn entries<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Key<'i>, &'a Value<'i>)> {
    let unsorted: Vec<_> = table.iter().collect();
    let places = unsorted.iter().map(|(key, _)| (0, key.span().start));
    order_of(places).into_iter().filter_map(|position| unsorted.get(position).copied()).collect()
}

/// `None` for what is no integer, and for one beyond 64 bits.
pub(super) fn as_integer(value: &Value<'_>) -> Option<i64> {
    let number = value.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Reads `2`, `0.25`. The standard library's way costs twelve kilobytes.
fn parse_decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // Both parts are exact in a double, and so is the power of ten: one rounding, as it should be.
    let digits = [whole, fraction].concat();
    if digits.len() > 15 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let scale = fraction.bytes().fold(1.0, |scale, _| scale * 10.0);
    Some(digits.bytes().fold(0.0, |number, digit| number * 10.0 + f64::from(digit - b'0')) / scale)
}

/// `"a"`, `"b"` or `"c"`, each in backticks.
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => format!("`\"{word}\"`"),
        [first @ .., last] => format!("`\"{}\"` or `\"{last}\"`", first.join("\"`, `\"")),
    }
}

fn found(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) if text.chars().count() > QUOTE_LIMIT => {
            format!("`\"{}…\"`", text.chars().take(QUOTE_LIMIT).collect::<String>().escape_debug())
        }
        DeValue::String(text) => format!("`\"{}\"`", text.escape_debug()),
        DeValue::Integer(number) => format!("`{number}`"),
        DeValue::Float(number) => format!("`{number}`"),
        DeValue::Boolean(value) => format!("`{value}`"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// What of `known` is so near to `word` that it may have been meant.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let limit = match word.len() {
        0..=1 => return None,
        2..=3 => 1,
        length => (length / 3).min(3),
    };
    let lower = word.to_ascii_lowercase();
    let measured = known.map(|candidate| (strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()), candidate));
    measured.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// A hint for something that is no signal.
pub(crate) fn nearest_signal(word: &str) -> Option<String> {
    if word.len() < 2 || !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    let upper = word.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let known: Vec<String> = Signal::all().map(|signal| signal.to_string()).collect();
    let measured = known.iter().map(|candidate| (strsim::osa_distance(&name, candidate), candidate));
    let (_, signal) = measured.filter(|(distance, _)| *distance <= 2).min_by_key(|(distance, _)| *distance)?;
    Some(format!("did you mean `{signal}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_as_the_standard_library_reads_them() {
        for text in ["0", "1", "2.0", "0.1", "0.25", "1.5", "3.14159", "99999999999999", "123456.789012345"] {
            assert_eq!(parse_decimal(text), text.parse().ok(), "{text}");
        }
        for text in ["", "-1", "1e3", "nan", "inf", "1.2.3", "+1", "1234567890.1234567890"] {
            assert_eq!(parse_decimal(text).filter(|_| !text.is_empty()), None, "{text}");
        }
    }
}
