//! Prints streams: logs and events, line by line as they arrive.

use serde_json::Value;

use super::client::{Client, CommandResult, percent_encoded};
use super::output::{Colour, is_terminal, print, print_error};
use super::request::{EXIT_FAILURE, Follow, Form};
use super::signals::DeferredInterrupt;
use super::status::{number, text};
use crate::model::{glob, visible};

/// Colours (SGR) for the names of instances.
const PALETTE: [&str; 10] = ["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"];

/// Resets all colours (SGR).
const RESET: &str = "\x1b[0m";

/// Which lines of a log are printed, and how.
#[derive(Clone, Copy)]
pub(super) struct LogsWanted<'a> {
    /// How many past lines; `None`: all.
    pub(super) lines: Option<u32>,
    /// The age of the oldest line, or its time.
    pub(super) since: Option<&'a str>,
    /// Whether lines of text start with the time.
    pub(super) timestamps: bool,
    pub(super) follow: Follow,
}

/// Prints the logs of `names`; no name: all.
pub(super) fn logs(client: &Client, names: &[String], wanted: LogsWanted<'_>) -> CommandResult {
    let LogsWanted { lines, since, timestamps, follow } = wanted;
    let mut query = Vec::new();
    if !names.is_empty() && names.iter().all(|name| name != "all") {
        query.push(format!("service={}", names.iter().map(|name| percent_encoded(name)).collect::<Vec<_>>().join(",")));
    }
    query.extend(lines.map(|lines| format!("lines={lines}")));
    query.extend(since.map(|since| format!("since={}", percent_encoded(since))));
    query.extend((follow == Follow::Yes).then(|| "follow=1".to_owned()));
    let target = format!("/v1/logs?{}", query.join("&"));
    let shown = if is_terminal() { steady } else { str::to_owned };
    let timed_line = |line: &Value, colour| {
        let time = if timestamps { format!("{} ", visible::one_line(text(line, "time"))) } else { String::new() };
        labelled(line, &time, colour, shown)
    };
    stream(client, "logs", &target, follow, client.form, &|_| true, &timed_line)
}

/// Prints the last `count` events of `names`, as JSON if stdout is not a terminal; no name, no number: all.
pub(super) fn events(client: &Client, names: &[String], count: Option<u32>, follow: Follow) -> CommandResult {
    let form = if is_terminal() { client.form } else { Form::Json };
    let mut target = if follow == Follow::Yes { "/v1/events?follow=1" } else { "/v1/events" }.to_owned();
    if let Some(count) = count {
        let Some(response) = client.fetch("events", "/v1/events")? else { return Ok(EXIT_FAILURE) };
        let (past, latest) = last_events(response.all_lines()?, names, count);
        print(formatted(past, "events", form, client.style.colour, &|line, _| event_line(line)))?;
        if follow == Follow::No {
            return Ok(0);
        }
        target.push_str(&format!("&after={latest}"));
    }
    stream(client, "events", &target, follow, form, &|event| is_wanted(event, names), &|line, _| event_line(line))
}

/// The last `count` lines of `all` that are events of `names`, and the number of the latest event.
pub(super) fn last_events(all: Vec<u8>, names: &[String], count: u32) -> (Vec<u8>, u64) {
    let mut latest = 0;
    let mut past = retain(all, &mut |event| {
        latest = number(event, "seq").unwrap_or(latest);
        is_wanted(event, names)
    });
    // Each line starts after the end of another; the first one found is the end of the last line.
    let mut ends = past.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end + 1);
    let start = ends.nth(usize::try_from(count).unwrap_or(usize::MAX)).unwrap_or(0);
    past.drain(..start);
    (past, latest)
}

/// Makes a line of text of a line of JSON.
type FormatLine<'f> = &'f dyn Fn(&Value, Colour) -> String;

