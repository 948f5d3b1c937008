//! The commands of a running keepalive: words → [`Request`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Parser;

use super::definitions::{Definition, Opt, SHELLS};
use super::init_options;
use super::invocation::Invocation;
use super::usage_error::UsageError;
use super::words::{next, path_of, text, unknown_option};
use super::{completions, help, man};
use crate::config::nearest;
use crate::control::{Change, Follow, Form, LOG_LINES, Names, Request, Task};

/// What the scripts of completions ask for.
const NAMES: [Names; 3] = [Names::All, Names::Services, Names::Writers];

/// What was found on the command line, by the names of options.
#[derive(Debug, Default)]
struct Words {
    flags: Vec<&'static str>,
    values: Vec<(&'static str, String)>,
    socket: Option<PathBuf>,
    operands: Vec<String>,
}

/// Reads the words after a command of this kind.
pub(super) fn read(
    definition: &'static Definition,
    parser: Parser,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    let found = read_words(definition, parser, command).and_then(|words| match words {
        Some(words) => invocation(definition, words),
        None => Ok(Invocation::Help(help::of(definition))),
    });
    found.map_err(|error| UsageError { command: definition.name, ..error })
}

/// `None`: help is wanted.
fn read_words(
    definition: &'static Definition,
    mut parser: Parser,
    command: Option<Vec<OsString>>,
) -> Result<Option<Words>, UsageError> {
    let mut words = Words::default();
    while let Some(argument) = next(&mut parser)? {
        if !argument.starts_with('-') {
            words.operands.push(argument);
            continue;
        }
        let Some(option) = definition.options().find(|option| option.spellings().any(|name| name == argument)) else {
            return Err(unknown_option(&argument, &definition.option_names()));
        };
        match option {
            Opt { long: "--help", .. } => return Ok(None),
            Opt { long: "--socket", .. } => words.socket = Some(path_of("--socket", &mut parser)?),
            Opt { value: "", .. } => words.flags.push(option.name()),
            Opt { .. } => words.values.push((option.name(), text(&argument, &mut parser)?)),
        }
    }
    match command {
        None => Ok(Some(words)),
        Some(_) => {
            let message = format!("`keepalive {}` takes no command after `--`", definition.name);
            Err(UsageError::new(message, form(definition)))
        }
    }
}

fn form(definition: &Definition) -> &'static str {
    definition.forms.first().map_or("", |(form, _)| form)
}

fn invocation(definition: &'static Definition, words: Words) -> Result<Invocation, UsageError> {
    let timeout = words.value("--timeout").map(timeout).transpose()?;
    let script = if definition.name == "completions" { script(words.exactly(definition)?) } else { None };
    if let Some(text) = script {
        return Ok(Invocation::Help(text));
    }
    let task = task(definition, &words)?;
    let form = if words.has("--json") { Form::Json } else { Form::Text };
    Ok(Invocation::Client(Request { task, socket: words.socket, form, timeout }))
}

/// What `keepalive completions WORD` prints without asking anybody.
fn script([word]: [&str; 1]) -> Option<String> {
    match word {
        "man" => Some(man::page()),
        "bash" => Some(completions::bash()),
        "zsh" => Some(completions::zsh()),
        "fish" => Some(completions::fish()),
        _ => None,
    }
}

fn task(definition: &'static Definition, words: &Words) -> Result<Task, UsageError> {
    let follow = if words.has("--follow") { Follow::Yes } else { Follow::No };
    Ok(match definition.name {
        "status" => Task::Status(words.names()?),
        "start" => Task::Change(Change::Start, words.some_names(definition)?),
        "stop" => Task::Change(Change::Stop, words.some_names(definition)?),
        "restart" => Task::Change(Change::Restart, words.some_names(definition)?),
        "reload" => Task::Change(Change::Reload, words.names()?),
        "scale" => {
            let [name, instances] = words.exactly(definition)?;
            Task::Scale(service(name)?, count("scale", instances)?)
        }
        "signal" => {
            let [name, signal] = words.exactly(definition)?;
            Task::Signal(name_of(name)?, init_options::signal("keepalive signal", signal)?)
        }
        "logs" => {
            let lines = match words.value("--lines") {
                None => Some(LOG_LINES),
                Some("all") => None,
                Some(number) => Some(count("-n", number)?),
            };
            Task::Logs { names: words.names()?, lines, follow }
        }
        "health" => match words.operands.as_slice() {
            [] if words.has("--ready") => Task::Ready(None),
            [] => Task::Alive,
            [name] => Task::Ready(Some(name_of(name)?)),
            [_, more, ..] => return Err(unexpected(definition, more)),
        },
        "completions" => {
            let [word] = words.exactly(definition)?;
            let names = NAMES.into_iter().find(|names| names.as_str() == word);
            Task::Names(names.ok_or_else(|| unknown_shell(word))?)
        }
        name => {
            let [] = words.exactly(definition)?;
            match name {
                "events" => Task::Events(follow),
                "top" => Task::Top,
                _ => Task::Shutdown,
            }
        }
    })
}

impl Words {
    fn has(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }

    /// The last one counts.
    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Result<Vec<String>, UsageError> {
        self.operands.iter().map(|name| name_of(name)).collect()
    }

    fn some_names(&self, definition: &Definition) -> Result<Vec<String>, UsageError> {
        if self.operands.is_empty() {
            return Err(missing(definition));
        }
        self.names()
    }

    /// The operands, which must be so many.
    fn exactly<const N: usize>(&self, definition: &Definition) -> Result<[&str; N], UsageError> {
        if let Some(more) = self.operands.get(N) {
            return Err(unexpected(definition, more));
        }
        let words: [&str; N] = std::array::from_fn(|position| self.operands.get(position).map_or("", String::as_str));
        if self.operands.len() < N { Err(missing(definition)) } else { Ok(words) }
    }
}

fn missing(definition: &Definition) -> UsageError {
    let what = match definition.name {
        "scale" => "a service and a number",
        "signal" => "a name and a signal",
        "completions" => "a shell",
        _ => "a name: web, web.2 or all",
    };
    UsageError::new(format!("`keepalive {}` needs {what}", definition.name), form(definition))
}

fn unexpected(definition: &Definition, word: &str) -> UsageError {
    UsageError::new(format!("unexpected argument `{word}`"), form(definition))
}

fn name_of(word: &str) -> Result<String, UsageError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if word.is_empty() || !word.bytes().all(valid) {
        return Err(UsageError::new(format!("invalid name `{word}`"), "such as web, web.2 or all"));
    }
    Ok(word.to_owned())
}

/// A name that is neither an instance's nor `all`.
fn service(word: &str) -> Result<String, UsageError> {
    if word == "all" || word.contains('.') {
        return Err(UsageError::new(format!("`scale` needs one service, found `{word}`"), "keepalive scale NAME N"));
    }
    name_of(word)
}

fn count(what: &str, word: &str) -> Result<u32, UsageError> {
    word.parse().map_err(|_| UsageError::new(format!("`{what}` needs a whole number, found `{word}`"), ""))
}

fn timeout(word: &str) -> Result<Duration, UsageError> {
    let duration = init_options::duration("--timeout", word)?;
    if duration < Duration::from_millis(1) {
        return Err(UsageError::new(format!("`--timeout` needs a duration, found `{word}`"), "such as --timeout=5s"));
    }
    Ok(duration)
}

fn unknown_shell(shell: &str) -> UsageError {
    let remedy = match nearest(shell, SHELLS.into_iter()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", SHELLS.join(", ")),
    };
    UsageError::new(format!("unknown shell `{shell}`"), remedy)
}
