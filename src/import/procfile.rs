//! Procfile, with the .env beside it: foreman, honcho, overmind, Heroku.

use std::path::Path;

use super::config_file::{ConfigFile, Service, Value, table};
use super::import_error::ImportError;
use super::text::{Piece, Text};
use super::words;
use crate::config::needs_shell;

const ENDS: &str = "A process that ends is restarted; foreman stops all then: `restart = \"never\"` and \
                    `on_success = \"shutdown\"`.";

/// The first port, and the distance to that of the next process. foreman(1)
const FIRST_PORT: usize = 5000;
const PORT_STEP: usize = 100;

pub(super) fn import(path: &Path, text: &str) -> Result<ConfigFile, ImportError> {
    let mut config = ConfigFile { notes: vec![ENDS.to_owned()], ..ConfigFile::default() };
    let has_env_file = path.with_file_name(".env").exists();
    if has_env_file {
        config.note("`env_file` is relative to the directory of keepalive.toml: put that beside the Procfile.");
    }
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.split_once(':').map(|(name, command)| (name.trim(), command.trim()));
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let Some((name, command)) = entry.filter(|(name, command)| is_name(name) && !command.is_empty()) else {
            let remedy = "a line of a Procfile is `NAME: COMMAND`";
            return Err(ImportError::at(path, number + 1, "this line is not understood", remedy));
        };
        let mut service = Service::new(name);
        set_command(&mut service, command);
        let port = FIRST_PORT + PORT_STEP * config.services.len();
        let value = if port == FIRST_PORT {
            Text(vec![Piece::Variable("PORT".to_owned(), Some(port.to_string()))])
        } else {
            config.note("PORT is that of the container for the first process, else 5000; the others are counted from 5000 here.");
            Text::literal(port.to_string())
        };
        service.add("env", "PORT", value);
        if has_env_file {
            service.set("env_file", Value::Array(vec![table([("path", ".env".into()), ("required", false.into())])]));
        }
        service.set("reload", "restart");
        config.add(service);
    }
    Ok(config)
}

/// `command` of a shell: executed without one where that comes to the same.
pub(super) fn set_command(service: &mut Service, command: &str) {
    const BUILTINS: [&str; 10] = ["cd", "source", ".", "export", "set", "if", "for", "while", "ulimit", "eval"];
    let (assignments, rest) = split_assignments(command);
    let plain = rest.strip_prefix("exec ").map_or(rest, str::trim_start);
    let is_builtin = plain.split_whitespace().next().is_some_and(|program| BUILTINS.contains(&program));
    if plain.contains([';', '&', '|', '\n', '(']) || is_builtin {
        return service.command(["sh", "-c", command].map(Text::literal).to_vec());
    }
    for (name, value) in assignments {
        service.add("env", &name, value);
    }
    let words = words::split(&words::with_shell_variables(plain));
    // A shell would make no argument, or several, of a variable that stands alone.
    let stands_alone = |word: &Text| matches!(word.0.as_slice(), [Piece::Variable(name, _)] if name != "PORT");
    match words.filter(|words| !words.is_empty() && !needs_shell(plain) && !words.iter().any(stands_alone)) {
        Some(words) => service.command(words.iter().map(known_port).collect()),
        None => service.command(vec![Text::literal("sh"), Text::literal("-c"), Text::literal(format!("exec {plain}"))]),
    }
}

/// `PORT` is always set.
fn known_port(word: &Text) -> Text {
    let piece = |piece: &Piece| match piece {
        Piece::Variable(name, _) if name == "PORT" => Piece::Variable(name.clone(), None),
        Piece::Literal(_) | Piece::Variable(..) | Piece::Placeholder(_) => piece.clone(),
    };
    Text(word.0.iter().map(piece).collect())
}

/// Leading `NAME=value`, and the rest.
fn split_assignments(command: &str) -> (Vec<(String, Text)>, &str) {
    let mut assignments = Vec::new();
    let mut rest = command;
    loop {
        let length = words::name_length(rest);
        let Some(after) = rest.get(length..).and_then(|after| after.strip_prefix('=')).filter(|_| length > 0) else {
            break;
        };
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let value = after.get(..end).unwrap_or_default();
        let words = words::split(&words::with_shell_variables(value));
        if needs_shell(&format!("x {value}")) || words.as_ref().is_none_or(|words| words.len() > 1) {
            return (Vec::new(), command);
        }
        let value = words.and_then(|words| words.into_iter().next()).unwrap_or_default();
        assignments.push((rest.get(..length).unwrap_or_default().to_owned(), value));
        rest = after.get(end..).unwrap_or_default().trim_start();
    }
    (assignments, rest)
}
