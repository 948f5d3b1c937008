//! Hooks: commands that run before and after the main process.

use keepalive::model::Signal;

use crate::harness::{KEEPALIVE, Place, Run, have_root, in_every_place, wait_until};
use crate::http::Control;
use crate::services::{Set, normal};

/// What `keepalive` with these words prints.
fn client(set: &Set, words: &[&str]) -> (i32, String, String) {
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words, &["--timeout=1h"]].concat());
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    run.finish()
}

/// A service that runs until it is told to stop, with these keys.
fn set(keys: &str) -> Set {
    Set::new(&format!("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n{keys}\n"))
}

/// A script in a literal string of TOML.
fn script(text: &str) -> String {
    format!("['sh', '-c', '''{text}''']")
}

fn wait_for_reason(control: &Control, state: &str, reason: &str) {
    wait_until(reason, || {
        let instance = control.instance("a.0");
        (instance["state"] == state && instance["reason"].as_str().is_some_and(|is| is.contains(reason))).then_some(())
    });
}

#[test]
fn pre_start_runs_before_the_service_with_its_directory_and_variables_and_logs_under_its_own_name() {
    let text = "test -z \"$NOTIFY_SOCKET$LISTEN_FDS\" && pwd && echo $A $KEEPALIVE_INSTANCE && echo late >&2";
    let set = set(&format!(
        "pre_start = {}\ncwd = \"DIR\"\nenv = {{ A = \"b\" }}\nwatchdog = \"1h\"\nlisten = {{ x = \"unix://DIR/x\" }}\nlog = {{ stdout = \"prefix\", stderr = \"prefix\" }}",
        script(text)
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect(&format!("a.0/pre_start | {}", set.directory.path().display()));
        running.expect("a.0/pre_start | b 0");
        wait_until("the service", || running.line().contains("ready").then_some(()));
        for name in ["a", "a.0"] {
            let (code, logs, _) = client(&set, &["logs", name, "-n", "100"]);
            assert_eq!(code, 0);
            assert!(logs.contains("a.0/pre_start | b 0\n") && logs.contains("a.0/pre_start | late\n"), "{logs}");
        }
        let (_, described, _) = client(&set, &["describe", "a"]);
        assert!(described.contains("  pre_start  sh -c ") && described.contains(", within 30s\n"), "{described}");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn pre_start_runs_as_the_user_of_the_service() {
    if !have_root() {
        return;
    }
    let set = set(&format!("user = 1234\ngroup = 1235\npre_start = {}", script("id -u; id -g; echo > /dev/stdout")));
    in_every_place(|place| {
        let mut running = set.start(place);
        ["1234", "1235"].iter().for_each(|line| running.expect(line));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn a_pre_start_that_fails_is_a_failed_start_with_its_last_lines() {
    let set = set(&format!("max_restarts = 1\npre_start = {}", script("echo no database; exit 3")));
    in_every_place(|place| {
        let mut running = set.start(place);
        assert_eq!(running.end(), 3);
        let stderr = running.stderr();
        let text = normal(&stderr);
        assert!(
            text.contains("a.0 starting → backoff (pre_start exited with code 3, ran T; restart 1 of 1 in T"),
            "{text}"
        );
        assert!(
            text.contains("a.0 starting → failed (pre_start exited with code 3, ran T; gave up after 1 restart"),
            "{text}"
        );
        assert!(stderr.contains("no database"), "{stderr}");
        assert!(
            set.end().contains("pre_start exited with code 3") && set.end().contains("no database"),
            "{}",
            set.end()
        );
    });
}

#[test]
fn a_pre_start_that_is_missing_is_named() {
    let set = set("pre_start = [\"DIR/missing\"]");
    in_every_place(|place| {
        let mut running = set.start(place);
        assert_eq!(running.end(), 127);
        let stderr = running.stderr();
        assert!(stderr.contains("a.0 starting → failed (pre_start: cannot execute `"), "{stderr}");
        assert!(stderr.contains("/missing`"), "{stderr}");
    });
}

#[test]
fn a_pre_start_that_is_not_done_in_time_is_stopped_with_all_that_it_has_started() {
    let set = set(&format!(
        "restart = \"never\"\nstop_timeout = \"100ms\"\nhook_timeout = \"100ms\"\npre_start = {}",
        script("trap \"\" TERM; sleep 1000; sleep 1000")
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        assert_eq!(running.end(), 1);
        let text = normal(&running.stderr());
        assert!(text.contains("a.0 starting → stopping (pre_start not done within 100ms)"), "{text}");
        assert!(text.contains("a.0 stopping → failed (pre_start not done within 100ms; killed by SIGKILL"), "{text}");
    });
}

#[test]
fn a_stop_during_pre_start_ends_it_and_the_service_does_not_start() {
    let set = set(&format!("pre_start = {}", script("echo up; exec sleep 1000")));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect("up");
        let control = Control::at(&set.socket());
        wait_for_reason(&control, "starting", "pre_start");
        assert!(control.instance("a.0")["pid"].is_null());
        assert_eq!(client(&set, &["signal", "a", "USR1"]).0, 1, "there is no process yet");
        assert_eq!(client(&set, &["stop", "a"]).0, 0);
        wait_for_reason(&control, "stopped", "pre_start killed by SIGTERM");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        assert!(!running.stderr().contains("running"));
    });
}

#[test]
fn what_pre_start_leaves_behind_is_gone_before_the_service_starts() {
    let set = set(&format!(
        "pre_start = {}",
        script(
            "setsid sh -c \"trap \\\"touch DIR/gone\\\" TERM; touch DIR/made; sleep 1000 & wait\" & until test -e DIR/made; do sleep 0.01; done"
        )
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        assert!(set.directory.path().join("gone").exists());
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        for name in ["gone", "made"] {
            std::fs::remove_file(set.directory.path().join(name)).unwrap();
        }
    });
}

#[test]
fn a_oneshot_has_its_pre_start_too_and_the_services_after_it_wait_for_both() {
    let text = format!(
        "[services.job]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"echo second\"]\npre_start = {}\n[services.a]\ncommand = [\"sh\", \"-c\", \"echo third; exec sleep 1000\"]\ndepends_on = [\"job\"]\n",
        script("echo first")
    );
    let set = Set::new(&text);
    in_every_place(|place| {
        let mut running = set.start(place);
        ["first", "second", "third"].iter().for_each(|line| running.expect(line));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn a_reload_whose_pre_start_fails_leaves_the_old_process_running() {
    let set = set(&format!("pre_start = {}", script("test ! -e DIR/bad || { echo bad; exit 9; }")));
    in_every_place(|place| {
        let mut running = set.start(place);
        let pid = running.ready();
        let bad = set.directory.file("bad", b"", 0o644);
        let (code, _, stderr) = client(&set, &["reload", "a"]);
        assert_eq!(code, 1);
        assert!(stderr.contains("pre_start exited with code 9") && stderr.contains("bad"), "{stderr}");
        assert_eq!(Control::at(&set.socket()).instance("a.0")["pid"].to_string(), pid.to_string());
        std::fs::remove_file(bad).unwrap();
        assert_eq!(client(&set, &["reload", "a"]).0, 0);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn pre_stop_runs_before_the_stop_signal_and_the_stop_waits_for_it() {
    let text =
        "echo draining; until test -e DIR/go; do sleep 0.01; done; kill -0 \"$(cat DIR/pid)\" && echo drained; exit 3";
    let set = Set::new(&format!(
        "[services.a]\ncommand = [\"sh\", \"-c\", \"echo $$$$ >DIR/pid; exec PUPPET end-on-term 0\"]\npre_stop = {}\n",
        script(text)
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        let control = Control::at(&set.socket());
        running.send(Signal::TERM);
        running.expect("draining");
        wait_for_reason(&control, "stopping", "pre_stop; SIGKILL in ");
        // A second SIGTERM changes nothing.
        running.send(Signal::TERM);
        let go = set.directory.file("go", b"", 0o644);
        running.expect("drained");
        running.expect("signal 15");
        assert_eq!(running.end(), 0);
        std::fs::remove_file(go).unwrap();
        let text = normal(&running.stderr());
        assert!(text.contains("warning: a.0: pre_stop exited with code 3, ran T"), "{text}");
    });
}

#[test]
fn at_stop_timeout_a_pre_stop_that_hangs_is_killed_with_the_service() {
    let set = set(&format!("stop_timeout = \"200ms\"\npre_stop = {}", script("sleep 1000 & sleep 1000")));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let text = normal(&running.stderr());
        assert!(text.contains("warning: a.0: pre_stop not done within 200ms; killed by SIGKILL"), "{text}");
        assert!(text.contains("a.0 did not stop within 200ms, sending SIGKILL"), "{text}");
    });
}

#[test]
fn a_pre_stop_that_stops_the_service_itself_is_over_with_it() {
    let set = Set::new(&format!(
        "[services.a]\ncommand = [\"sh\", \"-c\", \"echo $$$$ >DIR/pid; exec PUPPET end-on-term 0\"]\npre_stop = {}\n",
        script("kill \"$(cat DIR/pid)\"; exec sleep 1000")
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        assert_eq!(client(&set, &["stop", "a"]).0, 0);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        assert!(!running.stderr().contains("warning"));
    });
}

#[test]
fn a_second_sigint_waits_for_no_hook() {
    let hang = script("echo hook; exec sleep 1000");
    let set = set(&format!("stop_timeout = \"1h\"\nhook_timeout = \"1h\"\npre_stop = {hang}\npost_stop = {hang}"));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.send(Signal::INT);
        running.expect("hook");
        std::thread::sleep(std::time::Duration::from_millis(250));
        running.send(Signal::INT);
        assert_eq!(running.end(), 137);
    });
}

#[test]
fn post_stop_runs_after_a_crash_with_the_exit_code_or_signal_and_the_restart_waits_for_it() {
    let post_stop = script("echo \"$KEEPALIVE_SERVICE ended: $KEEPALIVE_EXIT_CODE/$KEEPALIVE_EXIT_SIGNAL\"");
    for (command, expect) in [("exit 7", "a ended: 7/"), ("kill -9 $$$$", "a ended: /SIGKILL")] {
        let set = Set::new(&format!(
            "[services.a]\ncommand = [\"sh\", \"-c\", \"echo begin $KEEPALIVE_RESTARTS; {command}\"]\nmax_restarts = 1\nbackoff = {{ initial = \"1ms\" }}\npost_stop = {post_stop}\n"
        ));
        in_every_place(|place| {
            let mut running = set.start(place);
            for line in ["begin 0", expect, "begin 1", expect] {
                running.expect(line);
            }
            assert_ne!(running.end(), 0);
        });
    }
}

#[test]
fn post_stop_runs_after_a_pre_start_that_has_failed() {
    let set = set(&format!(
        "restart = \"never\"\npre_start = {}\npost_stop = {}",
        script("echo first; exit 4"),
        script("echo last ${KEEPALIVE_EXIT_CODE-none}")
    )
    .replace("${KEEPALIVE", "$${KEEPALIVE"));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect("first");
        running.expect("last none");
        assert_eq!(running.end(), 4);
    });
}

#[test]
fn post_stop_is_killed_at_hook_timeout_and_what_it_leaves_behind_too() {
    let set = set(&format!("hook_timeout = \"100ms\"\npost_stop = {}", script("sleep 1000 & sleep 1000")));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        assert_eq!(client(&set, &["stop", "a"]).0, 0);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let text = normal(&running.stderr());
        assert!(text.contains("warning: a.0: post_stop not done within 100ms"), "{text}");
    });
}

#[test]
fn a_post_stop_that_daemonises_leaves_nothing_behind() {
    let set = set(&format!(
        "post_stop = {}",
        script(
            "setsid sh -c \"trap : TERM; echo \\$$\\$$ >DIR/daemon; while :; do sleep 1; done\" & until test -s DIR/daemon; do sleep 0.01; done"
        )
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        assert_eq!(client(&set, &["stop", "a"]).0, 0);
        if matches!(place, Place::Child) {
            let pid: i32 = set.read("daemon").trim().parse().unwrap();
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the daemon is still there");
        }
        std::fs::remove_file(set.directory.path().join("daemon")).unwrap();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn each_process_of_a_rolling_reload_has_all_its_hooks() {
    let hook = |name: &str| format!("{name} = {}\n", script(&format!("echo {name}")));
    let set = set(&["pre_start", "pre_stop", "post_stop"].map(hook).concat());
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect("pre_start");
        running.ready();
        assert_eq!(client(&set, &["reload", "a"]).0, 0);
        running.expect("pre_start");
        running.ready();
        ["pre_stop", "signal 15", "post_stop"].iter().for_each(|line| running.expect(line));
        running.send(Signal::TERM);
        ["pre_stop", "signal 15", "post_stop"].iter().for_each(|line| running.expect(line));
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn status_says_that_a_stop_waits_for_post_stop_and_a_restart_begins_after_it() {
    let set = set(&format!("post_stop = {}", script("echo cleaning; until test -e DIR/go; do sleep 0.01; done")));
    in_every_place(|place| {
        let mut running = set.start(place);
        let before = running.ready();
        let control = Control::at(&set.socket());
        keepalive::sys::signal_process(running.command(), Signal::KILL).unwrap();
        running.expect("cleaning");
        wait_for_reason(&control, "stopping", "killed by SIGKILL");
        wait_for_reason(&control, "stopping", "post_stop, at most ");
        let go = set.directory.file("go", b"", 0o644);
        assert_ne!(running.ready(), before);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        std::fs::remove_file(go).unwrap();
    });
}
