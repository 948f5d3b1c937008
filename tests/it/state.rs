//! `state`: memory and files that survive the processes of an instance.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::control::begin;
use crate::harness::{KEEPALIVE, Place, Run, Running, have_root, in_every_place};
use crate::http::Control;
use crate::reload::answer;
use crate::services::Set;

const AT_ONCE: &str = r#"
    backoff = { initial = "1ms", max = "1ms" }
    max_restarts = "unlimited"
    restart = "on-failure"
"#;

#[test]
fn a_counter_in_memory_loses_nothing_over_a_hundred_crashes() {
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "count", "101"]
        instances = 2
        state = {{ size = "1MiB" }}
        {AT_ONCE}
        "#
    ));
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout, "counted 101 of 1048576 bytes\ncounted 101 of 1048576 bytes");
    });
}

#[test]
fn a_state_file_survives_keepalive() {
    let text = |end: &str, size: &str| {
        format!(
            r#"
            [services.web]
            command = ["PUPPET", "count", "{end}"]
            state = {{ size = "{size}", persist = "DIR/web-{{instance}}.state" }}
            {AT_ONCE}
            "#
        )
    };
    let set = Set::new(&text("10", "4KiB"));
    let mut expect = (10, 4096);
    for (end, size) in [("20", "4KiB"), ("30", "8KiB"), ("40", "1KiB")] {
        let (code, stdout, stderr) = set.run(Place::Child).finish();
        assert_eq!((code, stdout), (0, format!("counted {} of {} bytes", expect.0, expect.1)), "{stderr}");
        expect = (expect.0 + 10, if size == "8KiB" { 8192 } else { expect.1 });
        let changed = Set::new(&text(end, size).replace("DIR", set.directory.path().to_str().unwrap()));
        std::fs::copy(&changed.config, &set.config).unwrap();
    }
    let file = std::fs::metadata(set.directory.path().join("web-0.state")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_state_file_belongs_to_the_user_of_the_service() {
    if !have_root() {
        return;
    }
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "count", "10"]
        user = "12345"
        group = "23456"
        state = {{ size = "4KiB", persist = "DIR/state" }}
        {AT_ONCE}
        "#
    ));
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!((code, stdout.as_str()), (0, "counted 10 of 4096 bytes"), "{stderr}");
        let file = std::fs::metadata(set.directory.path().join("state")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.permissions().mode() & 0o777), (12345, 23456, 0o600));
        std::fs::remove_file(set.directory.path().join("state")).unwrap();
    });
}

#[test]
fn a_state_file_that_cannot_be_opened_fails_the_start_and_is_named() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "count", "10"]
        state = { size = "4KiB", persist = "DIR/missing/web-{instance}" }
        max_restarts = 0
        "#,
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (126, ""), "{stderr}");
    let path = format!("{}/missing/web-0", set.directory.path().display());
    let expect = format!("cannot open its `state` `{path}`: No such file or directory");
    assert!(stderr.contains(&expect), "{stderr}");
}

// open(2) with the privileges of keepalive, in a directory of the service, would open any file that a link points to.
#[test]
fn a_symbolic_link_gives_no_access_beyond_that_of_the_service() {
    use std::os::unix::fs::{chown, symlink};
    if !have_root() {
        return;
    }
    for (name, reason) in
        [("hard", "Permission denied"), ("up/new", "Permission denied"), ("soft", "Too many levels of symbolic links")]
    {
        let set = Set::new(&format!(
            r#"
            [services.web]
            command = ["PUPPET", "count", "1"]
            user = "12345"
            state = {{ size = "4KiB", persist = "DIR/own/{name}" }}
            max_restarts = 0
            "#
        ));
        let (precious, own) = (set.directory.file("precious", b"content", 0o600), set.directory.path().join("own"));
        std::fs::create_dir(&own).unwrap();
        std::fs::hard_link(&precious, own.join("hard")).unwrap();
        symlink("..", own.join("up")).unwrap();
        symlink(own.join("hard"), own.join("soft")).unwrap();
        chown(&own, Some(12345), None).unwrap();
        let (code, _, stderr) = set.run(Place::Child).finish();
        assert_eq!(code, 126, "{stderr}");
        assert!(stderr.contains(&format!("own/{name}`: {reason}")), "{stderr}");
        assert_eq!(std::fs::read(&precious).unwrap(), b"content");
        assert_eq!(std::fs::metadata(&precious).unwrap().uid(), 0);
        assert!(!set.directory.path().join("new").exists());
    }
}

// getrlimit(2): descriptors for many instances count against the limit of keepalive, which it raises only for itself.
#[test]
fn the_soft_limit_of_descriptors_does_not_limit_instances_with_state() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["/bin/sh", "-c", "test $KEEPALIVE_STATE_FD = 3 && ulimit -Sn"]
        instances = 100
        state = { size = "1KiB" }
        restart = "never"
        "#,
    );
    let mut run = Run::words(Place::Child, &["/bin/sh", "-c", "ulimit -Sn 64; exec $0 -c $1", KEEPALIVE, &set.config]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let (code, stdout, stderr) = run.finish();
    assert_eq!((code, stdout), (0, ["64"; 100].join("\n")), "{stderr}");
}

// read(2) and write(2) use the file offset of a descriptor, and each process has its own.
#[test]
fn each_process_reads_its_memory_from_the_start() {
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["/bin/sh", "DIR/script"]
        state = {{ size = "8B" }}
        {AT_ONCE}
        "#
    ));
    let script = b"found=$(tr -d '\\0' <&$KEEPALIVE_STATE_FD); echo \"found $found\"; test -z \"$found\" || exit 0
        printf kept 1<>/proc/self/fd/$KEEPALIVE_STATE_FD; exit 1";
    set.directory.file("script", script, 0o644);
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!((code, stdout.as_str()), (0, "found \nfound kept"), "{stderr}");
    });
}

