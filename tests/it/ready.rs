//! Readiness by probes and by a newline.

use keepalive::model::{Pid, Signal};
use keepalive::sys::{clock, kill, procfs};

use crate::harness::{
    Place, Running, have_root, in_every_place, status_field, wait_for_death, wait_for_state, wait_until,
};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

/// Service `a` with these keys, and `b`, which depends on `a`.
fn set(keys: &str) -> Set {
    Set::new(&format!(
        "[services.a]\n{keys}\nenv = {{ WHO_SAYS = \"a\" }}\n[services.b]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nenv = {{ WHO_SAYS = \"b\" }}\ndepends_on = [\"a\"]\n",
    ))
}

fn start(set: &Set, place: Place) -> Running {
    let mut run = set.run(place);
    run.command.env("KEEPALIVE_LOG", "debug");
    run.start()
}

/// The probe failures of `a` before it was ready.
#[track_caller]
fn tries(stderr: &str) -> Vec<String> {
    let (before, _) = stderr.split_once("a.0 starting → running").unwrap_or_else(|| panic!("{stderr}"));
    let lines = before.lines().filter_map(|line| line.split_once("a.0 is not ready: "));
    lines.map(|(_, reason)| reason.to_owned()).collect()
}

/// Waits until a first attempt that needs a helper process has failed.
fn wait_for_attempt(running: &Running) {
    let keepalive = running.keepalive();
    wait_until("a first failed attempt", || {
        let stat = std::fs::read_to_string(format!("/proc/{keepalive}/stat")).unwrap();
        // The page faults of reaped children; there are no others.
        stat.rsplit(") ").next()?.split(' ').nth(8).filter(|faults| *faults != "0").map(drop)
    });
}

/// Checks that keepalive has reaped no unknown process.
#[track_caller]
fn assert_no_orphans(stderr: &str) {
    assert!(!stderr.contains("reaped orphaned process"), "{stderr}");
}

#[test]
fn a_tcp_probe_is_repeated_until_the_port_is_open() {
    let address = ReservedPort::any();
    let set = set(&format!(
        "command = [\"PUPPET\", \"on-signal\", \"serve\", \"{address}\", \"200\"]\nready = {{ tcp = \"{address}\" }}\nstop_timeout = \"10ms\""
    ));
    in_every_place(|place| {
        let mut running = start(&set, place);
        assert!(running.line().starts_with("a: ready"));
        // It sleeps after the first attempt, not before.
        wait_for_state(running.keepalive(), b'S');
        running.send(Signal::USR1);
        running.expect("a: listening");
        while !running.line().starts_with("b: ready") {}
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        let tries = tries(&stderr);
        assert!(!tries.is_empty() && tries.iter().all(|reason| reason == "Connection refused"), "{stderr}");
    });
}

#[test]
fn an_http_probe_is_repeated_until_the_status_is_a_success() {
    let address = ReservedPort::any();
    let set = set(&format!(
        "command = [\"PUPPET\", \"serve\", \"{address}\", \"503\", \"nothing\", \"nonsense\", \"404\", \"302\"]\nready = {{ http = \"http://{address}/ok?a={{instance}}\" }}"
    ));
    let mut running = start(&set, Place::Child);
    running.expect("a: listening");
    let asked = format!(
        "a: asked GET /ok?a=0 HTTP/1.1; Host: {address}; User-Agent: keepalive; Accept: */*; Connection: close"
    );
    for answer in ["503 in peace", "", "nonsense", "404 in peace"] {
        running.expect(&asked);
        match answer {
            "" => {}
            "nonsense" => assert!(running.line().starts_with("a: answered nonsense")),
            _ => running.expect(&format!("a: answered {answer}")),
        }
    }
    running.expect(&asked);
    let mut last = [running.line(), running.line()];
    last.sort();
    assert_eq!(last[0], "a: answered 302 in peace");
    assert!(last[1].starts_with("b: ready"), "and it is not asked again: {last:?}");
    running.send(Signal::TERM);
    running.expect("b: signal 15");
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let mut tries = tries(&stderr);
    tries.retain(|reason| reason != "Connection refused");
    assert_eq!(tries, ["HTTP status 503", "timed out", "not an HTTP response", "HTTP status 404"], "{stderr}");
}

/// A service that creates the file `up-0` when it gets SIGUSR1, after an attempt of its probe that fails with `reason`.
#[track_caller]
fn check_file_probe(set: &Set, reason: &str) {
    let mut running = start(set, Place::Child);
    assert!(running.line().starts_with("a: ready"));
    wait_for_attempt(&running);
    running.send(Signal::USR1);
    while !running.line().starts_with("b: ready") {}
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let tries = tries(&stderr);
    assert!(!tries.is_empty() && tries.iter().all(|other| other == reason), "{stderr}");
}

