//! Typed access to a parsed document. Records errors and continues.

use std::borrow::Cow;
use std::ffi::CString;
use std::ops::{Deref, Range, RangeInclusive};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::env_file::{Entries, EnvFile};
use super::environment::Environment;
use super::expand::{self, Builder, Placeholders, Scope, Variables};
use super::report::{Location, UnlocatedDiagnostic, order_of};
use super::suggest::{meant_word, nearest, nearest_signal};
use super::users::Users;
use crate::model::plan::{Address, Output};
use crate::model::{AsWritten, Signal, units};

/// A value with its position.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;
/// A key with its position.
pub(super) type Key<'i> = Spanned<DeString<'i>>;
/// The words of a command line with their positions.
pub(super) type Words<'a> = &'a [(Vec<u8>, Range<usize>)];

/// How many characters of a value are quoted in a message.
const MAX_QUOTED_CHARS: usize = 40;

/// The keys of a table.
pub(super) struct Schema {
    /// The known keys.
    pub(super) keys: &'static [&'static str],
    /// Keys of later versions.
    pub(super) later: &'static [&'static str],
    /// Keys of other programs, in lines such as `known: other another` or `hint with spaces: other`. One with a capital letter is
    /// meant as it is written.
    pub(super) foreign: &'static str,
}

impl Schema {
    /// The known key that was probably meant by the unknown key `name`.
    pub(super) fn meant_by(&self, name: &str) -> Option<&'static str> {
        // `ExecStart` is `exec_start`.
        let letters = |word: &str| word.replace('_', "").to_ascii_lowercase();
        // `program:web` is a section of supervisord.
        let (name, _) = name.split_once(':').unwrap_or((name, ""));
        let meant = letters(name);
        let foreign = self.foreign.lines().find_map(|line| {
            let (known, words) = line.split_once(": ")?;
            let is_it = |word: &str| word == name || (letters(word) == meant && word == word.to_ascii_lowercase());
            words.split(' ').any(is_it).then_some(known)
        });
        foreign.or_else(|| nearest(name, self.keys.iter().chain(self.later).copied()))
    }
}

/// A value in which variables have been expanded. See [`Decoder::resolved`].
pub(super) struct Resolved<'a, 'i>(Cow<'a, Value<'i>>);

impl<'i> Deref for Resolved<'_, 'i> {
    type Target = Value<'i>;

    fn deref(&self) -> &Value<'i> {
        &self.0
    }
}

impl Resolved<'_, '_> {
    fn is_expanded(&self) -> bool {
        matches!(self.0, Cow::Owned(_))
    }

    /// The text that variables have been expanded to; `None` if the value has none.
    fn expanded(&self) -> Option<&str> {
        self.get_ref().as_str().filter(|_| self.is_expanded())
    }

    pub(super) fn integer(&self) -> Option<i64> {
        as_integer(self).or_else(|| self.expanded()?.parse().ok())
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.get_ref().as_bool().or_else(|| self.expanded()?.parse().ok())
    }

    /// The decimal notation of a number.
    fn decimal(&self) -> Option<&str> {
        let integer = self.get_ref().as_integer().map(|number| number.as_str());
        integer.or_else(|| self.get_ref().as_float().map(|number| number.as_str())).or_else(|| self.expanded())
    }
}

/// The state of decoding a configuration.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the current place")]
pub(super) struct Decoder<'w> {
    pub(super) environment: &'w Environment<'w>,
    pub(super) users: &'w Users,
    /// The current document, as a position in the list of sources.
    pub(super) source: usize,
    /// The text of the current document.
    pub(super) text: &'w [u8],
    /// The directory for relative paths in the current document.
    pub(super) directory: &'w Path,
    /// The variables of the current service's `env_file`s.
    pub(super) own_variables: Rc<Entries>,
    /// Whether the current service has an `env_file` that is read when it starts.
    pub(super) reads_env_at_start: bool,
    /// Whether the current value is an argument of a shell, which can expand variables too.
    pub(super) leaves_to_shell: bool,
    /// Whether `${VAR}` is expanded. On a command line the shell has done that.
    pub(super) expands_variables: bool,
    /// The keys of `[services.NAME]`.
    pub(super) service_keys: &'static [&'static str],
    /// The destination of output for services without `log`.
    pub(super) default_output: Output,
    pub(super) errors: Vec<UnlocatedDiagnostic>,
    pub(super) warnings: Vec<UnlocatedDiagnostic>,
    pub(super) unique_resources: Vec<(UniqueResource, Location)>,
    /// The log files of the first instances, each with its service.
    pub(super) log_files: Vec<(CString, String)>,
    /// The `env_file`s that have been read. Their sources come after the `documents` in the list of sources.
    pub(super) env_files: Vec<EnvFile>,
    pub(super) documents: usize,
    /// Whether the document has syntax errors, so that keys may be missing in the tree.
    pub(super) has_syntax_errors: bool,
}

