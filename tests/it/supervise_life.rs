//! Supervise mode: starts, restarts, exits.

use std::os::unix::fs::PermissionsExt as _;

use keepalive::model::Signal;

use crate::control::begin;
use crate::harness::{self, KEEPALIVE, PUPPET, Place, Run, have_root, in_every_place, wait_for_state, wait_until};
use crate::services::{Set, normal};

#[test]
fn services_start_in_order_and_stop_in_reverse() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "end-on-term", "0"]
        env = { WHO_SAYS = "{service}.{instance}" }
        depends_on = ["prepare"]
        [services.prepare]
        type = "oneshot"
        command = ["PUPPET", "exit", "0"]
        depends_on = ["db"]
        [services.db]
        command = ["PUPPET", "end-on-term", "0"]
        env = { WHO_SAYS = "{service}.{instance}" }
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        // Two programs start and write in no particular order. Both are up after two lines.
        let mut up = [running.line(), running.line()].map(|line| line.split(" ready").next().unwrap().to_owned());
        up.sort();
        assert_eq!(up, ["db.0:", "web.0:"]);
        running.send(Signal::TERM);
        running.expect("web.0: signal 15");
        running.expect("db.0: signal 15");
        assert_eq!(running.end(), 0);
        let stderr = normal(&running.stderr());
        let (_, from_db) = stderr.split_once('\n').unwrap();
        let expect = "\
db.0 starting → running (pid N)
prepare.0 starting → running (pid N)
prepare.0 running → completed (exited with code 0, ran T)
web.0 starting → running (pid N)
received SIGTERM: shutting down
web.0 running → stopping
web.0 stopping → stopped (exited with code 0, ran T)
db.0 running → stopping
db.0 stopping → stopped (exited with code 0, ran T)
received SIGTERM: exiting with code 0";
        assert_eq!(from_db, expect);
        assert_eq!(set.end(), "", "the end was asked for");
    });
}

#[test]
fn a_crash_loop_exits_with_the_code_of_the_service_and_a_last_line_with_the_reason() {
    let set = Set::new(
        r#"
        [services.good]
        command = ["PUPPET", "end-on-term", "0"]
        [services.bad]
        command = ["PUPPET", "exit", "42"]
        max_restarts = 2
        backoff = { initial = "1ms", max = "1ms" }
        depends_on = ["good"]
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        assert_eq!(running.end(), 42);
        let stderr = running.stderr();
        let expect = "\
good.0 starting → running (pid N)
bad.0 starting → running (pid N)
warning: bad.0 running → backoff (exited with code 42, ran T; restart 1 of 2 in T)
bad.0 starting → running (pid N)
warning: bad.0 running → backoff (exited with code 42, ran T; restart 2 of 2 in T)
bad.0 starting → running (pid N)
error: bad.0 running → failed (exited with code 42, ran T; gave up after 2 restarts)
bad has failed: shutting down
good.0 running → stopping
good.0 stopping → stopped (killed by SIGTERM, ran T)
bad.0 failed: exited with code 42, ran T; gave up after 2 restarts: exiting with code 42";
        let found = normal(&stderr).replace("stopped (exited with code 0,", "stopped (killed by SIGTERM,");
        assert_eq!(found.split_once('\n').unwrap().1, expect);
        let reason = stderr.lines().last().unwrap().strip_prefix("keepalive: ").unwrap();
        assert_eq!(set.end(), format!("{reason}\n"));
    });
}

/// A crash that is followed by a restart is a warning; the exits of a stop and of a restart on request are none.
#[test]
fn a_crash_is_a_warning_and_a_failure_is_told_once() {
    let set = Set::new(
        r#"
        [services.good]
        command = ["PUPPET", "end-on-term", "0"]
        [services.bad]
        command = ["PUPPET", "exit", "42"]
        max_restarts = 1
        backoff = { initial = "1ms", max = "1ms" }
        "#,
    );
    let mut run = set.run(Place::Child);
    run.command.env("KEEPALIVE_LOG", "warn");
    let (code, _, stderr) = run.finish();
    let expect = "\
warning: bad.0 running → backoff (exited with code 42, ran T; restart 1 of 1 in T)
error: bad.0 running → failed (exited with code 42, ran T; gave up after 1 restart)
bad.0 failed: exited with code 42, ran T; gave up after 1 restart: exiting with code 42";
    assert_eq!((code, normal(&stderr).as_str()), (42, expect), "{stderr}");
}

#[test]
fn a_failure_with_exit_code_0_exits_with_1() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nmax_restarts = 0\n");
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 1, "{stderr}");
}

// keepalive has these codes itself.
#[test]
fn the_last_line_tells_the_code_of_a_process_from_one_of_keepalive() {
    for expect in [2, 70, 71, 78, 126, 127] {
        let command = format!("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"{expect}\"]\nrestart = \"never\"\n");
        let (code, _, stderr) = Set::new(&command).run(Place::Child).finish();
        assert_eq!(code, expect, "{stderr}");
        let end = format!(": exiting with code {expect}, which is that of the process\n");
        assert!(stderr.ends_with(&end), "{stderr}");
    }
}

