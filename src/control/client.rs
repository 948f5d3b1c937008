//! Performs a request: sends it, prints the response, and returns the exit code.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::http::{self, Document, PendingResponse, RequestError, Response};
use super::output::{Style, output_error_code, print, print_error, print_error_lines, without_control_chars};
use super::socket_paths::{SocketPath, socket_paths};
use super::status::{Status, list, text};
use super::table::shortened;
use super::{Change, EXIT_FAILURE, EXIT_UNREACHABLE, Form, Names, Request, Task, health, stream, top};
use crate::model::units::format_duration;

/// The default time limit of requests that change nothing.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// The default time limit of completions, for which a shell waits while somebody types.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(1);
/// The default time limit of requests that change something.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
const STATUS_PATH: &str = "/v1/status";
/// How much longer the client waits than the server, so that the server's answer, which has the reason, comes first.
const SERVER_TIMEOUT_MARGIN: Duration = Duration::from_secs(5);

/// What a client uses of its environment.
#[derive(Clone, Copy)]
pub struct Environment<'s> {
    /// Returns a variable of the environment.
    pub variable: &'s dyn Fn(&str) -> Option<OsString>,
    /// The effective user.
    pub user: u32,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Surroundings").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a request fails without a response.
#[derive(Debug)]
pub(super) enum CommandError {
    /// There is no response.
    NoResponse(RequestError),
    /// stdout cannot be written to.
    Output(io::Error),
}

