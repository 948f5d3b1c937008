//! Supervise mode: the attributes of the processes of services.

use keepalive::model::Signal;

use crate::harness::{self, KEEPALIVE, PUPPET, Place, Run, in_every_place, status_field, wait_until};
use crate::http::Control;
use crate::services::Set;

#[test]
fn services_inherit_nothing_of_keepalive() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"state\"]\nrestart = \"never\"\ncwd = \"DIR\"\n");
    in_every_place(|place| {
        let started = [PUPPET, "with", "block=10", "block=34", "ignore=1", "ignore=17", "ignore=13", "open=7", "--"];
        let words = [&started[..], &[KEEPALIVE, "-c", &set.config]].concat();
        let (code, stdout, stderr) = Run::words(place, &words).finish();
        assert_eq!(code, 0, "{stderr}");
        let directory = set.directory.path().display();
        let expect = format!(
            "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\nleads-group true\nleads-session true\n\
             directory {directory}\ndescriptors 0,1,2\nforeground false"
        );
        assert_eq!(stdout.replace("SigBlk 0", "SigBlk: 0").replace("SigIgn 0", "SigIgn: 0"), expect);
    });
}

#[test]
fn a_service_has_the_environment_of_the_container_and_its_own() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["/bin/sh", "-c", "env | sort | grep -E '^(A|B|C|D|KEEPALIVE_|LISTEN_|NOTIFY_|WATCHDOG_)'"]
        instances = 2
        env_file = "DIR/env"
        env = { B = "own $${B} {instance}", D = "${OUTER}" }
        restart = "never"
        "#,
    );
    set.directory.file("env", b"# comment\nB=file\nC='from file'\n", 0o644);
    let mut run = set.run(Place::Child);
    run.command.env_clear().envs([
        ("PATH", "/usr/bin:/bin"),
        ("A", "inherited"),
        ("B", "inherited"),
        ("C", "inherited"),
        ("OUTER", "outer"),
        ("NOTIFY_SOCKET", "/run/x"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", "1"),
        ("WATCHDOG_USEC", "1"),
        ("KEEPALIVE_INSTANCE", "99"),
        ("KEEPALIVE_SOCKET", set.socket().to_str().unwrap()),
    ]);
    let (code, stdout, stderr) = run.finish();
    assert_eq!(code, 0, "{stderr}");
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    let socket = format!("KEEPALIVE_SOCKET={}", set.socket().display());
    let expect = [
        "A=inherited",
        "A=inherited",
        "B=own ${B} 0",
        "B=own ${B} 1",
        "C=from file",
        "C=from file",
        "D=outer",
        "D=outer",
        "KEEPALIVE_INSTANCE=0",
        "KEEPALIVE_INSTANCE=1",
        "KEEPALIVE_INSTANCES=2",
        "KEEPALIVE_INSTANCES=2",
        "KEEPALIVE_RESTARTS=0",
        "KEEPALIVE_RESTARTS=0",
        "KEEPALIVE_SERVICE=web",
        "KEEPALIVE_SERVICE=web",
        &socket,
        &socket,
    ];
    assert_eq!(lines, expect);
}

// docs: `{instances}` and KEEPALIVE_INSTANCES are the number of instances when the process starts.
#[test]
fn a_process_knows_how_many_instances_there_are() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["/bin/sh", "-c", "echo {instance}/{instances} $KEEPALIVE_INSTANCES > DIR/web.{instance}; exec sleep 1000"]
        instances = 2
        env_clear = true
        "#,
    );
    let _running = set.start(Place::Child);
    let wait_for = |name: &str, text: &str| {
        wait_until(text, || {
            std::fs::read_to_string(set.directory.path().join(name)).is_ok_and(|found| found == text).then_some(())
        });
    };
    wait_for("web.0", "0/2 2\n");
    wait_for("web.1", "1/2 2\n");
    let control = Control::at(&set.socket());
    assert_eq!(control.post("/v1/services/web/scale?instances=3").status, 200);
    wait_for("web.2", "2/3 3\n");
    assert_eq!(control.post("/v1/services/web.0/restart").status, 200);
    wait_for("web.0", "0/3 3\n");
}

// A hook or a worker may call `keepalive`: it must reach its own keepalive, and no other one.
#[test]
fn a_service_without_a_control_socket_is_not_given_that_of_another() {
    let set = Set::new(
        "[keepalive]
control = false\n[services.a]\ncommand = [\"PUPPET\", \"given\"]\nrestart = \"never\"\n",
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        let lines: Vec<&str> = stdout.lines().collect();
        let expect = ["KEEPALIVE_INSTANCE=0", "KEEPALIVE_INSTANCES=1", "KEEPALIVE_RESTARTS=0", "KEEPALIVE_SERVICE=a"];
        assert_eq!(lines, expect);
    });
}

#[test]
fn a_process_gets_the_number_of_its_restarts() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["/bin/sh", "-c", "echo $KEEPALIVE_RESTARTS; exit 1"]
        max_restarts = 3
        backoff = { initial = "1ms", max = "1ms" }
        "#,
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (1, "0\n1\n2\n3"), "{stderr}");
}

