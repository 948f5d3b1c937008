//! Parses the command line of keepalive.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::Parser;

use super::definitions::{self, Definition};
use super::init_options::InitOptions;
use super::invocation::Invocation;
use super::usage_error::UsageError;
use super::words::{base_name, command_line, config_path, interpreter_of, next, unknown_option};
use super::{client, foreign, help, run};
use crate::config::nearest;
use crate::control::Form;

/// Commands that are reserved for later versions.
const RESERVED_COMMANDS: [&str; 3] = ["reexec", "new", "schema"];

/// Parses `arguments`; the first one is the name of the program.
///
/// # Errors
/// The command line is invalid.
pub fn read(arguments: &[OsString]) -> Result<Invocation, UsageError> {
    let words = arguments.get(1..).unwrap_or_default();
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (before, after) = words.split_at(end);
    let command = after.split_first().map(|(_, command)| command.to_vec());
    // Every usage error of a health probe exits with 1, wherever the error is found.
    let first = before.iter().find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let is_probe = first.is_some_and(|word| word == "health") && command.as_ref().is_none_or(Vec::is_empty);
    read_split(words, before, command)
        .map_err(|error| if is_probe { UsageError { command: "health", ..error } } else { error })
}

fn read_split(
    words: &[OsString],
    before: &[OsString],
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    if command.as_ref().is_some_and(Vec::is_empty) {
        let hint = format!("{} CMD [ARG…]", command_line("keepalive", words));
        return Err(UsageError::new("a command is missing after `--`", hint));
    }
    CommandLine { before, command }.read()
}

/// The command line, split at the first `--`.
struct CommandLine<'a> {
    before: &'a [OsString],
    command: Option<Vec<OsString>>,
}

impl CommandLine<'_> {
    fn read(self) -> Result<Invocation, UsageError> {
        let mut parser = Parser::from_args(self.before);
        let mut options = InitOptions::default();
        let mut config = None;
        while let Some(argument) = next(&mut parser)? {
            match argument.as_str() {
                "-h" | "--help" => return Ok(Invocation::Help(help::general())),
                "-V" | "--version" => return Ok(Invocation::Version),
                "-c" | "--config" => config = Some(config_path(&mut parser)?),
                name if name.starts_with('-') => options.set(name, &mut parser)?,
                "run" => {
                    options.refuse_with("run")?;
                    return with_command("run", run::read(parser, config, self.command));
                }
                "check" => {
                    options.refuse_with("check")?;
                    return with_command("check", check(parser, config, self.command));
                }
                "import" => {
                    options.refuse_with("import")?;
                    return Ok(import(parser.raw_args().map_or_else(|_| Vec::new(), Iterator::collect)));
                }
                "help" if self.command.is_none() => {
                    options.refuse_with("help")?;
                    return self.help(&mut parser);
                }
                word => {
                    let Some(definition) = Definition::find_command(word) else {
                        return Err(self.unknown_word(word, &mut parser));
                    };
                    options.refuse_with(word)?;
                    return client::read(definition, parser, config, self.command);
                }
            }
        }
        match (config, self.command) {
            (Some(config), Some(command)) => {
                options.refuse_with("-c FILE")?;
                Ok(Invocation::Supervise { config: Some(config), main: Some(command) })
            }
            (None, Some(command)) => Ok(Invocation::Init { options: options.options, command }),
            (config, None) => {
                options.refuse_without_command(self.before)?;
                Ok(Invocation::Supervise { config, main: None })
            }
        }
    }

    /// `keepalive help [COMMAND]`.
    fn help(&self, parser: &mut Parser) -> Result<Invocation, UsageError> {
        let Some(word) = next(parser)? else { return Ok(Invocation::Help(help::general())) };
        match Definition::find_command(&word) {
            Some(definition) => Ok(Invocation::Help(help::for_command(definition))),
            None if word.starts_with('-') => Ok(Invocation::Help(help::for_command_name("help"))),
            None => Err(unknown_command(&word, "keepalive help", "`keepalive help` lists all commands")),
        }
    }

    /// `word` is not a command of keepalive. Usually it is a program to run, without `--` before it.
    fn unknown_word(&self, word: &str, parser: &mut Parser) -> UsageError {
        if RESERVED_COMMANDS.contains(&word) {
            return UsageError::new(format!("`keepalive {word}` is not supported yet"), "");
        }
        let rest = parser.raw_args().map_or(0, |rest| rest.as_slice().len());
        let (options, words) = self.before.split_at(self.before.len().saturating_sub(rest + 1));
        let mut program = words.to_vec();
        if let Some(command) = &self.command {
            program.push("--".into());
            program.extend_from_slice(command);
        }
        let usage =
            format!("to run it as a command: {} -- {}", command_line("keepalive", options), command_line("", &program));
        match file_hint(word, &command_line("", &program)) {
            Some(hint) => UsageError::new(format!("`{word}` is not a command of keepalive"), hint),
            None => unknown_command(word, "keepalive", &usage),
        }
    }
}