/// A resource that only one entry of the configuration may use.
#[derive(Debug)]
pub(super) enum UniqueResource {
    /// An address to listen on.
    Address(AsWritten<Address>),
    /// A state file.
    File(AsWritten<String>),
}

impl<'w> Decoder<'w> {
    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(UnlocatedDiagnostic::new(self.source, span, message.into(), hint.into()));
    }

    pub(super) fn warning(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(UnlocatedDiagnostic::new(self.source, span, message.into(), hint.into()));
    }

    /// Records a resource that must not be used by another entry.
    pub(super) fn require_unique(&mut self, resource: UniqueResource, span: Range<usize>) {
        self.unique_resources.push((resource, Location { source: self.source, span: Some(span) }));
    }

    /// Records an error: `value` is not what is expected.
    pub(super) fn unexpected(&mut self, value: &Value<'_>, expected: &str, hint: impl Into<String>) {
        self.error(value.span(), format!("expected {expected}, found {}", self.describe(value)), hint);
    }

    /// Reports keys that are not in `schema`. `title` is the name of the table in messages.
    pub(super) fn check_keys(&mut self, table: &DeTable<'_>, title: &str, schema: &Schema) {
        let mut has_listed = false;
        for (key, _) in entries(table) {
            let name: &str = key.get_ref();
            if schema.keys.contains(&name) {
                continue;
            }
            if schema.later.contains(&name) {
                self.error(key.span(), format!("`{name}` is not supported yet"), "remove it");
                continue;
            }
            let hint = match schema.meant_by(name) {
                Some(known) if schema.later.contains(&known) => {
                    format!("did you mean `{known}`? it is not supported yet")
                }
                Some(hint) if hint.contains(' ') => hint.to_owned(),
                Some(known) => format!("did you mean `{known}`?"),
                None if self.service_keys.contains(&name) => "write it directly below `[services.NAME]`".to_owned(),
                None if std::mem::replace(&mut has_listed, true) => "see the known keys above".to_owned(),
                None => format!("known keys: {}", schema.keys.join(", ")),
            };
            self.error(key.span(), format!("unknown key `{name}` in {title}"), hint);
        }
    }

    /// `value` with its variables expanded, if it is a string with `${`. A number or `true` is then still a string, which
    /// the methods of [`Resolved`] parse. `None` if a variable cannot be expanded.
    pub(super) fn resolved<'a, 'i>(&mut self, value: &'a Value<'i>) -> Option<Resolved<'a, 'i>> {
        match self.try_resolved(value) {
            Ok(resolved) => Some(resolved),
            Err(error) => {
                self.expand_error(value, error);
                None
            }
        }
    }

    /// As [`Self::resolved`], but does not record an error.
    pub(super) fn try_resolved<'a, 'i>(&self, value: &'a Value<'i>) -> Result<Resolved<'a, 'i>, expand::ExpandError> {
        let text = value.get_ref().as_str().filter(|text| text.contains("${") && self.expands_variables);
        let Some(text) = text else { return Ok(Resolved(Cow::Borrowed(value))) };
        let variables = self.variables(&self.own_variables);
        let scope = Scope { service: "", placeholders: Placeholders::Literal, sockets: &[], variables };
        let mut builder = Builder::default();
        expand::expand(text.as_bytes(), &scope, &mut builder)?;
        let text = String::from_utf8_lossy(&builder.text()).into_owned();
        Ok(Resolved(Cow::Owned(Spanned::new(value.span(), DeValue::String(Cow::Owned(text))))))
    }

    /// The text of `value` for messages, in which variables are not expanded: their values may be secret.
    pub(super) fn unexpanded(&self, value: &Value<'_>) -> Option<&'w str> {
        let raw = str::from_utf8(self.text.get(value.span())?).ok()?;
        (raw.contains("${") && self.expands_variables).then(|| raw.trim_matches(['"', '\'']))
    }

    /// `result`, the meaning of `value`, to be shown as `value` is written.
    pub(super) fn written<T>(&self, value: &Value<'_>, result: T) -> AsWritten<T> {
        AsWritten::new(result, self.unexpanded(value))
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
        let value = self.resolved(table.get(key)?)?;
        let boolean = value.boolean();
        if boolean.is_none() {
            let hint = match value.get_ref().as_str() {
                Some("true" | "false") => "write it without quotes",
                Some("yes" | "on") => "write `true`",
                Some("no" | "off") => "write `false`",
                _ => "",
            };
            self.unexpected(&value, "`true` or `false`", hint);
        }
        boolean
    }

    pub(super) fn duration(&mut self, table: &DeTable<'_>, key: &str, default: Duration) -> Duration {
        table.get(key).and_then(|value| self.duration_of(value)).unwrap_or(default)
    }

    pub(super) fn duration_of(&mut self, value: &Value<'_>) -> Option<Duration> {
        let value = self.resolved(value)?;
        let duration = value.get_ref().as_str().and_then(units::parse_duration);
        if duration.is_none() {
            let text = value.get_ref().as_str();
            let number = value.get_ref().as_integer().map(|number| number.as_str()).or(text);
            let is_number = |text: &&str| {
                !value.is_expanded() && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
            };
            let hint = match number.filter(is_number) {
                _ if text.is_some_and(|text| units::exceeds_max_duration(text) || units::is_infinite(text)) => {
                    format!("the maximum is `\"{}\"`", units::MAX_DURATION)
                }
                Some(number) => format!("add a unit: `\"{number}s\"` or `\"{number}ms\"`"),
                None => match text.and_then(units::meant_duration).filter(|_| !value.is_expanded()) {
                    Some(meant) => format!("write `\"{meant}\"`"),
                    None => "such as `\"250ms\"`, `\"5s\"`, `\"1m30s\"`".to_owned(),
                },
            };
            self.unexpected(&value, "a duration", hint);
        }
        duration
    }

    /// A duration that is not zero.
    pub(super) fn positive_duration(&mut self, table: &DeTable<'_>, key: &str) -> Option<Duration> {
        let value = table.get(key)?;
        let duration = self.duration_of(value)?;
        if duration.is_zero() {
            self.unexpected(value, "a duration above zero", "");
        }
        Some(duration)
    }

    pub(super) fn size_of(&mut self, value: &Value<'_>) -> Option<u64> {
        let value = self.resolved(value)?;
        let size = value.get_ref().as_str().and_then(units::parse_size);
        if size.is_none() {
            let text = value.get_ref().as_integer().map(|number| number.as_str()).or(value.get_ref().as_str());
            let hint = match text.and_then(units::meant_size).filter(|_| !value.is_expanded()) {
                Some(meant) => format!("write `\"{meant}\"`"),
                None => "such as `\"64KiB\"`, `\"512MiB\"`".to_owned(),
            };
            self.unexpected(&value, "a size", hint);
        }
        size
    }

    pub(super) fn integer(&mut self, table: &DeTable<'_>, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        self.integer_of(table.get(key)?, range)
    }

    pub(super) fn integer_of(&mut self, value: &Value<'_>, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.resolved(value)?;
        self.integer_in(&value, range, "")
    }

    /// As [`Self::integer_of`], of the result of [`Self::resolved`]. `or` describes other values in messages.
    pub(super) fn integer_in(&mut self, value: &Resolved<'_, '_>, range: RangeInclusive<i64>, or: &str) -> Option<i64> {
        let number = value.integer().filter(|number| range.contains(number));
        if number.is_none() {
            let expected = match *range.end() {
                i64::MAX => format!("a whole number of at least {}{or}", range.start()),
                end => format!("a whole number from {} to {end}{or}", range.start()),
            };
            let quoted =
                value.get_ref().as_str().filter(|text| text.parse().is_ok_and(|number| range.contains(&number)));
            let hint = quoted.map_or_else(String::new, |text| format!("write it without quotes: `{text}`"));
            self.unexpected(value, &expected, hint);
        }
        number
    }

    /// An integer or a float in decimal notation. `expected` describes `range` in messages.
    pub(super) fn number(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        (range, expected): (RangeInclusive<f64>, &str),
        default: f64,
    ) -> f64 {
        let Some(value) = table.get(key).and_then(|value| self.resolved(value)) else { return default };
        if let Some(number) = value.decimal().and_then(parse_decimal).filter(|number| range.contains(number)) {
            return number;
        }
        self.unexpected(&value, expected, "");
        default
    }

    /// The value that belongs to one of `words`.
    pub(super) fn choice<T: Copy>(&mut self, table: &DeTable<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = table.get(key)?;
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let position = self.choice_of(value, &names, key)?;
        words.get(position).map(|(_, meaning)| *meaning)
    }

    /// The position of the value of `key` in `words`.
    pub(super) fn choice_of(&mut self, value: &Value<'_>, words: &[&str], key: &str) -> Option<usize> {
        let value = self.resolved(value)?;
        let text = value.get_ref().as_str().unwrap_or_default();
        if let Some(position) = words.iter().position(|word| *word == text) {
            return Some(position);
        }
        let of_boolean = value.boolean().map(|is_on| if is_on { "true" } else { "false" });
        let hint = meant_word(key, of_boolean.unwrap_or(text), words);
        self.unexpected(&value, &alternatives(words), hint);
        None
    }

    pub(super) fn signal(&mut self, value: &Value<'_>) -> Option<Signal> {
        let value = self.resolved(value)?;
        let signal = match value.get_ref().as_str() {
            Some(text) => Signal::parse(text),
            None => value.integer().and_then(|number| Signal::new(u8::try_from(number).ok()?)),
        };
        if signal.is_none() {
            let hint = nearest_signal(value.get_ref().as_str().unwrap_or_default());
            self.unexpected(&value, "a signal", hint.unwrap_or_else(|| "such as `\"SIGTERM\"`".to_owned()));
        }
        signal
    }

    /// The position in the document of the part `at` of the string `value`; the whole string if escapes make that
    /// uncertain.
    pub(super) fn span_of_part(&self, value: &Value<'_>, at: &Range<usize>) -> Range<usize> {
        let whole = value.span();
        let text = value.get_ref().as_str().unwrap_or_default();
        let raw = self.text.get(whole.clone()).unwrap_or_default();
        // The possible lengths of the opening quotes: `"""` with CR LF, with LF, without a newline; `"`; none.
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

    fn describe(&self, value: &Value<'_>) -> String {
        let is_scalar = !value.get_ref().is_table() && !value.get_ref().is_array();
        match self.unexpanded(value).filter(|_| is_scalar) {
            Some(text) if value.get_ref().as_str() == Some("") => format!("the value of `{text}`, which is empty"),
            Some(text) => format!("the value of `{text}`"),
            None => describe(value),
        }
    }

    pub(super) fn expand_error(&mut self, value: &Value<'_>, error: expand::ExpandError) {
        let is_unset = error.kind == expand::ExpandErrorKind::UnsetVariable;
        let text = value.get_ref().as_str().and_then(|text| text.get(error.at.clone())).unwrap_or_default();
        let hint = if is_unset && self.leaves_to_shell {
            format!("write `${text}` to leave it to the shell; otherwise {}", error.hint)
        } else if is_unset && self.reads_env_at_start {
            "a variable of an `env_file` with `when = \"start\"` is known only to the process: use `when = \"load\"`"
                .to_owned()
        } else {
            error.hint
        };
        self.error(self.span_of_part(value, &error.at), error.message, hint);
    }

    /// The variables for `${VAR}`: those of `own` and of keepalive's own environment.
    pub(super) fn variables<'s>(&self, own: &'s [(Vec<u8>, Vec<u8>)]) -> Option<Variables<'s>>
    where
        'w: 's,
    {
        self.expands_variables.then_some(Variables { own, inherited: self.environment.variables, env: &[] })
    }
}

