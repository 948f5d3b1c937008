//! Reads a command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Parser;

use super::definitions::{self, Definition};
use super::init_options::InitOptions;
use super::invocation::Invocation;
use super::usage_error::UsageError;
use super::words::{next, path, shown, unknown_option};
use super::{client, help, run};
use crate::config::nearest;
use crate::control::Form;

/// Commands of later versions.
const LATER: [&str; 2] = ["reexec", "import"];

/// Reads `arguments`, the program's own name first.
///
/// # Errors
/// When they make no sense.
pub fn read(arguments: &[OsString]) -> Result<Invocation, UsageError> {
    let words = arguments.get(1..).unwrap_or_default();
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (before, after) = words.split_at(end);
    let command = after.split_first().map(|(_, command)| command.to_vec());
    // Whatever else is wrong with it.
    let first = before.iter().find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let is_probe = first.is_some_and(|word| word == "health") && command.as_ref().is_none_or(Vec::is_empty);
    read_cut(words, before, command)
        .map_err(|error| if is_probe { UsageError { command: "health", ..error } } else { error })
}

fn read_cut(words: &[OsString], before: &[OsString], command: Option<Vec<OsString>>) -> Result<Invocation, UsageError> {
    if command.as_ref().is_some_and(Vec::is_empty) {
        let remedy = format!("{} CMD [ARG…]", shown("keepalive", words));
        return Err(UsageError::new("a command is missing after `--`", remedy));
    }
    Request { before, command }.read()
}

/// The command line, cut at the first `--`.
struct Request<'r> {
    before: &'r [OsString],
    command: Option<Vec<OsString>>,
}

impl Request<'_> {
    fn read(self) -> Result<Invocation, UsageError> {
        let mut parser = Parser::from_args(self.before);
        let mut options = InitOptions::default();
        let mut config = None;
        while let Some(argument) = next(&mut parser)? {
            match argument.as_str() {
                "-h" | "--help" => return Ok(Invocation::Help(help::general())),
                "-V" | "--version" => return Ok(Invocation::Version),
                "-c" | "--config" => config = Some(path(&mut parser)?),
                name if name.starts_with('-') => options.set(name, &mut parser)?,
                "run" => {
                    options.refuse_with("run")?;
                    return of_command("run", run::read(parser, config, self.command));
                }
                "check" => {
                    options.refuse_with("check")?;
                    return of_command("check", check(parser, config, self.command));
                }
                "help" if self.command.is_none() => {
                    options.refuse_with("help")?;
                    return self.help(&mut parser);
                }
                word => {
                    let Some(definition) = Definition::find(word).filter(|definition| !definition.name.is_empty())
                    else {
                        return Err(self.unknown_word(word, &mut parser));
                    };
                    options.refuse_with(word)?;
                    if config.is_some() {
                        let remedy =
                            format!("keepalive {word} talks to a running keepalive; select one with --socket PATH");
                        let error = UsageError::new(format!("`-c` cannot be used with `{word}`"), remedy);
                        let command = if word == "health" { definition.name } else { "" };
                        return Err(UsageError { command, ..error });
                    }
                    return client::read(definition, parser, self.command);
                }
            }
        }
        match (config, self.command) {
            (Some(config), Some(command)) => {
                options.refuse_with("-c FILE")?;
                Ok(Invocation::Supervise { config: Some(config), main: Some(command) })
            }
            (None, Some(command)) => Ok(Invocation::Init { options: options.chosen, command }),
            (config, None) => {
                options.refuse_without_command(self.before)?;
                Ok(Invocation::Supervise { config, main: None })
            }
        }
    }

    /// `keepalive help [COMMAND]`.
    fn help(&self, parser: &mut Parser) -> Result<Invocation, UsageError> {
        let Some(word) = next(parser)? else { return Ok(Invocation::Help(help::general())) };
        match Definition::find(&word).filter(|definition| !definition.name.is_empty()) {
            Some(definition) => Ok(Invocation::Help(help::of(definition))),
            None if word.starts_with('-') => Ok(Invocation::Help(help::of_command("help"))),
            None => Err(self.unknown_word(&word, parser)),
        }
    }

    /// The first word is no command of ours: most likely it is one that is to be run.
    fn unknown_word(&self, word: &str, parser: &mut Parser) -> UsageError {
        if LATER.contains(&word) {
            return UsageError::new(format!("`keepalive {word}` is not supported yet"), "");
        }
        let rest = parser.raw_args().map_or(0, |rest| rest.as_slice().len());
        let (options, words) = self.before.split_at(self.before.len().saturating_sub(rest + 1));
        let mut given = words.to_vec();
        if let Some(command) = &self.command {
            given.push("--".into());
            given.extend_from_slice(command);
        }
        let form = format!("to run it as a command: {} -- {}", shown("keepalive", options), shown("", &given));
        let names = || definitions::commands().map(|definition| definition.name);
        // Who has typed the beginning of a word means that word and not a shorter one that looks like it.
        let begun = names().find(|name| word.len() > 2 && name.starts_with(word));
        let remedy = match begun.or_else(|| nearest(word, names())) {
            Some(known) => format!("did you mean `keepalive {known}`?\n{form}"),
            None => form,
        };
        UsageError::new(format!("unknown command `{word}`"), remedy)
    }
}

fn check(
    mut parser: Parser,
    mut config: Option<PathBuf>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    let mut form = Form::Text;
    while let Some(argument) = next(&mut parser)? {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help(help::of_command("check"))),
            "-c" | "--config" => config = Some(path(&mut parser)?),
            "--json" => form = Form::Json,
            "-V" | "--version" => return Ok(Invocation::Version),
            name if name.starts_with('-') => return Err(unknown_option(name, &["--config", "--json", "--help"])),
            word => {
                let remedy = format!("keepalive check -c {word}");
                return Err(UsageError::new(format!("unexpected argument `{word}`"), remedy));
            }
        }
    }
    match command {
        None => Ok(Invocation::Check { config, form }),
        Some(_) => Err(UsageError::new("`keepalive check` takes no command after `--`", "keepalive check [-c FILE]")),
    }
}

/// Whoever reads of an error is sent to the help of the command it is about.
fn of_command(command: &'static str, read: Result<Invocation, UsageError>) -> Result<Invocation, UsageError> {
    read.map_err(|error| UsageError { command, ..error })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