/// `keepalive import`, whose arguments are parsed by a program of its own; its help is ours.
fn import(arguments: Vec<OsString>) -> Invocation {
    match arguments.as_slice() {
        [only] if only == "-h" || only == "--help" => Invocation::Help(help::for_command_name("import")),
        _ => Invocation::Tools([vec!["import".into()], arguments].concat()),
    }
}

/// What to write if `word` is the name of a script, or of a configuration. `program`: it, and what follows.
fn file_hint(word: &str, program: &str) -> Option<String> {
    if is_other_configuration(word) {
        return Some(OTHER_CONFIGURATION.to_owned());
    }
    match interpreter_of(word) {
        None if word.ends_with(".toml") => Some(format!("write `keepalive -c {word}`")),
        None => None,
        Some(interpreter) => {
            Some(format!("write `keepalive run -- {interpreter} {program}`, or its `command` in keepalive.toml"))
        }
    }
}

const OTHER_CONFIGURATION: &str = "keepalive reads keepalive.toml, which `keepalive import FILE` makes of it";

/// Whether `word` is the name of a configuration of another program.
fn is_other_configuration(word: &str) -> bool {
    let name = base_name(OsStr::new(word));
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    matches!(&*name, "Procfile" | "Dockerfile")
        || matches!(ending, "json" | "yaml" | "yml" | "conf" | "ini" | "service")
        || [".config.js", ".config.cjs", ".config.mjs"].iter().any(|ending| name.ends_with(ending))
}

/// There is no command `word`. `before`: what is written before the name of a command; `usage`: the last line of the hint.
fn unknown_command(word: &str, before: &str, usage: &str) -> UsageError {
    let names = || definitions::commands().map(|definition| definition.name);
    // A command that begins with `word` is a better suggestion than a similar one.
    let completed = names().find(|name| word.len() > 2 && name.starts_with(word));
    let hint = match (foreign::command_hint(word), completed.or_else(|| nearest(word, names()))) {
        (Some(hint), _) => format!("{hint}\n{usage}"),
        (None, Some(known)) => format!("did you mean `{before} {known}`?\n{usage}"),
        (None, None) => usage.to_owned(),
    };
    UsageError::new(format!("unknown command `{word}`"), hint)
}

fn check(
    mut parser: Parser,
    mut config: Option<PathBuf>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    let mut form = Form::Text;
    while let Some(argument) = next(&mut parser)? {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help(help::for_command_name("check"))),
            "-c" | "--config" => config = Some(config_path(&mut parser)?),
            "--json" => form = Form::Json,
            "-V" | "--version" => return Ok(Invocation::Version),
            name if name.starts_with('-') => {
                return Err(unknown_option("check", name, &["--config", "--json", "--help"]));
            }
            word => {
                let check = || format!("keepalive check -c {word}");
                let hint = if is_other_configuration(word) { OTHER_CONFIGURATION.to_owned() } else { check() };
                return Err(UsageError::new(format!("unexpected argument `{word}`"), hint));
            }
        }
    }
    match command {
        None => Ok(Invocation::Check { config, form }),
        Some(_) => Err(UsageError::new("`keepalive check` takes no command after `--`", "keepalive check [-c FILE]")),
    }
}

/// Adds the command to an error, so that the message refers to its help.
fn with_command(command: &'static str, result: Result<Invocation, UsageError>) -> Result<Invocation, UsageError> {
    result.map_err(|error| UsageError { command, ..error })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
