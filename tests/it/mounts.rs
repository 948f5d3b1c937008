//! A system with less than usual mounted: no /dev/null, no /proc, one that hides processes, that of another PID namespace.
//! Each keepalive has a mount namespace of its own.

use keepalive::model::Signal;
use serde_json::Value;

use crate::harness::{Directory, KEEPALIVE, PUPPET, Place, Run, Running, have_namespaces, have_root};
use crate::http::Control;
use crate::services::Set;

const NO_DEV: &str = "mount -t tmpfs none /dev";
const NO_PROC: &str = "mount -t tmpfs none /proc";
/// Uncovers the /proc of the parent.
const FOREIGN_PROC: &str = "umount /proc";
const WARNING: &str = "warning: /proc is missing or foreign";

/// Runs `words` after the shell command `mount`.
fn mounted(place: Place, mount: &str, words: &[&str]) -> Run {
    let script = format!("{mount} && exec \"$@\"");
    let prefix: &[&str] = match place {
        Place::Child => &["unshare", "--mount"],
        Place::Init => &[],
    };
    Run::words(place, &[prefix, &["sh", "-c", &script, "sh"], words].concat())
}

fn supervise(place: Place, mount: &str, set: &Set) -> (Running, Control) {
    let mut run = mounted(place, mount, &[KEEPALIVE, "-c", &set.config]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    (run.start(), Control::at(&set.socket()))
}

fn idle_service() -> Set {
    Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n")
}

/// Kills the service, which must be restarted, and ends keepalive. Returns what the status had about the service, and
/// stderr.
fn restart_and_end(mut running: Running, control: &Control) -> (Value, String) {
    running.ready();
    // The first request: memory and CPU time are measured for it.
    let instance = control.instance("web.0");
    assert_eq!(control.post("/v1/services/web/signal?signal=KILL").status, 200);
    running.ready();
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    (instance, running.stderr())
}

fn in_places(mut test: impl FnMut(Place)) {
    if have_root() && have_namespaces() {
        [Place::Child, Place::Init].into_iter().for_each(&mut test);
    }
}

// null(4): "Reads from /dev/null always return end of file", "Data written to /dev/null is discarded."
#[test]
fn without_dev_null_services_read_end_of_file_and_write_into_a_pipe() {
    in_places(|place| {
        let set = Set::new(
            r#"
            [services.web]
            command = ["/bin/sh", "-c", "read line || echo end-of-file >DIR/result; echo lost; exec PUPPET end-on-term 0"]
            log = { stdout = "null" }
            ready = { file = "DIR/result" }
            "#,
        );
        let (mut running, control) = supervise(place, NO_DEV, &set);
        control.wait_for("web.0", "running");
        assert_eq!(set.read("result"), "end-of-file\n");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        assert!(stderr.contains("warning: cannot open /dev/null: No such file or directory; "), "{stderr}");
    });
}

#[test]
fn without_dev_null_init_mode_runs() {
    in_places(|place| {
        let words = [PUPPET, "with", "close=0", "--", KEEPALIVE, "--", PUPPET, "exit", "3"];
        assert_eq!(mounted(place, NO_DEV, &words).finish(), (3, String::new(), String::new()));
    });
}

#[test]
fn without_proc_services_run_and_the_status_does_not_know_their_memory() {
    in_places(|place| {
        let set = idle_service();
        let (running, control) = supervise(place, NO_PROC, &set);
        let (instance, stderr) = restart_and_end(running, &control);
        assert_eq!((&instance["rss_bytes"], &instance["cpu_ms"]), (&Value::Null, &Value::Null));
        assert_eq!(stderr.matches(WARNING).count(), 1, "{stderr}");
    });
}

#[test]
fn without_proc_init_mode_runs() {
    in_places(|place| {
        let words = [KEEPALIVE, "--linger", "1s", "--", PUPPET, "daemonise", "4", "exit", "0"];
        assert_eq!(mounted(place, NO_PROC, &words).finish().0, 4);
    });
}

#[test]
fn with_the_proc_of_another_namespace_services_run_and_no_process_is_mistaken_for_theirs() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let set = idle_service();
    let (running, control) = supervise(Place::Init, FOREIGN_PROC, &set);
    let (instance, stderr) = restart_and_end(running, &control);
    assert_eq!((&instance["rss_bytes"], &instance["cpu_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(stderr.matches(WARNING).count(), 1, "{stderr}");
}

/// In the outer namespace, process 2 has the children 3 to 18. In the inner one, which sees the /proc of the outer one,
/// keepalive is process 2, and most of these numbers are those of processes that have nothing to do with it.
#[test]
fn with_the_proc_of_another_namespace_linger_signals_no_other_process() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let numbers = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
    let inner = format!(
        "{KEEPALIVE} --linger 1ms -- {PUPPET} daemonise 5 ignore & keepalive=$!
        for number in 1 2 3 4 5 6 7 8; do {PUPPET} ignore 15 & others=\"$others $!\"; done
        wait $keepalive; code=$?
        for other in $others; do kill -USR1 $other; wait $other; echo $?; done
        exit $code"
    );
    let outer = format!(
        "sh -c 'for number in {numbers}; do {PUPPET} ignore & done; wait' &
        until test -e /proc/18; do :; done
        unshare --pid --fork --kill-child sh -c '{inner}'"
    );
    let (code, stdout, stderr) = Run::words(Place::Init, &["sh", "-c", &outer]).finish();
    assert_eq!(code, 5, "{stderr}");
    let ended: Vec<&str> = stdout.lines().filter(|line| !line.starts_with("ready ")).collect();
    assert_eq!(ended, ["138"; 8], "killed by SIGUSR1, not by keepalive");
    assert!(stderr.contains(WARNING), "{stderr}");
}

// proc(5): with hidepid=2 "all /proc/pid directories belonging to other users become invisible".
#[test]
fn with_hidden_processes_services_run_and_the_status_knows_those_of_the_same_user() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let set = idle_service();
    let directory = Directory::new();
    let copy = |name, path| directory.file(name, &std::fs::read(path).unwrap(), 0o755);
    let (keepalive, puppet) = (copy("keepalive", KEEPALIVE), copy("puppet", PUPPET));
    let config = std::fs::read_to_string(&set.config).unwrap().replace(PUPPET, &puppet);
    let config = directory.file("keepalive.toml", config.as_bytes(), 0o644);
    let sockets = Directory::new();
    std::os::unix::fs::chown(sockets.path(), Some(1000), Some(1000)).unwrap();
    let socket = sockets.path().join("control");
    let user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let words = [&user[..], &[&keepalive, "-c", &config]].concat();
    let mut run = mounted(Place::Init, "mount -o remount,hidepid=2 /proc", &words);
    run.command.env("KEEPALIVE_SOCKET", &socket);
    let (instance, stderr) = restart_and_end(run.start(), &Control::at(&socket));
    assert!(instance["rss_bytes"].as_u64().is_some(), "{instance}");
    assert!(!stderr.contains("/proc"), "{stderr}");
}
