//! `keepalive run [OPTIONS] -- CMD`: one service without a configuration file.
//!
//! The options are converted to the table of a `[services.NAME]` with locations in the command line, so that the same rules
//! apply and errors point to the option.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::document::PlanBuilder;
use super::environment::Environment;
use super::report::{COMMAND_LINE, Loaded, Report, Source};
use super::users::Users;

/// A service that is defined by the options of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InlineService {
    /// The command line, to be shown in errors.
    pub text: String,
    /// The name of the service and its position in `text`.
    pub name: (String, Range<usize>),
    /// The options in the order of the command line.
    pub options: Vec<InlineOption>,
    /// Program and arguments with their positions in `text`. Not empty.
    pub command: Vec<(Vec<u8>, Range<usize>)>,
}

/// An option with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineOption {
    /// The key in `[services.NAME]`.
    pub key: &'static str,
    /// The value as the user wrote it.
    pub value: String,
    /// The position of the value in the command line.
    pub span: Range<usize>,
}

/// Makes the plan for one service from a command line.
///
/// # Errors
/// All errors in the options.
pub fn load_inline(inline: &InlineService, environment: &Environment<'_>) -> Result<Loaded, Report> {
    let bytes = inline.text.clone().into_bytes();
    let source = Source { name: COMMAND_LINE.to_owned(), bytes, is_secret: false };
    let users = Users::read(environment.root, environment.files);
    let mut builder = PlanBuilder::new(environment, &users, Path::new(""));
    builder.enter(&source);
    builder.decoder.expands_variables = false;
    let mut table = DeTable::new();
    for option in &inline.options {
        add(&mut table, option);
    }
    let (name, span) = &inline.name;
    builder.service(name, span.clone(), &table, Some(&inline.command));
    builder.finish()
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
        "watch" => {
            let mut fields = taken_table(table, key);
            let mut paths = taken_array(&mut fields, "paths");
            paths.push(string(value));
            fields.insert(field("paths"), spanned(DeValue::Array(paths)));
            DeValue::Table(fields)
        }
        "ready" => match value.split_once('=').filter(|(kind, _)| kind.bytes().all(|byte| byte.is_ascii_lowercase())) {
            Some((kind, text)) => {
                let mut fields = DeTable::new();
                fields.insert(field(kind), spanned(if kind == "fd" { number_or_text(text) } else { text_of(text) }));
                DeValue::Table(fields)
            }
            None => {
                // `ready = "ipc"` requires `ipc = true`.
                if value == "ipc" {
                    table.insert(field("ipc"), spanned(DeValue::Boolean(true)));
                }
                text_of(value)
            }
        },
        "log" => {
            let mut fields = DeTable::new();
            fields.insert(field("stdout"), string(value));
            fields.insert(field("stderr"), string(value));
            DeValue::Table(fields)
        }
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
