//! Sends requests to a running keepalive, and prints refusals.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::http::{self, Document, PendingResponse, RequestError, Response};
use super::output::{Style, print, print_error, print_error_lines};
use super::request::{EXIT_FAILURE, Form, Request};
use super::socket_paths::{Environment, ServiceSet, SocketPath};
use super::status::text;

/// The default time limit of requests that change nothing.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const STATUS_PATH: &str = "/v1/status";

/// Finds what the keepalive runs that a client talks to: the set of the file of `-c`, or the one that keepalive would run here.
/// The error says why that file cannot be read.
pub type FindSet<'f> = &'f dyn Fn(Option<&Path>) -> Result<ServiceSet, String>;

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

/// Where to connect, how long to wait, and how to print the response.
#[derive(Debug)]
pub(super) struct Client {
    paths: Vec<SocketPath>,
    pub(super) form: Form,
    pub(super) style: Style,
    pub(super) timeout: Option<Duration>,
}

impl Client {
    /// # Errors
    /// As [`FindSet`].
    pub(super) fn new(request: &Request, environment: &Environment<'_>, find_set: FindSet<'_>) -> Result<Self, String> {
        let paths = match (&request.socket, &request.config, environment.variable_path()) {
            (Some(path), ..) => vec![SocketPath::given(path.clone())],
            (None, None, Some(path)) => vec![SocketPath::given(path)],
            (None, config, _) => environment.paths_of_set(&find_set(config.as_deref())?, user_of_init()),
        };
        let style = Style::find(environment.variable);
        Ok(Self { paths, form: request.form, style, timeout: request.timeout })
    }

    /// Sends a request that changes nothing.
    pub(super) fn get(&self, target: &str) -> Result<Response, RequestError> {
        self.get_within(target, self.timeout.unwrap_or(QUERY_TIMEOUT))
    }

    /// As [`Self::get`], with this time limit.
    pub(super) fn get_within(&self, target: &str, timeout: Duration) -> Result<Response, RequestError> {
        self.send("GET", target, timeout)?.response()
    }

    /// Sends a request. Neither that nor reading the response takes longer than `timeout`.
    pub(super) fn send(&self, method: &str, target: &str, timeout: Duration) -> Result<PendingResponse, RequestError> {
        http::connect(&self.paths, timeout)?.send(method, target)
    }

    /// As [`Self::get`]; `None`: the request was refused, and that has been printed.
    pub(super) fn fetch(&self, what: &str, target: &str) -> Result<Option<Response>, CommandError> {
        let response = self.get(target)?;
        if response.status == 200 {
            return Ok(Some(response));
        }
        self.print_refusal(what, response).map(|_| None)
    }

    /// The status; `None`: as [`Self::fetch`].
    pub(super) fn status(&self) -> Result<Option<Document>, CommandError> {
        Ok(self.fetch("status", STATUS_PATH)?.map(Response::document).transpose()?)
    }

    /// Prints a response that is a refusal.
    pub(super) fn print_refusal(&self, what: &str, response: Response) -> CommandResult {
        let status = response.status;
        let (body, value) = response.json()?;
        if self.form == Form::Json {
            print(&body)?;
        }
        print_warnings(&value);
        let reason = text(&value, "reason");
        let reason = if reason.is_empty() { format!("HTTP status {status}") } else { reason.to_owned() };
        match text(&value, "last_lines") {
            "" => print_error_lines(what, &reason),
            lines => print_error_lines(what, &format!("{reason}; last lines:\n{lines}")),
        }
        Ok(EXIT_FAILURE)
    }
}

/// Prints the warnings that an answer contains.
pub(super) fn print_warnings(answer: &Value) {
    text(answer, "warning").lines().for_each(|warning| print_error(&format!("warning: {warning}")));
}

/// The user that PID 1 runs as; `None`: /proc does not tell.
fn user_of_init() -> Option<u32> {
    fs::metadata("/proc/1").ok().map(|process| process.uid())
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

/// The path of `action` of the service or instance `name`.
pub(super) fn service_path(name: &str, action: &str) -> String {
    format!("/v1/services/{}/{action}", percent_encoded(name))
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
}
