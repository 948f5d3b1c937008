//! The control socket: status, requests and stalled clients.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;
use serde_json::json;

use crate::harness::{self, KEEPALIVE, Place, Run, Running, in_every_place, status_field, wait_for_death, wait_until};
use crate::http::{Control, http};
use crate::port::ReservedPort;
use crate::services::Set;

pub(crate) fn begin(set: &Set, place: Place) -> (Running, Control) {
    let running = set.start(place);
    (running, Control::at(&set.socket()))
}

fn pid(instance: &serde_json::Value) -> Pid {
    instance["pid"].as_i64().and_then(|pid| Pid::new(pid.try_into().ok()?)).expect("a pid")
}

#[test]
fn status_shows_services_and_instances() {
    let set = Set::new(concat!(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = 2\n",
        "[services.job]\ntype = \"oneshot\"\ncommand = \"true\"\n",
        "[services.idle]\ncommand = \"true\"\nautostart = false\n",
    ));
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        control.wait_for("job.0", "completed");
        control.wait_for("web.1", "running");
        // A process uses little memory right after exec.
        let answer = wait_until("some memory", || {
            let answer = control.get("/v1/status");
            (answer.json()["services"][0]["instances"][0]["rss_bytes"].as_u64() > Some(10_000)).then_some(answer)
        });
        let status = answer.json();
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("Content-Type: application/json"), "{}", answer.head);
        assert_eq!((&status["state"], &status["version"]), (&json!("running"), &json!(env!("CARGO_PKG_VERSION"))));
        assert!(status["pid"].as_i64() == Some(1) || place == Place::Child, "{status}");
        let names: Vec<_> = status["services"].as_array().unwrap().iter().map(|service| &service["name"]).collect();
        assert_eq!(names, ["web", "job", "idle"]);
        let web = &status["services"][0];
        assert_eq!((&web["type"], &web["state"], &web["ready"]), (&json!("service"), &json!("running"), &json!(true)));
        let first = &web["instances"][0];
        assert_eq!((&first["id"], &first["restarts"], &first["exit"]), (&json!("web.0"), &json!(0), &json!(null)));
        assert!(first["uptime_ms"].is_u64(), "{first}");
        assert_eq!((&first["processes"], &first["cpu_ms"].is_u64()), (&json!(1), &true));
        assert_eq!(status["services"][1]["instances"][0]["exit"], json!({"code": 0}));
        assert_eq!(status["services"][2]["state"], "stopped");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn a_request_is_answered_when_it_is_done() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = 2\n");
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        let before = pid(&control.instance("web.1"));
        let answer = control.post("/v1/services/web.1/restart");
        assert_eq!((answer.status, answer.reason()), (200, "web.1 restarted".to_owned()));
        assert_eq!(answer.json()["instances"], json!([{"id": "web.1", "state": "running"}]));
        let after = control.instance("web.1");
        assert_eq!((&after["restarts"], &after["exit"]), (&json!(0), &json!({"signal": "SIGTERM"})));
        assert_ne!(pid(&after), before);
        assert_eq!(control.post("/v1/services/web/stop?timeout=50s").reason(), "web stopped");
        assert_eq!((control.state("web.0"), control.state("web.1")), ("stopped".to_owned(), "stopped".to_owned()));
        let answer = control.post("/v1/services/web/signal?signal=usr1");
        assert_eq!((answer.status, answer.reason()), (409, "web is not running".to_owned()));
        assert_eq!(control.post("/v1/services/all/start").reason(), "all started");
        let answer = control.post("/v1/services/web/scale?instances=4");
        assert_eq!((answer.status, answer.json()["instances"].as_array().unwrap().len()), (200, 4));
        let scale = |by: &str| control.post(&format!("/v1/services/web/scale?instances={by}")).reason();
        assert_eq!(
            (scale("%2B2"), scale("-1"), scale("+0")),
            ("web has 6 instances".to_owned(), "web has 5 instances".to_owned(), "web has 5 instances".to_owned())
        );
        let refused = scale("-99");
        assert_eq!(refused, "`-99` would leave fewer than 0 instances: there are 5 now");
        assert_eq!(scale("4"), "web has 4 instances");
        let surplus = pid(&control.instance("web.3"));
        assert_eq!(scale("1"), "web has 1 instance");
        if place == Place::Child {
            wait_for_death(surplus);
        }
        let answer = control.post("/v1/services/web.3/stop");
        assert_eq!(
            (answer.status, answer.reason()),
            (404, "there is no instance web.3: web has one, web.0".to_owned())
        );
        assert_eq!(control.post("/v1/services/web.0/signal?signal=SIGKILL").reason(), "SIGKILL sent to web.0");
        wait_until("the restart", || (control.instance("web.0")["restarts"].as_u64() >= Some(1)).then_some(()));
        let answer = control.post("/v1/shutdown");
        assert_eq!((answer.status, answer.reason()), (200, "keepalive is shutting down".to_owned()));
        assert_eq!(running.end(), 0);
        assert!(!set.socket().exists(), "the socket still exists");
    });
}

