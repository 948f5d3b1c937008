//! Performs a request: sends it, prints the response, and returns the exit code.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::client::{Client, CommandError, CommandResult, FindSet, STATUS_PATH, percent_encoded, service_path};
use super::http::Response;
use super::output::{json_line, output_error_code, print, print_error};
use super::request::{Change, EXIT_FAILURE, EXIT_UNREACHABLE, Follow, Form, Names, Request, Task};
use super::socket_paths::Environment;
use super::status::{Status, list, text};
use super::stream::{self, LogsWanted};
use super::table::shortened;
use super::{change, describe, exec, health, top};
use crate::model::glob::is_pattern;
use crate::model::visible::{self, one_line};
use crate::sys::ReadEnvFile;

/// The default time limit of completions, for which a shell waits while somebody types.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of names in one request. They must fit into its head, which is limited to 8 KiB.
const MAX_NAMES: usize = 100;

/// Performs `request` and returns the exit code: 0 done, 1 refused, unhealthy or unknown, 3 unreachable. `read` reads an
/// `env_file`. `exec` returns only if it fails.
#[must_use]
pub fn perform(request: &Request, environment: &Environment<'_>, find_set: FindSet<'_>, read: ReadEnvFile) -> u8 {
    let is_probe = matches!(request.task, Task::Alive | Task::Ready(_));
    // HEALTHCHECK knows 0 and 1 only.
    let unreachable = if is_probe { EXIT_FAILURE } else { EXIT_UNREACHABLE };
    let client = match Client::new(request, environment, find_set) {
        Ok(client) => client,
        Err(_) if matches!(request.task, Task::Names(_)) => return unreachable,
        Err(reason) => {
            print_error(&reason);
            return unreachable;
        }
    };
    let outcome = match &request.task {
        Task::Status(names) => show_status(&client, names),
        Task::Describe(names) => with_expanded(&client, "describe", names, &|names| describe::run(&client, names)),
        Task::Exec(name, command) => exec::run(&client, name, command, environment, read),
        Task::Change(Change::Reload, names) if names.is_empty() => {
            change::post(&client, "reload", &[], "/v1/reload", "", reason_text)
        }
        Task::Change(change, names) => {
            with_expanded(&client, change.as_str(), names, &|names| change_all(&client, *change, names))
        }
        Task::Scale(name, instances) => change::post(
            &client,
            &format!("scale {name}"),
            std::slice::from_ref(name),
            &service_path(name, "scale"),
            &format!("instances={}&", percent_encoded(instances)),
            reason_text,
        ),
        Task::Signal(name, signal) => {
            let query = format!("signal={}&", percent_encoded(&signal.to_string()));
            with_expanded(&client, "signal", std::slice::from_ref(name), &|names| {
                post_all(&client, "signal", names, &query, reason_text)
            })
        }
        Task::Logs { names, lines, since, timestamps, follow } => {
            let wanted =
                LogsWanted { lines: *lines, since: since.as_deref(), timestamps: *timestamps, follow: *follow };
            with_expanded(&client, "logs", names, &|names| stream::logs(&client, names, wanted))
        }
        Task::Events { names, lines, follow } => show_events(&client, names, *lines, *follow),
        Task::Top => top::run(&client, environment),
        Task::Alive => health::alive(&client),
        Task::Ready(name) => health::ready(&client, name.as_deref()),
        Task::Shutdown => change::post(&client, "shutdown", &[], "/v1/shutdown", "", result_text),
        Task::Names(which) => return show_names(&client, *which),
    };
    match outcome {
        Ok(code) => code,
        Err(CommandError::Output(error)) => output_error_code(&error),
        Err(CommandError::NoResponse(failure)) => {
            print_error(&failure.to_string());
            unreachable
        }
    }
}

/// Starts, stops or restarts `names` together, so that the server can keep to the order of their dependencies. Reloads one
/// after the other.
fn change_all(client: &Client, change: Change, names: &[String]) -> CommandResult {
    let action = change.as_str();
    if change == Change::Reload {
        return post_all(client, action, names, "", reason_text);
    }
    let mut code = 0;
    for names in names.chunks(MAX_NAMES) {
        let all: Vec<_> = names.iter().map(|name| percent_encoded(name)).collect();
        let path = format!("/v1/services/{}/{action}", all.join(","));
        let what = format!("{action} {}", names.join(" "));
        code = change::post(client, &what, names, &path, "", result_text)?.max(code);
    }
    Ok(code)
}

/// Requests `action` for one name after the other; one that fails does not keep the others from being tried.
fn post_all(
    client: &Client,
    action: &str,
    names: &[String],
    query: &str,
    words: fn(&str, &Value) -> String,
) -> CommandResult {
    let mut code = 0;
    for name in names {
        let (what, path) = (format!("{action} {name}"), service_path(name, action));
        code = change::post(client, &what, std::slice::from_ref(name), &path, query, words)?.max(code);
    }
    Ok(code)
}

