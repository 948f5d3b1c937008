//! A service of Compose → one of keepalive.

use std::path::Path;

use super::health::{Awaited, set_health};
use super::interpolation::text_of;
use crate::import::config_file::{Service, Value, table};
use crate::import::import_error::ImportError;
use crate::import::node::{Data, Node, error_at};
use crate::import::text::Text;
use crate::import::{units, words};
use crate::model::Signal;

/// A service and its surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'s> {
    pub(super) path: &'s Path,
    pub(super) name: &'s str,
    pub(super) node: &'s Node,
    pub(super) services: &'s Node,
}

/// The conditions of `depends_on`.
const HEALTHY: &str = "service_healthy";
const COMPLETED: &str = "service_completed_successfully";

pub(super) fn service(source: &Source<'_>) -> Result<Service, ImportError> {
    let mut service = Service::new(source.name);
    set_command(&mut service, source)?;
    set_environment(&mut service, source.node);
    set_identity(&mut service, source.node);
    set_dependencies(&mut service, source);
    let is_oneshot = is_awaited(source, COMPLETED);
    if is_oneshot {
        service.set("type", "oneshot");
    } else {
        service.set("reload", "restart");
    }
    set_restart(&mut service, source)?;
    set_stop(&mut service, source)?;
    set_limits(&mut service, source.node);
    if let Some(check) = source.node.get("healthcheck").filter(|_| !is_oneshot) {
        let awaited = if is_awaited(source, HEALTHY) { Awaited::UntilHealthy } else { Awaited::No };
        set_health(&mut service, check, awaited);
    } else if is_awaited(source, HEALTHY) {
        service.note("others wait until it is healthy by the check of its image: write `ready = { … }`");
    }
    note_others(&mut service, source.node);
    Ok(service)
}

/// `entrypoint` and `command`; without either, the image decides, and the service is only a comment.
fn set_command(service: &mut Service, source: &Source<'_>) -> Result<(), ImportError> {
    let mut command = Vec::new();
    for key in ["entrypoint", "command"] {
        let Some(node) = source.node.get(key) else { continue };
        let unclosed =
            || error_at(source.path, node, format!("a quote of `{key}` is not closed"), "write a list: [\"a\", \"b\"]");
        if matches!(node.data, Data::List(_)) {
            command.extend(node.items().iter().filter_map(text_of));
        } else if let Some(text) = text_of(node) {
            command.extend(words::split(&text).ok_or_else(unclosed)?);
        }
    }
    let image = source
        .node
        .get("image")
        .or_else(|| source.node.get("build"))
        .map_or_else(|| "its image".to_owned(), Node::shown);
    if command.is_empty() {
        service.is_off = true;
        service.note(format!(
            "what it runs is said by `{image}`, ENTRYPOINT and CMD of docker image inspect: write it as `command`, and remove the `# `"
        ));
        command = vec![Text::literal("…")];
    } else if source.node.get("entrypoint").is_none() {
        service.note(format!(
            "image: {image}: its ENTRYPOINT, if it has one, is a part of the command there, and not here"
        ));
    }
    service.command(command);
    Ok(())
}

fn set_environment(service: &mut Service, node: &Node) {
    let environment = node.get("environment");
    for (name, value) in environment.map(Node::entries).unwrap_or_default() {
        // Without a value it is inherited.
        if let Some(value) = text_of(value) {
            service.add("env", name, value);
        }
    }
    let list = environment.filter(|node| matches!(node.data, Data::List(_))).map(Node::items).unwrap_or_default();
    for text in list.iter().filter_map(Node::text) {
        if let Some((name, value)) = text.split_once('=') {
            service.add("env", name, super::interpolation::interpolate(value));
        }
    }
    let mut files = Vec::new();
    for file in node.get("env_file").map(Node::items).unwrap_or_default() {
        let is_optional = file.get("required").and_then(Node::boolean) == Some(false);
        let Some(path) = text_of(file.get("path").unwrap_or(file)) else { continue };
        if is_optional {
            files.push(table([("path", path.into()), ("required", false.into())]));
        } else {
            files.push(path.into());
        }
    }
    if !files.is_empty() {
        service.set("env_file", Value::Array(files));
    }
}

fn set_identity(service: &mut Service, node: &Node) {
    if let Some(directory) = node.get("working_dir").and_then(text_of) {
        service.set("cwd", directory);
    }
    let Some(user) = node.get("user").and_then(text_of) else { return };
    match user.fixed().as_deref().and_then(|user| user.split_once(':')) {
        Some((user, group)) => {
            service.set("user", user);
            service.set("group", group);
        }
        None => service.set("user", user),
    }
    if let Some(groups) = node.get("group_add") {
        service.set("groups", groups.items().iter().filter_map(text_of).collect::<Vec<_>>());
    }
}