#[test]
fn an_invalid_request_is_answered_with_the_reason() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n[services.job]\ntype = \"oneshot\"\ncommand = \"true\"\n",
    );
    let (_running, control) = begin(&set, Place::Child);
    let cases = [
        ("GET", "/nowhere", 404, "no such path: /nowhere"),
        ("POST", "/v1/services/wbe/stop", 404, "unknown service `wbe`: the services are web, job"),
        ("POST", "/v1/services/web.x/stop", 404, "there is no instance `web.x`: instances have numbers, as in web.0"),
        ("POST", "/v1/services/web.00/stop", 404, "there is no instance `web.00`: instances have numbers, as in web.0"),
        (
            "POST",
            "/v1/services/server.js/stop",
            404,
            "unknown service `server.js`: the services are web, job; a name has no dot",
        ),
        ("GET", "/v1/logs?service=nosuch", 404, "unknown service `nosuch`: the services are web, job"),
        ("GET", "/v1/logs?service=keepalive,web.9", 404, "there is no instance web.9: web has one, web.0"),
        ("POST", "/v1/services/web=x/stop", 404, "unknown service `web=x`: the services are web, job"),
        (
            "POST",
            "/v1/services/web/jump",
            404,
            "unknown action `jump`: expected start, stop, restart, reload, signal or scale",
        ),
        ("POST", "/v1/services/web/signal", 400, "missing parameter `signal`, such as ?signal=SIGUSR1"),
        ("POST", "/v1/services/web/signal?signal=SIGFOO", 400, "`SIGFOO` is not a signal"),
        ("POST", "/v1/services/web/scale", 400, "missing parameter `instances`, such as ?instances=4"),
        (
            "POST",
            "/v1/services/web/scale?instances=65537",
            400,
            "invalid number of instances `65537`: expected 0 to 65536, or a change such as +1 or -1",
        ),
        (
            "POST",
            "/v1/services/web.0/scale?instances=2",
            400,
            "`scale` needs one service: /v1/services/NAME/scale?instances=N",
        ),
        (
            "POST",
            "/v1/services/job/scale?instances=2",
            409,
            "cannot scale oneshot job: change `instances` in the configuration",
        ),
        ("POST", "/v1/services/web/stop?timeout=5", 400, "invalid duration `5`: expected one such as 30s"),
        ("GET", "/v1/services/web/stop", 405, "/v1/services/web/stop requires POST, found GET"),
        ("POST", "/v1/status", 405, "/v1/status requires GET, found POST"),
        ("GET", "/v1/events?follow=maybe", 400, "`follow` must be 1 or 0, found `maybe`"),
        ("GET", "/v1/events?after=07", 400, "`after` must be a number or `latest`, found `07`"),
        ("GET", "/v1/services/all", 400, "this needs one service or instance, not `all`"),
        ("GET", "/v1/services/web.7", 404, "there is no instance web.7: web has one, web.0"),
        ("GET", "/v1/services/web.7/environment", 404, "there is no instance web.7: web has one, web.0"),
        ("POST", "/v1/services/web", 405, "/v1/services/web requires GET, found POST"),
        ("GET", "/readyz?service=wbe", 404, "unknown service `wbe`: the services are web, job"),
    ];
    for (method, target, status, reason) in cases {
        let answer = if method == "GET" { control.get(target) } else { control.post(target) };
        assert_eq!((answer.status, answer.reason()), (status, reason.to_owned()), "{method} {target}");
    }
    let garbage = control.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 what\r\n\r\n");
    assert_eq!((garbage.status, garbage.reason()), (400, "not an HTTP request".to_owned()));
    let huge = control.say(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)).as_bytes());
    assert_eq!((huge.status, huge.reason()), (431, "the request is longer than 8 KiB".to_owned()));
    let headers = "X: y\r\n".repeat(100);
    let many = control.say(format!("GET /livez HTTP/1.1\r\n{headers}\r\n").as_bytes());
    assert_eq!((many.status, many.reason()), (431, "the request has more than 64 headers".to_owned()));
    // A client that sends an unexpected body still gets its answer.
    let body = "x".repeat(50_000);
    let request = format!("POST /v1/services/web/start HTTP/1.1\r\nContent-Length: 50000\r\n\r\n{body}");
    assert_eq!(control.say(request.as_bytes()).status, 200);
}

