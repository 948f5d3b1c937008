//! Supervise mode: stops of unwilling processes and of daemons.

use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::harness::{
    self, KEEPALIVE, Place, Run, Running, have_namespaces, in_every_place, status_field, wait_for_death,
    wait_for_state, wait_until,
};
use crate::services::{Set, normal};

#[test]
fn a_service_that_ignores_the_stop_signal_is_killed_after_stop_timeout() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\nstop_timeout = \"50ms\"\n");
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = normal(&running.stderr());
        assert!(stderr.contains("warning: a.0 did not stop within 50ms, sending SIGKILL (pid N)"), "{stderr}");
        assert!(stderr.contains("a.0 stopping → stopped (killed by SIGKILL, ran T)"), "{stderr}");
    });
}

#[test]
fn a_suspended_process_receives_its_stop_signal() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"5\"]\nstop_timeout = \"1h\"\n[keepalive]\nshutdown_timeout = \"1h\"\n",
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        let command = running.command();
        signal_process(command, Signal::STOP).unwrap();
        wait_for_state(command, b'T');
        running.send(Signal::TERM);
        running.expect("signal 15");
        assert_eq!(running.end(), 0);
    });
}

// "More of SIGTERM and SIGQUIT change nothing": docker run's proxy and docker stop send two, and so does a pod that is
// deleted twice.
#[test]
fn repeated_stop_signals_do_not_cut_the_shutdown_short() {
    for signals in
        [[Signal::TERM; 3], [Signal::INT, Signal::TERM, Signal::QUIT], [Signal::TERM, Signal::TERM, Signal::INT]]
    {
        let set = Set::new(
            "[services.a]\ncommand = [\"sh\", \"-c\", \"trap 'until test -e DIR/go; do sleep 0.01; done; echo flushed; exit 0' TERM; echo up; sleep 1000 & wait\"]\n",
        );
        in_every_place(|place| {
            let mut running = set.start(place);
            running.expect("up");
            for signal in signals {
                running.send(signal);
                wait_until_handled(&running);
            }
            let go = set.directory.file("go", b"", 0o644);
            running.expect("flushed");
            assert_eq!(running.end(), 0);
            std::fs::remove_file(go).unwrap();
        });
    }
}

#[test]
fn a_second_sigint_kills_all_processes_at_once() {
    let set = Set::new(
        "[keepalive]\nshutdown_timeout = \"1h\"\n[services.a]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\nstop_timeout = \"1h\"\ninstances = 3\n",
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        let pids: Vec<Pid> = (0..3).map(|_| running.ready()).collect();
        running.send(Signal::INT);
        wait_until_handled(&running);
        // It must come 0.2 s after keepalive has handled the first one.
        std::thread::sleep(Duration::from_millis(200));
        running.send(Signal::INT);
        assert_eq!(running.end(), 137);
        if place == Place::Child {
            pids.into_iter().for_each(wait_for_death);
        }
        let stderr = running.stderr();
        assert!(stderr.contains("received SIGINT: shutting down\n"), "{stderr}");
        assert!(stderr.contains("received SIGINT again: killing all processes now"), "{stderr}");
    });
}

/// Waits until keepalive has read the signals that were sent to it.
#[track_caller]
fn wait_until_handled(running: &Running) {
    let keepalive = running.keepalive();
    wait_until("the signal to be handled", || (!pending(keepalive)).then_some(()));
}

fn pending(pid: Pid) -> bool {
    u64::from_str_radix(&status_field(pid, "ShdPnd"), 16).unwrap() != 0
}

#[test]
fn all_processes_are_killed_after_shutdown_timeout() {
    let set = Set::new(
        "[keepalive]\nshutdown_timeout = \"50ms\"\n[services.a]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\nstop_timeout = \"1h\"\n",
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 137);
        let stderr = running.stderr();
        assert!(stderr.contains("shutdown not finished within 50ms: killing all processes now"), "{stderr}");
    });
}

#[test]
fn a_daemonised_process_gets_sigterm() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"daemonise\", \"0\", \"end-on-term\", \"0\"]\nrestart = \"never\"\n",
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        let daemon = running.ready();
        running.expect("signal 15");
        assert_eq!(running.end(), 0);
        if place == Place::Child {
            wait_for_death(daemon);
        }
    });
}

