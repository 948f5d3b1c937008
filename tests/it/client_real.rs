//! The client commands with a running keepalive.

use keepalive::model::Signal;
use keepalive::sys::signal_process;

use crate::harness::{KEEPALIVE, Place, Run, Running, in_every_place, wait_until};
use crate::logs_lines::logger_of;
use crate::services::Set;

/// A service with two instances, a oneshot and a service without `autostart`.
const TEXT: &str = "\
[services.web]
command = [\"PUPPET\", \"ignore\", \"10\"]
instances = 2
[services.job]
type = \"oneshot\"
command = \"true\"
[services.idle]
command = [\"PUPPET\", \"ignore\"]
autostart = false
";

fn client(set: &Set, words: &[&str]) -> (i32, String, String) {
    // A slow answer is not a failure. `completions` has no `--timeout`.
    let limit: &[&str] =
        if words.contains(&"--timeout") || words[0] == "completions" { &[] } else { &["--timeout=1h"] };
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words, limit].concat());
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    run.finish()
}

#[track_caller]
fn check(set: &Set, words: &[&str], stdout: &str) {
    assert_eq!(client(set, words), (0, stdout.to_owned(), String::new()), "{words:?}");
}

/// Waits until all services with `autostart` are ready.
fn wait_for_ready(set: &Set) {
    wait_until("all to be ready", || (client(set, &["health", "--ready"]).0 == 0).then_some(()));
}

#[test]
fn a_client_shows_and_controls_a_running_service_set() {
    let set = Set::new(TEXT);
    in_every_place(|place| {
        let mut running = set.start(place);
        wait_for_ready(&set);
        check(&set, &["health", "--ready"], "ready");
        check(&set, &["health", "web"], "ready");
        check(&set, &["stop", "web.1"], "web.1 stopped");
        let (code, stdout, _) = client(&set, &["status"]);
        let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
        let expected = [
            ["keepalive", &format!("{}{}", env!("CARGO_PKG_VERSION"), if place == Place::Child { "" } else { "," })],
            ["NAME", "STATE"],
            ["web.0", "running"],
            ["web.1", "stopped"],
        ];
        assert_eq!((code, &rows[..4]), (0, &expected.map(Vec::from)[..]), "{stdout}");
        assert!(stdout.contains("job.0   completed") && stdout.contains("idle.0  stopped"), "{stdout}");
        check(&set, &["start", "web", "idle"], "web.0 running\nweb.1 running\nidle.0 running");
        check(&set, &["scale", "web", "+1"], "web has 3 instances");
        check(&set, &["restart", "web.2", "--timeout", "50s"], "web.2 running");
        check(&set, &["signal", "web.0", "usr1"], "SIGUSR1 sent to web.0");
        check(&set, &["reload", "web.0", "web.0"], "web.0 reloaded");
        check(&set, &["completions", "names"], "web\nweb.0\nweb.1\nweb.2\njob\nidle\nall");
        let (code, stdout, _) = client(&set, &["events"]);
        assert_eq!(code, 0);
        assert!(stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{stdout}");
        assert!(stdout.contains("\"instance\":\"web.2\""), "{stdout}");
        let (code, _, stderr) = client(&set, &["shutdown"]);
        assert_eq!((code, stderr.as_str(), running.end()), (0, "", 0));
        let (code, _, stderr) = client(&set, &["status"]);
        assert!(code == 3 && stderr.starts_with("keepalive: cannot connect to "), "{stderr}");
    });
}

#[test]
fn an_impossible_request_prints_one_line_and_exits_with_1() {
    let set = Set::new(TEXT);
    let mut running = set.start(Place::Child);
    wait_for_ready(&set);
    for words in [&["stop", "wbe"][..], &["restart", "web.7"], &["health", "wbe"], &["status", "wbe"], &["logs", "wbe"]]
    {
        let (code, stdout, stderr) = client(&set, words);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{words:?}: {stderr}");
        assert!(stderr.starts_with("keepalive: "), "{stderr}");
    }
    let (code, stdout, _) = client(&set, &["stop", "wbe", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["result"]), (1, &serde_json::json!("not_found")));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn a_followed_event_stream_ends_with_keepalive() {
    let set = Set::new(TEXT);
    let mut running = set.start(Place::Child);
    wait_for_ready(&set);
    let mut run = Run::words(Place::Child, &[KEEPALIVE, "events", "-f"]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let mut follower = run.start();
    while !follower.line().contains("\"event\":\"transition\"") {}
    running.send(Signal::TERM);
    while !follower.line().contains("\"to\":\"stopped\"") {}
    assert_eq!((running.end(), follower.end(), follower.stderr().as_str()), (0, 0, ""));
}

fn follow(set: &Set, what: &str) -> Running {
    let mut run = Run::words(Place::Child, &[KEEPALIVE, what, "-f"]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let follower = run.start();
    follower.line();
    follower
}

/// The output is incomplete, so a script must see a failure.
#[test]
fn a_stream_that_a_kill_interrupts_is_a_failure() {
    let set = Set::new(concat!(
        "[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n",
        "log = { stdout = \"prefix\" }\n",
    ));
    in_every_place(|place| {
        let running = set.start(place);
        wait_for_ready(&set);
        let [events, logs] = ["events", "logs"].map(|what| follow(&set, what));
        let keepalive = running.keepalive();
        let check_broken_off = |mut follower: Running| {
            let path = set.socket();
            let path = path.display();
            let message = format!(
                "keepalive: the stream ended unexpectedly, and {path} still exists: keepalive or its logger was killed\n"
            );
            assert_eq!((follower.end(), follower.stderr()), (3, message));
        };
        signal_process(logger_of(keepalive).unwrap(), Signal::KILL).unwrap();
        check_broken_off(logs);
        wait_until("the next logger", || logger_of(keepalive));
        let logs = follow(&set, "logs");
        signal_process(keepalive, Signal::KILL).unwrap();
        // This also kills the services and their logger.
        drop(running);
        check_broken_off(events);
        check_broken_off(logs);
    });
}

#[test]
fn a_followed_log_stream_ends_with_keepalive_after_the_last_line() {
    let set = Set::new(concat!(
        "[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n",
        "log = { stdout = \"prefix\" }\n",
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        wait_for_ready(&set);
        let mut follower = follow(&set, "logs");
        running.send(Signal::TERM);
        assert_eq!((running.end(), follower.end(), follower.stderr().as_str()), (0, 0, ""));
    });
}
