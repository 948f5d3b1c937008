//! Parses the options of `keepalive run`.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use lexopt::Parser;

use super::help;
use super::invocation::Invocation;
use super::usage_error::UsageError;
use super::words::{base_name, command_line, config_path, interpreter_of, next, text, unknown_option};
use crate::config::{InlineOption, InlineService, MAX_SERVICE_NAME_LENGTH};

/// The options, each with its configuration key.
pub(super) const OPTIONS: [(&str, &str); 18] = [
    ("--instances", "instances"),
    ("--restart", "restart"),
    ("--restart-delay", "restart_delay"),
    ("--min-uptime", "min_uptime"),
    ("--max-restarts", "max_restarts"),
    ("--ready", "ready"),
    ("--cwd", "cwd"),
    ("--user", "user"),
    ("--env", "env"),
    ("--env-file", "env_file"),
    ("--stop-signal", "stop_signal"),
    ("--stop-timeout", "stop_timeout"),
    ("--on-failure", "on_failure"),
    ("--on-success", "on_success"),
    ("--listen", "listen"),
    ("--listen-fds", "listen_fds"),
    ("--log", "log"),
    ("--watch", "watch"),
];

pub(super) fn read(
    mut parser: Parser,
    mut config: Option<PathBuf>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    let mut line = CommandLine::default();
    line.push("keepalive run");
    let mut name = None;
    let mut first_option = None;
    while let Some(argument) = next(&mut parser)? {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help(help::for_command_name("run"))),
            "-V" | "--version" => return Ok(Invocation::Version),
            "-c" | "--config" => {
                config = Some(config_path(&mut parser)?);
                continue;
            }
            "--name" => {
                let value = text("--name", &mut parser)?;
                name = Some((value.clone(), line.push_option("--name", &value)));
            }
            option if option.starts_with('-') => line.set(option, &mut parser)?,
            word => return Err(unexpected_word(word, &mut parser, command)),
        }
        first_option.get_or_insert(argument);
    }
    match (config, first_option, command) {
        (None, _, Some(command)) => Ok(Invocation::SuperviseOne(line.finish(name, &command))),
        (Some(_), Some(option), _) => Err(UsageError::new(
            format!("`{option}` cannot be used with `-c`: the file defines the services"),
            "set it in `[services.NAME]`",
        )),
        (None, Some(option), None) => Err(UsageError::new(
            format!("`{option}` needs a command after `--`"),
            format!("{} -- CMD [ARG…]", line.text),
        )),
        (config, None, main) => Ok(Invocation::Supervise { config, main }),
    }
}

fn unexpected_word(word: &str, parser: &mut Parser, command: Option<Vec<OsString>>) -> UsageError {
    let rest: Vec<OsString> = parser.raw_args().map(Iterator::collect).unwrap_or_default();
    let mut words = vec![OsString::from(word)];
    words.extend(rest);
    if let Some(command) = command {
        words.push("--".into());
        words.extend(command);
    }
    let interpreter = interpreter_of(word).map_or_else(String::new, |interpreter| format!(" {interpreter}"));
    let first = format!("keepalive run --{interpreter}");
    UsageError::new(
        format!("unexpected argument `{word}`"),
        format!("write the command after `--`: {}", command_line(&first, &words)),
    )
}

/// The text of the command line, with the position of each value for error messages.
#[derive(Default)]
struct CommandLine {
    text: String,
    options: Vec<InlineOption>,
}

impl CommandLine {
    /// Appends `words` and returns their range in the text.
    fn push(&mut self, words: &str) -> Range<usize> {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(words);
        start..self.text.len()
    }

    fn push_option(&mut self, name: &str, value: &str) -> Range<usize> {
        self.push(name);
        self.push(value)
    }

    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), UsageError> {
        let long = if name == "-i" { "--instances" } else { name };
        let Some(&(_, key)) = OPTIONS.iter().find(|(option, _)| *option == long) else {
            let mut known: Vec<&str> = OPTIONS.iter().map(|(option, _)| *option).collect();
            known.extend(["--name", "--config", "--help"]);
            return Err(unknown_option("run", name, &known));
        };
        let value = text(name, parser)?;
        if key == "env" && !value.contains('=') {
            let hint = format!("such as --env {value}=value; the environment of keepalive is inherited anyway");
            return Err(UsageError::new(format!("`--env` needs NAME=value, found `{value}`"), hint));
        }
        if key == "listen" {
            self.check_listen(&value)?;
        }
        let span = self.push_option(name, &value);
        self.options.push(InlineOption { key, value, span });
        Ok(())
    }

    fn check_listen(&self, value: &str) -> Result<(), UsageError> {
        let Some((name, _)) = value.split_once('=') else {
            let hint = "such as --listen http=tcp://0.0.0.0:8080";
            return Err(UsageError::new(format!("`--listen` needs NAME=ADDRESS, found `{value}`"), hint));
        };
        let has_same_name =
            |option: &InlineOption| option.key == "listen" && option.value.split('=').next() == Some(name);
        if self.options.iter().any(has_same_name) {
            return Err(UsageError::new(format!("`--listen {name}=` is used twice"), "rename one of them"));
        }
        Ok(())
    }

    fn finish(mut self, name: Option<(String, Range<usize>)>, command: &[OsString]) -> InlineService {
        self.push("--");
        let words = command.iter().map(|word| (word.as_bytes().to_vec(), self.push(&word.to_string_lossy())));
        let command: Vec<(Vec<u8>, Range<usize>)> = words.collect();
        let name = name.unwrap_or_else(|| {
            let (program, span) = command.first().cloned().unwrap_or_default();
            (valid_name(&base_name(OsStr::from_bytes(&program))), span)
        });
        InlineService { text: self.text, name, options: self.options, command }
    }
}

/// Converts the name of a program to a valid service name.
fn valid_name(program: &str) -> String {
    let valid =
        |character: char| if character.is_ascii_alphanumeric() || "-_".contains(character) { character } else { '-' };
    let name: String = program.chars().map(valid).collect();
    let name: String = name.trim_matches(['-', '_']).chars().take(MAX_SERVICE_NAME_LENGTH).collect();
    match name.as_str() {
        "" | "all" => "service".to_owned(),
        _ => name,
    }
}
