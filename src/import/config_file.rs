//! The keepalive.toml that is being made, and how it is written.

use std::time::Duration;

use toml_writer::{ToTomlKey as _, ToTomlValue as _, TomlKeyBuilder, TomlStringBuilder};

use super::text::Text;
use crate::config::{invalid_name, service_key_position};
use crate::model::units::{format_duration, parse_duration};

/// The width of comments, in characters.
const COMMENT_WIDTH: usize = 118;
/// An inline table that is longer becomes a table of its own.
const MAX_INLINE_LENGTH: usize = 100;

/// For the rest of a shutdown, besides the longest `stop_timeout`.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(4);
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(9);

/// A value of TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(Text),
    Number(String),
    Boolean(bool),
    Array(Vec<Self>),
    Table(Vec<(String, Self)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Text::literal(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Text::literal(text))
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<Vec<Text>> for Value {
    fn from(words: Vec<Text>) -> Self {
        Self::Array(words.into_iter().map(Self::Text).collect())
    }
}

/// `{ a = …, b = … }`.
pub(super) fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) name: String,
    keys: Vec<(String, Value)>,
    notes: Vec<String>,
    /// Whether it is only written as a comment.
    pub(super) is_off: bool,
}

impl Service {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value.into()));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(known, _)| known == key)
    }

    /// Whether `program` is the first word of the command.
    pub(super) fn runs(&self, program: &str) -> bool {
        let command = self.keys.iter().find(|(known, _)| known == "command").map(|(_, value)| value);
        matches!(command, Some(Value::Array(words)) if words.first() == Some(&Value::from(program)))
    }

    fn stop_timeout(&self) -> Option<Duration> {
        let (_, value) = self.keys.iter().find(|(known, _)| known == "stop_timeout")?;
        let Value::Text(text) = value else { return None };
        parse_duration(&text.fixed()?)
    }

    /// Adds an entry to the table `key`.
    pub(super) fn add(&mut self, key: &str, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.keys.iter_mut().find(|(known, _)| known == key) {
            Some((_, Value::Table(entries))) => {
                entries.retain(|(known, _)| known != name);
                entries.push((name.to_owned(), value));
            }
            _ => self.keys.push((key.to_owned(), Value::Table(vec![(name.to_owned(), value)]))),
        }
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The command, of which notes are taken.
    pub(super) fn command(&mut self, words: Vec<Text>) {
        if words.iter().any(Text::has_foreign_placeholder) {
            self.note("the command contains a placeholder of keepalive, such as `{instance}`, which is expanded here");
        }
        self.set("command", words);
    }

    /// In the order of the documentation. Keys that this keepalive does not know yet become comments.
    fn write(&self, output: &mut String) {
        let mut text = String::new();
        for note in &self.notes {
            push_comment(&mut text, note);
        }
        text.push_str(&format!("[services.{}]\n", key_text(&self.name)));
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by_key(|(key, _)| service_key_position(key).unwrap_or(usize::MAX));
        let mut tables = String::new();
        for (key, value) in keys {
            let line = format!("{} = {}\n", key_text(key), value_text(value));
            match value {
                _ if service_key_position(key).is_none() => {
                    text.push_str("# Not supported yet: ");
                    text.push_str(&line);
                }
                Value::Table(entries) if line.chars().count() > MAX_INLINE_LENGTH => {
                    tables.push_str(&format!("\n[services.{}.{}]\n", key_text(&self.name), key_text(key)));
                    for (key, value) in entries {
                        tables.push_str(&format!("{} = {}\n", key_text(key), value_text(value)));
                    }
                }
                Value::Text(_) | Value::Number(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) => {
                    text.push_str(&line);
                }
            }
        }
        text.push_str(&tables);
        if self.is_off {
            for line in text.lines() {
                let line = if line.starts_with('#') { line.to_owned() } else { format!("# {line}") };
                output.push_str(line.trim_end());
                output.push('\n');
            }
        } else {
            output.push_str(&text);
        }
    }
}