#[test]
fn a_service_that_is_not_ready_in_time_ends_keepalive_with_1_and_the_reason() {
    let set = Set::new(
        "[services.a]\ncommand = [\"sleep\", \"1000\"]\nready = { file = \"DIR/none\" }\nready_timeout = \"100ms\"\n\
         restart = \"never\"\n",
    );
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 1, "{stderr}");
    let end = set.end();
    assert!(end.starts_with("a.0 failed: not ready within 100ms (file "), "{end}");
    assert!(end.contains("/none: No such file or directory); killed by SIGTERM"), "{end}");
    assert!(end.ends_with(": exiting with code 1\n"), "{end}");
}

#[test]
fn a_fifo_as_termination_log_does_not_block_the_exit() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"5\"]\nrestart = \"never\"\n");
    let path = set.directory.path().join("end");
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 5, "{stderr}");
}

#[test]
fn keepalive_exits_with_0_when_all_services_have_completed() {
    let set =
        Set::new("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nrestart = \"on-failure\"\ninstances = 3\n");
    in_every_place(|place| {
        let (code, _, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.ends_with("all services have ended: exiting with code 0\n"), "{stderr}");
    });
}

#[test]
fn an_ignored_failure_determines_the_exit_code() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "die-of", "9"]
        restart = "never"
        on_failure = "ignore"
        [services.b]
        command = ["PUPPET", "exit", "0"]
        restart = "on-failure"
        "#,
    );
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 137, "{stderr}");
}

#[test]
fn a_dependent_of_a_failed_service_never_starts_and_reports_the_reason() {
    let set = Set::new(
        r#"
        [services.a]
        type = "oneshot"
        command = ["PUPPET", "exit", "3"]
        restart = "never"
        on_failure = "ignore"
        [services.b]
        command = ["PUPPET", "exit", "0"]
        depends_on = ["a"]
        "#,
    );
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("b.0 waiting → failed (cannot start: its dependency a has failed)"), "{stderr}");
    assert!(!stderr.contains("b.0 starting"), "{stderr}");
}

// After a failure, the reason is the last line at every log level.
#[test]
fn a_dependent_of_a_completed_service_never_starts_and_the_exit_names_it() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "exit", "0"]
        ready = { delay = "1h" }
        restart = "on-failure"
        [services.b]
        command = ["PUPPET", "exit", "0"]
        depends_on = ["a"]
        "#,
    );
    let mut run = set.run(Place::Child);
    run.command.env("KEEPALIVE_LOG", "error");
    let (code, _, stderr) = run.finish();
    let expect = "\
keepalive: error: b.0 waiting → failed (cannot start: its dependency a has completed)
keepalive: all services have ended: exiting with code 1
";
    assert_eq!((code, stderr.as_str()), (1, expect));
    assert_eq!(set.end(), "all services have ended: exiting with code 1\n");
}

// "PID 1 never blocks": this FIFO has no reader.
#[test]
fn a_stalled_termination_log_does_not_block_the_exit() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"42\"]\nrestart = \"never\"\n");
    let file = set.directory.path().join("end");
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    in_every_place(|place| {
        let (code, _, stderr) = set.run(place).finish();
        assert_eq!(code, 42, "{stderr}");
    });
}

#[test]
fn a_crash_after_a_stable_run_restarts_at_once() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"report-signals\"]\nmin_uptime = \"0s\"\nbackoff = { initial = \"1h\", max = \"1h\" }\n",
    );
    in_every_place(|place| {
        let running = set.start(place);
        for _ in 0..20 {
            running.ready();
            keepalive::sys::signal_process(running.command(), Signal::KILL).unwrap();
        }
        running.ready();
    });
}

/// The kernel sends one SIGCHLD for all of them, with one pid.
#[test]
fn all_services_that_die_at_the_same_time_restart() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["sleep", "1000"]
        instances = 250
        min_uptime = "0s"
        max_restarts = "unlimited"
        "#,
    );
    in_every_place(|place| {
        let running = set.start(place);
        let keepalive = running.keepalive();
        let complete = || Some(harness::descendants(keepalive)).filter(|pids| pids.len() == 250);
        let mut before = wait_until("all instances", complete);
        for _ in 0..5 {
            // While keepalive is stopped, it cannot handle them one by one.
            keepalive::sys::signal_process(keepalive, Signal::STOP).unwrap();
            wait_for_state(keepalive, b'T');
            for pid in &before {
                keepalive::sys::signal_process(*pid, Signal::KILL).unwrap();
            }
            for pid in &before {
                wait_for_state(*pid, b'Z');
            }
            keepalive::sys::signal_process(keepalive, Signal::CONT).unwrap();
            before = wait_until("all instances to be replaced", || {
                complete().filter(|pids| pids.iter().all(|pid| !before.contains(pid)))
            });
        }
    });
}