#[test]
fn a_daemonised_process_that_ignores_sigterm_is_killed() {
    let set = Set::new(
        r#"
        [keepalive]
        shutdown_timeout = "300ms"
        [services.a]
        command = ["PUPPET", "daemonise", "0", "ignore", "15"]
        restart = "never"
        kill_mode = "process"
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        let daemon = running.ready();
        assert_eq!(running.end(), 0);
        if place == Place::Child {
            wait_for_death(daemon);
        }
        let stderr = running.stderr();
        assert!(stderr.contains("shutdown not finished within 300ms: killing all processes now"), "{stderr}");
    });
}

#[test]
fn leftovers_in_the_group_are_gone_before_the_next_run() {
    check_that_leftovers_end_before_the_next_run(&["with-companion", "ignore", "15"]);
}

#[test]
fn leftovers_in_the_session_are_gone_before_the_next_run() {
    check_that_leftovers_end_before_the_next_run(&["with-stray", "ignore", "15"]);
}

/// All descendants of keepalive that run the puppet: no helper processes, and no child that has not executed its program.
fn descendants(keepalive: Pid) -> Vec<Pid> {
    let is_puppet =
        |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "puppet");
    harness::descendants(keepalive).into_iter().filter(is_puppet).collect()
}

/// `verb` starts two processes. After the first is killed, the second is gone before the next run starts.
#[track_caller]
fn check_that_leftovers_end_before_the_next_run(verb: &[&str]) {
    let words = verb.join("\", \"");
    let set = Set::new(&format!("[services.a]\ncommand = [\"PUPPET\", \"{words}\"]\nmin_uptime = \"0s\"\n"));
    in_every_place(|place| {
        let running = set.start(place);
        let keepalive = running.keepalive();
        for _ in 0..5 {
            running.ready();
            running.ready();
            let before = descendants(keepalive);
            assert_eq!(before.len(), 2);
            signal_process(before[0], Signal::KILL).unwrap();
            wait_until("the next run", || {
                let now = descendants(keepalive);
                (now.len() == 2 && !now.contains(&before[0])).then(|| assert!(!now.contains(&before[1])))
            });
        }
    });
}

/// A /proc of another PID namespace has other processes: there it says nothing about ours.
#[test]
fn leftovers_are_stopped_where_proc_shows_another_pid_namespace() {
    if !have_namespaces() {
        return;
    }
    let set = Set::new(
        r#"
        [services.a]
        command = ["sh", "-c", "echo up; (trap '' TERM; exec sleep 1000) & sleep 0.1; exit 1"]
        kill_mode = "group"
        stop_timeout = "10ms"
        min_uptime = "0s"
        "#,
    );
    // The outer namespace, whose /proc is mounted, has a process for each of the first pids of the inner one.
    let script = r#"for i in $(seq 60); do sleep 1000 & done
        exec unshare --pid --fork --kill-child -- "$@""#;
    let outer = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--", "sh", "-c", script, "sh"];
    let running = Run::words(Place::Child, &[&outer[..], &[KEEPALIVE, "-c", &set.config]].concat()).start();
    let sleeping = || harness::descendants(running.keepalive()).into_iter().filter(|pid| is_sleeping(*pid)).count();
    for _ in 0..4 {
        running.expect("up");
    }
    // 60 of the outer namespace, and those of the current run: a leftover process and `sleep 0.1`.
    assert!(sleeping() <= 62, "{} processes", sleeping());
}

fn is_sleeping(pid: Pid) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.starts_with(b"sleep\0"))
}

#[test]
fn kill_mode_group_signals_the_whole_group() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "with-companion", "end-on-term", "0"]
        kill_mode = "group"
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.ready();
        let main = running.command();
        running.send(Signal::TERM);
        // Both get it. The main process, which only reports signals, gets SIGCONT after it.
        let lines = [running.line(), running.line(), running.line()];
        assert_eq!(lines.iter().filter(|line| *line == "signal 15").count(), 2, "{lines:?}");
        signal_process(main, Signal::KILL).unwrap();
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn kill_mode_process_leaves_leftovers_alone_until_the_shutdown() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "with-companion", "end-on-term", "0"]
        kill_mode = "process"
        min_uptime = "0s"
        "#,
    );
    in_every_place(|place| {
        let running = set.start(place);
        let keepalive = running.keepalive();
        running.ready();
        running.ready();
        let before = harness::descendants(keepalive);
        signal_process(before[0], Signal::KILL).unwrap();
        running.ready();
        running.ready();
        let now = harness::descendants(keepalive);
        assert!(now.contains(&before[1]), "{now:?} {before:?}");
        assert_eq!(now.len(), 3);
    });
}

