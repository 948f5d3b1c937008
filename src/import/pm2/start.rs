//! How the process of an app is started: script, arguments, interpreter, environment.

use std::path::Path;

use crate::import::config_file::Service;
use crate::import::import_error::ImportError;
use crate::import::node::{Data, Node, error_at};
use crate::import::text::{Piece, Text};
use crate::import::words;

/// The interpreters of endings. PM2, lib/API/interpreter.json
const INTERPRETERS: [(&str, &str); 9] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("sh", "bash"),
    // PM2 prefers `python`, which many systems do not have.
    ("py", "python3"),
    ("rb", "ruby"),
    ("pl", "perl"),
    ("php", "php"),
    ("ts", "bun"),
];

/// The text of a scalar, in which evaluate.js has marked the variables.
pub(super) fn text_of(node: &Node) -> Option<Text> {
    let text = node.text()?;
    let mut result = Text::default();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('\u{1}') {
        result.push_str(before);
        let (variable, after) = after.split_once('\u{2}')?;
        let (name, default) = match variable.split_once('\u{3}') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (variable, None),
        };
        result.0.push(Piece::Variable(name.to_owned(), default));
        rest = after;
    }
    result.push_str(rest);
    Some(result)
}

/// Sets `command`.
pub(super) fn set_command(service: &mut Service, path: &Path, app: &Node) -> Result<(), ImportError> {
    let script = app.get("script").or_else(|| app.get("exec"));
    let Some((script, node)) = script.and_then(|node| Some((text_of(node)?, node))) else {
        return Err(error_at(path, app, "an app has no `script`", "such as script: 'server.js'"));
    };
    // PM2 gives a script with blanks to a shell.
    if let Some(line) = script.fixed().filter(|script| script.contains(' ')) {
        service.command(["bash", "-c", &line].map(Text::literal).to_vec());
        if app.get("args").is_some() {
            service.note("args: PM2 does not pass them on to a `script` with blanks");
        }
        return Ok(());
    }
    let ending = script.fixed().and_then(|script| Some(script.rsplit('/').next()?.rsplit_once('.')?.1.to_owned()));
    let by_ending = INTERPRETERS.iter().find(|(known, _)| Some(*known) == ending.as_deref()).map(|(_, name)| *name);
    let given = app.get("interpreter").or_else(|| app.get("exec_interpreter")).and_then(text_of);
    let is_none = |given: &Text| given.fixed().is_some_and(|name| matches!(name.as_str(), "none" | ""));
    // A script without ending is a program if it is found in PATH, else a script of node.
    let program = script.fixed().is_some_and(|script| ending.is_none() && !script.contains('/'));
    let interpreter = match given {
        Some(given) if is_none(&given) => None,
        Some(given) => Some(given),
        None => by_ending.map(Text::literal),
    };
    if interpreter.is_none() && by_ending.is_none() && !program && app.get("interpreter").is_none() {
        service.note("script: without an ending that PM2 knows it is executed here, and PM2 may give it to node");
    }
    let mut command: Vec<Text> = interpreter.into_iter().collect();
    for key in ["interpreter_args", "node_args"] {
        if let Some(node) = app.get(key) {
            command.extend(arguments(path, node)?);
        }
    }
    command.push(script);
    if let Some(node) = app.get("args") {
        command.extend(arguments(path, node)?);
    }
    if command.iter().any(Text::is_empty) && node.text().is_some_and(|text| text.is_empty()) {
        return Err(error_at(path, node, "`script` is empty", "such as script: 'server.js'"));
    }
    // PM2 wants to see the output at once.
    if command.first().and_then(Text::fixed).is_some_and(|program| program.contains("python")) {
        service.add("env", "PYTHONUNBUFFERED", "1");
    }
    service.command(command);
    Ok(())
}

/// A list, or a text that PM2 splits.
fn arguments(path: &Path, node: &Node) -> Result<Vec<Text>, ImportError> {
    let unclosed = || error_at(path, node, "a quote is not closed", "write a list: args: ['--port', '80']");
    match &node.data {
        Data::List(items) => Ok(items.iter().filter_map(text_of).collect()),
        Data::Null | Data::Boolean(_) | Data::Number(_) | Data::Text(_) | Data::Map(_) => {
            text_of(node).and_then(|text| words::split(&text)).ok_or_else(unclosed)
        }
    }
}

/// Sets `env`; environments of other names become comments.
pub(super) fn set_environment(service: &mut Service, app: &Node) {
    let has_instances = service.has("instances");
    for (name, node) in app.get("env").map(Node::entries).unwrap_or_default() {
        let Some(mut value) = text_of(node) else {
            if node.data != Data::Null {
                service.note(format!("env {name}: {} is not text", node.shown()));
            }
            continue;
        };
        if let [Piece::Variable(variable, default @ None)] = value.0.as_mut_slice() {
            // It is inherited.
            if variable == name {
                continue;
            }
            *default = Some(String::new());
        }
        service.add("env", name, value);
    }
    for (key, node) in app.entries().iter().filter(|(key, _)| key.starts_with("env_")) {
        service.note(format!("{key}: {}: put it into another `env_file`, or another file for `-c`", shown(node)));
    }
    if has_instances || app.get("instance_var").is_some() {
        let name = app.get("instance_var").and_then(Node::text).unwrap_or_else(|| "NODE_APP_INSTANCE".to_owned());
        service.add("env", &name, Text(vec![Piece::Placeholder("{instance}")]));
    }
    if let Some(name) = app.get("increment_var").and_then(Node::text).filter(|_| has_instances) {
        increment(service, app, &name);
    }
}

/// `increment_var`: a number of which digits can be put together, not a sum.
fn increment(service: &mut Service, app: &Node, name: &str) {
    let first = app.get("env").and_then(|env| env.get(name)).and_then(Node::text).unwrap_or_default();
    match first.strip_suffix('0').filter(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(rest) => {
            service.add("env", name, Text(vec![Piece::Literal(rest.to_owned()), Piece::Placeholder("{instance}")]));
            service
                .note(format!("increment_var {name}: digits are put together, not added: for ten instances at most"));
        }
        None => service.note(format!(
            "increment_var {name}={first}: write a number that ends with {{instance}}, such as 300{{instance}}"
        )),
    }
}

/// As [`Node::shown`], with variables.
pub(super) fn shown(node: &Node) -> String {
    let text = node.shown();
    let parts = text.split('\u{2}').map(|part| match part.split_once('\u{1}') {
        Some((before, variable)) => format!("{before}${{{}}}", variable.replace('\u{3}', ":-")),
        None => part.to_owned(),
    });
    parts.collect()
}
