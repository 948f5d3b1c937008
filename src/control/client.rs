//! A request: what is sent, what is printed, the exit code.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::http::{self, Answer, Document, Failure, Pending};
use super::output::{Style, harmless, print, tell, tell_lines, unwritten};
use super::places::{Place, places};
use super::status::{Status, list, text};
use super::table::shortened;
use super::{Change, Form, NO, NOBODY, Names, Request, Task, health, lines, top};
use crate::model::units::format_duration;

/// How long what only looks may take.
const LOOK: Duration = Duration::from_secs(5);
/// For what a shell waits for in the middle of a line.
const COMPLETE: Duration = Duration::from_secs(1);
/// How long what changes something may take.
const CHANGE: Duration = Duration::from_secs(60);
const STATUS: &str = "/v1/status";
/// How much longer we wait than the server, so that its answer, which says why, comes first.
const SLACK: Duration = Duration::from_secs(5);

/// What a client knows of the world.
#[derive(Clone, Copy)]
pub struct Surroundings<'s> {
    /// A variable of the environment.
    pub variable: &'s dyn Fn(&str) -> Option<OsString>,
    /// The effective user.
    pub user: u32,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Surroundings").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a request ends without an answer having been shown.
#[derive(Debug)]
pub(super) enum Stop {
    /// There is none.
    NoAnswer(Failure),
    /// stdout cannot be written to.
    Unwritten(io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::NoAnswer(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unwritten(error)
    }
}

/// The exit code, unless it came to nothing.
pub(super) type Outcome = Result<u8, Stop>;

/// Asks, prints the answer, and gives back the exit code: 0 done, 1 the answer is no, 3 nothing answers.
#[must_use]
pub fn perform(request: &Request, surroundings: &Surroundings<'_>) -> u8 {
    let client = Client::new(request, surroundings);
    let outcome = match &request.task {
        Task::Status(names) => show_status(&client, names),
        Task::Change(Change::Reload, names) if names.is_empty() => client.act("reload", "/v1/reload", "", said),
        Task::Change(change, names) => client.change_all(*change, names),
        Task::Scale(name, instances) => {
            client.act(&format!("scale {name}"), &service(name, "scale"), &format!("instances={instances}&"), done)
        }
        Task::Signal(name, signal) => {
            let query = format!("signal={}&", encoded(&signal.to_string()));
            client.act(&format!("signal {name}"), &service(name, "signal"), &query, said)
        }
        Task::Logs { names, lines, follow } => lines::logs(&client, names, *lines, *follow),
        Task::Events(follow) => lines::events(&client, *follow),
        Task::Top => top::run(&client, surroundings),
        Task::Alive => health::alive(&client),
        Task::Ready(name) => health::ready(&client, name.as_deref()),
        Task::Shutdown => client.act("shutdown", "/v1/shutdown", "", done),
        Task::Names(which) => return show_names(&client, *which),
    };
    let is_probe = matches!(request.task, Task::Alive | Task::Ready(_));
    match outcome {
        Ok(code) => code,
        Err(Stop::Unwritten(error)) if is_probe => unwritten(&error).min(NO),
        Err(Stop::Unwritten(error)) => unwritten(&error),
        Err(Stop::NoAnswer(failure)) => {
            tell(&failure.to_string());
            // HEALTHCHECK knows 0 and 1 and nothing else.
            if is_probe { NO } else { NOBODY }
        }
    }
}

/// Whom to ask, how long to wait, and how to print what comes.
#[derive(Debug)]
pub(super) struct Client {
    places: Vec<Place>,
    user: u32,
    pub(super) form: Form,
    pub(super) style: Style,
    timeout: Option<Duration>,
}

impl Client {
    fn new(request: &Request, surroundings: &Surroundings<'_>) -> Self {
        let places = match &request.socket {
            Some(path) => vec![Place { path: path.clone(), public: false }],
            None => places(surroundings.variable, surroundings.user),
        };
        let style = Style::find(surroundings.variable);
        Self { places, user: surroundings.user, form: request.form, style, timeout: request.timeout }
    }

    /// Asks for something that changes nothing.
    pub(super) fn look(&self, target: &str) -> Result<Answer, Failure> {
        self.ask("GET", target, self.timeout.unwrap_or(LOOK))
    }

    fn ask(&self, method: &str, target: &str, patience: Duration) -> Result<Answer, Failure> {
        http::connect(&self.places, self.user, patience)?.ask(method, target)
    }

    /// Asks for the state of everything, and neither that nor reading the answer takes longer than `patience`.
    pub(super) fn ask_for_status(&self, patience: Duration) -> Result<Pending, Failure> {
        http::connect(&self.places, self.user, patience)?.send("GET", STATUS)
    }

    /// The state of everything; `None`: the answer was no, and has been shown.
    pub(super) fn status(&self) -> Result<Option<Document>, Stop> {
        let answer = self.look(STATUS)?;
        if answer.status == 200 {
            return Ok(Some(answer.document()?));
        }
        self.refused("status", answer).map(|_| None)
    }

    /// Shows an answer that is no.
    pub(super) fn refused(&self, what: &str, answer: Answer) -> Outcome {
        let status = answer.status;
        let (body, value) = answer.json()?;
        if self.form == Form::Json {
            print(&body)?;
        }
        let reason = text(&value, "reason");
        let reason = if reason.is_empty() { format!("HTTP status {status}") } else { reason.to_owned() };
        tell_lines(what, &reason);
        Ok(NO)
    }