fn stream(
    client: &Client,
    what: &str,
    target: &str,
    follow: Follow,
    form: Form,
    is_wanted: &dyn Fn(&Value) -> bool,
    format_line: FormatLine<'_>,
) -> CommandResult {
    let Some(mut response) = client.fetch(what, target)? else { return Ok(EXIT_FAILURE) };
    let mut interrupt = None;
    if follow == Follow::Yes {
        response.clear_deadline();
        interrupt = if is_terminal() { DeferredInterrupt::catch()? } else { None };
    }
    let colour = client.style.colour;
    let reset = if colour == Colour::Yes { RESET } else { "" };
    while let Some(lines) = response.lines()? {
        let text = formatted(retain(lines, &mut |event| is_wanted(event)), what, form, colour, format_line);
        match &interrupt {
            // The terminal discards output that it has not shown, which may include the end of a colour.
            Some(interrupt) => interrupt.defer(|| print(text), || print(reset))?,
            None => print(text)?,
        }
    }
    if follow == Follow::Yes {
        response.check_end()?;
    }
    Ok(0)
}

/// Events as lines of text.
pub(super) fn event_lines(events: &[u8]) -> String {
    to_text(events, "events", Colour::No, &|line, _| event_line(line))
}

/// The progress of a change of `names` as lines of text, and the number of the latest event.
pub(super) fn progress_lines(lines: Vec<u8>, names: &[String]) -> (String, Option<u64>) {
    let mut latest = None;
    let steps = retain(lines, &mut |event| {
        latest = number(event, "seq").or(latest);
        let is_step = !text(event, "to").is_empty()
            || matches!(text(event, "event"), "instance_replaced" | "stop_timed_out" | "unkillable");
        is_step && is_wanted(event, names)
    });
    (event_lines(&steps), latest)
}

fn formatted(lines: Vec<u8>, what: &str, form: Form, colour: Colour, format_line: FormatLine<'_>) -> Vec<u8> {
    match form {
        Form::Json => lines,
        Form::Text | Form::Quiet => to_text(&lines, what, colour, format_line).into_bytes(),
    }
}

/// Retains the lines that `is_wanted` accepts, and those that are no JSON.
fn retain(lines: Vec<u8>, is_wanted: &mut dyn FnMut(&Value) -> bool) -> Vec<u8> {
    let mut retained = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if serde_json::from_slice(line).map_or(true, |value| is_wanted(&value)) {
            retained.extend_from_slice(line);
        }
    }
    retained
}

/// Whether an event is one of `names`. Without names, and if it says that events are missing, it is.
fn is_wanted(event: &Value, names: &[String]) -> bool {
    let of = [text(event, "instance"), text(event, "service")];
    let is_named =
        |name: &String| name == "all" || of.iter().any(|known| glob::matches(name.as_bytes(), known.as_bytes()));
    names.is_empty() || lost_lines(event).is_some() || names.iter().any(is_named)
}

fn to_text(lines: &[u8], what: &str, colour: Colour, format_line: FormatLine<'_>) -> String {
    let mut words = String::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
        match (lost_lines(&value), value) {
            (Some(count), _) => {
                print_error(&format!("{what}: {count} lines were dropped because this reader was too slow"))
            }
            // What we do not understand may still be of use.
            (None, Value::Null) => words.push_str(&visible::one_line(&String::from_utf8_lossy(line))),
            (None, value) => words.push_str(&format_line(&value, colour)),
        }
        if !words.is_empty() && !words.ends_with('\n') {
            words.push('\n');
        }
    }
    words
}

/// How many lines the server had to leave out here.
fn lost_lines(value: &Value) -> Option<u64> {
    number(value, "dropped").or_else(|| number(value, "count").filter(|_| text(value, "event") == "events_dropped"))
}

/// A text that cannot steer the terminal.
fn steady(text: &str) -> String {
    String::from_utf8_lossy(&visible::log_line(text.as_bytes())).into_owned()
}

/// `web.0 | text` after `time`. A message of keepalive can have several lines: those after the first are indented.
fn labelled(line: &Value, time: &str, colour: Colour, shown: fn(&str) -> String) -> String {
    let (label, mut indent) = (label(line, colour), "");
    let lines = text(line, "message").split('\n');
    lines.map(|text| format!("{time}{label} {}{}\n", std::mem::replace(&mut indent, "  "), shown(text))).collect()
}

fn label(line: &Value, colour: Colour) -> String {
    let name = visible::one_line(writer_name(line));
    let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let code = PALETTE.get(sum % PALETTE.len()).copied().unwrap_or_default();
    colour.paint(code, &format!("{name} |"))
}

