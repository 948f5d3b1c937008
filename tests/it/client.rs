//! The client commands with a fake server.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;
use serde_json::{Value, json};

use crate::fake_server::{FakeServer, STREAM, status};
use crate::harness::KEEPALIVE;
use crate::terminal::open_pty;

const TABLE: &str = "\
NAME   STATE    PID  UPTIME  RESTARTS    CPU  MEMORY
web.0  running   12   1m39s         3  1.25s   13.0M
web.1  backoff    -       -         2      -       -
  exited with code 1, ran 20ms; restart 2 of 16 in 400ms";

fn show_status() -> FakeServer {
    FakeServer::answering(|_| (200, status()))
}

#[test]
fn status_is_a_table_with_the_reason_why_a_service_does_not_run() {
    let server = show_status();
    let summary = "keepalive 0.1.0, pid 1, up 2m10s: 2 running, 1 backoff";
    let database = "db.0   running   11   2m10s         0  9.00s    1.0M";
    server.check(&["status"], 0, &format!("{summary}\n{TABLE}\n{database}"), "");
    server.check(&["status", "web"], 0, TABLE, "");
    assert_eq!(server.requests(), ["GET /v1/status", "GET /v1/status"]);
    let message = "keepalive: status: unknown name `wbe`: the services are web, db\n";
    server.check(&["status", "wbe"], 1, "", message);
    let body = r#"{"instances":[],"reason":"unknown name `wbe`: the services are web, db","result":"not_found"}"#;
    server.check(&["status", "web", "wbe", "--json"], 1, body, message);
}