#[test]
fn a_missing_program_gives_127_and_one_that_cannot_be_executed_126() {
    let set = Set::new("[services.a]\ncommand = [\"/nothing{instance}\"]\nrestart = \"never\"\n");
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 127, "{stderr}");
    let reason =
        "keepalive: a.0 failed: cannot execute `/nothing0`: No such file or directory: exiting with code 127\n";
    assert!(stderr.ends_with(reason), "{stderr}");
    let set = Set::new("[services.a]\ncommand = [\"DIR\"]\nrestart = \"never\"\n");
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 126, "{stderr}");
}

#[test]
fn a_failed_start_names_the_limit_or_directory() {
    for (keys, reason) in [
        ("cwd = \"/none{instance}\"", "cannot change to directory `/none0`: No such file or directory"),
        ("limits = { core = 0, nofile = 99999999999 }", "cannot set the limit `nofile`: Operation not permitted"),
    ] {
        let set = Set::new(&format!("[services.a]\ncommand = [\"true\"]\nrestart = \"never\"\n{keys}\n"));
        let (code, _, stderr) = set.run(Place::Child).finish();
        assert_eq!(code, 126, "{stderr}");
        assert!(stderr.ends_with(&format!("keepalive: a.0 failed: {reason}: exiting with code 126\n")), "{stderr}");
    }
}

/// As a missing program: at the first start it is a mistake. One that has been used may come back.
#[test]
fn a_directory_that_the_user_may_not_enter_fails_at_once_unless_it_has_been_used() {
    if !have_root() {
        return;
    }
    let set = Set::new(
        r#"[services.a]
        command = "sleep 1000"
        cwd = "DIR/home"
        user = "65534"
        group = "65534"
        backoff = { initial = "1ms", factor = 1000, max = "1h", jitter = 0 }"#,
    );
    let home = set.directory.path().join("home");
    let allow = |mode| std::fs::set_permissions(&home, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::create_dir(&home).unwrap();
    allow(0o700);
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 126, "{stderr}");
    let reason = format!("cannot change to directory `{}`: Permission denied", home.display());
    assert!(normal(&stderr).contains(&format!("error: a.0 starting → failed ({reason})\n")), "{stderr}");
    allow(0o755);
    let (mut running, control) = begin(&set, Place::Child);
    control.wait_for("a.0", "running");
    allow(0o700);
    assert_eq!(control.post("/v1/services/a/signal?signal=KILL").status, 200);
    wait_until("a failed start", || {
        let instance = control.instance("a.0");
        let is_failed_start = instance["reason"].as_str().is_some_and(|shown| shown.starts_with(&reason));
        (instance["state"] == "backoff" && is_failed_start).then_some(())
    });
    running.send(Signal::TERM);
    running.end();
}

#[test]
fn the_added_command_has_stdin_and_shuts_down_with_its_code() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nenv = { WHO_SAYS = \"a\" }\n");
    in_every_place(|place| {
        let words = [KEEPALIVE, "-c", &set.config, "--", PUPPET, "echo"];
        let mut running = Run::words(place, &words).start();
        let mut up = [running.line(), running.line()];
        up.sort();
        assert!(up[0].starts_with("a: ready"), "{up:?}");
        use std::io::Write;
        running.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
        running.expect("line hello");
        drop(running.stdin.take());
        running.expect("a: signal 15");
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn keepalive_exits_with_the_code_of_the_added_command() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n");
    for code in ["0", "7"] {
        let words = [KEEPALIVE, "-c", &set.config, "--", PUPPET, "exit", code];
        let (found, _, stderr) = Run::words(Place::Child, &words).finish();
        assert_eq!(found.to_string(), code, "{stderr}");
    }
}

#[test]
fn one_service_needs_no_file() {
    in_every_place(|place| {
        let words =
            [KEEPALIVE, "run", "--name", "job", "-i", "2", "--restart", "on-failure", "--", PUPPET, "exit", "0"];
        let (code, _, stderr) = Run::words(place, &words).finish();
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains("job.1 running → completed (exited with code 0"), "{stderr}");
    });
}

#[test]
fn an_invalid_configuration_starts_no_service() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nrestrat = \"never\"\n");
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
    assert!(stderr.contains("restart"), "{stderr}");
}

#[test]
fn all_of_twenty_thousand_orphans_are_reaped() {
    if !harness::have_namespaces() {
        return;
    }
    // It counts the processes: no helper process is needed.
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"orphans\", \"20000\"]\nrestart = \"never\"\n\
         log = { stdout = \"inherit\", stderr = \"null\" }\n",
    );
    let (code, stdout, stderr) = set.run(Place::Init).finish();
    assert_eq!((code, stdout.as_str()), (0, "made 20000\nnone left"), "{stderr}");
}