/// A keepalive.toml.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) notes: Vec<String>,
    /// The keys of `[keepalive]`.
    pub(super) settings: Vec<(String, Value)>,
    pub(super) services: Vec<Service>,
}

impl ConfigFile {
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds a service, under a name that keepalive accepts and no other service has.
    pub(super) fn add(&mut self, mut service: Service) {
        let wanted = std::mem::take(&mut service.name);
        service.name = self.free_name(&wanted);
        if service.name != wanted {
            service.note(format!("`{wanted}` there: a name is made of letters, digits, `-` and `_`, and is used once"));
        }
        self.services.push(service);
    }

    /// Gives the whole shutdown the time that its services need.
    pub(super) fn set_shutdown_timeout(&mut self) {
        let longest = self.services.iter().filter_map(Service::stop_timeout).max().unwrap_or_default();
        if longest + SHUTDOWN_MARGIN > DEFAULT_SHUTDOWN_TIMEOUT {
            let time = format_duration(longest + SHUTDOWN_MARGIN);
            self.note(
                "The container needs the time of `shutdown_timeout` to stop: docker stop --time, stop_grace_period.",
            );
            self.settings.insert(0, ("shutdown_timeout".to_owned(), Value::from(time)));
        }
    }

    fn free_name(&self, wanted: &str) -> String {
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        let name: String =
            wanted.chars().map(|letter| if is_allowed(letter) { letter } else { '-' }).take(60).collect();
        let name = name.trim_start_matches(['-', '_']).trim_end_matches('-');
        let name = if invalid_name(name).is_some() { format!("service-{name}") } else { name.to_owned() };
        let name = name.trim_end_matches('-').to_owned();
        let is_free = |name: &String| self.services.iter().all(|other| other.name != *name);
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.clone()).chain(numbered).find(is_free).unwrap_or(name)
    }

    /// The whole file. `source`: what it comes from.
    pub(super) fn write(&self, source: &str) -> String {
        let mut output =
            format!("# Made by `keepalive import` of {source}. Read the comments, then run `keepalive check`.\n");
        for note in &self.notes {
            push_comment(&mut output, note);
        }
        if !self.settings.is_empty() {
            output.push_str("\n[keepalive]\n");
            for (key, value) in &self.settings {
                output.push_str(&format!("{} = {}\n", key_text(key), value_text(value)));
            }
        }
        for service in &self.services {
            output.push('\n');
            service.write(&mut output);
        }
        output
    }
}

fn key_text(key: &str) -> String {
    TomlKeyBuilder::new(key).as_default().to_toml_key()
}

fn value_text(value: &Value) -> String {
    let list = |values: Vec<String>| values.join(", ");
    match value {
        Value::Text(text) => TomlStringBuilder::new(&text.written()).as_default().to_toml_value(),
        Value::Number(number) => number.clone(),
        Value::Boolean(value) => value.to_string(),
        Value::Array(values) => format!("[{}]", list(values.iter().map(value_text).collect())),
        Value::Table(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{} = {}", key_text(key), value_text(value)));
            format!("{{ {} }}", list(entries.collect()))
        }
    }
}

/// A comment, in lines of limited width. What stands in backquotes is not broken.
fn push_comment(output: &mut String, text: &str) {
    let quoted = text
        .split('`')
        .enumerate()
        .map(|(number, part)| if number % 2 == 1 { part.replace(' ', "\0") } else { part.to_owned() });
    let mut width = 0;
    for word in quoted.collect::<Vec<_>>().join("`").split_whitespace() {
        // A control character in a comment is an error of TOML.
        let word = word.replace('\0', " ").replace(char::is_control, "?");
        let length = word.chars().count();
        if width == 0 || width + length > COMMENT_WIDTH {
            output.push_str(if width == 0 { "# " } else { "\n#   " });
            width = if width == 0 { 2 } else { 4 };
        } else {
            output.push(' ');
            width += 1;
        }
        output.push_str(&word);
        width += length;
    }
    output.push('\n');
}
