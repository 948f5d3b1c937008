//! Parses the commands for a running keepalive: words → [`Request`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Parser;

use super::definitions::{Definition, Opt, SHELLS};
use super::help;
use super::init_options;
use super::invocation::Invocation;
use super::usage_error::UsageError;
use super::words::{config_path, interpreter_of, next, path, text, unknown_option};
use crate::config::nearest;
use crate::control::{Change, Follow, Form, LOG_LINES, Names, Request, Task};
use crate::model::Signal;
use crate::model::glob::is_pattern;

/// The arguments with which the completion scripts call `keepalive completions`.
const NAMES: [Names; 3] = [Names::All, Names::Services, Names::Writers];

/// The options and operands of a command.
#[derive(Debug, Default)]
struct Words {
    /// Names of options without a value.
    flags: Vec<&'static str>,
    /// Names and values of options.
    values: Vec<(&'static str, String)>,
    socket: Option<PathBuf>,
    config: Option<PathBuf>,
    operands: Vec<String>,
    /// What stands after `--`.
    command: Option<Vec<OsString>>,
}

/// Parses the words after a command. `config`: the file of `-c` before it.
pub(super) fn read(
    definition: &'static Definition,
    parser: Parser,
    config: Option<PathBuf>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    let words = Words { config, command, ..Words::default() };
    let result = read_words(definition, words, parser).and_then(|words| match words {
        Some(words) => invocation(definition, words),
        None => Ok(Invocation::Help(help::for_command(definition))),
    });
    result.map_err(|error| UsageError { command: definition.name, ..error })
}

/// Returns `None` for `--help`.
fn read_words(
    definition: &'static Definition,
    mut words: Words,
    mut parser: Parser,
) -> Result<Option<Words>, UsageError> {
    loop {
        if definition.name == "scale"
            && let Some(number) = negative_number(&mut parser)
        {
            words.operands.push(number);
            continue;
        }
        let Some(argument) = next(&mut parser)? else { break };
        if !argument.starts_with('-') {
            words.operands.push(argument);
            continue;
        }
        let Some(option) =
            definition.options().into_iter().find(|option| option.short == argument || option.long == argument)
        else {
            return Err(unknown_option(definition.name, &argument, &definition.option_names()));
        };
        match option {
            Opt { long: "--help", .. } => return Ok(None),
            Opt { long: "--socket", .. } => words.socket = Some(path("--socket", &mut parser)?),
            Opt { long: "--config", .. } => words.config = Some(config_path(&mut parser)?),
            Opt { value: "", .. } => words.flags.push(option.name()),
            Opt { .. } => words.values.push((option.name(), text(&argument, &mut parser)?)),
        }
    }
    if words.command.is_some() && definition.name != "exec" {
        let message = format!("`keepalive {}` takes no command after `--`", definition.name);
        return Err(UsageError::new(message, usage(definition)));
    }
    Ok(Some(words))
}

/// The next word if it is a number such as `-1`, which would be an option elsewhere.
fn negative_number(parser: &mut Parser) -> Option<String> {
    let mut rest = parser.try_raw_args()?;
    let word = rest.peek()?.to_str()?;
    let digits = word.strip_prefix('-').filter(|digits| !digits.is_empty())?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.to_owned())?;
    rest.next();
    Some(number)
}

fn usage(definition: &Definition) -> &'static str {
    definition.forms.first().map_or("", |(form, _)| form)
}

fn invocation(definition: &'static Definition, words: Words) -> Result<Invocation, UsageError> {
    let timeout = words.value("--timeout").map(timeout).transpose()?;
    if definition.name == "completions"
        && let [word] = words.exact_operands(definition)?
        && (word == "man" || SHELLS.contains(&word))
    {
        return Ok(Invocation::Tools(vec![definition.name.into(), word.into()]));
    }
    let task = task(definition, &words)?;
    let form = match (words.has("--json"), words.has("--quiet")) {
        (true, _) => Form::Json,
        (false, true) => Form::Quiet,
        (false, false) => Form::Text,
    };
    Ok(Invocation::Client(Request { task, socket: words.socket, config: words.config, form, timeout }))
}

