//! Reads single words of the command line, and formats command lines.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use super::foreign::option_hint;
use super::usage_error::UsageError;
use crate::config::nearest;

/// Reads the next word: `-x`, `--long` or an operand.
pub(super) fn next(parser: &mut Parser) -> Result<Option<String>, UsageError> {
    match parser.next() {
        Ok(Some(Arg::Short(letter))) => Ok(Some(format!("-{letter}"))),
        Ok(Some(Arg::Long(name))) => Ok(Some(format!("--{name}"))),
        Ok(Some(Arg::Value(word))) => Ok(Some(word.to_string_lossy().into_owned())),
        Ok(None) => Ok(None),
        Err(error) => Err(UsageError::new(error_text(&error), "")),
    }
}

/// Reads the value of the last option.
pub(super) fn value(parser: &mut Parser) -> Result<OsString, UsageError> {
    parser.value().map_err(|error| UsageError::new(error_text(&error), ""))
}

/// Reads the value of `--config`.
pub(super) fn config_path(parser: &mut Parser) -> Result<PathBuf, UsageError> {
    path("-c", parser)
}

/// Reads the value of the option `name`, a path.
pub(super) fn path(name: &str, parser: &mut Parser) -> Result<PathBuf, UsageError> {
    let path = PathBuf::from(value(parser)?);
    if path.as_os_str().is_empty() {
        return Err(UsageError::new(format!("`{name}` needs a file, found an empty name"), "is a variable not set?"));
    }
    Ok(path)
}

/// Reads the value of the option `name`, which must be UTF-8.
pub(super) fn text(name: &str, parser: &mut Parser) -> Result<String, UsageError> {
    value(parser)?.into_string().map_err(|value| {
        UsageError::new(format!("the value of `{name}` is not UTF-8: `{}`", value.to_string_lossy()), "")
    })
}

fn error_text(error: &lexopt::Error) -> String {
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

/// There is no option `name` of `command`; the `known` ones are similar.
pub(super) fn unknown_option(command: &str, name: &str, known: &[&str]) -> UsageError {
    let hint = match (option_hint(command, name), nearest(name, known.iter().copied())) {
        (Some(hint), _) => hint.to_owned(),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => String::new(),
    };
    UsageError::new(format!("unknown option `{name}`"), hint)
}

/// Formats a command line for a shell, quoted where necessary.
pub(super) fn command_line(first: &str, words: &[OsString]) -> String {
    let words = words.iter().map(|word| word.to_string_lossy());
    let quoted =
        words.map(|word| shlex::try_quote(&word).map_or_else(|_| word.to_string(), |quoted| quoted.into_owned()));
    let all: Vec<String> = (!first.is_empty()).then(|| first.to_owned()).into_iter().chain(quoted).collect();
    all.join(" ")
}

/// The last part of the path of a program.
pub(super) fn base_name(program: &OsStr) -> String {
    let text = program.to_string_lossy();
    text.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The program that runs a script with this name.
pub(super) fn interpreter_of(word: &str) -> Option<&'static str> {
    Some(match word.rsplit_once('.')?.1 {
        "js" | "cjs" | "mjs" | "ts" => "node",
        "py" => "python3",
        "rb" => "ruby",
        "php" => "php",
        "jar" => "java -jar",
        _ => return None,
    })
}