/// A script that prints size and content of its memory and writes into it on SIGUSR1.
const TELLER: &str = r#"
    fd=$KEEPALIVE_STATE_FD
    trap 'printf late 1<>/proc/self/fd/$fd; echo written' USR1
    echo "$(wc -c </proc/self/fd/$fd) $(tr -d '\0' <&$fd)."
    while :; do sleep 1000 & wait; done
"#;

fn teller() -> Set {
    let set = Set::new("[services.web]\ncommand = [\"/bin/sh\", \"DIR/teller\"]\nstate = { size = \"8B\" }\n");
    set.directory.file("teller", TELLER.as_bytes(), 0o644);
    set
}

fn write_late(running: &Running, control: &Control) {
    let web = control.instance("web.0")["pid"].as_i64().and_then(|pid| Pid::new(pid.try_into().ok()?));
    signal_process(web.expect("a pid"), Signal::USR1).unwrap();
    running.expect("written");
}

#[test]
fn data_written_during_a_failed_change_of_size_is_kept() {
    let set = teller();
    let (running, control) = begin(&set, Place::Child);
    running.expect("8 .");
    set.directory.file("trial", b"echo ready $$; exec sleep 1000", 0o644);
    set.change("8B", "4KiB");
    set.change("/teller", "/trial");
    set.change("command", "ready = \"notify\"\ncommand");
    let asked = control.ask("POST", "/v1/reload");
    let surge = running.ready();
    write_late(&running, &control);
    signal_process(surge, Signal::KILL).unwrap();
    let answer = answer(asked);
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    assert_eq!(control.post("/v1/services/web/restart").status, 200);
    running.expect("8 late.");
}

#[test]
fn the_memory_grows_with_a_reload_and_shrinks_with_a_restart() {
    let set = teller();
    let (running, control) = begin(&set, Place::Child);
    running.expect("8 .");
    write_late(&running, &control);
    for (from, to, reloaded, restarted) in
        [("8B", "4KiB", "4096 late.", "4096 late."), ("4KiB", "2B", "4096 late.", "2 la.")]
    {
        set.change(from, to);
        assert_eq!(control.post("/v1/reload").status, 200);
        running.expect(reloaded);
        assert_eq!(control.post("/v1/services/web/restart").status, 200);
        running.expect(restarted);
    }
}

// ftruncate(2): EFBIG comes with SIGXFSZ. By default it kills the process, and services must not inherit a change of
// this.
#[test]
fn a_state_beyond_the_file_size_limit_fails_only_its_own_start() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["true"]
        state = { size = "1MiB" }
        max_restarts = 0
        on_failure = "ignore"
        [services.other]
        command = ["PUPPET", "ignore"]
        "#,
    );
    let mut run = Run::words(Place::Child, &["/bin/sh", "-c", "ulimit -f 8; exec $0 -c $1", KEEPALIVE, &set.config]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let mut running = run.start();
    let control = Control::at(&set.socket());
    running.ready();
    control.wait_for("web.0", "failed");
    control.wait_for("other.0", "running");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(stderr.contains("File too large"), "{stderr}");
    assert!(!stderr.contains("XFSZ"), "{stderr}");
}

#[test]
fn the_state_of_a_service_is_discarded_with_the_service() {
    let web = r#"
        [services.web]
        command = ["/bin/sh", "-c", "found=$(tr -d '\\0' <&$KEEPALIVE_STATE_FD); printf kept 1<>/proc/self/fd/$KEEPALIVE_STATE_FD; echo $found.; exec sleep 1000"]
        state = { size = "1KiB" }
        [services.idle]
        command = ["sleep", "1000"]
    "#;
    let set = Set::new(web);
    let (with, without) = (set.read("keepalive.toml"), Set::new("[services.idle]\ncommand = [\"sleep\", \"1000\"]\n"));
    let (running, control) = begin(&set, Place::Child);
    running.expect(".");
    assert_eq!(control.post("/v1/services/web/restart").status, 200);
    running.expect("kept.");
    let fds = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", running.keepalive())).unwrap();
        let names = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        names.filter(|name| name.to_string_lossy().contains("memfd:")).count()
    };
    assert_eq!(fds(), 1);
    std::fs::copy(&without.config, &set.config).unwrap();
    assert_eq!(control.post("/v1/reload").status, 200);
    assert_eq!(fds(), 0);
    std::fs::write(&set.config, with).unwrap();
    assert_eq!(control.post("/v1/reload").status, 200);
    running.expect(".");
}

#[test]
fn a_service_cannot_have_more_instances_than_files_or_ports() {
    let set = Set::new(
        r#"
        [services.one]
        command = ["sleep", "1000"]
        state = { size = "1KiB", persist = "DIR/state" }
        [services.ports]
        command = ["sleep", "1000"]
        ready = { tcp = "127.0.0.1:6553{instance}" }
        "#,
    );
    let (running, control) = begin(&set, Place::Child);
    for (service, count, reason) in [
        ("one", 2, "2 instances of one would share one state file: add `{instance}` to its path"),
        ("ports", 7, "`ready` of ports.6 would use the invalid address `127.0.0.1:65536`"),
    ] {
        let answer = control.post(&format!("/v1/services/{service}/scale?instances={count}"));
        assert_eq!((answer.status, answer.reason()), (409, reason.to_owned()));
    }
    let status = control.get("/v1/status").json();
    let counts = [0, 1].map(|service| status["services"][service]["instances"].as_array().unwrap().len());
    assert_eq!(counts, [1, 1], "no instance has been started");
    drop(running);
}