/// Calls `perform` with the names that there are now in place of patterns, each once.
fn with_expanded(
    client: &Client,
    what: &str,
    names: &[String],
    perform: &dyn Fn(&[String]) -> CommandResult,
) -> CommandResult {
    if !names.iter().any(|name| is_pattern(name.as_bytes())) {
        let mut unique: Vec<String> = Vec::new();
        for name in names {
            if !unique.contains(name) {
                unique.push(name.clone());
            }
        }
        return perform(&unique);
    }
    let Some(document) = client.status()? else { return Ok(EXIT_FAILURE) };
    match document.read::<Status>()?.expanded(names) {
        Ok(names) => perform(&names),
        Err(reason) => refuse_names(client, what, &reason),
    }
}

/// Shows the events of names that exist; those of services that a pattern matches later, too.
fn show_events(client: &Client, names: &[String], lines: Option<u32>, follow: Follow) -> CommandResult {
    if !names.is_empty() {
        let Some(document) = client.status()? else { return Ok(EXIT_FAILURE) };
        if let Err(reason) = document.read::<Status>()?.select(names) {
            return refuse_names(client, "events", &reason);
        }
    }
    stream::events(client, names, lines, follow)
}

/// Reports that a name or a pattern selects nothing.
fn refuse_names(client: &Client, what: &str, reason: &str) -> CommandResult {
    if client.form == Form::Json {
        print(json_line(&json!({"instances": [], "reason": reason, "result": "not_found"})))?;
    }
    print_error(&format!("{what}: {reason}"));
    Ok(EXIT_FAILURE)
}

/// The result as text: the states of the instances, or the reason, or that it is done.
fn result_text(what: &str, value: &Value) -> String {
    let instances: String = list(value, "instances")
        .iter()
        .map(|instance| format!("{} {}\n", one_line(text(instance, "id")), one_line(text(instance, "state"))))
        .collect();
    match (instances.is_empty(), text(value, "reason")) {
        (false, _) => instances,
        (true, "") => format!("{what}: done\n"),
        (true, reason) => format!("{what}: {}\n", one_line(reason)),
    }
}

/// As [`result_text`], but the reason comes first: the request changes no state.
fn reason_text(what: &str, value: &Value) -> String {
    match text(value, "reason") {
        "" => result_text(what, value),
        reason => format!("{}\n", one_line(reason)),
    }
}

fn show_status(client: &Client, names: &[String]) -> CommandResult {
    let Some(document) = client.status()? else { return Ok(EXIT_FAILURE) };
    if client.form == Form::Json && names.is_empty() {
        // Any JSON is passed on.
        document.read::<IgnoredAny>()?;
        print(&document.text)?;
        return Ok(0);
    }
    let mut status: Status = document.read()?;
    if let Err(reason) = status.select(names) {
        return refuse_names(client, "status", &reason);
    }
    match client.form {
        Form::Json => {
            let mut value: Value = document.read()?;
            status.retain_selected(&mut value);
            print(json_line(&value))?;
        }
        Form::Text | Form::Quiet if names.is_empty() || !status.is_init() => {
            let summary = status.summary();
            let summary = shortened(&summary, client.style.columns);
            print(format!("{summary}\n{}", status.table(client.style)))?;
        }
        Form::Text | Form::Quiet => print(status.table(client.style))?,
    }
    if client.form != Form::Json && !names.is_empty() {
        print(visible::lines(status.last_lines().as_bytes()))?;
    }
    // Freeing thousands of pieces of memory would only delay the exit.
    std::mem::forget(status);
    Ok(0)
}

/// Prints names for completions. Errors are not reported: they would land in the line that somebody types.
fn show_names(client: &Client, which: Names) -> u8 {
    let timeout = client.timeout.unwrap_or(COMPLETION_TIMEOUT);
    let response = client.get_within(STATUS_PATH, timeout).and_then(Response::document);
    if let Ok(status) = response.and_then(|document| document.read::<Status>()) {
        print(status.names(which)).ok();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_change_lists_instances_or_the_reason() {
        let instances = json!([{"id": "web.0", "state": "running"}, {"id": "web.1", "state": "starting"}]);
        let response = json!({"result": "done", "reason": "", "instances": instances});
        assert_eq!(result_text("start web", &response), "web.0 running\nweb.1 starting\n");
        let reason = json!({"result": "done", "reason": "the ordered stop has begun"});
        assert_eq!(result_text("shutdown", &reason), "shutdown: the ordered stop has begun\n");
        assert_eq!(result_text("shutdown", &json!({})), "shutdown: done\n");
        let steering = json!({"instances": [{"id": "a\x1b[2J", "state": "b\nc"}], "reason": "d\x1b"});
        assert_eq!(
            (result_text("start a", &steering), reason_text("", &steering)),
            ("a\\x1b[2J b\\nc\n".to_owned(), "d\\x1b\n".to_owned())
        );
        let signal = json!({"reason": "SIGHUP sent to web", "instances": [{"id": "web.0", "state": "running"}]});
        assert_eq!(reason_text("signal web", &signal), "SIGHUP sent to web\n");
        assert_eq!(reason_text("signal web", &json!({})), "signal web: done\n");
    }
}