/// The names and conditions of `depends_on`.
fn dependencies(node: &Node) -> Vec<(String, String)> {
    let Some(depends_on) = node.get("depends_on") else { return Vec::new() };
    let listed = || depends_on.items().iter().filter_map(|name| Some((name.text()?, String::new())));
    let condition = |node: &Node| node.get("condition").and_then(Node::text).unwrap_or_default();
    match &depends_on.data {
        Data::Map(entries) => entries.iter().map(|(name, node)| (name.clone(), condition(node))).collect(),
        Data::Null | Data::Boolean(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => listed().collect(),
    }
}

/// Whether another service waits for this one on `condition`.
fn is_awaited(source: &Source<'_>, condition: &str) -> bool {
    let names_it = |(name, of): &(String, String)| name == source.name && of == condition;
    source.services.entries().iter().any(|(_, node)| dependencies(node).iter().any(names_it))
}

fn set_dependencies(service: &mut Service, source: &Source<'_>) {
    let mut names = Vec::new();
    for (name, _) in dependencies(source.node) {
        let other = source.services.get(&name);
        let has_command = other.is_some_and(|node| node.get("command").or_else(|| node.get("entrypoint")).is_some());
        if has_command {
            names.push(Text::literal(name));
        } else {
            service.note(format!("depends_on {name}: not here, since that has no `command`"));
        }
    }
    if !names.is_empty() {
        service.set("depends_on", names);
    }
}

fn set_restart(service: &mut Service, source: &Source<'_>) -> Result<(), ImportError> {
    let deploy = source.node.get("deploy");
    let policy = deploy.and_then(|deploy| deploy.get("restart_policy"));
    let condition = policy.and_then(|policy| policy.get("condition")).and_then(Node::text);
    let written = source.node.get("restart");
    let word = written.and_then(|node| node.boolean().map(|_| "no".to_owned()).or_else(|| node.text())).or(condition);
    match word.as_deref().unwrap_or("no").split_once(':').unwrap_or((word.as_deref().unwrap_or("no"), "")) {
        ("always" | "unless-stopped" | "any", _) => {}
        ("no" | "none", _) => service.set("restart", "never"),
        ("on-failure", number) => {
            service.set("restart", "on-failure");
            if let Ok(number) = number.parse::<u64>() {
                service.set("max_restarts", number);
                service.note("restart on-failure:N counts all restarts there, and short runs in a row here");
            }
        }
        (other, _) => {
            let message = format!("`restart: {other}` is not understood");
            return Err(error_at(
                source.path,
                written.unwrap_or(source.node),
                message,
                "no, always, on-failure or unless-stopped",
            ));
        }
    }
    let replicas = source.node.get("scale").or_else(|| deploy?.get("replicas"));
    if let Some(number) = replicas.and_then(text_of).filter(|number| number.fixed().as_deref() != Some("1")) {
        match number.fixed().and_then(|number| number.parse::<u64>().ok()) {
            Some(number) => service.set("instances", number),
            None => service.set("instances", number),
        }
    }
    if let Some(profiles) = source.node.get("profiles") {
        service.set("autostart", false);
        service.note(format!("profiles: {}: it is started by `keepalive start {}`", profiles.shown(), source.name));
    }
    Ok(())
}

fn set_stop(service: &mut Service, source: &Source<'_>) -> Result<(), ImportError> {
    if let Some(node) = source.node.get("stop_signal") {
        let name = node.text().unwrap_or_default();
        let wrong = || error_at(source.path, node, format!("`stop_signal: {name}` is not a signal"), "such as SIGINT");
        service.set("stop_signal", Signal::parse(&name).ok_or_else(wrong)?.to_string());
    }
    if let Some(node) = source.node.get("stop_grace_period") {
        let text = node.text().unwrap_or_default();
        let wrong =
            || error_at(source.path, node, format!("`stop_grace_period: {text}` is not a time"), "such as 1m30s");
        service.set("stop_timeout", units::time_span(&text).ok_or_else(wrong)?);
    }
    Ok(())
}

fn set_limits(service: &mut Service, node: &Node) {
    for (name, limit) in node.get("ulimits").map(Node::entries).unwrap_or_default() {
        let number = |node: &Node| match node.text()?.as_str() {
            "-1" => Some(Value::from("unlimited")),
            text => text.parse::<u64>().ok().map(Value::from),
        };
        let both = || Some(table([("soft", number(limit.get("soft")?)?), ("hard", number(limit.get("hard")?)?)]));
        if let Some(value) = number(limit).or_else(both) {
            service.add("limits", name, value);
        }
    }
    if let Some(score) = node.get("oom_score_adj").and_then(Node::text).filter(|score| score.parse::<i32>().is_ok()) {
        service.set("oom_score_adj", Value::Number(score));
    }
    let limits = node.get("deploy").and_then(|deploy| deploy.get("resources")?.get("limits")?.get("memory"));
    if let Some(memory) = node.get("mem_limit").or(limits).and_then(Node::text) {
        service.note(format!("memory {memory}: that of the container limits all services; `max_memory` restarts one"));
    }
    if node.get("security_opt").is_some_and(|options| options.shown().contains("no-new-privileges")) {
        service.set("no_new_privs", true);
    }
}

fn note_others(service: &mut Service, node: &Node) {
    let mut of_container = Vec::new();
    for (key, value) in node.entries() {
        match key.as_str() {
            "extends" => service.note(format!("extends: {}: what it takes from there is missing here", value.shown())),
            "tty" | "stdin_open" if value.boolean() == Some(true) => {
                service.note(format!("{key}: no service has a terminal; `keepalive -c FILE -- CMD` gives one to CMD"));
            }
            key if KNOWN.contains(&key) || key.starts_with("x-") => {}
            key => of_container.push(key),
        }
    }
    if !of_container.is_empty() {
        service.note(format!("{}: of the container, not of a service", of_container.join(", ")));
    }
}

/// Keys that are handled, or not needed.
const KNOWN: [&str; 26] = [
    "command",
    "entrypoint",
    "image",
    "environment",
    "env_file",
    "working_dir",
    "user",
    "group_add",
    "depends_on",
    "restart",
    "deploy",
    "scale",
    "profiles",
    "stop_signal",
    "stop_grace_period",
    "ulimits",
    "oom_score_adj",
    "mem_limit",
    "security_opt",
    "healthcheck",
    "init",
    "tty",
    "stdin_open",
    "extends",
    "container_name",
    "build",
];
