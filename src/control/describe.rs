//! `keepalive describe`: a service or an instance in detail.

use super::client::{Client, CommandResult, percent_encoded};
use super::output::print;
use super::request::{EXIT_FAILURE, Form};
use super::status::Status;
use super::stream;
use super::table::shortened;
use crate::model::visible;

/// The number of events that are shown.
const EVENTS: u32 = 10;

/// Shows one of `names` after the other; one that is refused does not keep the others from being shown.
pub(super) fn run(client: &Client, names: &[String]) -> CommandResult {
    let mut code = 0;
    for (position, name) in names.iter().enumerate() {
        if position > 0 && client.form != Form::Json {
            print("\n")?;
        }
        code = describe(client, name)?.max(code);
    }
    Ok(code)
}

/// Shows the state, the definition and the latest events of `name`.
fn describe(client: &Client, name: &str) -> CommandResult {
    let path = format!("/v1/services/{}", percent_encoded(name));
    let Some(response) = client.fetch("describe", &path)? else { return Ok(EXIT_FAILURE) };
    let document = response.document()?;
    let Some(events) = client.fetch("describe", "/v1/events")? else { return Ok(EXIT_FAILURE) };
    let (events, _) = stream::last_events(events.all_lines()?, &[name.to_owned()], EVENTS);
    if client.form == Form::Json {
        let members = document.text.trim_ascii_end().strip_suffix(b"}").unwrap_or_default();
        let events = String::from_utf8_lossy(events.trim_ascii_end()).replace('\n', ",");
        print([members, b",\"events\":[", events.as_bytes(), b"]}\n"].concat())?;
        return Ok(0);
    }
    let status: Status = document.read()?;
    let (summary, table) = (status.summary(), status.table(client.style));
    let summary = shortened(&summary, client.style.columns);
    let description = [status.description(), &status.last_lines()].concat();
    let description = visible::lines(description.as_bytes());
    let events = stream::event_lines(&events).trim_end().replace('\n', "\n  ");
    let (heading, summary, table) = (b"\nlatest events\n  ", summary.as_bytes(), table.as_bytes());
    print([summary, b"\n", table, b"\n", &*description, heading, events.as_bytes(), b"\n"].concat())?;
    Ok(0)
}