/// The entries of a table in the order of the file.
pub(super) fn entries<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Key<'i>, &'a Value<'i>)> {
    let unsorted: Vec<_> = table.iter().collect();
    let positions = unsorted.iter().map(|(key, _)| (0, key.span().start));
    order_of(positions).into_iter().filter_map(|index| unsorted.get(index).copied()).collect()
}

/// `None` if `value` is not an integer or does not fit into 64 bits.
pub(super) fn as_integer(value: &Value<'_>) -> Option<i64> {
    let number = value.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Parses `2`, `0.25`. The standard library's parser would add 12 KiB of code.
fn parse_decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // The digits and the power of ten are exact as f64, so there is only one rounding, in the division.
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

fn describe(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) if text.chars().count() > MAX_QUOTED_CHARS => {
            format!("`\"{}…\"`", text.chars().take(MAX_QUOTED_CHARS).collect::<String>().escape_debug())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_parsed_as_by_the_standard_library() {
        for text in ["0", "1", "2.0", "0.1", "0.25", "1.5", "3.14159", "99999999999999", "123456.789012345"] {
            assert_eq!(parse_decimal(text), text.parse().ok(), "{text}");
        }
        for text in ["", "-1", "1e3", "nan", "inf", "1.2.3", "+1", "1234567890.1234567890"] {
            assert_eq!(parse_decimal(text).filter(|_| !text.is_empty()), None, "{text}");
        }
    }
}
