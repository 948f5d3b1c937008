//! `keepalive health`, for HEALTHCHECK and probes: healthy or not, and the reason on one line.

use super::client::{Client, CommandResult, percent_encoded};
use super::output::{print, print_error};
use super::request::{EXIT_FAILURE, Form};
use super::status::text;
use crate::model::visible::one_line;

/// Checks that keepalive's loop runs.
pub(super) fn alive(client: &Client) -> CommandResult {
    probe(client, "/livez", "alive")
}

/// Checks that all services are ready, or the service `name`.
pub(super) fn ready(client: &Client, name: Option<&str>) -> CommandResult {
    let target = match name.filter(|name| *name != "all") {
        Some(name) => format!("/readyz?service={}", percent_encoded(name)),
        None => "/readyz".to_owned(),
    };
    probe(client, &target, "ready")
}

fn probe(client: &Client, target: &str, word: &str) -> CommandResult {
    let response = client.get(target)?;
    let status = response.status;
    let (body, value) = response.json()?;
    if client.form == Form::Json {
        print(&body)?;
    }
    if status == 200 {
        if client.form == Form::Text {
            print(format!("{word}\n"))?;
        }
        return Ok(0);
    }
    let reason = one_line(text(&value, "reason"));
    let reason = if reason.is_empty() { format!("HTTP status {status}").into() } else { reason };
    print_error(&format!("not {word}: {reason}"));
    Ok(EXIT_FAILURE)
}
