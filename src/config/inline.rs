//! `keepalive run [OPTIONS] -- CMD`: a service set of one, without a file.
//!
//! The options become the table that `[services.NAME]` would be, with places in the command line, so that the same
//! rules hold and errors point to the option.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::document::Reading;
use super::report::COMMAND_LINE;
use super::report::{Report, Source};
use super::users::Users;
use super::{Environment, Loaded};

/// A service as a command line describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inline {
    /// The command line, for errors to show.
    pub text: String,
    /// The name of the service and its place in `text`.
    pub name: (String, Range<usize>),
    /// In the order of the command line.
    pub options: Vec<InlineOption>,
    /// Program and arguments with their places in `text`. Not empty.
    pub command: Vec<(Vec<u8>, Range<usize>)>,
}

/// One option with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineOption {
    /// The key in `[services.NAME]`.
    pub key: &'static str,
    /// As the user wrote it.
    pub value: String,
    /// The place of the value in the command line.
    pub span: Range<usize>,
}

/// The plan for one service from the command line.
///
/// # Errors
/// Everything that is wrong with it.
pub fn assemble(inline: &Inline, environment: &Environment<'_>) -> Result<Loaded, Report> {
    let source = Source { name: COMMAND_LINE.to_owned(), bytes: inline.text.clone().into_bytes() };
    let users = Users::read(environment.root, environment.files);
    let mut reading = Reading::new(environment, &users, Path::new(""));
    reading.enter(&source);
    reading.walk.expands_variables = false;
    let mut table = DeTable::new();
    for option in &inline.options {
        add(&mut table, option);
    }
    let (name, span) = &inline.name;
    reading.service(name, span.clone(), &table, Some(&inline.command));
    reading.finish()
}

fn add<'i>(table: &mut DeTable<'i>, option: &'i InlineOption) {
    let InlineOption { key, value, span } = option;
    let spanned = |value: DeValue<'i>| Spanned::new(span.clone(), value);
    let string = |text: &'i str| spanned(text_of(text));
    let field = |name: &'i str| Spanned::new(span.clone(), Cow::Borrowed(name));
    let new = match *key {
        "env" | "listen" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            let mut fields = taken_table(table, key);
            fields.insert(field(name), string(text));
            DeValue::Table(fields)
        }
        "env_file" => {
            let mut elements = taken_array(table, key);
            elements.push(string(value));
            DeValue::Array(elements)
        }
        "ready" => match value.split_once('=').filter(|(kind, _)| kind.bytes().all(|byte| byte.is_ascii_lowercase())) {
            Some((kind, text)) => {
                let mut fields = DeTable::new();
                fields.insert(field(kind), spanned(if kind == "fd" { number_or_text(text) } else { text_of(text) }));
                DeValue::Table(fields)
            }
            None => {
                // Who speaks on the channel has to have it.
                if value == "ipc" {
                    table.insert(field("ipc"), spanned(DeValue::Boolean(true)));
                }
                text_of(value)
            }
        },
        "instances" | "max_restarts" => number_or_text(value),
        "listen_fds" => match value.as_str() {
            "true" => DeValue::Boolean(true),
            "false" => DeValue::Boolean(false),
            _ => text_of(value),
        },
        _ => text_of(value),
    };
    table.insert(Spanned::new(span.clone(), Cow::Borrowed(key)), spanned(new));
}

const fn text_of(text: &str) -> DeValue<'_> {
    DeValue::String(Cow::Borrowed(text))
}

fn number_or_text(text: &str) -> DeValue<'_> {
    match DeValue::parse(text).map(Spanned::into_inner) {
        Ok(number @ DeValue::Integer(_)) => number,
        _ => text_of(text),
    }
}

fn taken_table<'i>(table: &mut DeTable<'i>, key: &str) -> DeTable<'i> {
    match table.remove(key).map(Spanned::into_inner) {
        Some(DeValue::Table(fields)) => fields,
        _ => DeTable::new(),
    }
}

fn taken_array<'i>(table: &mut DeTable<'i>, key: &str) -> DeArray<'i> {
    match table.remove(key).map(Spanned::into_inner) {
        Some(DeValue::Array(elements)) => elements,
        _ => DeArray::new(),
    }
}
