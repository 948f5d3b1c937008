//! What status, answers and messages say about why something is not running, and what it waits for.

use keepalive::model::Signal;

use crate::control::begin;
use crate::harness::{KEEPALIVE, Place, Run, wait_until};
use crate::http::Answer;
use crate::port::ReservedPort;
use crate::reload::answer;
use crate::services::Set;

/// The directory that both processes want is like a port that both want to bind. Whether they do is seen in the definition or in
/// what they write.
#[test]
fn a_new_process_that_fails_beside_the_old_one_fails_the_reload_with_a_hint_about_ports() {
    const HINT: &str = "set `reload = \"restart\"` or pass the socket with `listen`";
    for (keys, says, hints) in [
        ("env = { PORT = \"80\" }", "EADDRINUSE", [true, false]),
        ("", "bind: Address already in use", [false, true]),
        ("", "no database", [false, false]),
    ] {
        let failed = reload_beside_old(keys, says);
        let lines = failed.json()["last_lines"].as_str().unwrap().to_owned();
        assert_eq!([failed.reason().contains(HINT), lines.contains(HINT)], hints, "{} {lines}", failed.reason());
    }
}

fn reload_beside_old(keys: &str, says: &str) -> Answer {
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"mkdir DIR/taken || {{ echo {says}; exit 1; }}; exec sleep 1000\"]\n{keys}\n"
    ));
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    wait_until("the directory", || set.directory.path().join("taken").exists().then_some(()));
    let pid = control.instance("web.0")["pid"].clone();
    let failed = control.post("/v1/services/web/reload");
    let reason = failed.reason();
    assert_eq!(failed.status, 409, "{reason}");
    assert!(reason.starts_with("the new process of web.0 failed: exited with code 1, ran "), "{reason}");
    assert_eq!(control.instance("web.0")["pid"], pid);
    failed
}

/// keepalive has bound the port already.
#[test]
fn a_program_that_binds_the_address_of_its_listen_fails_with_a_hint() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"echo Error: listen EADDRINUSE {port} >&2; exit 1\"]\n\
         listen = {{ http = \"tcp://{port}\" }}\nrestart = \"never\"\non_failure = \"ignore\"\n\
         [services.other]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n"
    ));
    let (mut running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "failed");
    let hint = "hint: keepalive itself has bound the addresses of `listen`: let the program use descriptor 3 (`{fd.http}`), or remove `listen`";
    let lines = wait_until("the last lines", || Some(control.instance("web.0")["last_lines"].as_str()?.to_owned()));
    assert_eq!(lines, format!("Error: listen EADDRINUSE {port}\n{hint}"));
    // Where the instance is named, people see them too.
    let shown = |words: &[&str]| {
        let socket = set.socket();
        let words = [&[KEEPALIVE], words, &["--socket", socket.to_str().unwrap()]].concat();
        Run::words(Place::Child, &words).finish().1
    };
    let below = format!("\nlast lines of web.0\n  {}", lines.replace('\n', "\n  "));
    let [named, described, all] = [&["status", "web"][..], &["describe", "web.0"], &["status"]].map(shown);
    assert!(
        named.ends_with(&below) && described.contains(&format!("{below}\n\nlatest events\n")),
        "{named}{described}"
    );
    assert!(!all.contains("last lines"), "{all}");
    running.send(Signal::TERM);
    running.end();
    let stderr = running.stderr();
    let shown = format!("its last lines:\nkeepalive:   {}\n", lines.replace('\n', "\nkeepalive:   "));
    assert!(stderr.contains(&shown), "{stderr}");
}

#[test]
fn a_reload_that_a_stop_has_ended_is_answered_as_superseded() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\nready = { file = \"DIR/up\" }\n[services.other]\ncommand = \
         [\"PUPPET\", \"ignore\"]\n",
    );
    let (_running, control) = begin(&set, Place::Child);
    // A file that is older than the process does not count.
    wait_until("the process", || control.instance("web.0")["pid"].as_u64());
    set.directory.file("up", b"", 0o644);
    control.wait_for("web.0", "running");
    std::fs::remove_file(set.directory.path().join("up")).unwrap();
    let reload = control.ask("POST", "/v1/services/web/reload");
    let has_surge = || control.get("/v1/status").body.contains("\"surge\":true").then_some(());
    wait_until("the new process", has_surge);
    assert_eq!(control.post("/v1/services/web/stop").status, 200);
    let answer = answer(reload);
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    assert!(answer.contains("superseded by another request for web.0"), "{answer}");
}