#[test]
fn a_request_that_times_out_is_answered_with_the_unfinished_instances() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\nstop_timeout = \"1h\"\n[services.other]\ncommand = [\"PUPPET\", \"ignore\"]\n",
    );
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    running.ready();
    let answer = control.post("/v1/services/all/stop?timeout=50ms");
    assert_eq!(answer.status, 504);
    let expected = "not finished within 50ms, still in progress: web.0 is stopping (stopped by operator; SIGKILL in ";
    assert!(answer.reason().starts_with(expected), "{}", answer.reason());
    assert_eq!(answer.json()["result"], "timeout");
    // Requests of clients that have disconnected are dropped.
    for _ in 0..100 {
        drop(control.ask("POST", "/v1/services/web/stop"));
    }
    let web = pid(&control.instance("web.0"));
    let waiting = control.ask("POST", "/v1/services/web/stop");
    signal_process(web, Signal::KILL).unwrap();
    let mut text = String::new();
    (&waiting).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("web stopped"), "{text}");
}

/// A shutdown refuses earlier requests explicitly.
#[test]
fn a_shutdown_answers_all_open_requests() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\n");
    let (mut running, control) = begin(&set, Place::Child);
    let web = running.ready();
    let mut waiting = control.ask("POST", "/v1/services/web/restart");
    control.wait_for("web.0", "stopping");
    let mut events = control.stream("/v1/events?follow=1");
    running.send(Signal::TERM);
    let mut text = String::new();
    waiting.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 409 ") && text.contains("keepalive is shutting down"), "{text}");
    signal_process(web, Signal::KILL).unwrap();
    assert_eq!(running.end(), 0);
    let last = events.by_ref().last().expect("events");
    assert_eq!((&last["instance"], &last["to"]), (&json!("web.0"), &json!("stopped")), "{last}");
}

#[test]
fn only_its_owner_can_use_the_control_socket() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (running, control) = begin(&set, Place::Child);
    let mode = std::fs::metadata(set.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if !harness::have_root() {
        return;
    }
    // This also applies if the mode of the socket file allows others to connect.
    std::fs::set_permissions(set.socket(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(set.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  s.sendall(b'POST /v1/shutdown HTTP/1.1\\r\\n\\r\\n'); print(s.recv(9999).decode().splitlines()[-1])";
    let socket = set.socket();
    let words = ["setpriv", "--reuid=65534", "--clear-groups", "python3", "-c", script, socket.to_str().unwrap()];
    let (code, stdout, stderr) = Run::words(Place::Child, &words).finish();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "{\"result\":\"forbidden\",\"reason\":\"user 65534 is neither root nor keepalive's own user\"}");
    let events = control.get("/v1/events").body;
    assert!(events.contains("\"event\":\"client_rejected\""), "{events}");
    assert_eq!(control.state("web.0"), "running");
    drop(running);
}

#[test]
fn a_stale_socket_is_replaced_and_any_other_file_is_not() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    drop(UnixListener::bind(set.socket()).unwrap());
    let (mut running, _) = begin(&set, Place::Child);
    // The socket belongs to the next keepalive now.
    std::fs::remove_file(set.socket()).unwrap();
    let successor = UnixListener::bind(set.socket()).unwrap();
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    assert!(set.socket().exists(), "the socket of another keepalive has been removed");
    drop(successor);
    std::fs::remove_file(set.socket()).unwrap();
    std::fs::write(set.socket(), "precious").unwrap();
    let mut running = set.start(Place::Child);
    running.ready();
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let expect = format!(
        "keepalive: warning: cannot create the control socket at {} (the file is not a socket): client commands do not work",
        set.socket().display()
    );
    assert!(stderr.contains(&expect), "{stderr}");
    assert_eq!(std::fs::read_to_string(set.socket()).unwrap(), "precious");
}

#[test]
fn the_socket_of_another_keepalive_is_refused() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (first, control) = begin(&set, Place::Child);
    let at = format!(
        "[keepalive]\ncontrol = \"{}\"\n[services.b]\ncommand = [\"PUPPET\", \"ignore\"]\n",
        set.socket().display()
    );
    let other = Set::new(&at);
    let mut second = other.start(Place::Child);
    second.ready();
    second.send(Signal::TERM);
    assert_eq!(second.end(), 0);
    let stderr = second.stderr();
    let expect = format!(
        "keepalive: error: another keepalive uses the control socket {}: set a different `control`",
        set.socket().display()
    );
    assert!(stderr.contains(&expect), "{stderr}");
    assert_eq!(control.get("/v1/status").json()["services"][0]["name"], "web");
    drop(first);
}

