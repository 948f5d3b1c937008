//! For HEALTHCHECK and probes: yes or no, and why, on one line.

use super::client::{Client, Outcome, encoded};
use super::output::{harmless, print, tell};
use super::status::text;
use super::{Form, NO};

/// Whether keepalive's loop goes round.
pub(super) fn alive(client: &Client) -> Outcome {
    probe(client, "/livez", "alive")
}

/// Whether all is ready that should be, or the service `name`.
pub(super) fn ready(client: &Client, name: Option<&str>) -> Outcome {
    let target = match name.filter(|name| *name != "all") {
        Some(name) => format!("/readyz?service={}", encoded(name)),
        None => "/readyz".to_owned(),
    };
    probe(client, &target, "ready")
}

fn probe(client: &Client, target: &str, word: &str) -> Outcome {
    let answer = client.look(target)?;
    let status = answer.status;
    let (body, value) = answer.json()?;
    if client.form == Form::Json {
        print(&body)?;
    }
    if status == 200 {
        if client.form == Form::Text {
            print(format!("{word}\n"))?;
        }
        return Ok(0);
    }
    let reason = harmless(text(&value, "reason"));
    let reason = if reason.is_empty() { format!("HTTP status {status}") } else { reason };
    tell(&format!("not {word}: {reason}"));
    Ok(NO)
}