#[test]
fn signals_are_forwarded_to_the_main_processes_as_configured() {
    let set = Set::new(
        r#"
        [keepalive]
        signals = { SIGUSR2 = "ignore", SIGHUP = "forward", SIGQUIT = "forward", RTMIN = "shutdown" }
        [services.a]
        command = ["PUPPET", "report-signals"]
        stop_signal = "KILL"
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        for number in [1, 10, 12, 3, 6, 64] {
            running.send(Signal::new(number).unwrap());
            if number != 12 {
                running.expect(&format!("signal {number}"));
            }
        }
        running.send(Signal::new(34).unwrap());
        assert_eq!(running.end(), 0);
    });
}

// lxc-stop(1) sends SIGPWR, and podman sends an image of systemd its stop signal, SIGRTMIN+3.
#[test]
fn the_stop_signals_of_other_platforms_begin_the_shutdown() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n");
    for signal in [Signal::PWR, Signal::RTMIN_3] {
        in_every_place(|place| {
            let mut running = set.start(place);
            running.ready();
            running.send(signal);
            running.expect("signal 15");
            assert_eq!(running.end(), 0);
        });
    }
}

#[test]
fn a_signal_that_is_configured_to_kill_kills_all_processes() {
    let set = Set::new(
        "[keepalive]\nsignals = { SIGUSR1 = \"kill\" }\n[services.a]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\n",
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.send(Signal::USR1);
        assert_eq!(running.end(), 137);
        let stderr = running.stderr();
        assert!(stderr.contains("received SIGUSR1: killing all processes now"), "{stderr}");
    });
}

// "PID 1 never dies of its surroundings": each of these signals causes a hundred actions.
#[test]
fn a_flood_of_signals_does_not_hide_a_stop_signal() {
    const MAX_KIBIBYTES: u64 = 16 * 1024;
    let set =
        Set::new("[services.a]\ncommand = [\"PUPPET\", \"ignore\", \"64\"]\ninstances = 100\nstop_signal = \"KILL\"\n");
    let mut running = set.start(Place::Child);
    for _ in 0..100 {
        running.ready();
    }
    let keepalive = running.keepalive();
    for _ in 0..20_000 {
        signal_process(keepalive, Signal::new(64).unwrap()).unwrap();
    }
    let peak = status_field(keepalive, "VmHWM");
    let kibibytes: u64 = peak.trim_end_matches(" kB").trim().parse().unwrap();
    assert!(kibibytes < MAX_KIBIBYTES, "{kibibytes} KiB");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

// If keepalive is PID 1, the kernel kills all other processes with it.
#[test]
fn services_get_a_signal_when_keepalive_is_killed() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\ninstances = 3\n");
    let running = set.start(Place::Child);
    let pids: Vec<Pid> = (0..3).map(|_| running.ready()).collect();
    running.send(Signal::KILL);
    for pid in pids {
        running.expect("signal 15");
        wait_for_death(pid);
    }
}

// pid_namespaces(7): PID 1 loses signals that it neither handles nor blocks. `docker stop` may come that early.
#[test]
fn a_stop_signal_during_the_load_of_the_configuration_is_not_lost() {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if !have_namespaces() {
        return;
    }
    let directory = harness::Directory::new();
    let path = directory.path().join("keepalive.toml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut running = Run::words(Place::Init, &[KEEPALIVE, "-c", path.to_str().unwrap()]).start();
    // The open succeeds only with a reader.
    let mut config = wait_until("keepalive to read its configuration", || {
        std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).ok()
    });
    running.send(Signal::TERM);
    writeln!(config, "[services.a]\ncommand = [\"{}\", \"end-on-term\", \"0\"]", harness::PUPPET).unwrap();
    drop(config);
    assert_eq!(running.end(), 0);
}