#[test]
fn keepalive_runs_without_a_control_socket_if_it_cannot_be_created() {
    let directory = harness::Directory::new();
    let config =
        directory.file("keepalive.toml", b"services.a.command = \"true\"\nservices.a.restart = \"never\"\n", 0o644);
    let mut run = Run::words(Place::Child, &[KEEPALIVE, "-c", &config]);
    run.command.env("KEEPALIVE_SOCKET", directory.path().join("no/such/place"));
    let (code, _, stderr) = run.finish();
    assert_eq!(code, 0);
    assert!(stderr.contains("warning: cannot create the control socket at "), "{stderr}");
    assert!(stderr.contains("/no/such/place (No such file or directory): client commands do not work; "), "{stderr}");
    assert!(
        stderr.contains("`docker run --tmpfs /run`), or set KEEPALIVE_SOCKET or `control = \"/PATH\"`"),
        "{stderr}"
    );
    let text = format!("[keepalive]\ncontrol = false\n{}", "[services.a]\ncommand = \"true\"\nrestart = \"never\"\n");
    let set = Set::new(&text);
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stderr.contains("control socket"), set.socket().exists()), (0, false, false));
}

/// A client that sends nothing or half a request, or reads nothing, affects no other client.
#[test]
fn a_stalled_client_does_not_delay_others() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n[services.loop]\ncommand = \"true\"\nmin_uptime = \"0s\"\nmax_restarts = \"unlimited\"\n",
    );
    let (mut running, control) = begin(&set, Place::Child);
    running.ready();
    let silent: Vec<UnixStream> = (0..10).map(|_| control.connect()).collect();
    let halves: Vec<UnixStream> = (0..10).map(|_| control.connect()).collect();
    halves.iter().for_each(|mut half| half.write_all(b"GET /v1/sta").unwrap());
    // A thousand events a second without a reader.
    let deaf: Vec<UnixStream> = (0..10).map(|_| control.ask("GET", "/v1/events?follow=1")).collect();
    let restarts = || control.instance("loop.0")["restarts"].as_u64().unwrap();
    let before = restarts();
    wait_until("another thousand restarts", || (restarts() > before + 1_000).then_some(()));
    assert_eq!(control.post("/v1/services/web/restart").status, 200);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    drop((silent, halves, deaf));
}

#[test]
fn a_follower_that_reads_late_gets_the_number_of_events_that_it_has_lost() {
    // Each start of a program that does not exist is two events and takes no time, so that all have happened before the
    // connection counts as stalled.
    let name = "missing-".repeat(7);
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n[services.{name}x]\ncommand = [\"DIR/none\"]\n\
         instances = 2000\nautostart = false\nrestart = \"never\"\non_failure = \"ignore\"\n"
    ));
    let mut run = set.run(Place::Child);
    run.command.env("KEEPALIVE_LOG", "off");
    let mut running = run.start();
    running.ready();
    let control = Control::at(&set.socket());
    let mut follower = control.ask("GET", "/v1/events?follow=1");
    let _start = control.ask("POST", &format!("/v1/services/{name}x/start"));
    wait_until("all events to have happened", || {
        let metrics = control.get("/metrics").body;
        let total = metrics.lines().find_map(|line| line.strip_prefix("keepalive_events_total ")).unwrap();
        (total.parse::<u32>().unwrap() > 4_000).then_some(())
    });
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("{\"event\":\"events_dropped\",\"count\":") {
        let mut buffer = [0; 1 << 16];
        let length = follower.read(&mut buffer).expect("events");
        assert!(length > 0, "the connection is closed");
        text.extend_from_slice(&buffer[..length]);
    }
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn an_incomplete_request_times_out() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (_running, control) = begin(&set, Place::Child);
    let answer = control.say(b"GET /livez HTTP/1.1\r\nHost: ");
    assert_eq!((answer.status, answer.reason()), (408, "the request was not received in time".to_owned()));
    assert!(control.get("/metrics").body.contains("\nkeepalive_clients_dropped_total 1\n"));
}