impl From<RequestError> for CommandError {
    fn from(failure: RequestError) -> Self {
        Self::NoResponse(failure)
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// The exit code, or why there is no response.
pub(super) type CommandResult = Result<u8, CommandError>;

/// Performs `request` and returns the exit code: 0 done, 1 refused, unhealthy or unknown, 3 unreachable.
#[must_use]
pub fn perform(request: &Request, environment: &Environment<'_>) -> u8 {
    let client = Client::new(request, environment);
    let outcome = match &request.task {
        Task::Status(names) => show_status(&client, names),
        Task::Change(Change::Reload, names) if names.is_empty() => client.post("reload", "/v1/reload", "", reason_text),
        Task::Change(change, names) => client.change_all(*change, names),
        Task::Scale(name, instances) => client.post(
            &format!("scale {name}"),
            &service_path(name, "scale"),
            &format!("instances={instances}&"),
            result_text,
        ),
        Task::Signal(name, signal) => {
            let query = format!("signal={}&", percent_encoded(&signal.to_string()));
            client.post(&format!("signal {name}"), &service_path(name, "signal"), &query, reason_text)
        }
        Task::Logs { names, lines, follow } => stream::logs(&client, names, *lines, *follow),
        Task::Events(follow) => stream::events(&client, *follow),
        Task::Top => top::run(&client, environment),
        Task::Alive => health::alive(&client),
        Task::Ready(name) => health::ready(&client, name.as_deref()),
        Task::Shutdown => client.post("shutdown", "/v1/shutdown", "", result_text),
        Task::Names(which) => return show_names(&client, *which),
    };
    let is_probe = matches!(request.task, Task::Alive | Task::Ready(_));
    match outcome {
        Ok(code) => code,
        Err(CommandError::Output(error)) if is_probe => output_error_code(&error).min(EXIT_FAILURE),
        Err(CommandError::Output(error)) => output_error_code(&error),
        Err(CommandError::NoResponse(failure)) => {
            print_error(&failure.to_string());
            // HEALTHCHECK knows 0 and 1 only.
            if is_probe { EXIT_FAILURE } else { EXIT_UNREACHABLE }
        }
    }
}

/// Where to connect, how long to wait, and how to print the response.
#[derive(Debug)]
pub(super) struct Client {
    paths: Vec<SocketPath>,
    user: u32,
    pub(super) form: Form,
    pub(super) style: Style,
    timeout: Option<Duration>,
}

impl Client {
    fn new(request: &Request, environment: &Environment<'_>) -> Self {
        let paths = match &request.socket {
            Some(path) => vec![SocketPath { path: path.clone(), public: false }],
            None => socket_paths(environment.variable, environment.user),
        };
        let style = Style::find(environment.variable);
        Self { paths, user: environment.user, form: request.form, style, timeout: request.timeout }
    }

    /// Sends a request that changes nothing.
    pub(super) fn get(&self, target: &str) -> Result<Response, RequestError> {
        self.request("GET", target, self.timeout.unwrap_or(QUERY_TIMEOUT))
    }

    fn request(&self, method: &str, target: &str, timeout: Duration) -> Result<Response, RequestError> {
        http::connect(&self.paths, self.user, timeout)?.request(method, target)
    }

    /// Sends a request for the status. Neither that nor reading the response takes longer than `timeout`.
    pub(super) fn request_status(&self, timeout: Duration) -> Result<PendingResponse, RequestError> {
        http::connect(&self.paths, self.user, timeout)?.send("GET", STATUS_PATH)
    }

    /// The status; `None`: the request was refused, and that has been printed.
    pub(super) fn status(&self) -> Result<Option<Document>, CommandError> {
        let response = self.get(STATUS_PATH)?;
        if response.status == 200 {
            return Ok(Some(response.document()?));
        }
        self.print_refusal("status", response).map(|_| None)
    }

    /// Prints a response that is a refusal.
    pub(super) fn print_refusal(&self, what: &str, response: Response) -> CommandResult {
        let status = response.status;
        let (body, value) = response.json()?;
        if self.form == Form::Json {
            print(&body)?;
        }
        let reason = text(&value, "reason");
        let reason = if reason.is_empty() { format!("HTTP status {status}") } else { reason.to_owned() };
        print_error_lines(what, &reason);
        Ok(EXIT_FAILURE)
    }

    /// Changes one after the other; one that fails does not keep the others from being tried.
    fn change_all(&self, change: Change, names: &[String]) -> CommandResult {
        let mut code = 0;
        for name in names {
            let what = format!("{} {name}", change.as_str());
            let words = if change == Change::Reload { reason_text } else { result_text };
            code = self.post(&what, &service_path(name, change.as_str()), "", words)?.max(code);
        }
        Ok(code)
    }

    /// Sends a request to change something, and prints the result as `text` makes it. `query` ends with `&` unless empty.
    fn post(&self, what: &str, target: &str, query: &str, words: fn(&str, &Value) -> String) -> CommandResult {
        let timeout = self.timeout.unwrap_or(CHANGE_TIMEOUT);
        let target = format!("{target}?{query}timeout={}", format_duration(timeout));
        let response = self.request("POST", &target, timeout.saturating_add(SERVER_TIMEOUT_MARGIN))?;
        if response.status != 200 {
            return self.print_refusal(what, response);
        }
        let (body, value) = response.json()?;
        match self.form {
            Form::Json => print(&body)?,
            Form::Text => print(words(what, &value))?,
        }
        Ok(0)
    }
}

/// The result as text: the states of the instances, or the reason, or that it is done.
fn result_text(what: &str, value: &Value) -> String {
    let instances: String = list(value, "instances")
        .iter()
        .map(|instance| {
            without_control_chars(text(instance, "id")) + " " + &without_control_chars(text(instance, "state")) + "\n"
        })
        .collect();
    match (instances.is_empty(), text(value, "reason")) {
        (false, _) => instances,
        (true, "") => format!("{what}: done\n"),
        (true, reason) => format!("{what}: {}\n", without_control_chars(reason)),
    }
}

/// As [`result_text`], but the reason comes first: the request changes no state.
fn reason_text(what: &str, value: &Value) -> String {
    match text(value, "reason") {
        "" => result_text(what, value),
        reason => format!("{}\n", without_control_chars(reason)),
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
    if let Err(unknown) = status.select(names) {
        let reason = status.unknown_name_text(unknown);
        if client.form == Form::Json {
            print(format!("{}\n", json!({"instances": [], "reason": reason, "result": "not_found"})))?;
        }
        print_error(&format!("status: {reason}"));
        return Ok(EXIT_FAILURE);
    }
    match client.form {
        Form::Json => {
            let mut value: Value = document.read()?;
            status.retain_selected(&mut value);
            print(format!("{value}\n"))?;
        }
        Form::Text if names.is_empty() => {
            let summary = status.summary();
            let summary = shortened(&summary, client.style.columns);
            print(format!("{summary}\n{}", status.table(client.style)))?;
        }
        Form::Text => print(status.table(client.style))?,
    }
    // Freeing thousands of pieces of memory would only delay the exit.
    std::mem::forget(status);
    Ok(0)
}

/// Prints names for completions. Errors are not reported: they would land in the line that somebody types.
fn show_names(client: &Client, which: Names) -> u8 {
    let timeout = client.timeout.unwrap_or(COMPLETION_TIMEOUT);
    let response = client.request("GET", STATUS_PATH, timeout).and_then(Response::document);
    if let Ok(status) = response.and_then(|document| document.read::<Status>()) {
        print(status.names(which)).ok();
    }
    0
}

fn service_path(name: &str, action: &str) -> String {
    format!("/v1/services/{}/{action}", percent_encoded(name))
}

/// Percent-encodes `text` for a path or a query. RFC 3986, section 2.3.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut percent_encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            percent_encoded.push(char::from(byte));
        } else {
            percent_encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    percent_encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_characters_are_percent_encoded() {
        assert_eq!(percent_encoded("web.2_a-b"), "web.2_a-b");
        assert_eq!(percent_encoded("SIGRTMIN+3"), "SIGRTMIN%2B3");
        assert_eq!(percent_encoded("a/b ä"), "a%2Fb%20%C3%A4");
    }

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
            ("a [2J b c\n".to_owned(), "d \n".to_owned())
        );
        let signal = json!({"reason": "SIGHUP sent to web", "instances": [{"id": "web.0", "state": "running"}]});
        assert_eq!(reason_text("signal web", &signal), "SIGHUP sent to web\n");
        assert_eq!(reason_text("signal web", &json!({})), "signal web: done\n");
    }
}