/// `12:00:00.123 web.0 starting → running (ready)`
fn event_line(event: &Value) -> String {
    let time = text(event, "time");
    let time = time.split_once('T').map_or(time, |(_, time)| time.trim_end_matches('Z'));
    let (from, to) = (text(event, "from"), text(event, "to"));
    let (kind, reason) = (text(event, "event"), text(event, "reason"));
    let message = text(event, "message");
    let line = if to.is_empty() {
        let name = writer_name(event);
        let message = if message.is_empty() { kind } else { message };
        // Most messages begin with the name, which is not repeated.
        match message.strip_prefix(name).filter(|rest| rest.starts_with(' ')) {
            Some(_) => format!("{time} {message}"),
            None => format!("{time} {name}: {message}"),
        }
    } else {
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let name = writer_name(event);
        match event.get("surge") {
            // It has not been stopped before.
            Some(_) if from == "stopped" => format!("{time} {name} second process {to}{reason}"),
            Some(_) => format!("{time} {name} second process {from} → {to}{reason}"),
            None => format!("{time} {name} {from} → {to}{reason}"),
        }
    };
    visible::one_line(&line).into_owned()
}

fn writer_name(line: &Value) -> &str {
    let names = [text(line, "instance"), text(line, "service")];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or("keepalive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_event(json: &str, expect: &str) {
        assert_eq!(to_text(json.as_bytes(), "events", Colour::No, &|line, _| event_line(line)), expect);
    }

    #[test]
    fn a_transition_is_printed_with_its_reason() {
        check_event(
            r#"{"seq":7,"time":"2026-11-21T08:00:00.123Z","event":"transition","service":"web","instance":"web.0","from":"starting","to":"running","reason":"ready"}"#,
            "08:00:00.123 web.0 starting → running (ready)\n",
        );
    }

    #[test]
    fn a_transition_of_a_surge_instance_is_that_of_a_second_process() {
        let check = |from: &str, to: &str, expect: &str| {
            let members = r#""time":"","event":"transition","instance":"r.0","surge":true,"reason":"why""#;
            check_event(&format!(r#"{{{members},"from":"{from}","to":"{to}"}}"#), expect);
        };
        check("stopped", "starting", " r.0 second process starting (why)\n");
        check("running", "stopping", " r.0 second process running → stopping (why)\n");
    }

    #[test]
    fn the_progress_of_a_change_has_its_steps_and_the_number_of_the_latest_event() {
        let lines = [
            r#"{"seq":7,"time":"","event":"transition","service":"a","instance":"a.0","from":"running","to":"stopping"}"#,
            r#"{"seq":8,"time":"","event":"stop_timed_out","service":"a","instance":"a.0","message":"a.0 did not stop"}"#,
            r#"{"seq":9,"time":"","event":"reload_started","service":"a","message":"a reload started"}"#,
            r#"{"seq":10,"time":"","event":"transition","service":"b","instance":"b.0","from":"running","to":"stopping"}"#,
        ];
        let (shown, latest) = progress_lines((lines.join("\n") + "\n").into_bytes(), &["a".to_owned()]);
        assert_eq!((&*shown, latest), (" a.0 running → stopping\n a.0 did not stop\n", Some(10)));
        assert_eq!(progress_lines(Vec::new(), &[]), (String::new(), None));
    }

    #[test]
    fn another_event_is_printed_by_its_message() {
        check_event(
            r#"{"time":"2026-11-21T08:00:00.123Z","event":"shutdown_started","message":"stopping: SIGTERM"}"#,
            "08:00:00.123 keepalive: stopping: SIGTERM\n",
        );
        check_event(r#"{"time":"","event":"orphans_reaped","service":"web"}"#, " web: orphans_reaped\n");
        check_event(
            r#"{"time":"","event":"reload_started","service":"web","message":"web reload started"}"#,
            " web reload started\n",
        );
        check_event(r#"{"time":"","service":"web","message":"web2 is mentioned"}"#, " web: web2 is mentioned\n");
    }

    #[test]
    fn only_events_of_the_named_services_are_printed() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let lines = [
            r#"{"event":"a","service":"web","instance":"web.0"}"#,
            r#"{"event":"b","service":"web"}"#,
            r#"{"event":"c","service":"db","instance":"db.0"}"#,
            r#"{"event":"shutdown_started"}"#,
            r#"{"event":"events_dropped","count":3}"#,
            "no json",
        ];
        let check = |wanted: &[&str], positions: &[usize]| {
            let found = retain((lines.join("\n") + "\n").into_bytes(), &mut |event| is_wanted(event, &names(wanted)));
            let expect: String = positions.iter().map(|position| lines[*position].to_owned() + "\n").collect();
            assert_eq!(String::from_utf8(found).unwrap(), expect, "{wanted:?}");
        };
        check(&[], &[0, 1, 2, 3, 4, 5]);
        check(&["all"], &[0, 1, 2, 3, 4, 5]);
        check(&["web"], &[0, 1, 4, 5]);
        check(&["web.0", "d*"], &[0, 2, 4, 5]);
        check(&["*.1"], &[4, 5]);
    }

    #[test]
    fn the_last_events_of_the_named_services_are_counted() {
        let all = b"{\"seq\":7,\"service\":\"a\"}\n{\"seq\":8,\"service\":\"b\"}\n{\"seq\":9,\"service\":\"a\"}\n";
        let last = |names: &[&str], count| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let (past, latest) = last_events(all.to_vec(), &names, count);
            let lines = String::from_utf8(past).unwrap();
            (lines.lines().filter_map(|line| number(&serde_json::from_str(line).unwrap(), "seq")).collect(), latest)
        };
        let check = |names: &[&str], count, expect: &[u64]| assert_eq!(last(names, count), (expect.to_vec(), 9));
        check(&[], 4, &[7, 8, 9]);
        check(&[], 3, &[7, 8, 9]);
        check(&[], 2, &[8, 9]);
        check(&["a"], 2, &[7, 9]);
        check(&["a"], 1, &[9]);
        check(&["b"], 3, &[8]);
        check(&[], 0, &[]);
    }

    #[test]
    fn an_invalid_line_is_shown_without_control_characters() {
        check_event("no json\x1b[2J\n\n{\"event\":\"events_dropped\",\"count\":3}\n", "no json\\x1b[2J\n");
    }

    // The contract of `logs`: colours pass, nothing else steers the terminal; elsewhere the bytes are unchanged.
    #[test]
    fn a_service_cannot_steer_the_terminal_by_its_log_lines() {
        let line = r#"{"service":"web","instance":"web.0","message":"one\rgood.0 | \u001b[31mred\u001b[2J"}"#;
        let shown = to_text(line.as_bytes(), "logs", Colour::No, &|line, colour| labelled(line, "", colour, steady));
        assert_eq!(shown, "web.0 | one\\rgood.0 | \x1b[31mred\\x1b[2J\x1b[0m\n");
        let shown =
            to_text(line.as_bytes(), "logs", Colour::No, &|line, colour| labelled(line, "", colour, str::to_owned));
        assert_eq!(shown, "web.0 | one\rgood.0 | \x1b[31mred\x1b[2J\n");
    }

    #[test]
    fn a_log_line_begins_with_the_name_of_its_instance() {
        let line =
            r#"{"time":"","service":"web","instance":"web.0","stream":"stdout","message":"hello","partial":false}"#;
        let shown = to_text(format!("{line}\n{line}\n").as_bytes(), "logs", Colour::No, &|line, colour| {
            labelled(line, "", colour, str::to_owned)
        });
        assert_eq!(shown, "web.0 | hello\nweb.0 | hello\n");
        let several = r#"{"service":"keepalive","message":"web failed; its last lines:\none\ntwo"}"#;
        let shown =
            to_text(several.as_bytes(), "logs", Colour::No, &|line, colour| labelled(line, "", colour, str::to_owned));
        assert_eq!(shown, "keepalive | web failed; its last lines:\nkeepalive |   one\nkeepalive |   two\n");
        let shown =
            to_text(line.as_bytes(), "logs", Colour::Yes, &|line, colour| labelled(line, "", colour, str::to_owned));
        assert!(shown.starts_with("\x1b[") && shown.ends_with("mweb.0 |\x1b[0m hello\n"), "{shown:?}");
    }
}