#[test]
fn a_oneshot_that_does_not_finish_in_time_fails_with_the_reason() {
    let set = Set::new(
        "[services.wait]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"exec sleep 1000\"]\nready_timeout = \"200ms\"\n\
         restart = \"never\"\n",
    );
    let (_, plan, _) = Run::words(Place::Child, &[KEEPALIVE, "check", "-c", &set.config]).finish();
    assert!(plan.contains("\n  ready      when it has succeeded, within 200ms\n"), "{plan}");
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 1, "{stderr}");
    let expect = "wait.0 failed: not finished within 200ms; killed by SIGTERM, ran ";
    assert!(set.end().starts_with(expect), "{}", set.end());
}

#[test]
fn a_request_for_several_tells_all_failures() {
    let failing = |name: &str, code: u8| {
        let command = format!("command = [\"PUPPET\", \"exit\", \"{code}\"]");
        format!("[services.{name}]\n{command}\nautostart = false\nrestart = \"never\"\non_failure = \"ignore\"\n")
    };
    let keeper = "[services.keeper]\ncommand = [\"PUPPET\", \"ignore\"]\n";
    let set = Set::new(&[&failing("a", 3), &failing("b", 4), keeper].concat());
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("keeper.0", "running");
    let failed = control.post("/v1/services/a,b,keeper/start");
    let reason = failed.reason();
    let lines: Vec<_> = reason.lines().map(|line| line.split_once(", ran ").unwrap().0).collect();
    let expect = ["a.0 has failed (exited with code 3", "b.0 has failed (exited with code 4"];
    assert_eq!((failed.status, &lines[..]), (409, &expect[..]), "{reason}");
}

#[test]
fn a_service_of_which_one_instance_has_failed_is_degraded_and_not_ready() {
    let set = Set::new(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"test {instance} = 0 || exit 3; exec sleep 1000\"]\ninstances = 2\n\
         restart = \"never\"\n[services.proxy]\ncommand = \"sleep 1000\"\ndepends_on = [\"web\"]\n",
    );
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("web.1", "failed");
    // What depends on it starts: an instance serves.
    control.wait_for("proxy.0", "running");
    let web = &control.get("/v1/status").json()["services"][0];
    assert_eq!((&web["state"], &web["ready"]), (&"degraded".into(), &false.into()));
    let ready = control.get("/readyz");
    assert_eq!((ready.status, &ready.json()["services"]["web"]["state"]), (503, &"degraded".into()));
    let reason = ready.reason();
    assert!(reason.starts_with("web.1 has failed (exited with code 3, ran "), "{reason}");
    assert!(control.get("/metrics").body.contains("\nkeepalive_service_ready{service=\"web\"} 0\n"));
    let (_, output, _) =
        Run::words(Place::Child, &[KEEPALIVE, "status", "--socket", set.socket().to_str().unwrap()]).finish();
    assert!(output.lines().next().unwrap().ends_with("; degraded: web"), "{output}");
}

