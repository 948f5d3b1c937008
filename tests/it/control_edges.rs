//! Misbehaving clients and unusual requests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use keepalive::model::Signal;
use keepalive::sys::signal_process;
use serde_json::json;

use crate::control::begin;
use crate::harness::{KEEPALIVE, Place, Run, wait_until};
use crate::http::{Control, http};
use crate::port::ReservedPort;
use crate::services::Set;

/// A follower must not send data, and does not block other clients.
#[test]
fn a_follower_that_sends_data_is_disconnected() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let mut talkers: Vec<UnixStream> = (0..12).map(|_| control.ask("GET", "/v1/events?follow=1")).collect();
    for talker in &mut talkers {
        let words = vec![b'x'; 64 << 10];
        // Until the server closes the connection.
        wait_until("the end of the connection", || talker.write_all(&words).err());
    }
    assert_eq!(control.get("/livez").status, 200);
}

/// A client that has shut down its sending side still receives events.
#[test]
fn a_follower_can_close_its_sending_side() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let stream = control.ask("GET", "/v1/events?follow=1");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream)).map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"to\":\"running\"")));
    for _ in 0..2 {
        control.post("/v1/services/web/restart");
        assert!(lines.any(|line| line.contains("restarted by operator")));
    }
}

#[test]
fn common_forms_of_http_requests_are_understood() {
    let port = ReservedPort::any();
    let set =
        Set::new(&format!("[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n"));
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    for target in ["/livez", "/readyz", "/metrics", "/v1/status", "/v1/events?follow=1", "/"] {
        let answer = control.say(format!("HEAD {target} HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{target}");
    }
    assert_eq!(control.get("http://keepalive/livez").json(), json!({"status": "ok"}));
    assert!(control.post("/livez").head.contains("\r\nAllow: GET, HEAD"));
    assert!(control.get("/v1/services/web/stop").head.contains("\r\nAllow: POST"));
    assert_eq!(control.post("/v1/services/web/signal?signal=RTMIN+3").status, 200);
}

/// A oneshot is ready when it has succeeded, not while it runs.
#[test]
fn a_running_oneshot_is_not_ready_and_a_service_without_autostart_does_not_count() {
    let set = Set::new(concat!(
        "[services.slow]\ntype = \"oneshot\"\ncommand = [\"PUPPET\", \"ignore\"]\n",
        "[services.spare]\ncommand = [\"PUPPET\", \"ignore\"]\nautostart = false\n",
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n",
    ));
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("slow.0", "running");
    assert_eq!(
        (control.get("/readyz?service=slow.0").status, control.instance("slow.0")["ready"].clone()),
        (503, json!(false))
    );
    let answer = control.post("/v1/services/slow/start?timeout=20ms");
    assert_eq!(
        (answer.status, answer.reason()),
        (504, "not finished within 20ms, still in progress: slow.0 is running (has not finished)".to_owned())
    );
    control.post("/v1/services/slow/stop");
    let reason = control.get("/readyz").reason();
    assert!(reason.starts_with("slow.0 is stopped"), "{reason}");
    control.post("/v1/services/spare/start");
    control.post("/v1/services/spare/stop");
    assert!(!control.get("/readyz").reason().contains("spare"), "spare has no autostart");
    assert_eq!(control.get("/readyz?service=spare").status, 503, "spare was requested");
}

/// Without free descriptors, clients wait and services continue, and the loop does not spin.
#[test]
fn clients_wait_while_no_file_descriptor_is_free() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let script = format!("ulimit -n 16; exec {KEEPALIVE} -c {}", set.config);
    let mut run = Run::words(Place::Child, &["sh", "-c", &script]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let mut running = run.start();
    let control = Control::at(&set.socket());
    let first = running.ready();
    let clients: Vec<UnixStream> = (0..20).map(|_| control.connect()).collect();
    signal_process(first, Signal::KILL).unwrap();
    running.ready();
    drop(clients);
    assert_eq!(control.state("web.0"), "running");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(stderr.contains("cannot accept connections for now: Too many open files"), "{stderr}");
}

// RFC 9112, section 6.3: a request ends with its body.
#[test]
fn a_request_takes_effect_only_when_all_of_it_has_come() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n"
    ));
    let (mut running, control) = begin(&set, Place::Child);
    running.ready();
    let shutdown = |headers: &str| format!("POST /v1/shutdown HTTP/1.1\r\n{headers}\r\n");
    for (headers, status, reason) in [
        ("Content-Length: 99999999999999\r\n", 413, "the body is larger than 64 KiB"),
        ("Content-Length: -1\r\n", 400, "Content-Length is not a number"),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", 400, "more than one Content-Length"),
        ("Transfer-Encoding: chunked\r\n", 411, "a body needs a Content-Length: Transfer-Encoding is not supported"),
    ] {
        let answer = control.say(shutdown(headers).as_bytes());
        assert_eq!((answer.status, answer.reason()), (status, reason.to_owned()), "{headers}");
    }
    // Only a part of the body, and then the end.
    let mut short = control.connect();
    short.write_all(format!("{}1234", shutdown("Content-Length: 5\r\n")).as_bytes()).unwrap();
    short.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(short.read(&mut [0]).unwrap(), 0, "no answer");
    let mut slow = control.connect();
    slow.write_all(shutdown("Expect: 100-continue\r\nContent-Length: 5\r\n").as_bytes()).unwrap();
    let mut proceed = [0; 25];
    slow.read_exact(&mut proceed).unwrap();
    assert_eq!(&proceed, b"HTTP/1.1 100 Continue\r\n\r\n");
    slow.write_all(b"1234").unwrap();
    assert_eq!((control.state("web.0"), http(&port, "GET", "/livez").status), ("running".to_owned(), 200));
    slow.write_all(b"5").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    running.expect("signal 15");
    assert_eq!(running.end(), 0);
}

