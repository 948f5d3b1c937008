//! Requests that change something: sends one, shows how far it is, and prints the result.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;

use super::client::{Client, CommandResult, print_warnings};
use super::http::{PendingResponse, Response};
use super::output::{is_terminal, print};
use super::request::Form;
use super::stream;
use crate::model::units::format_duration;
use crate::sys::{self, Poller};

/// The default time limit of requests that change something.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How much longer the client waits than the server, so that the server's answer, which has the reason, comes first.
const SERVER_TIMEOUT_MARGIN: Duration = Duration::from_secs(5);
/// On a terminal, a change that takes longer shows a line for each transition of its instances.
const DELAY: Duration = Duration::from_secs(1);
// Tokens of the poller.
const ANSWER: u64 = 0;
const EVENTS: u64 = 1;

/// Sends a request to change `names` (none: all), and prints the result as `words` makes it. `query` ends with `&` unless
/// empty.
pub(super) fn post(
    client: &Client,
    what: &str,
    names: &[String],
    target: &str,
    query: &str,
    words: fn(&str, &Value) -> String,
) -> CommandResult {
    let timeout = client.timeout.unwrap_or(CHANGE_TIMEOUT);
    let target = format!("{target}?{query}timeout={}", format_duration(timeout));
    let limit = timeout.saturating_add(SERVER_TIMEOUT_MARGIN);
    let events = follow(client);
    let pending = client.send("POST", &target, limit)?;
    if let Some(events) = events {
        // Without it, the answer is waited for in silence.
        show(client, events, &pending, names, limit).ok();
    }
    let response = pending.response()?;
    if response.status != 200 {
        return client.print_refusal(what, response);
    }
    let (body, value) = response.json()?;
    match client.form {
        Form::Json => print(&body)?,
        Form::Text | Form::Quiet => {
            if client.form == Form::Text {
                print(words(what, &value))?;
            }
            print_warnings(&value);
        }
    }
    Ok(0)
}

/// Follows the events from now on; `None`: no progress is shown.
fn follow(client: &Client) -> Option<Response> {
    if client.form != Form::Text || !is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    client.get("/v1/events?follow=1&after=latest").ok().filter(|events| events.status == 200)
}

/// Shows the progress of `names` (none: of all) until the answer begins to arrive, or `timeout` has passed.
fn show(
    client: &Client,
    mut events: Response,
    answer: &PendingResponse,
    names: &[String],
    timeout: Duration,
) -> Result<(), Errno> {
    let mut poller = Poller::new()?;
    poller.add(answer, ANSWER)?;
    poller.add(&events, EVENTS)?;
    let since = sys::now();
    let (mut held, mut latest) = (String::new(), None);
    loop {
        let elapsed = sys::now().since(since);
        let until = if elapsed < DELAY { DELAY.min(timeout) } else { timeout };
        let wait = if events.has_lines() { Duration::ZERO } else { until.saturating_sub(elapsed) };
        let ready = poller.wait(Some(wait))?;
        let is_ready = |token| ready.iter().any(|ready| ready.data() == token);
        let (is_answered, has_events) = (is_ready(ANSWER), is_ready(EVENTS) || events.has_lines());
        if has_events {
            let Ok(Some(lines)) = events.lines() else { return Ok(()) };
            let (steps, number) = stream::progress_lines(lines, names);
            held.push_str(&steps);
            latest = number.or(latest);
        }
        let elapsed = sys::now().since(since);
        if is_answered && elapsed >= DELAY {
            held.push_str(&rest(client, latest, names));
        }
        if elapsed >= DELAY {
            // If stderr fails, nothing is left to report to.
            io::stderr().write_all(std::mem::take(&mut held).as_bytes()).ok();
        }
        if is_answered || elapsed >= timeout {
            return Ok(());
        }
    }
}

/// The progress since event number `latest`: the answer may overtake the last events.
fn rest(client: &Client, latest: Option<u64>, names: &[String]) -> String {
    let events = latest.and_then(|latest| client.get(&format!("/v1/events?after={latest}")).ok());
    let lines = events.filter(|events| events.status == 200).and_then(|events| events.all_lines().ok());
    stream::progress_lines(lines.unwrap_or_default(), names).0
}
