//! `keepalive describe`: a service or an instance in detail.

use serde_json::Value;

use super::client::{Client, CommandResult, service_path};
use super::output::print;
use super::request::{EXIT_FAILURE, Form};
use super::status::{Status, list, number, text};
use super::stream;
use super::table::shortened;
use crate::model::visible;

/// The number of events that are shown.
const EVENTS: u32 = 10;

/// Shows the state, the definition and the latest events of `name`.
pub(super) fn run(client: &Client, name: &str) -> CommandResult {
    let response = client.get(service_path(name, "").trim_end_matches('/'))?;
    if response.status != 200 {
        return client.print_refusal("describe", response);
    }
    let document = response.document()?;
    let events = client.get("/v1/events")?;
    if events.status != 200 {
        return client.print_refusal("describe", events);
    }
    let (events, _) = stream::last_events(events.all_lines()?, &[name.to_owned()], EVENTS);
    let mut value: Value = document.read()?;
    if client.form == Form::Json {
        let events = events.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let events: Vec<Value> = events.collect();
        if let Some(members) = value.as_object_mut() {
            members.insert("events".to_owned(), events.into());
        }
        print(format!("{value}\n"))?;
        return Ok(0);
    }
    let status: Status = document.read()?;
    let Some(service) = list(&value, "services").first() else { return Ok(EXIT_FAILURE) };
    let summary = status.summary();
    let mut shown = format!("{}\n{}\n", shortened(&summary, client.style.columns), status.table(client.style));
    let ends: String = list(service, "instances").iter().filter_map(last_exit).collect();
    let lines = ends + text(service, "text");
    shown.push_str(&String::from_utf8_lossy(&visible::lines(lines.as_bytes())));
    shown.push_str(if events.is_empty() { "" } else { "\nlatest events\n" });
    for line in stream::event_lines(&events).lines() {
        shown.push_str(&format!("  {line}\n"));
    }
    print(shown)?;
    Ok(0)
}

/// `last exit  web.0 exited with code 1`
fn last_exit(instance: &Value) -> Option<String> {
    let exit = instance.get("exit")?;
    let how = match (number(exit, "code"), text(exit, "signal")) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, "") => return None,
        (None, signal) => format!("was killed by {signal}"),
    };
    let is_oom = instance.get("oom_killed").and_then(Value::as_bool) == Some(true);
    let oom = if is_oom { " (out of memory)" } else { "" };
    Some(format!("  last exit  {} {how}{oom}\n", text(instance, "id")))
}
