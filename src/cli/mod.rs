//! Asks: argv → [`Invocation`].
//!
//! It reads words and nothing else: no file, no environment, no output. What is wrong with the words is a
//! [`UsageError`] that says what would be right. Start reading at [`read`]; `run` has its options in `run.rs`, init
//! mode in `init_options.rs`, the commands of a running keepalive in `client.rs`. What there is to write on the command
//! line is listed in `definitions.rs`, of which help, completions and the manual page are made. Started by another init's
//! name it is that one: [`drop_in`]. How `check` shows a plan is in [`show`].

mod client;
mod completions;
mod definitions;
pub mod drop_in;
mod help;
mod init_options;
pub mod json;
mod man;
mod run;
pub mod show;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use crate::config::{InlineService, nearest};
use crate::control::{EXIT_FAILURE, Request as ControlRequest};
use crate::init::Options;
use crate::model::exit_code::USAGE;
use definitions::Definition;
use init_options::InitOptions;

pub use crate::control::Form;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// One command, run as a tiny init does.
    Init {
        /// What goes before `--`.
        options: Options,
        /// What goes after it; not empty.
        command: Vec<OsString>,
    },
    /// A service set from a file.
    Supervise {
        /// `-c`.
        config: Option<PathBuf>,
        /// The command after `--`, for the service `main`; not empty.
        main: Option<Vec<OsString>>,
    },
    /// A service set of one, from the command line.
    SuperviseOne(InlineService),
    /// Whether the configuration is right, and what it comes to.
    Check {
        /// `-c`.
        config: Option<PathBuf>,
        /// For whom to print it.
        form: Form,
    },
    /// What another init prints instead of running a command.
    Print {
        /// Where.
        stream: Stream,
        /// Whole lines.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// A request to a running keepalive.
    Client(ControlRequest),
    /// A text to be read.
    Help(String),
    /// `--version`.
    Version,
}

/// Where something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// To whoever asked for it.
    Stdout,
    /// To whoever has to hear of it.
    Stderr,
}

/// The words make no sense; exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub remedy: String,
    /// The command whose help says more; empty: the general one.
    pub command: &'static str,
}

/// Commands of later versions.
const LATER: [&str; 2] = ["reexec", "import"];

impl UsageError {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into(), command: "" }
    }

    /// The exit code: 2, but for a probe 1, as HEALTHCHECK has no other for no.
    #[must_use]
    pub fn code(&self) -> u8 {
        if self.command == "health" { EXIT_FAILURE } else { USAGE }
    }
}

impl fmt::Display for UsageError {
    /// The message, the remedy, where to read more; each on a line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "keepalive: {}", self.message)?;
        if !self.remedy.is_empty() {
            writeln!(formatter, "  {}", self.remedy.replace('\n', "\n  "))?;
        }
        let blank = if self.command.is_empty() { "" } else { " " };
        writeln!(formatter, "see keepalive {}{blank}--help", self.command)
    }
}

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
            None if word.starts_with('-') => Ok(Invocation::Help(help_of("help"))),
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
            "-h" | "--help" => return Ok(Invocation::Help(help_of("check"))),
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

/// The next word: `-x`, `--long` or what is no option.
fn next(parser: &mut Parser) -> Result<Option<String>, UsageError> {
    match parser.next() {
        Ok(Some(Arg::Short(letter))) => Ok(Some(format!("-{letter}"))),
        Ok(Some(Arg::Long(name))) => Ok(Some(format!("--{name}"))),
        Ok(Some(Arg::Value(word))) => Ok(Some(word.to_string_lossy().into_owned())),
        Ok(None) => Ok(None),
        Err(error) => Err(UsageError::new(plain(&error), "")),
    }
}

/// The value of the option that was read last.
fn value(parser: &mut Parser) -> Result<OsString, UsageError> {
    parser.value().map_err(|error| UsageError::new(plain(&error), ""))
}

fn help_of(command: &str) -> String {
    Definition::find(command).map(help::of).unwrap_or_default()
}

fn path(parser: &mut Parser) -> Result<PathBuf, UsageError> {
    path_of("-c", parser)
}

/// The value of the option `name`, a file.
fn path_of(name: &str, parser: &mut Parser) -> Result<PathBuf, UsageError> {
    let path = PathBuf::from(value(parser)?);
    if path.as_os_str().is_empty() {
        return Err(UsageError::new(format!("`{name}` needs a file, found an empty name"), "is a variable not set?"));
    }
    Ok(path)
}

/// The value of the option `name`, which must be text.
fn text(name: &str, parser: &mut Parser) -> Result<String, UsageError> {
    value(parser)?.into_string().map_err(|value| {
        UsageError::new(format!("the value of `{name}` is not UTF-8: `{}`", value.to_string_lossy()), "")
    })
}

fn plain(error: &lexopt::Error) -> String {
    match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("`{option}` needs a value"),
        lexopt::Error::UnexpectedValue { option, value } => {
            format!("`{option}` takes no value, but there is `{}`", value.to_string_lossy())
        }
        lexopt::Error::MissingValue { option: None }
        | lexopt::Error::UnexpectedOption(_)
        | lexopt::Error::UnexpectedArgument(_)
        | lexopt::Error::ParsingFailed { .. }
        | lexopt::Error::NonUnicodeValue(_)
        | lexopt::Error::Custom(_) => error.to_string(),
    }
}

fn unknown_option(name: &str, known: &[&str]) -> UsageError {
    let remedy =
        nearest(name, known.iter().copied()).map_or_else(String::new, |near| format!("did you mean `{near}`?"));
    UsageError::new(format!("unknown option `{name}`"), remedy)
}

/// A command line as it can be typed again.
fn shown(first: &str, words: &[OsString]) -> String {
    let words = words.iter().map(|word| word.to_string_lossy());
    let quoted =
        words.map(|word| shlex::try_quote(&word).map_or_else(|_| word.to_string(), |quoted| quoted.into_owned()));
    let all: Vec<String> = (!first.is_empty()).then(|| first.to_owned()).into_iter().chain(quoted).collect();
    all.join(" ")
}

/// The program's name for `--name`'s default: the last part of a path.
fn base_name(program: &OsStr) -> String {
    let text = program.to_string_lossy();
    text.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