#[test]
fn process_attributes_are_set_as_configured() {
    if !harness::have_root() {
        return;
    }
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "report-signals"]
        user = "12345"
        group = "23456"
        groups = ["34567"]
        umask = "0027"
        limits = { nofile = 77, core = 0, fsize = "1MiB" }
        nice = 5
        oom_score_adj = 300
        no_new_privs = true
        "#,
    );
    in_every_place(|place| {
        let running = set.start(place);
        running.ready();
        let pid = running.command();
        assert_eq!(status_field(pid, "Uid"), "12345\t12345\t12345\t12345");
        assert_eq!(status_field(pid, "Gid"), "23456\t23456\t23456\t23456");
        assert_eq!(status_field(pid, "Groups"), "34567");
        assert_eq!(status_field(pid, "Umask"), "0027");
        assert_eq!(status_field(pid, "NoNewPrivs"), "1");
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        assert_eq!(read("oom_score_adj"), "300\n");
        let limits = read("limits");
        let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert_eq!(limit("Max open files").split_whitespace().skip(3).collect::<Vec<_>>(), ["77", "77", "files"]);
        assert_eq!(limit("Max core file size").split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
        assert!(limit("Max file size").contains("1048576"));
        let nice = read("stat").rsplit(')').next().unwrap().split_whitespace().nth(16).map(str::to_owned);
        assert_eq!(nice.as_deref(), Some("5"));
        // keepalive itself must keep its own attributes.
        let keepalive = running.keepalive();
        let own = std::fs::read_to_string(format!("/proc/{keepalive}/oom_score_adj")).unwrap();
        assert_ne!(own, "300\n");
    });
}

#[test]
fn discarded_output_is_not_written() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["/bin/sh", "-c", "echo out; echo err >&2"]
        restart = "never"
        log = { stdout = "null" }
        "#,
    );
    let (_, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!(stdout, "");
    assert!(stderr.contains("\nerr\n"), "{stderr}");
}

#[test]
fn keepalive_does_not_wake_up_without_work() {
    let set =
        Set::new("[services.a]\ncommand = [\"PUPPET\", \"report-signals\"]\ninstances = 100\nmin_uptime = \"100ms\"\n");
    in_every_place(|place| {
        let running = set.start(place);
        for _ in 0..100 {
            running.ready();
        }
        let keepalive = running.keepalive();
        harness::wait_for_state(keepalive, b'S');
        let switches = || {
            let count = |name| status_field(keepalive, name).parse::<u64>().unwrap();
            count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches")
        };
        let before = switches();
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert_eq!(switches(), before);
    });
}

#[test]
fn starts_are_retried_when_the_process_limit_is_reached() {
    if !harness::have_root() {
        return;
    }
    // A user of its own: zombies that nobody reaps yet count too, also those of earlier tests.
    let user = 100_000 + std::process::id();
    let set = Set::new(&format!(
        r#"
        [services.a]
        command = ["PUPPET", "report-signals"]
        instances = 8
        limits = {{ nproc = 2 }}
        user = "{user}"
        restart = "never"
        on_failure = "ignore"
        "#
    ));
    let log = set.directory.file("log", b"", 0o644);
    let mut run = set.run(Place::Child);
    run.command.stderr(std::fs::File::create(&log).unwrap());
    let mut running = run.start();
    wait_until("a refused start", || set.read("log").contains("cannot create a process: ").then_some(()));
    // Each process that exits for good makes room for a refused one, so all of them run eventually.
    for _ in 0..8 {
        keepalive::sys::signal_process(running.ready(), Signal::KILL).unwrap();
    }
    assert_eq!(running.end(), 137);
}

#[test]
fn a_thousand_services_start_and_stop() {
    let mut text = String::from("[keepalive]\n");
    for number in 0..1000 {
        text += &format!("[services.s{number}]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n");
        if number > 0 {
            text += &format!("depends_on = [\"s{}\"]\n", number / 2);
        }
    }
    let set = Set::new(&text);
    let mut running = set.start(Place::Child);
    for _ in 0..1000 {
        running.ready();
    }
    running.send(Signal::TERM);
    for _ in 0..1000 {
        running.expect("signal 15");
    }
    assert_eq!(running.end(), 0);
}

#[test]
fn a_stalled_reader_of_stderr_does_not_block_keepalive() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"report-signals\"]\nmin_uptime = \"0s\"\nlog = { stderr = \"null\" }\n",
    );
    in_every_place(|place| {
        let (_reader, full) = harness::stalled_pipe();
        let mut run = set.run(place);
        run.command.stderr(full).env("KEEPALIVE_LOG", "debug");
        let running = run.start();
        for _ in 0..20 {
            running.ready();
            let pid = running.command();
            keepalive::sys::signal_process(pid, Signal::KILL).unwrap();
            harness::wait_for_death(pid);
        }
    });
}

#[test]
fn keepalive_runs_with_stdin_stdout_and_stderr_closed() {
    let set = Set::new("[services.a]\ncommand = [\"/bin/sh\", \"-c\", \"echo up > DIR/up; exec sleep 1000\"]\n");
    in_every_place(|place| {
        let close = [PUPPET, "with", "close=0", "close=1", "close=2", "--", KEEPALIVE, "-c", &set.config];
        let mut running = Run::words(place, &close).start();
        wait_until("the service", || set.directory.path().join("up").exists().then_some(()));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        std::fs::remove_file(set.directory.path().join("up")).unwrap();
    });
}