fn task(definition: &'static Definition, words: &Words) -> Result<Task, UsageError> {
    let follow = if words.has("--follow") { Follow::Yes } else { Follow::No };
    Ok(match definition.name {
        "status" => Task::Status(words.names()?),
        "describe" => {
            let names = words.required_names(definition)?;
            Task::Describe(names.into_iter().map(|name| if name == "all" { "*".to_owned() } else { name }).collect())
        }
        "exec" => {
            let [name] = words.exact_operands(definition)?;
            let command = words.command.clone().ok_or_else(|| missing_operand(definition))?;
            Task::Exec(process_name(name)?, command)
        }
        "start" => Task::Change(Change::Start, words.required_names(definition)?),
        "stop" => Task::Change(Change::Stop, words.required_names(definition)?),
        "restart" => Task::Change(Change::Restart, words.required_names(definition)?),
        "reload" => Task::Change(Change::Reload, words.names()?),
        "scale" => {
            let [name, instances] = words.exact_operands(definition)?;
            check_instances(instances)?;
            Task::Scale(service_name(name)?, instances.to_owned())
        }
        "signal" => {
            let [name, signal] = words.exact_operands(definition)?;
            let parsed = init_options::signal("keepalive signal", signal).map_err(|error| {
                let is_turned = Signal::parse(name).is_some();
                if is_turned {
                    UsageError { hint: format!("keepalive signal {signal} {name}"), ..error }
                } else {
                    error
                }
            })?;
            Task::Signal(checked_name(name)?, parsed)
        }
        "logs" => {
            let since = words.value("--since");
            // keepalive parses what looks like a date.
            if let Some(word) = since.filter(|word| word.as_bytes().get(4) != Some(&b'-')) {
                init_options::duration("--since", word)?;
            }
            let lines = words.lines(Some(LOG_LINES).filter(|_| since.is_none()))?;
            Task::Logs {
                names: words.names()?,
                lines,
                since: since.map(str::to_owned),
                timestamps: words.has("--timestamps"),
                follow,
            }
        }
        "events" => Task::Events { names: words.names()?, lines: words.lines(None)?, follow },
        "health" => match words.operands.as_slice() {
            [] if words.has("--ready") => Task::Ready(None),
            [] => Task::Alive,
            [name] => Task::Ready(Some(single_name(name)?)),
            [_, extra, ..] => return Err(unexpected_operand(definition, extra)),
        },
        "completions" => {
            let [word] = words.exact_operands(definition)?;
            let names = NAMES.into_iter().find(|names| names.as_str() == word);
            Task::Names(names.ok_or_else(|| unknown_shell(word))?)
        }
        name => {
            let [] = words.exact_operands(definition)?;
            match name {
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

    /// The value of the option `name`; the last one if it is repeated.
    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The number of `--lines`; `None`: all.
    fn lines(&self, default: Option<u32>) -> Result<Option<u32>, UsageError> {
        match self.value("--lines") {
            None => Ok(default),
            Some("all") => Ok(None),
            Some(number) => count("-n", number).map(Some),
        }
    }

    /// Names of services or instances, or patterns.
    fn names(&self) -> Result<Vec<String>, UsageError> {
        self.operands.iter().map(|name| checked_name(name)).collect()
    }

    fn required_names(&self, definition: &Definition) -> Result<Vec<String>, UsageError> {
        if self.operands.is_empty() {
            return Err(missing_operand(definition));
        }
        self.names()
    }

    /// Returns the operands, or an error unless there are exactly `N`.
    fn exact_operands<const N: usize>(&self, definition: &Definition) -> Result<[&str; N], UsageError> {
        if let Some(extra) = self.operands.get(N) {
            return Err(unexpected_operand(definition, extra));
        }
        let words: [&str; N] = std::array::from_fn(|position| self.operands.get(position).map_or("", String::as_str));
        if self.operands.len() < N { Err(missing_operand(definition)) } else { Ok(words) }
    }
}

fn missing_operand(definition: &Definition) -> UsageError {
    let expected = match definition.name {
        "exec" => "a name, and a command after `--`",
        "scale" => "a service and a number",
        "signal" => "a name and a signal",
        "completions" => "a shell",
        _ => "a name: web, web.2, \"web*\" or all",
    };
    UsageError::new(format!("`keepalive {}` needs {expected}", definition.name), usage(definition))
}

fn unexpected_operand(definition: &Definition, word: &str) -> UsageError {
    UsageError::new(format!("unexpected argument `{word}`"), usage(definition))
}

/// Checks that `word` has only characters that are allowed in a name.
fn checked_name(word: &str) -> Result<String, UsageError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*?".contains(&byte);
    if word.is_empty() || !word.bytes().all(valid) {
        return Err(UsageError::new(format!("invalid name `{word}`"), "such as web, web.2, \"web*\" or all"));
    }
    if interpreter_of(word).is_some() {
        return Err(UsageError::new(
            format!("`{word}` is no service"),
            "names are those in keepalive.toml, such as web",
        ));
    }
    Ok(word.to_owned())
}

/// As [`checked_name`], of a name that may not be a pattern.
fn single_name(word: &str) -> Result<String, UsageError> {
    if is_pattern(word.as_bytes()) {
        return Err(UsageError::new(format!("`{word}` is a pattern"), "such as web, web.2 or all"));
    }
    checked_name(word)
}

/// Checks that `word` names a service or an instance: it is neither a pattern nor `all`.
fn process_name(word: &str) -> Result<String, UsageError> {
    if word == "all" || is_pattern(word.as_bytes()) {
        let message = format!("`exec` takes one service or instance, found `{word}`");
        return Err(UsageError::new(message, "such as web or web.2"));
    }
    checked_name(word)
}

/// Checks that `word` names a service: neither an instance nor `all`.
fn service_name(word: &str) -> Result<String, UsageError> {
    if word == "all" || word.contains('.') || is_pattern(word.as_bytes()) {
        return Err(UsageError::new(
            format!("`scale` needs one service, found `{word}`"),
            "keepalive scale NAME N|+N|-N",
        ));
    }
    checked_name(word)
}

/// Checks that `word` is a number, or a change of one.
fn check_instances(word: &str) -> Result<(), UsageError> {
    let number = word.strip_prefix(['+', '-']).unwrap_or(word);
    if number.parse::<u32>().is_ok() && !number.starts_with('+') {
        return Ok(());
    }
    Err(UsageError::new(
        format!("`scale` needs a number of instances, or how many more or fewer, found `{word}`"),
        "such as 4, +1 or -1",
    ))
}

fn count(option: &str, word: &str) -> Result<u32, UsageError> {
    word.parse().map_err(|_| UsageError::new(format!("`{option}` needs a whole number, found `{word}`"), ""))
}

fn timeout(word: &str) -> Result<Duration, UsageError> {
    let duration = init_options::duration("--timeout", word)?;
    if duration < Duration::from_millis(1) {
        return Err(UsageError::new(
            format!("`--timeout` must be at least 1ms, found `{word}`"),
            "such as --timeout=5s",
        ));
    }
    Ok(duration)
}

fn unknown_shell(shell: &str) -> UsageError {
    let hint = match nearest(shell, SHELLS.into_iter()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", SHELLS.join(", ")),
    };
    UsageError::new(format!("unknown shell `{shell}`"), hint)
}
