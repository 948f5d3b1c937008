//! What runs, as a table.

use std::fmt::Write as _;

use serde_json::Value;

use super::human;
use super::output::Style;
use super::table::{Row, Side, Table};

/// A member of `value` that is text; empty if it is none.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A member of `value` that is a whole number.
pub(super) fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

/// The members of the array `key` of `value`.
pub(super) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What `names` name of `status`; all of it if there are none.
///
/// # Errors
/// The first name that names nothing.
pub(super) fn chosen(mut status: Value, names: &[String]) -> Result<Value, &str> {
    let is_all = |name: &String| name == "all";
    if let Some(unknown) = names.iter().find(|name| !is_all(name) && !is_known(&status, name)) {
        return Err(unknown);
    }
    if names.is_empty() || names.iter().any(is_all) {
        return Ok(status);
    }
    if let Some(services) = status.get_mut("services").and_then(Value::as_array_mut) {
        for service in services.iter_mut() {
            let whole = names.iter().any(|name| name == text(service, "name"));
            if let Some(instances) = service.get_mut("instances").and_then(Value::as_array_mut)
                && !whole
            {
                instances.retain(|instance| names.iter().any(|name| name == text(instance, "id")));
            }
        }
        services.retain(|service| {
            names.iter().any(|name| name == text(service, "name")) || !list(service, "instances").is_empty()
        });
    }
    Ok(status)
}

fn is_known(status: &Value, name: &str) -> bool {
    list(status, "services").iter().any(|service| {
        text(service, "name") == name || list(service, "instances").iter().any(|instance| text(instance, "id") == name)
    })
}

/// All names that can be given: of services, of instances where there are several, and `all`.
pub(super) fn names(status: &Value) -> String {
    let mut names = String::new();
    for service in list(status, "services") {
        let instances = list(service, "instances");
        let several = instances.iter().filter(|_| instances.len() > 1).map(|instance| text(instance, "id"));
        for name in std::iter::once(text(service, "name")).chain(several) {
            // A String takes every write.
            let _ = writeln!(names, "{name}");
        }
    }
    names.push_str("all\n");
    names
}

/// Every instance, and every service without one, in the order of `status`.
pub(super) fn instances(status: &Value) -> impl Iterator<Item = &Value> {
    list(status, "services").iter().flat_map(|service| {
        let instances = list(service, "instances");
        if instances.is_empty() { std::slice::from_ref(service) } else { instances }
    })
}

/// `keepalive 0.1.0, pid 1, up 2m10s: 5 running, 1 backoff`
pub(super) fn summary(status: &Value) -> String {
    // There are eight states at most.
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for instance in list(status, "services").iter().flat_map(|service| list(service, "instances")) {
        let state = text(instance, "state");
        match counts.iter_mut().find(|(known, _)| *known == state) {
            Some((_, count)) => *count += 1,
            None => counts.push((state, 1)),
        }
    }
    // The most first: what is normal.
    counts.sort_by(|(name, count), (other, others)| others.cmp(count).then(name.cmp(other)));
    let counts: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let state = if text(status, "state") == "stopping" { ", stopping" } else { "" };
    format!(
        "keepalive {}, pid {}, up {}{state}: {}",
        text(status, "version"),
        number(status, "pid").unwrap_or(0),
        human::age(number(status, "uptime_ms").unwrap_or(0)),
        if counts.is_empty() { "nothing to run".to_owned() } else { counts.join(", ") }
    )
}

/// The whole of `keepalive status`.
pub(super) fn table(status: &Value, style: Style) -> String {
    let rows = instances(status).map(|instance| {
        let [name, state, pid, uptime, restarts, cpu, memory] = cells(instance);
        row(instance, [name, state, pid, uptime, restarts, cpu, memory])
    });
    let head = [
        ("NAME", Side::Left),
        ("STATE", Side::Left),
        ("PID", Side::Right),
        ("UPTIME", Side::Right),
        ("RESTARTS", Side::Right),
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
    ];
    Table { head, rows: rows.collect() }.render(style.columns, style.colour)
}

/// Name, state, pid, uptime, restarts, time spent and memory.
pub(super) fn cells(instance: &Value) -> [String; 7] {
    let or_dash = |number: Option<u64>, show: fn(u64) -> String| number.map_or_else(|| "-".to_owned(), show);
    let runs = number(instance, "pid");
    let name = if text(instance, "id").is_empty() { text(instance, "name") } else { text(instance, "id") };
    [
        name.to_owned(),
        text(instance, "state").to_owned(),
        or_dash(runs, |pid| pid.to_string()),
        or_dash(number(instance, "uptime_ms"), human::age),
        or_dash(number(instance, "restarts"), |restarts| restarts.to_string()),
        or_dash(number(instance, "cpu_ms").filter(|_| runs.is_some()), human::spent),
        or_dash(number(instance, "rss_bytes").filter(|_| runs.is_some()), human::bytes),
    ]
}

/// A row that tells why `instance` does not plainly run.
pub(super) fn row<const N: usize>(instance: &Value, cells: [String; N]) -> Row<N> {
    let state = text(instance, "state");
    let not_ready = state == "running" && instance.get("ready") == Some(&Value::Bool(false));
    let killed = instance.get("oom_killed") == Some(&Value::Bool(true));
    let mut note = match state {
        "running" | "completed" => String::new(),
        _ => text(instance, "reason").to_owned(),
    };
    if not_ready {
        note = format!("not ready; {}", text(instance, "reason"));
    }
    if killed && !note.contains("memory") && state != "running" {
        note.push_str("; killed by the kernel, which was out of memory");
    }
    let colour = match state {
        "running" if not_ready => "33",
        "running" => "32",
        "failed" => "31",
        "backoff" | "starting" | "stopping" | "waiting" => "33",
        _ => "2",
    };
    Row { cells, colour, note: note.trim_matches([';', ' ']).to_owned() }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