const WITH_FILE: &str = "command = [\"PUPPET\", \"on-signal\", \"make\", \"DIR/up-0\", \"end-on-term\", \"0\"]
ready = { file = \"DIR/up-{instance}\" }";

#[test]
fn a_file_probe_is_repeated_until_the_file_exists() {
    check_file_probe(&set(WITH_FILE), "No such file or directory");
}

#[test]
fn a_file_that_was_left_behind_makes_no_process_ready() {
    let set = set(WITH_FILE);
    set.directory.file("up-0", b"", 0o644);
    // A file of the same tick of the clock is new.
    let created = clock::file_time();
    wait_until("the next tick", || (clock::file_time() > created).then_some(()));
    check_file_probe(&set, "the file is older than the process");
}

#[test]
fn an_exec_probe_runs_as_the_service_until_it_succeeds() {
    if !have_root() {
        return;
    }
    let set = set(
        r#"command = ["PUPPET", "on-signal", "make", "DIR/open/up", "end-on-term", "0"]
        ready = { exec = ["sh", "-c", "echo $KEEPALIVE_SERVICE.$KEEPALIVE_INSTANCE.$KEEPALIVE_RESTARTS $MINE $(id -u) $(pwd) > output; echo noise; test -e up"] }
        cwd = "DIR/open"
        user = "65534"
        group = "65534""#
        .replace("up\"] }", "up\"] }\n env_file = [\"DIR/more\"]")
        .as_str(),
    );
    std::fs::write(set.directory.path().join("more"), "MINE=mine\n").unwrap();
    let open = set.directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::os::unix::fs::chown(&open, Some(65534), Some(65534)).unwrap();
    in_every_place(|place| {
        let mut running = start(&set, place);
        assert!(running.line().starts_with("a: ready"));
        wait_until("a first failed attempt", || open.join("output").exists().then_some(()));
        running.send(Signal::USR1);
        let mut lines = vec![running.line()];
        while !lines.last().unwrap().starts_with("b: ready") {
            lines.push(running.line());
        }
        assert!(!lines.iter().any(|line| line == "noise"), "{lines:?}");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        assert_eq!(set.read("open/output"), format!("a.0.0 mine 65534 {}\n", open.display()));
        let stderr = running.stderr();
        let is_expected = |reason: &String| reason == "exited with code 1: noise" || reason == "timed out";
        assert!(tries(&stderr).iter().all(is_expected), "{stderr}");
        assert_no_orphans(&stderr);
        for name in ["up", "output"] {
            std::fs::remove_file(open.join(name)).unwrap();
        }
    });
}

#[test]
fn an_exec_probe_that_times_out_is_killed_with_its_descendants() {
    let set = set(r#"command = ["PUPPET", "end-on-term", "0"]
        ready = { exec = ["sh", "-c", "test -e DIR/tried && exit 0; touch DIR/tried; sleep 1000 & wait"] }"#);
    in_every_place(|place| {
        let mut running = start(&set, place);
        assert!(running.line().starts_with("a: ready"));
        assert!(running.line().starts_with("b: ready"));
        let below = crate::harness::descendants(running.keepalive());
        let living = below.iter().filter(|pid| procfs::stat(**pid).is_some_and(|stat| !stat.is_dead()));
        assert_eq!(living.count(), 2, "only the main processes");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        let tries = tries(&stderr);
        // The second attempt is fast, but a busy machine may delay it.
        assert!(!tries.is_empty() && tries.iter().all(|reason| reason == "timed out"), "{stderr}");
        std::fs::remove_file(set.directory.path().join("tried")).unwrap();
    });
}

#[test]
fn an_exec_probe_is_killed_when_its_service_exits() {
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "on-signal", "exit", "7"]
        ready = { exec = ["sh", "-c", "echo $$$$ > DIR/new; mv DIR/new DIR/pid; exec sleep 1000"] }
        restart = "never""#,
    );
    let mut running = set.start(Place::Child);
    running.ready();
    let read = || std::fs::read_to_string(set.directory.path().join("pid")).ok();
    let helper = Pid::new(wait_until("the command", read).trim().parse().unwrap()).unwrap();
    running.send(Signal::USR1);
    assert_eq!(running.end(), 7);
    wait_for_death(helper);
}