    /// One after the other; one that fails does not keep the others from being tried.
    fn change_all(&self, change: Change, names: &[String]) -> Outcome {
        let mut code = 0;
        for name in names {
            let what = format!("{} {name}", change.as_str());
            let words = if change == Change::Reload { said } else { done };
            code = self.act(&what, &service(name, change.as_str()), "", words)?.max(code);
        }
        Ok(code)
    }

    /// Asks for `what`, and says in `words` what has become of it. `query` ends with `&` unless it is empty.
    fn act(&self, what: &str, target: &str, query: &str, words: fn(&str, &Value) -> String) -> Outcome {
        let timeout = self.timeout.unwrap_or(CHANGE);
        let target = format!("{target}?{query}timeout={}", format_duration(timeout));
        let answer = self.ask("POST", &target, timeout.saturating_add(SLACK))?;
        if answer.status != 200 {
            return self.refused(what, answer);
        }
        let (body, value) = answer.json()?;
        match self.form {
            Form::Json => print(&body)?,
            Form::Text => print(words(what, &value))?,
        }
        Ok(0)
    }
}

/// What has been done, in words: the instances as they are now, or the reason, or at least what was asked for.
fn done(what: &str, value: &Value) -> String {
    let instances: String = list(value, "instances")
        .iter()
        .map(|instance| harmless(text(instance, "id")) + " " + &harmless(text(instance, "state")) + "\n")
        .collect();
    match (instances.is_empty(), text(value, "reason")) {
        (false, _) => instances,
        (true, "") => format!("{what}: done\n"),
        (true, reason) => format!("{what}: {}\n", harmless(reason)),
    }
}

/// As [`done`] of what changes no state, so that the reason says more than that.
fn said(what: &str, value: &Value) -> String {
    match text(value, "reason") {
        "" => done(what, value),
        reason => format!("{}\n", harmless(reason)),
    }
}

fn show_status(client: &Client, names: &[String]) -> Outcome {
    let Some(document) = client.status()? else { return Ok(NO) };
    if client.form == Form::Json && names.is_empty() {
        // Whatever it says, as long as it is JSON.
        document.read::<IgnoredAny>()?;
        print(&document.text)?;
        return Ok(0);
    }
    let mut status: Status = document.read()?;
    if let Err(unknown) = status.choose(names) {
        let reason = status.unknown(unknown);
        if client.form == Form::Json {
            print(format!("{}\n", json!({"instances": [], "reason": reason, "result": "not_found"})))?;
        }
        tell(&format!("status: {reason}"));
        return Ok(NO);
    }
    match client.form {
        Form::Json => {
            let mut value: Value = document.read()?;
            status.leave_chosen(&mut value);
            print(format!("{value}\n"))?;
        }
        Form::Text if names.is_empty() => {
            let summary = status.summary();
            let summary = shortened(&summary, client.style.columns);
            print(format!("{summary}\n{}", status.table(client.style)))?;
        }
        Form::Text => print(status.table(client.style))?,
    }
    // Thousands of pieces of memory, and the end of the process frees them at once.
    std::mem::forget(status);
    Ok(0)
}

/// Nobody wants to read of errors in the middle of the line that he is typing.
fn show_names(client: &Client, which: Names) -> u8 {
    let patience = client.timeout.unwrap_or(COMPLETE);
    let answer = client.ask("GET", STATUS, patience).and_then(Answer::document);
    if let Ok(status) = answer.and_then(|document| document.read::<Status>()) {
        print(status.names(which)).ok();
    }
    0
}

fn service(name: &str, action: &str) -> String {
    format!("/v1/services/{}/{action}", encoded(name))
}

/// For a path or a query: RFC 3986, section 2.3.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_letter_is_encoded() {
        assert_eq!(encoded("web.2_a-b"), "web.2_a-b");
        assert_eq!(encoded("SIGRTMIN+3"), "SIGRTMIN%2B3");
        assert_eq!(encoded("a/b ä"), "a%2Fb%20%C3%A4");
    }

    #[test]
    fn what_has_been_done_is_said_by_instance() {
        let instances = json!([{"id": "web.0", "state": "running"}, {"id": "web.1", "state": "starting"}]);
        let answer = json!({"result": "done", "reason": "", "instances": instances});
        assert_eq!(done("start web", &answer), "web.0 running\nweb.1 starting\n");
        let reason = json!({"result": "done", "reason": "the ordered stop has begun"});
        assert_eq!(done("shutdown", &reason), "shutdown: the ordered stop has begun\n");
        assert_eq!(done("shutdown", &json!({})), "shutdown: done\n");
        let steering = json!({"instances": [{"id": "a\x1b[2J", "state": "b\nc"}], "reason": "d\x1b"});
        assert_eq!((done("start a", &steering), said("", &steering)), ("a [2J b c\n".to_owned(), "d \n".to_owned()));
        let signal = json!({"reason": "SIGHUP sent to web", "instances": [{"id": "web.0", "state": "running"}]});
        assert_eq!(said("signal web", &signal), "SIGHUP sent to web\n");
        assert_eq!(said("signal web", &json!({})), "signal web: done\n");
    }
}
