//! Health checks.

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs;

use crate::harness::{KEEPALIVE, Place, Run, have_root, in_every_place, wait_for_death, wait_until};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::programs::program;
use crate::services::Set;

/// What `keepalive` with these words prints.
fn client(set: &Set, words: &[&str]) -> (i32, String, String) {
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words, &["--timeout=1h"]].concat());
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    run.finish()
}

fn wait_for_status(control: &Control, id: &str, status: &str) {
    let is_it = || (control.instance(id)["health"]["status"] == status).then_some(());
    wait_until(&format!("{id} to be {status}"), is_it);
}

/// An instance that is healthy as long as DIR/ok exists.
fn marked(keys: &str) -> Set {
    let set = Set::new(&format!(
        "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nhealth = {{ exec = [\"sh\", \"-c\", \"test -e DIR/ok && exit; echo it is; echo broken; exit 3\"], interval = \"20ms\", timeout = \"1h\", retries = 2 }}\n{keys}\n"
    ));
    set.directory.file("ok", b"", 0o644);
    set
}

fn break_it(set: &Set) {
    std::fs::remove_file(set.directory.path().join("ok")).unwrap();
}

const UNHEALTHY: &str = "unhealthy: exec sh: exited with code 3: broken";

#[test]
fn an_unhealthy_service_is_stopped_gracefully_and_the_run_is_unstable() {
    in_every_place(|place| {
        let set = marked("min_uptime = \"0s\"");
        let mut running = set.start(place);
        running.ready();
        let control = Control::at(&set.socket());
        wait_for_status(&control, "a.0", "healthy");
        break_it(&set);
        running.expect("signal 15");
        running.ready();
        set.directory.file("ok", b"", 0o644);
        wait_for_status(&control, "a.0", "healthy");
        let (_, text, _) = client(&set, &["describe", "a"]);
        assert!(text.contains("  health     every 20ms: `sh -c"), "{text}");
        assert!(text.contains("  checks     a.0 healthy; "), "{text}");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        let stop = format!("warning: a.0 running → stopping ({UNHEALTHY})");
        let end = format!("a.0 stopping → backoff ({UNHEALTHY}; exited with code 0, ran ");
        assert!(
            stderr.contains(&stop) && stderr.contains(&end) && stderr.contains("; restart 1 of 16 in "),
            "{stderr}"
        );
    });
}

#[test]
fn a_marked_service_runs_on_and_is_not_ready_until_it_is_healthy_again() {
    in_every_place(|place| {
        let set = marked("on_unhealthy = \"mark\"");
        let mut running = set.start(place);
        let pid = running.ready();
        let control = Control::at(&set.socket());
        wait_for_status(&control, "a.0", "healthy");
        assert_eq!(client(&set, &["health", "--ready", "a"]).0, 0);
        break_it(&set);
        wait_for_status(&control, "a.0", "unhealthy");
        let reason = format!("a.0 is running ({UNHEALTHY})");
        let expected = (1, String::new(), format!("keepalive: not ready: {reason}\n"));
        assert_eq!(client(&set, &["health", "--ready", "a"]), expected);
        let answer = control.get("/readyz");
        assert_eq!((answer.status, answer.reason()), (503, reason));
        let (_, table, _) = client(&set, &["status"]);
        assert!(table.contains(&format!("not ready; {UNHEALTHY}")), "{table}");
        let health = control.instance("a.0")["health"].clone();
        assert_eq!(health["last_failure"], "exec sh: exited with code 3: broken");
        assert!(health["failed_checks"].as_u64() >= Some(2), "{health}");
        let metrics = control.get("/metrics").body;
        let sample = "keepalive_instance_health{service=\"a\",instance=\"a.0\",status=\"unhealthy\"} 1\n";
        assert!(
            metrics.contains(sample)
                && metrics.contains("keepalive_instance_ready{service=\"a\",instance=\"a.0\"} 0\n")
        );
        set.directory.file("ok", b"", 0o644);
        wait_for_status(&control, "a.0", "healthy");
        assert_eq!(client(&set, &["health", "--ready"]).0, 0);
        let events = control.get("/v1/events").body;
        let event =
            format!("\"event\":\"unhealthy\",\"service\":\"a\",\"instance\":\"a.0\",\"reason\":\"{UNHEALTHY}\"");
        assert!(events.contains(&event) && events.contains("\"event\":\"healthy\",\"service\":\"a\""), "{events}");
        let same = place == Place::Init || control.instance("a.0")["pid"] == i64::from(pid.get());
        assert!(same && control.instance("a.0")["restarts"] == 0);
        running.send(Signal::TERM);
        running.expect("signal 15");
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        let line = "keepalive: warning: a.0 is unhealthy: exec sh: exited with code 3: broken\n";
        assert!(stderr.contains(line) && stderr.contains("keepalive: a.0 is healthy again\n"), "{stderr}");
    });
}