/// "Every wait has its reason, with names."
#[test]
fn what_waits_names_what_it_waits_for() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[services.slow]\ncommand = [\"PUPPET\", \"ignore\"]\nready = {{ tcp = \"{port}\" }}\n\
         [services.needs-slow]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"slow\"]\n\
         [services.last]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"needs-slow\"]\n\
         [services.asks]\ncommand = [\"PUPPET\", \"ignore\"]\nready = {{ exec = \"sh -c 'echo no answer; exit 2'\" }}\n\
         [services.notify]\ncommand = [\"PUPPET\", \"ignore\"]\nready = \"notify\"\n\
         [services.off]\ncommand = \"true\"\nautostart = false\n\
         [services.crash]\ncommand = [\"PUPPET\", \"exit\", \"3\"]\nbackoff = {{ initial = \"1h\", max = \"1h\", jitter = 0 }}\n"
    ));
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("notify.0", "starting");
    control.wait_for("crash.0", "backoff");
    let reason = |name: &str| control.instance(name)["reason"].as_str().unwrap().to_owned();
    let refused = format!("tcp {port} refused");
    wait_until("a failed attempt", || (reason("slow.0") == refused).then_some(()));
    let no_answer = "exec sh: exited with code 2: no answer";
    wait_until("an attempt that has written a line", || (reason("asks.0") == no_answer).then_some(()));
    assert_eq!(reason("needs-slow.0"), format!("waiting for slow (starting: {refused})"));
    assert_eq!(reason("last.0"), format!("waiting for needs-slow (waiting for slow (starting: {refused}))"));
    assert_eq!(reason("notify.0"), "waiting for READY=1");
    assert_eq!(reason("off.0"), "not started (autostart = false)");
    let ready = control.get("/readyz?service=needs-slow").reason();
    assert_eq!(ready, format!("needs-slow.0 is waiting for slow (starting: {refused})"));
    let reload = control.post("/v1/services/needs-slow/reload");
    let refused = format!("needs-slow is not running: waiting for slow (starting: {refused})");
    assert_eq!((reload.status, reload.reason()), (409, refused));
    // The time that is left, not that of the decision.
    let backoff = || reason("crash.0").split_once("restart 1 of 16 in ").unwrap().1.to_owned();
    let first = wait_until("less than an hour", || Some(backoff()).filter(|left| !left.starts_with("1h")));
    wait_until("less of it", || (backoff() != first).then_some(()));
    assert_eq!(control.post("/v1/services/crash/stop").status, 200);
    assert_eq!(reason("crash.0"), "stopped by operator");
    assert_eq!(control.post("/v1/services/notify/stop").status, 200);
    let stopped = reason("notify.0");
    assert!(stopped.starts_with("stopped by operator; killed by SIGTERM, ran "), "{stopped}");
}

/// A start tries again what has failed and is needed: `systemctl start` and `docker compose up` do so too. Answers and status name
/// the cause, over any number of dependencies.
#[test]
fn a_start_tries_failed_dependencies_again_and_says_why_they_fail() {
    let set = Set::new(concat!(
        "[services.db]\ntype = \"oneshot\"\nrestart = \"never\"\non_failure = \"ignore\"\n",
        "command = [\"sh\", \"-c\", \"test -e DIR/mended || { echo no space left; exit 3; }\"]\n",
        "[services.cache]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"db\"]\n",
        "[services.api]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"cache\"]\n",
        "[services.other]\ncommand = [\"PUPPET\", \"ignore\"]\n",
    ));
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("api.0", "failed");
    let why = "cannot start: its dependency cache has failed; db.0: exited with code 3, ran ";
    let shown = control.instance("api.0")["reason"].as_str().unwrap().to_owned();
    assert!(shown.starts_with(why), "{shown}");
    let refused = control.post("/v1/services/api/start");
    assert_eq!((refused.status, &refused.json()["last_lines"]), (409, &"no space left".into()));
    assert!(refused.reason().starts_with(&format!("api.0 has failed ({why}")), "{}", refused.reason());
    set.directory.file("mended", b"", 0o644);
    assert_eq!(control.post("/v1/services/api/start").reason(), "api started");
    assert_eq!(control.state("db.0"), "completed");
}

#[test]
fn a_reload_says_that_a_dependency_has_failed_and_why() {
    let set = Set::new(concat!(
        "[services.db]\ncommand = [\"sh\", \"-c\", \"read line < DIR/gate; exit 3\"]\nrestart = \"never\"\non_failure = \"ignore\"\n",
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"db\"]\n",
    ));
    let gate = set.directory.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    std::fs::write(&gate, "go\n").unwrap();
    control.wait_for("db.0", "failed");
    let reload = control.post("/v1/services/web/reload");
    let why = "no new process for web.0: its dependency db has failed; db.0: exited with code 3, ran ";
    assert!(reload.reason().starts_with(why), "{}", reload.reason());
    // It names the remedy.
    let scale = control.post("/v1/services/web/scale?instances=%2B1");
    assert_eq!((scale.status, scale.reason().as_str()), (409, "web depends on db, which has failed: start db first"));
}