#[test]
fn a_stop_names_the_services_that_still_run_and_depend_on_it() {
    let set = Set::new(
        "[services.db]\ncommand = \"sleep 1000\"\n[services.web]\ncommand = \"sleep 1000\"\ndepends_on = [\"db\"]\n[services.job]\ncommand = \"sleep 1000\"\ndepends_on = [\"db\"]\n",
    );
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    control.wait_for("job.0", "running");
    let mut stop = Run::words(Place::Child, &[KEEPALIVE, "stop", "db"]);
    stop.command.env("KEEPALIVE_SOCKET", set.socket());
    let (code, stdout, stderr) = stop.finish();
    assert_eq!(
        (code, &*stdout, stderr.trim_end()),
        (0, "db.0 stopped", "keepalive: warning: web and job depend on db, and still run")
    );
    assert_eq!(control.post("/v1/services/job/stop").json().get("warning"), None);
    let refused = control.post("/v1/services/web/restart");
    assert_eq!((refused.status, &*refused.reason()), (409, "web depends on db, which is stopped: start db first"));
    assert_eq!(control.state("web.0"), "running");
}

/// `ready = "exec"`: a process that dies at once has been ready.
#[test]
fn a_start_is_answered_when_the_process_has_run_for_a_second() {
    let set = Set::new(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"sleep 0.2; test -e DIR/good || exit 3; exec sleep 1000\"]\nautostart = false\n[services.other]\ncommand = \"sleep 1000\"\n",
    );
    let (_running, control) = begin(&set, Place::Child);
    let failed = control.post("/v1/services/web/start");
    assert_eq!(failed.status, 409);
    assert!(failed.reason().starts_with("web.0 is backing off (exited with code 3, ran 2"), "{}", failed.reason());
    set.directory.file("good", b"", 0o644);
    let start = std::time::Instant::now();
    assert_eq!(control.post("/v1/services/web/restart").status, 200);
    assert!(start.elapsed().as_millis() >= 1_000);
    assert_eq!(control.state("web.0"), "running");
}

/// It is a mistake in the configuration, and no crash.
#[test]
fn a_program_that_has_never_run_and_is_missing_fails_at_once() {
    let set = Set::new("[services.web]\ncommand = \"/nothing/at/all\"\n");
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 127, "{stderr}");
    assert!(!stderr.contains("backoff"), "{stderr}");
}

// proc_pid_status(5), RssFile: pages of the program.
#[test]
fn pages_that_a_request_has_used_are_released() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.keepalive())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let settled = wait_until("the pages of the start to be released", || {
        let now = resident();
        std::thread::sleep(Duration::from_millis(100));
        (resident() == now).then_some(now)
    });
    for _ in 0..3 {
        assert_eq!(control.get("/v1/status").status, 200);
        assert_eq!(control.get("/metrics").status, 200);
        assert_eq!(control.post("/v1/services/web/signal?signal=CONT").status, 200);
        wait_until("the pages to be released", || (resident() < settled + settled / 4).then_some(()));
    }
}

#[test]
fn several_services_are_one_request_and_what_has_completed_is_left_alone() {
    let set = Set::new(
        "[services.web]\ncommand = [\"sleep\", \"1000\"]\ndepends_on = [\"db\", \"migrate\"]\n\
         [services.db]\ncommand = [\"sleep\", \"1000\"]\n\
         [services.migrate]\ntype = \"oneshot\"\ncommand = [\"true\"]\n",
    );
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "running");
    let ask = |request: &str| {
        let answer = control.post(&format!("/v1/services/{request}?timeout=1h"));
        let warning = answer.json()["warning"].as_str().unwrap_or_default().to_owned();
        (answer.status, answer.reason(), warning)
    };
    let done = |reason: &str| (200, reason.to_owned(), String::new());
    let left = "migrate: completed, not run again; `keepalive start migrate` runs it".to_owned();
    assert_eq!(ask("all/restart"), (200, "all restarted".to_owned(), left.clone()));
    assert_eq!(ask("migrate/stop"), done("migrate stopped"));
    assert_eq!(ask("web,none/stop").0, 404);
    assert_eq!(control.state("web.0"), "running");
    assert_eq!(ask("db,web/stop"), done("db, web stopped"));
    assert_eq!(ask("web,db,web/start"), done("web, db started"));
    assert_eq!(ask("web,all,web.0/stop"), done("all stopped"));
    assert_eq!(ask("all/stop"), done("all stopped"));
    assert_eq!(ask("all/start"), (200, "all started".to_owned(), left));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}
