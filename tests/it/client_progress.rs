//! Changes that take long, on a terminal.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::fake_server::FakeServer;
use crate::harness::{KEEPALIVE, Place, Run, Running, wait_until};
use crate::http::Control;
use crate::services::Set;
use crate::terminal::{CTRL_C, Terminal};

/// Instances that stop only when they are killed.
const TEXT: &str = "\
[services.web]
command = [\"PUPPET\", \"ignore\", \"15\"]
instances = 3
[services.other]
command = [\"PUPPET\", \"ignore\", \"15\"]
";

fn begin() -> (Set, Running, Control) {
    let set = Set::new(TEXT);
    let running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    for id in ["web.0", "web.1", "web.2", "other.0"] {
        control.wait_for(id, "running");
    }
    (set, running, control)
}

fn on_a_terminal(socket: impl AsRef<OsStr>, words: &[&str]) -> Terminal {
    let mut command = Command::new("setsid");
    command.args(["--ctty", "env", "--default-signal=HUP,INT,QUIT,TERM", KEEPALIVE]).args(words);
    command.env("KEEPALIVE_SOCKET", socket).env("TERM", "xterm").env_remove("NO_COLOR");
    Terminal::start(&mut command)
}

fn main_process(control: &Control, id: &str) -> Option<Pid> {
    Pid::new(control.instance(id)["pid"].as_i64()?.try_into().unwrap())
}

fn kill(control: &Control, id: &str) {
    signal_process(main_process(control, id).unwrap(), Signal::KILL).unwrap();
}

fn end(mut running: Running, control: &Control) {
    control.wait_for("other.0", "running");
    let processes = ["web.0", "web.1", "web.2", "other.0"].map(|id| main_process(control, id));
    running.send(Signal::TERM);
    for process in processes.into_iter().flatten() {
        signal_process(process, Signal::KILL).unwrap();
    }
    assert_eq!(running.end(), 0);
}

// The contract: "What takes longer than a second shows on a terminal how far it is, a line for each instance."
#[test]
fn a_change_that_takes_long_shows_its_transitions_on_a_terminal() {
    let (set, running, control) = begin();
    let mut terminal = on_a_terminal(set.socket(), &["stop", "web"]);
    for id in ["web.0", "web.1", "web.2"] {
        terminal.wait_for_text(&format!(" {id} running → stopping (stopped by operator)"));
    }
    kill(&control, "other.0");
    kill(&control, "web.1");
    terminal.wait_for_text(" web.1 stopping → stopped (killed by SIGKILL, ran ");
    kill(&control, "web.0");
    kill(&control, "web.2");
    let (code, rest) = terminal.wait_for_end();
    assert!(code == Some(0) && rest.ends_with("web.0 stopped\r\nweb.1 stopped\r\nweb.2 stopped\r\n"), "{rest}");
    assert!(!rest.contains("other") && !rest.contains('\x1b'), "{rest}");
    end(running, &control);
}

#[test]
fn ctrl_c_ends_a_client_that_shows_progress() {
    let (set, running, control) = begin();
    let mut command = Command::new("setsid");
    command.args(["--ctty", "env", "--default-signal=HUP,INT,QUIT,TERM", KEEPALIVE, "restart", "web"]);
    command.env("KEEPALIVE_SOCKET", set.socket()).env("TERM", "xterm");
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for_text("web.2 running → stopping");
    terminal.type_in(CTRL_C);
    wait_until("the end of the client", || terminal.program.try_wait().unwrap().and_then(|status| status.signal()));
    let (code, rest) = terminal.wait_for_end();
    assert!(code.is_none() && !rest.contains('\x1b') && !rest.contains("keepalive:"), "{rest}");
    end(running, &control);
}

#[test]
fn a_quiet_change_prints_nothing_and_json_is_only_the_answer() {
    for (words, expected) in [(&["stop", "-q", "web"][..], ""), (&["stop", "--json", "web"], "{\"result\":\"done\"")] {
        let (set, running, control) = begin();
        let terminal = on_a_terminal(set.socket(), words);
        for id in ["web.0", "web.1", "web.2"] {
            control.wait_for(id, "stopping");
            kill(&control, id);
        }
        let (code, rest) = terminal.wait_for_end();
        assert!(code == Some(0) && rest.starts_with(expected) && rest.lines().count() <= 1, "{rest}");
        assert!(!expected.is_empty() || rest.is_empty(), "{rest}");
        end(running, &control);
    }
}

#[test]
fn a_change_without_a_terminal_does_not_follow_events() {
    let (set, running, control) = begin();
    let mut run = Run::words(Place::Child, &[KEEPALIVE, "stop", "web"]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let mut client = run.start();
    for id in ["web.0", "web.1", "web.2"] {
        control.wait_for(id, "stopping");
        kill(&control, id);
    }
    client.expect("web.0 stopped");
    client.expect("web.1 stopped");
    client.expect("web.2 stopped");
    assert_eq!((client.end(), client.stderr().as_str()), (0, ""));
    end(running, &control);
}

// The answer overtakes the event.
#[test]
fn the_last_step_of_a_change_is_shown() {
    const FIRST: &str = r#"{"seq":1,"time":"","service":"web","instance":"web.0","from":"running","to":"stopping"}"#;
    const LAST: &str = r#"{"seq":2,"time":"","service":"web","instance":"web.0","from":"stopping","to":"stopped"}"#;
    let (sender, may_answer) = channel();
    let followers = Mutex::new(Vec::new());
    let server = FakeServer::start(move |request, mut stream| {
        let body = match request {
            "GET /v1/events?follow=1&after=latest" => FIRST,
            "GET /v1/events?after=1" => LAST,
            _ => {
                may_answer.recv().ok();
                r#"{"result":"done","reason":"","instances":[]}"#
            }
        };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}\n").as_bytes()).unwrap();
        if body == FIRST {
            followers.lock().unwrap().push(stream);
        }
    });
    let mut terminal = on_a_terminal(&server.path, &["stop", "web"]);
    terminal.wait_for_text("web.0 running → stopping");
    sender.send(()).unwrap();
    let (code, rest) = terminal.wait_for_end();
    assert!(code == Some(0) && rest.contains("web.0 stopping → stopped"), "{rest}");
}
