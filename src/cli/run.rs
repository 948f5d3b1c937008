//! `keepalive run`.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use lexopt::Parser;

use super::help;
use super::invocation::Invocation;
use super::usage_error::UsageError;
use super::words::{base_name, next, path, shown, text, unknown_option};
use crate::config::{InlineOption, InlineService, MAX_SERVICE_NAME_LENGTH};

/// Options and the keys that they stand for.
pub(super) const OPTIONS: [(&str, &str); 16] = [
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
];

pub(super) fn read(
    mut parser: Parser,
    mut config: Option<PathBuf>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, UsageError> {
    let mut line = Line::default();
    line.words("keepalive run");
    let mut name = None;
    let mut first = None;
    while let Some(argument) = next(&mut parser)? {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help(help::of_command("run"))),
            "-V" | "--version" => return Ok(Invocation::Version),
            "-c" | "--config" => {
                config = Some(path(&mut parser)?);
                continue;
            }
            "--name" => {
                let value = text("--name", &mut parser)?;
                name = Some((value.clone(), line.option("--name", &value)));
            }
            option if option.starts_with('-') => line.set(option, &mut parser)?,
            word => return Err(unexpected_word(word, &mut parser, command)),
        }
        first.get_or_insert(argument);
    }
    match (config, first, command) {
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
    UsageError::new(
        format!("unexpected argument `{word}`"),
        format!("write the command after `--`: {}", shown("keepalive run --", &words)),
    )
}

/// The command line, written anew with known places.
#[derive(Default)]
struct Line {
    text: String,
    options: Vec<InlineOption>,
}

impl Line {
    /// Appends `words` and gives back where they stand.
    fn words(&mut self, words: &str) -> Range<usize> {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(words);
        start..self.text.len()
    }

    fn option(&mut self, name: &str, value: &str) -> Range<usize> {
        self.words(name);
        self.words(value)
    }

    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), UsageError> {
        let long = if name == "-i" { "--instances" } else { name };
        let Some(&(_, key)) = OPTIONS.iter().find(|(option, _)| *option == long) else {
            let mut known: Vec<&str> = OPTIONS.iter().map(|(option, _)| *option).collect();
            known.extend(["--name", "--config", "--help"]);
            return Err(unknown_option(name, &known));
        };
        let value = text(name, parser)?;
        if key == "env" && !value.contains('=') {
            let remedy = format!("such as --env {value}=value; the environment of keepalive is inherited anyway");
            return Err(UsageError::new(format!("`--env` needs NAME=value, found `{value}`"), remedy));
        }
        if key == "listen" {
            self.refuse_listen(&value)?;
        }
        let span = self.option(name, &value);
        self.options.push(InlineOption { key, value, span });
        Ok(())
    }

    fn refuse_listen(&self, value: &str) -> Result<(), UsageError> {
        let Some((name, _)) = value.split_once('=') else {
            let remedy = "such as --listen http=tcp://0.0.0.0:8080";
            return Err(UsageError::new(format!("`--listen` needs NAME=ADDRESS, found `{value}`"), remedy));
        };
        let given = |option: &InlineOption| option.key == "listen" && option.value.split('=').next() == Some(name);
        if self.options.iter().any(given) {
            return Err(UsageError::new(format!("`--listen {name}=` is used twice"), "rename one of them"));
        }
        Ok(())
    }

    fn finish(mut self, name: Option<(String, Range<usize>)>, command: &[OsString]) -> InlineService {
        self.words("--");
        let words = command.iter().map(|word| (word.as_bytes().to_vec(), self.words(&word.to_string_lossy())));
        let command: Vec<(Vec<u8>, Range<usize>)> = words.collect();
        let name = name.unwrap_or_else(|| {
            let (program, span) = command.first().cloned().unwrap_or_default();
            (valid_name(&base_name(std::ffi::OsStr::from_bytes(&program))), span)
        });
        InlineService { text: self.text, name, options: self.options, command }
    }
}

/// A service name made of a program's name.
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
