//! `keepalive describe`: a service or an instance in detail.

use super::client::{Client, CommandResult, service_path};
use super::output::print;
use super::request::Form;
use super::status::Status;
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
    let (events, _) = stream::last_events(client.get("/v1/events")?.all_lines()?, &[name.to_owned()], EVENTS);
    if client.form == Form::Json {
        let members = document.text.trim_ascii_end().strip_suffix(b"}").unwrap_or_default();
        let events: Vec<_> = events.trim_ascii_end().split(|byte| *byte == b'\n').collect();
        print([members, b",\"events\":[", &*events.join(&b','), b"]}\n"].concat())?;
        return Ok(0);
    }
    let status: Status = document.read()?;
    let (summary, table) = (status.summary(), status.table(client.style));
    let description = visible::lines(status.description().as_bytes());
    let description = String::from_utf8_lossy(&description);
    let mut shown = format!("{}\n{table}\n{description}\nlatest events\n", shortened(&summary, client.style.columns));
    for line in stream::event_lines(&events).lines() {
        shown.push_str("  ");
        shown.push_str(line);
        shown.push('\n');
    }
    print(shown)?;
    Ok(0)
}