#[test]
fn status_as_json_is_the_answer_of_the_server() {
    let server = show_status();
    server.check(&["status", "--json"], 0, &status().to_string(), "");
    let (code, stdout, _) = server.client(&["--json", "status"]).finish();
    assert_eq!((code, stdout.as_str()), (2, ""), "options stand after the command");
    let (code, stdout, _) = server.client(&["status", "web.1", "--json"]).finish();
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, found["services"][0]["instances"][0]["id"].as_str()), (0, Some("web.1")));
    assert_eq!(found["services"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_socket_can_be_set_by_option_or_variable() {
    let server = show_status();
    let socket = server.path.to_str().unwrap();
    let mut run = server.client(&["status", "web", "--socket", socket]);
    run.command.env("KEEPALIVE_SOCKET", "/nowhere/else.sock");
    assert_eq!(run.finish(), (0, TABLE.to_owned(), String::new()));
}

// One after the other, a stop would not keep to the order of dependencies.
#[test]
fn several_names_are_one_request_and_reloads_are_one_after_the_other() {
    let server = FakeServer::answering(|request| match request {
        "POST /v1/services/b/reload?timeout=1m" => {
            (409, json!({"result": "refused", "reason": "it is being reloaded", "instances": []}))
        }
        "POST /v1/services/a,c.1/stop?timeout=1m" => {
            (404, json!({"result": "not_found", "reason": "there is no `c.1`"}))
        }
        _ => (200, json!({"result": "done", "reason": "", "instances": [{"id": "a.0", "state": "stopped"}]})),
    });
    server.check(&["stop", "a", "b"], 0, "a.0 stopped", "");
    server.check(&["stop", "a", "c.1"], 1, "", "keepalive: stop a c.1: there is no `c.1`\n");
    server.check(
        &["reload", "a", "b", "d", "a"],
        1,
        "a.0 stopped\na.0 stopped",
        "keepalive: reload b: it is being reloaded\n",
    );
    let targets: Vec<String> = server.requests();
    let asked = ["a,b/stop", "a,c.1/stop", "a/reload", "b/reload", "d/reload"];
    assert_eq!(targets, asked.map(|path| format!("POST /v1/services/{path}?timeout=1m")));
}

#[test]
fn a_timeout_is_reported_as_text_and_as_json() {
    let body = json!({"instances": [], "reason": "web.0 is still stopping", "result": "timeout"});
    let answer = body.clone();
    let server = FakeServer::answering(move |_| (504, answer.clone()));
    let message = "keepalive: restart web: web.0 is still stopping\n";
    server.check(&["restart", "web", "--json", "--timeout", "2s"], 1, &body.to_string(), message);
    assert_eq!(server.requests(), ["POST /v1/services/web/restart?timeout=2s"]);
}

#[test]
fn each_command_sends_its_own_request() {
    let server = FakeServer::answering(|_| (200, json!({"result": "done", "reason": "", "instances": []})));
    server.check(&["start", "web.2"], 0, "start web.2: done", "");
    server.check(&["scale", "web", "4"], 0, "scale web: done", "");
    server.check(&["scale", "web", "+1"], 0, "scale web: done", "");
    server.check(&["scale", "web", "-1"], 0, "scale web: done", "");
    server.check(&["signal", "all", "RTMIN+3"], 0, "signal all: done", "");
    server.check(&["shutdown", "--timeout=5s"], 0, "shutdown: done", "");
    let asked = [
        "POST /v1/services/web.2/start?timeout=1m",
        "POST /v1/services/web/scale?instances=4&timeout=1m",
        "POST /v1/services/web/scale?instances=%2B1&timeout=1m",
        "POST /v1/services/web/scale?instances=-1&timeout=1m",
        "POST /v1/services/all/signal?signal=SIGRTMIN%2B3&timeout=1m",
        "POST /v1/shutdown?timeout=5s",
    ];
    assert_eq!(server.requests(), asked);
}

#[test]
fn an_unauthorized_client_gets_the_reason() {
    let reason = "only root and the user that keepalive runs as may do this";
    let server = FakeServer::answering(move |_| (403, json!({"result": "forbidden", "reason": reason})));
    server.check(&["status"], 1, "", &format!("keepalive: status: {reason}\n"));
    server.check(&["top"], 1, "", &format!("keepalive: status: {reason}\n"));
    server.check(&["logs", "-f"], 1, "", &format!("keepalive: logs: {reason}\n"));
}

#[test]
fn health_exits_with_0_or_1_and_prints_the_reason() {
    let server = FakeServer::answering(|request| match request {
        "GET /livez" => (200, json!({"status": "ok"})),
        "GET /readyz?service=db" => (200, json!({"ready": true})),
        "GET /readyz?service=x" => (404, json!({"result": "not_found", "reason": "there is no `x`"})),
        _ => (503, json!({"ready": false, "reason": "web is starting; db.1 is backing off"})),
    });
    server.check(&["health"], 0, "alive", "");
    server.check(&["health", "db"], 0, "ready", "");
    server.check(&["health", "--ready"], 1, "", "keepalive: not ready: web is starting; db.1 is backing off\n");
    server.check(&["health", "x"], 1, "", "keepalive: not ready: there is no `x`\n");
    server.check(&["health", "--json"], 0, "{\"status\":\"ok\"}", "");
}

#[test]
fn log_lines_start_with_the_name_of_their_instance() {
    let line = r#"{"time":"2026-11-21T08:00:00.1Z","service":"web","instance":"web.0","stream":"stdout","message":"hello","partial":false}"#;
    let server = FakeServer::start(move |_, mut stream| {
        write!(stream, "{STREAM}{line}\n{{\"dropped\":3}}\n{line}\n").ok();
    });
    let message = "keepalive: logs: 3 lines were dropped because this reader was too slow\n";
    server.check(&["logs", "-n", "7", "web", "db.0"], 0, "web.0 | hello\nweb.0 | hello", message);
    server.check(&["logs", "--json", "all"], 0, &format!("{line}\n{{\"dropped\":3}}\n{line}"), "");
    let broken_off =
        "keepalive: the stream ended unexpectedly, and SOCKET still exists: keepalive or its logger was killed\n";
    server.check(&["logs", "-f", "-n=all"], 3, "web.0 | hello\nweb.0 | hello", &format!("{message}{broken_off}"));
    let asked = ["GET /v1/logs?service=web,db.0&lines=7", "GET /v1/logs?lines=100", "GET /v1/logs?follow=1"];
    assert_eq!(server.requests(), asked);
}

#[test]
fn each_event_is_printed_as_soon_as_it_arrives() {
    let (sender, next) = std::sync::mpsc::channel::<&str>();
    let server = FakeServer::start(move |_, mut stream| {
        stream.write_all(STREAM.as_bytes()).ok();
        next.iter().try_for_each(|part| stream.write_all(part.as_bytes())).ok();
    });
    let mut running = server.client(&["events", "-f"]).start();
    sender.send("{\"seq\":1}\n{\"seq\"").unwrap();
    running.expect("{\"seq\":1}");
    sender.send(":2}\n").unwrap();
    running.expect("{\"seq\":2}");
    // An ordered shutdown removes the socket.
    std::fs::remove_file(&server.path).unwrap();
    drop(sender);
    assert_eq!((running.end(), running.stderr().as_str()), (0, ""));
    assert_eq!(server.requests(), ["GET /v1/events?follow=1"]);
}

#[test]
fn the_last_events_are_printed_and_then_the_next_ones() {
    let server = FakeServer::start(|request, mut stream| {
        let events = if request == "GET /v1/events" {
            "{\"seq\":3,\"service\":\"a\"}\n{\"seq\":4,\"service\":\"a\"}\n{\"seq\":5,\"service\":\"b\"}\n"
        } else {
            "{\"seq\":6,\"service\":\"b\"}\n{\"seq\":7,\"service\":\"a\"}\n"
        };
        write!(stream, "{STREAM}{events}").ok();
    });
    server.check(&["events", "-n", "1"], 0, "{\"seq\":5,\"service\":\"b\"}", "");
    server.check(&["events", "-n", "0"], 0, "", "");
    let broken_off =
        "keepalive: the stream ended unexpectedly, and SOCKET still exists: keepalive or its logger was killed\n";
    let both = "{\"seq\":5,\"service\":\"b\"}\n{\"seq\":6,\"service\":\"b\"}\n{\"seq\":7,\"service\":\"a\"}";
    server.check(&["events", "-fn1"], 3, both, broken_off);
    let (past, new) = ("GET /v1/events", "GET /v1/events?follow=1&after=5");
    assert_eq!(server.requests(), [past, past, past, new]);
}

// README, `logs -f`: Ctrl-C ends it. The terminal then discards pending output, such as the reset of a colour.
#[test]
fn sigint_ends_a_stream_on_a_terminal_at_the_end_of_a_line_without_colour() {
    let line = json!({"service": "web", "instance": "web.0", "message": "x".repeat(256 << 10)}).to_string();
    let server = FakeServer::start(move |_, mut stream| {
        writeln!(stream, "{STREAM}{line}").ok();
        // Keeps the connection open until the client closes it.
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let (mut screen, device) = open_pty();
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", KEEPALIVE, "logs", "-f"]);
    command.env("KEEPALIVE_SOCKET", &server.path).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut client = command.stdin(device.try_clone().unwrap()).stdout(device).spawn().unwrap();
    drop(command);
    // The line is longer than the buffer of a terminal, so the client is still printing it.
    screen.read_exact(&mut [0]).unwrap();
    signal_process(Pid::new(client.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let mut seen = Vec::new();
    // EIO: no process has the terminal open.
    screen.read_to_end(&mut seen).unwrap_err();
    assert_eq!(client.wait().unwrap().signal(), Some(2));
    assert!(seen.ends_with(b"xx\r\n\x1b[0m"), "{}", String::from_utf8_lossy(&seen[seen.len().saturating_sub(80)..]));
}

#[test]
fn completions_list_all_valid_names() {
    let server = show_status();
    server.check(&["completions", "names"], 0, "web\nweb.0\nweb.1\ndb\nall", "");
    server.check(&["completions", "names", "--socket", "/nowhere/else.sock"], 0, "", "");
}

#[test]
fn a_status_of_a_thousand_services_is_complete() {
    let one = |number: u64| {
        json!({"name": format!("worker-{number}"), "state": "running", "instances": [
            {"id": format!("worker-{number}.0"), "state": "running", "pid": number + 10, "ready": true, "restarts": 0,
             "uptime_ms": number, "reason": "ready", "rss_bytes": 4096, "cpu_ms": 1}]})
    };
    let services: Vec<Value> = (0..1_000).map(one).collect();
    let body = json!({"pid": 1, "version": "0.1.0", "uptime_ms": 5, "services": services});
    let server = FakeServer::answering(move |_| (200, body.clone()));
    let (code, stdout, stderr) = server.client(&["status"]).finish();
    assert_eq!((code, stdout.lines().count(), stderr.as_str()), (0, 1_002, ""));
}

#[test]
fn names_and_reasons_are_not_cut_if_stdout_is_not_a_terminal() {
    let (name, reason) = ("n".repeat(100), "because ".repeat(20));
    let id = format!("{name}.0");
    let body = json!({"pid": 1, "version": "0.1.0", "uptime_ms": 5, "services": [{"name": name, "state": "failed",
        "instances": [{"id": id, "state": "failed", "pid": null, "restarts": 0, "reason": reason}]}]});
    let server = FakeServer::answering(move |_| (200, body.clone()));
    let mut run = server.client(&["status"]);
    run.command.env_remove("COLUMNS");
    let (code, stdout, _) = run.finish();
    assert!(code == 0 && stdout.contains(&id) && stdout.contains(reason.trim_end()), "{stdout}");
    let mut run = server.client(&["status"]);
    run.command.env("COLUMNS", "50");
    let (code, stdout, _) = run.finish();
    assert!(code == 0 && !stdout.contains(&id) && stdout.contains('…'), "{stdout}");
}