#[test]
fn an_unhealthy_service_can_shut_keepalive_down() {
    in_every_place(|place| {
        let set = marked("on_unhealthy = \"shutdown\"");
        let mut running = set.start(place);
        running.ready();
        break_it(&set);
        running.expect("signal 15");
        assert_eq!(running.end(), 1);
        let stderr = running.stderr();
        assert!(stderr.contains(&format!("keepalive: a.0 is {UNHEALTHY}: shutting down")), "{stderr}");
        assert!(set.end().starts_with(&format!("a.0 is {UNHEALTHY}: exiting with code 1")), "{}", set.end());
    });
}

/// Each command looks for the group of the one before, writes its own pid, and hangs.
#[test]
fn a_check_that_hangs_is_killed_with_its_descendants_and_none_piles_up() {
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "end-on-term", "0"]
        on_unhealthy = "mark"
        health = { exec = ["sh", "-c", "test -e DIR/pid && kill -0 -- -$(cat DIR/pid) && touch DIR/overlap; echo $$$$ > DIR/new; mv DIR/new DIR/pid; sleep 1000 & wait"], interval = "10ms", timeout = "100ms", retries = 3 }"#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        let control = Control::at(&set.socket());
        wait_for_status(&control, "a.0", "unhealthy");
        assert_eq!(control.instance("a.0")["health"]["last_failure"], "exec sh: timed out");
        wait_until("more checks", || (control.instance("a.0")["health"]["failed_checks"].as_u64()? > 6).then_some(()));
        assert!(!set.directory.path().join("overlap").exists());
        let living = crate::harness::descendants(running.keepalive());
        let living = living.iter().filter(|pid| procfs::stat(**pid).is_some_and(|stat| !stat.is_dead()));
        assert!(living.count() <= 3, "the main process, and one check with its child");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        assert!(!running.stderr().contains("orphan"));
        std::fs::remove_file(set.directory.path().join("pid")).unwrap();
    });
}

#[test]
fn a_stop_waits_for_no_check() {
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "end-on-term", "0"]
        health = { exec = ["sh", "-c", "echo $$$$ > DIR/new; mv DIR/new DIR/pid; exec sleep 1000"], interval = "10ms", timeout = "1h" }"#,
    );
    let mut running = set.start(Place::Child);
    running.ready();
    let read = || std::fs::read_to_string(set.directory.path().join("pid")).ok();
    let helper = Pid::new(wait_until("the command", read).trim().parse().unwrap()).unwrap();
    let (code, stdout, stderr) = client(&set, &["stop", "a"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "a.0 stopped", ""));
    wait_for_death(helper);
    assert_eq!(client(&set, &["start", "a"]).0, 0);
    running.send(Signal::TERM);
    running.end();
}

#[test]
fn a_check_runs_as_the_service() {
    if !have_root() {
        return;
    }
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "end-on-term", "0"]
        health = { exec = ["sh", "-c", "echo $KEEPALIVE_SERVICE.$KEEPALIVE_INSTANCE $MINE $(id -u) $(pwd)"], interval = "10ms", timeout = "1h", retries = 1000000 }
        env = { MINE = "mine" }
        cwd = "DIR/open"
        user = "65534"
        group = "65534""#
            .replace("$(pwd)\"", "$(pwd); exit 1\"")
            .as_str(),
    );
    let open = set.directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let mut running = set.start(Place::Child);
    running.ready();
    let control = Control::at(&set.socket());
    let failure = || control.instance("a.0")["health"]["last_failure"].as_str().map(str::to_owned);
    let expected = format!("exec sh: exited with code 1: a.0 mine 65534 {}", open.display());
    assert_eq!(wait_until("a failure", failure), expected);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn other_checks_need_no_other_process() {
    let set = marked("on_unhealthy = \"mark\"");
    break_it(&set);
    let running = set.start(Place::Child);
    running.ready();
    let control = Control::at(&set.socket());
    wait_for_status(&control, "a.0", "unhealthy");
    set.change("exit 3", "exit 0");
    let before = control.instance("a.0")["pid"].clone();
    assert_eq!(client(&set, &["reload"]).0, 0);
    wait_for_status(&control, "a.0", "healthy");
    assert_eq!(control.instance("a.0")["pid"], before);
}

