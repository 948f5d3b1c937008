//! `healthcheck`.

use super::interpolation::text_of;
use crate::import::config_file::{Service, Value};
use crate::import::node::{Data, Node};
use crate::import::text::Text;
use crate::import::{units, words};

/// Sets `health`, and `ready` if another service waits for it.
pub(super) fn set_health(service: &mut Service, check: &Node, awaited: Awaited) {
    if check.get("disable").and_then(Node::boolean) == Some(true) {
        return;
    }
    let Some(command) = check.get("test").and_then(command) else {
        if check.get("test").is_none_or(|test| !test.shown().contains("NONE")) {
            service.note(format!("healthcheck: {} belongs to that of the image: write `health`", check.shown()));
        }
        return;
    };
    let mut entries = vec![("exec".to_owned(), Value::from(command.clone()))];
    // The defaults of Docker.
    for (key, default) in [("interval", "30s"), ("timeout", "30s"), ("start_period", "")] {
        let time = check.get(key).and_then(Node::text).and_then(|text| units::time_span(&text));
        let time = time.or_else(|| (!default.is_empty()).then(|| default.to_owned()));
        entries.extend(time.map(|time| (key.to_owned(), Value::from(time))));
    }
    let retries = check.get("retries").and_then(Node::text).and_then(|text| text.parse::<u64>().ok()).unwrap_or(3);
    entries.push(("retries".to_owned(), retries.into()));
    service.set("health", Value::Table(entries));
    // Docker only shows it.
    service.set("on_unhealthy", "mark");
    if check.get("start_interval").is_some() {
        service
            .note("healthcheck start_interval: the first check follows `interval`, and `ready` asks more often before");
    }
    if awaited == Awaited::UntilHealthy {
        service.set("ready", Value::Table(vec![("exec".to_owned(), command.into())]));
    }
}

/// Whether a service waits for the result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    No,
    UntilHealthy,
}

/// `["CMD", …]`, `["CMD-SHELL", "…"]`, `"…"`.
fn command(test: &Node) -> Option<Vec<Text>> {
    let shell = |script: Text| {
        // A single command needs no shell.
        let fixed = script.fixed().filter(|script| !crate::config::needs_shell(script) && !script.contains('$'));
        let words = fixed.and_then(|script| words::split(&Text::literal(script))).filter(|words| !words.is_empty());
        words.unwrap_or_else(|| vec![Text::literal("sh"), Text::literal("-c"), script])
    };
    if !matches!(test.data, Data::List(_)) {
        return text_of(test).map(shell);
    }
    let mut words = test.items().iter().filter_map(text_of);
    match words.next()?.fixed()?.as_str() {
        "CMD" => Some(words.collect()),
        "CMD-SHELL" => words.next().map(shell),
        _ => None,
    }
}