/// The command is in another session than the service, like a daemon of it.
#[test]
fn the_command_of_a_probe_is_no_leftover_process_of_its_service() {
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "end-on-term", "0"]
        ready = { exec = ["sh", "-c", "touch DIR/$(date +%N).try; exec sleep 1000"], timeout = "100ms" }"#,
    );
    let mut running = set.start(Place::Child);
    running.ready();
    let attempts = || std::fs::read_dir(set.directory.path()).unwrap().flatten();
    let is_attempt = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.ends_with(".try"));
    let count = || attempts().filter(|entry| is_attempt(&entry.file_name())).count();
    wait_until("a third attempt", || (count() > 2).then_some(()));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(!stderr.contains("leftover"), "{stderr}");
}

/// All large pipes of a user together are limited, pipe(7): other programs need some, too.
#[test]
fn only_a_few_probes_at_a_time_have_large_pipes() {
    const PROBE: &str = "import fcntl, os, sys, time\n\
        os.symlink(str(fcntl.fcntl(1, fcntl.F_GETPIPE_SZ)), sys.argv[1])\ntime.sleep(1000)\n";
    const SERVICES: usize = 40;
    let service = |number| {
        format!(
            "[services.a{number}]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nready = {{ exec = [\"python3\", \"DIR/probe.py\", \"DIR/size{number}\"], timeout = \"1h\" }}\n"
        )
    };
    let set = Set::new(&(0..SERVICES).map(service).collect::<String>());
    set.directory.file("probe.py", PROBE.as_bytes(), 0o644);
    let mut running = set.start(Place::Child);
    let size = |number| std::fs::read_link(set.directory.path().join(format!("size{number}"))).ok();
    let sizes = wait_until("all probes", || (0..SERVICES).map(size).collect::<Option<Vec<_>>>());
    let large = sizes.iter().filter(|size| size.as_os_str() == "1048576").count();
    assert!(large <= 16, "{large} large pipes");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn a_missing_probe_program_is_reported_once_and_the_start_fails() {
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "end-on-term", "0"]
        ready = { exec = ["/nothing/at/all"] }
        ready_timeout = "200ms"
        restart = "never""#,
    );
    for user in ["", "\nuser = \"65534\"\ngroup = \"65534\""] {
        if !user.is_empty() && !have_root() {
            return;
        }
        std::fs::write(&set.config, set.read("keepalive.toml") + user).unwrap();
        let (_, _, stderr) = set.run(Place::Child).finish();
        assert_eq!(
            stderr
                .matches(
                    "warning: a.0: readiness probe cannot succeed: exited with code 127: No such file or directory"
                )
                .count(),
            1,
            "{stderr}"
        );
        assert!(stderr.contains("not ready"), "{stderr}");
    }
}

#[test]
fn a_ready_timeout_is_reported_with_the_result_of_the_last_probe() {
    let nobody = ReservedPort::any();
    for (ready, why) in [
        (&*format!("{{ tcp = \"{nobody}\" }}"), ": connection refused)"),
        ("{ file = \"/nothing/at/all\" }", " (file /nothing/at/all: no such file or directory)"),
        ("{ exec = [\"PUPPET\", \"exit\", \"3\"] }", ": exited with code 3)"),
        ("{ exec = \"sh -c 'echo first; echo no answer >&2; exit 3'\" }", " (exec sh: exited with code 3: no answer)"),
        (
            "{ exec = [\"DIR/probe\"] }",
            ": exited with code 126: it needs `/bin/no\\r`, which does not exist (the first line ends with cr lf: use lf))",
        ),
        ("\"notify\"", " (it has not sent ready=1)"),
    ] {
        let set = Set::new(&format!(
            "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nready = {ready}\n\
             ready_timeout = \"400ms\"\nrestart = \"never\"\n"
        ));
        set.directory.file("probe", b"#!/bin/no\r\n", 0o755);
        let (_, _, stderr) = set.run(Place::Child).finish();
        assert!(stderr.to_lowercase().contains(why), "{why}: {stderr}");
        let end = set.end();
        assert!(end.starts_with("a.0 failed: not ready within 400ms (") && end.to_lowercase().contains(why), "{end}");
    }
}

#[test]
fn a_probe_that_writes_much_or_takes_long_is_waited_for() {
    // More than a pipe holds.
    let flood = "head -c 500000 /dev/zero";
    for (command, timeout) in [(flood, ""), ("sleep 1.2", ", timeout = \"1m\"")] {
        let set = set(&format!(
            r#"command = ["PUPPET", "end-on-term", "0"]
            ready = {{ exec = ["sh", "-c", "{command} && exit 0"]{timeout} }}"#
        ));
        let mut running = start(&set, Place::Child);
        assert!(running.line().starts_with("a: ready"));
        assert!(running.line().starts_with("b: ready"));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        assert_eq!(tries(&stderr), [""; 0], "{stderr}");
    }
}