/// A configuration for nginx in DIR/nginx.conf, with these settings of its server.
fn nginx_config(set: &Set, port: &ReservedPort, server: &str) {
    let directory = set.directory.path().to_str().unwrap();
    let paths =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path DIR/{name};"));
    let config = format!(
        "daemon off;\npid DIR/nginx.pid;\nerror_log stderr crit;\nevents {{}}\nhttp {{ access_log off; {}\nserver {{ listen {port}; {server} }} }}\n",
        paths.concat()
    );
    set.directory.file("nginx.conf", config.replace("DIR", directory).as_bytes(), 0o644);
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// The file that nginx serves is removed: it answers with 404.
#[test]
fn nginx_is_checked_by_http() {
    if program(&["nginx"]).is_none() {
        return;
    }
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"nginx\", \"-e\", \"stderr\", \"-c\", \"DIR/nginx.conf\"]\nstop_signal = \"SIGQUIT\"\nready = {{ tcp = \"{port}\" }}\nreload = \"restart\"\nhealth = {{ http = \"http://{port}/ok?a=b\", interval = \"20ms\", timeout = \"1h\", retries = 3 }}\n"
    ));
    nginx_config(&set, &port, "root DIR;");
    set.directory.file("ok", &[b'x'; 100_000], 0o644);
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    wait_for_status(&control, "web.0", "healthy");
    break_it(&set);
    wait_until("the restart", || (control.instance("web.0")["restarts"].as_u64()? > 0).then_some(()));
    set.directory.file("ok", b"x", 0o644);
    wait_for_status(&control, "web.0", "healthy");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let reason = format!("web.0 running → stopping (unhealthy: http {port}: HTTP status 404)");
    assert!(stderr.contains(&reason), "{stderr}");
}

/// What nginx serves with these keys of the check after `http`, and the words that say why it is unhealthy.
#[track_caller]
fn check_response(keys: &str, expected: Option<&str>) {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"nginx\", \"-e\", \"stderr\", \"-c\", \"DIR/nginx.conf\"]\nready = {{ tcp = \"{port}\" }}\nreload = \"restart\"\nenv = {{ TOKEN = \"secret\" }}\non_unhealthy = \"mark\"\nhealth = {{ http = \"http://{port}/\", {keys}, interval = \"20ms\", timeout = \"1h\", retries = 1 }}\n"
    ));
    let server = "if ($http_x_token != secret) { return 403; }\nlocation / { return 200 'all is fine'; }";
    nginx_config(&set, &port, server);
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    wait_for_status(&control, "web.0", if expected.is_some() { "unhealthy" } else { "healthy" });
    let failure = control.instance("web.0")["health"]["last_failure"].clone();
    assert_eq!(failure.as_str().map(str::to_owned), expected.map(|why| format!("http {port}: {why}")));
    let (_, text, _) = client(&set, &["describe", "web", "--json"]);
    assert!(!text.contains("secret"), "{text}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn the_response_to_a_check_must_be_the_expected_one() {
    if program(&["nginx"]).is_none() {
        return;
    }
    let header = "headers = { X-Token = \"${TOKEN}\" }";
    check_response(header, None);
    check_response("expect_status = 403", None);
    check_response("expect_status = [200, \"400-499\"]", None);
    check_response(&format!("{header}, expect_body = \"is fine\""), None);
    check_response(&format!("{header}, expect_status = 204"), Some("HTTP status 200"));
    check_response(&format!("{header}, expect_body = \"is bad\""), Some("the body does not contain `expect_body`"));
}

/// `CLIENT PAUSE` makes Redis accept connections and answer nothing.
#[test]
fn redis_that_answers_nothing_is_restarted_and_a_tcp_check_does_not_notice() {
    if program(&["redis-server"]).is_none() || program(&["redis-cli"]).is_none() {
        return;
    }
    let port = ReservedPort::any();
    let (ip, number) = (port.loopback().ip(), port.number());
    let server = format!(
        "command = [\"redis-server\", \"--bind\", \"{ip}\", \"--port\", \"{number}\", \"--dir\", \"DIR\", \"--save\", \"\"]\nready = {{ tcp = \"{port}\" }}\nreload = \"restart\"\nlog = {{ stdout = \"null\" }}"
    );
    let ping = format!("redis-cli -h {ip} -p {number} ping");
    let set = Set::new(&format!(
        "[services.redis]\n{server}\nhealth = {{ exec = \"{ping}\", interval = \"50ms\", timeout = \"5s\", retries = 1 }}\n"
    ));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    wait_for_status(&control, "redis.0", "healthy");
    let redis = |words: &[&str]| {
        let number = number.to_string();
        let address = ["redis-cli", "-h", &ip.to_string(), "-p", &number].map(str::to_owned);
        let words: Vec<&str> = address.iter().map(String::as_str).chain(words.iter().copied()).collect();
        Run::words(Place::Child, &words).finish()
    };
    assert_eq!(redis(&["CLIENT", "PAUSE", "3600000"]).1, "OK");
    wait_until("the restart", || (control.instance("redis.0")["restarts"].as_u64()? > 0).then_some(()));
    wait_for_status(&control, "redis.0", "healthy");
    set.change(&format!("exec = \"{ping}\""), &format!("tcp = \"{port}\""));
    assert_eq!(client(&set, &["reload"]).0, 0);
    wait_for_status(&control, "redis.0", "healthy");
    assert_eq!(redis(&["CLIENT", "PAUSE", "3600000"]).1, "OK");
    assert_eq!(control.instance("redis.0")["restarts"], 1);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let reason = "redis.0 running → stopping (unhealthy: exec redis-cli: timed out)";
    assert!(stderr.contains(reason) && stderr.contains("redis.0 stopping → backoff (unhealthy"), "{stderr}");
}