#[test]
fn an_idle_follower_does_not_wake_keepalive() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = 10\n");
    let (running, control) = begin(&set, Place::Child);
    for _ in 0..10 {
        running.ready();
    }
    let mut events = control.stream("/v1/events?follow=1");
    // They are reported in the order in which the processes execute their programs.
    let ready = events.by_ref().filter(|event| event["to"] == "running").take(10).count();
    assert_eq!(ready, 10);
    let switches = || status_field(running.keepalive(), "voluntary_ctxt_switches");
    let settled = wait_until("keepalive to become idle", || {
        let before = switches();
        std::thread::sleep(std::time::Duration::from_millis(300));
        (switches() == before).then_some(before)
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(switches(), settled);
    control.post("/v1/services/web.3/signal?signal=SIGKILL");
    let next = events.next().expect("an event");
    assert_eq!((&next["instance"], &next["exit"]), (&json!("web.3"), &json!({"signal": "SIGKILL"})));
}

#[test]
fn http_is_read_only() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n[services.bad]\ncommand = \"false\"\non_failure = \"ignore\"\nrestart = \"never\"\n"
    ));
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        control.wait_for("bad.0", "failed");
        control.wait_for("web.0", "running");
        assert_eq!(http(&port, "GET", "/livez").json(), json!({"status": "ok"}));
        let ready = http(&port, "GET", "/readyz");
        assert_eq!(ready.status, 503);
        assert!(ready.reason().starts_with("bad.0 has failed (exited with code 1, ran "), "{}", ready.reason());
        assert_eq!(ready.json()["services"]["web"], json!({"ready": true, "state": "running"}));
        assert_eq!(http(&port, "GET", "/readyz?service=web").json()["reason"], "ready");
        assert_eq!(http(&port, "GET", "/readyz?service=web.0").status, 200);
        assert_eq!(http(&port, "GET", "/v1/status").json()["services"][0]["name"], "web");
        assert!(http(&port, "GET", "/metrics").head.contains("text/plain; version=0.0.4"));
        let page = http(&port, "GET", "/");
        assert!(page.head.contains("Content-Security-Policy: default-src 'none'"), "{}", page.head);
        assert!(page.head.contains("Content-Encoding: gzip"), "{}", page.head);
        let refused = http(&port, "POST", "/v1/shutdown");
        assert_eq!((refused.status, &refused.json()["result"]), (403, &json!("forbidden")));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

/// The status of a thousand instances is sent in several pieces.
#[test]
fn a_large_answer_is_complete() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = 400\n");
    let (running, control) = begin(&set, Place::Child);
    for _ in 0..400 {
        running.ready();
    }
    let status = control.get("/v1/status").json();
    let instances = status["services"][0]["instances"].as_array().unwrap();
    let ids: Vec<String> = instances.iter().map(|instance| instance["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..400).map(|number| format!("web.{number}")).collect::<Vec<_>>());
    assert!(instances.iter().all(|instance| instance["processes"] == 1), "{status}");
    let metrics = control.get("/metrics").body;
    let ups = metrics.lines().filter(|line| line.starts_with("keepalive_instance_up{") && line.ends_with(" 1"));
    assert_eq!(ups.count(), 400);
    let events = control.get("/v1/events").body;
    let numbers: Vec<u64> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), 1_000);
    let last = numbers[999];
    let after = control.get(&format!("/v1/events?after={}", last - 2)).body;
    assert!(after.starts_with(&format!("{{\"seq\":{},", last - 1)) && after.lines().count() == 2, "{after}");
    for nothing in [last.to_string(), "latest".to_owned(), "18446744073709551615".to_owned()] {
        assert_eq!(control.get(&format!("/v1/events?after={nothing}")).body, "");
    }
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
}

/// A piece may end between two services.
#[test]
fn the_status_of_many_services_is_complete() {
    let idle = |number| format!("[services.s{number}]\ncommand = \"true\"\nautostart = false\n");
    let idle: String = (0..500).map(idle).collect();
    let set = Set::new(&format!("{idle}[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n"));
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let status = control.get("/v1/status").json();
    let services = status["services"].as_array().unwrap();
    let names: Vec<_> = services.iter().map(|service| service["name"].as_str().unwrap()).collect();
    let expected: Vec<_> = (0..500).map(|number| format!("s{number}")).chain(["web".to_owned()]).collect();
    assert_eq!(names, expected);
}