// "notification-fd": data before and after the newline is ignored.
#[test]
fn a_newline_on_its_descriptor_makes_a_service_ready() {
    let set = set(
        r#"command = ["PUPPET", "on-signal", "write-to", "5", "almost", " up%and more%", "THEN", "end-on-term", "0"]
        ready = { fd = 5 }"#,
    );
    in_every_place(|place| {
        let mut running = start(&set, place);
        assert!(running.line().starts_with("a: ready"));
        running.send(Signal::USR1);
        let mut lines = vec![running.line()];
        while !lines.last().unwrap().starts_with("b: ready") {
            lines.push(running.line());
        }
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        assert!(stderr.contains("a.0 starting → running"), "{stderr}");
    });
}

#[test]
fn an_end_of_file_without_a_newline_makes_no_service_ready() {
    let set = Set::new(
        r#"[services.a]
        command = ["PUPPET", "write-to", "3", "up", "THEN", "end-on-term", "0"]
        ready = { fd = 3 }
        ready_timeout = "200ms"
        restart = "never""#,
    );
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_ne!(code, 0, "{stderr}");
    assert!(!stderr.contains("a.0 starting → running"), "{stderr}");
    assert!(stderr.contains("not ready"), "{stderr}");
}

#[test]
fn a_readiness_descriptor_with_endless_output_is_closed() {
    let set = Set::new(
        r#"[services.a]
        command = ["sh", "-c", "cat /dev/zero >&3"]
        ready = { fd = 3 }
        restart = "never""#,
    );
    let (code, _, stderr) = set.run(Place::Child).finish();
    // Its pipe has no reader any more.
    assert_eq!(code, 141, "{stderr}");
    let reason = "warning: a.0: readiness probe cannot succeed: no newline in the data written to its descriptor";
    assert!(stderr.contains(reason), "{stderr}");
}

// Each run leaves both ends of its pipes behind, and the end of `ready.fd`.
#[test]
fn after_many_restarts_no_descriptors_of_former_runs_are_open() {
    const INSTANCES: usize = 20;
    let set = Set::new(&format!(
        "[services.a]\ncommand = [\"sh\", \"-c\", \"echo >&3; test -e DIR/calm && exec sleep 10000; exit 1\"]\n\
         ready = {{ fd = 3 }}\ninstances = {INSTANCES}\nmax_restarts = \"unlimited\"\n\
         backoff = {{ initial = \"10ms\", max = \"10ms\" }}\n"
    ));
    set.directory.file("calm", b"", 0o644);
    in_every_place(|place| {
        let mut running = set.start(place);
        let (control, keepalive) = (Control::at(&set.socket()), running.keepalive());
        let all_run = || (0..INSTANCES).for_each(|number| control.wait_for(&format!("a.{number}"), "running"));
        all_run();
        let before = control.descriptors_of(keepalive);
        let calm = set.directory.path().join("calm");
        std::fs::remove_file(&calm).unwrap();
        assert_eq!(control.post("/v1/services/a/signal?signal=KILL").status, 200);
        wait_until("many restarts", || {
            let restarts = control.get("/metrics").body;
            let count = restarts.lines().filter(|line| line.starts_with("keepalive_instance_restarts_total"));
            (count.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() > 300.0).then_some(())
        });
        std::fs::write(&calm, "").unwrap();
        all_run();
        wait_until("all of them to be closed", || (control.descriptors_of(keepalive) <= before + 5).then_some(()));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

// SIGKILL from outside ends keepalive although it has the last copy of a pipe whose lock is held: as long as that process lives.
#[test]
fn the_process_that_shares_the_descriptors_is_replaced_when_it_is_killed() {
    let set =
        Set::new("[services.a]\ncommand = [\"sh\", \"-c\", \"echo >&3; exec sleep 10000\"]\nready = { fd = 3 }\n");
    in_every_place(|place| {
        let mut running = set.start(place);
        let keepalive = running.keepalive();
        let holder = |not: Option<Pid>| {
            wait_until("the process that shares the descriptors", || {
                let is_holder = |pid: &Pid| {
                    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "keepalive-hold\n")
                };
                procfs::children(keepalive)?.flatten().find(|pid| Some(*pid) != not && is_holder(pid))
            })
        };
        let first = holder(None);
        kill::signal_process(first, Signal::KILL).unwrap();
        holder(Some(first));
        wait_for_death(first);
        wait_until("keepalive to rest", || {
            let switches =
                || ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|name| status_field(keepalive, name));
            let before = switches();
            std::thread::sleep(std::time::Duration::from_millis(300));
            (switches() == before).then_some(())
        });
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}
