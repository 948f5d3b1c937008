//! Init mode: attributes that the child inherits and that keepalive keeps.

use keepalive::model::Signal;

use crate::harness::{self, Directory, KEEPALIVE, PUPPET, Place, Run, in_every_place};

/// The output of `puppet state` under a keepalive that `puppet with CHANGES…` starts.
fn state(place: Place, changes: &[&str]) -> String {
    let words = [&[PUPPET, "with"], changes, &["--", KEEPALIVE, "--", PUPPET, "state"]].concat();
    let (code, stdout, stderr) = Run::words(place, &words).finish();
    assert_eq!(code, 0, "{stderr}");
    stdout
}

#[track_caller]
fn field<'a>(state: &'a str, name: &str) -> &'a str {
    let value = state.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {state}"))
}

fn bits(state: &str, name: &str) -> u64 {
    u64::from_str_radix(field(state, name), 16).unwrap()
}

#[test]
fn the_child_inherits_the_signal_mask_of_the_start() {
    in_every_place(|place| {
        assert_eq!(bits(&state(place, &[]), "SigBlk"), 0);
        for signal in [1, 17, 20, 22, 32, 33, 34, 64] {
            let found = bits(&state(place, &[&format!("block={signal}")]), "SigBlk");
            assert_eq!(found, 1 << (signal - 1), "{signal}");
        }
    });
}

// getrlimit(2) RLIMIT_STACK: the arguments and the calls of keepalive must fit. The child uses another stack until
// exec.
#[test]
fn the_loop_runs_with_a_stack_of_24_kibibytes() {
    in_every_place(|place| {
        let words = ["prlimit", "--stack=24576:24576", KEEPALIVE, "--", "/bin/true"];
        let (code, _, stderr) = Run::words(place, &words).finish();
        assert_eq!(code, 0, "{stderr}");
    });
}

#[test]
fn the_child_inherits_ignored_signals() {
    in_every_place(|place| {
        let nothing = bits(&state(place, &[]), "SigIgn");
        for signal in [1, 13, 15, 17, 20, 22, 34, 64] {
            let found = bits(&state(place, &[&format!("ignore={signal}")]), "SigIgn");
            assert_eq!(found, nothing | 1 << (signal - 1), "{signal}");
        }
    });
}

// wait(2): "if the disposition of SIGCHLD is set to SIG_IGN, … children that terminate do not become zombies".
#[test]
fn an_ignored_sigchld_does_not_hide_the_exit_of_the_child() {
    in_every_place(|place| {
        let words = [PUPPET, "with", "ignore=17", "--", KEEPALIVE, "--", PUPPET, "exit", "5"];
        assert_eq!(Run::words(place, &words).finish().0, 5);
    });
}

#[test]
fn the_child_leads_its_own_group_in_the_session_of_keepalive() {
    in_every_place(|place| {
        let state = state(place, &[]);
        assert_eq!((field(&state, "leads-group"), field(&state, "leads-session")), ("true", "false"));
    });
}

#[test]
fn closed_standard_streams_are_closed_in_the_child() {
    in_every_place(|place| {
        let all = field(&state(place, &[]), "descriptors").to_owned();
        assert_eq!(all, "0,1,2");
        assert_eq!(field(&state(place, &["close=0"]), "descriptors"), "1,2");
        assert_eq!(field(&state(place, &["close=2"]), "descriptors"), "0,1");
        assert_eq!(field(&state(place, &["close=0", "close=2"]), "descriptors"), "1");
    });
}

#[test]
fn keepalive_runs_with_all_standard_streams_closed() {
    in_every_place(|place| {
        let closed = ["close=0", "close=1", "close=2", "--"];
        for (command, expect) in [(&[PUPPET, "exit", "3"][..], 3), (&["no-such-program"], 127)] {
            let words = [&[PUPPET, "with"], &closed[..], &[KEEPALIVE, "-v", "--"], command].concat();
            assert_eq!(Run::words(place, &words).finish().0, expect);
        }
    });
}

#[test]
fn the_child_inherits_other_descriptors_and_keepalive_closes_them() {
    in_every_place(|place| {
        assert_eq!(field(&state(place, &["open=7", "open=9"]), "descriptors"), "0,1,2,7,9");
        let words = [PUPPET, "with", "open=7", "--", KEEPALIVE, "--", PUPPET, "report-signals"];
        let running = Run::words(place, &words).start();
        running.ready();
        let keepalive = running.keepalive();
        // keepalive closes them right after the start, maybe shortly after the child is ready.
        harness::wait_until("only stdin, stdout and stderr to be open", || {
            let open = std::fs::read_dir(format!("/proc/{keepalive}/fd")).unwrap().count();
            (open == 3).then_some(())
        });
    });
}

#[test]
fn only_the_child_keeps_the_working_directory() {
    let directory = Directory::new();
    in_every_place(|place| {
        let mut run = Run::puppet(place, &[], &["state"]);
        run.command.current_dir(directory.path());
        let (_, stdout, _) = run.finish();
        assert_eq!(field(&stdout, "directory"), directory.path().to_str().unwrap());
        let mut run = Run::puppet(place, &[], &["report-signals"]);
        run.command.current_dir(directory.path());
        let running = run.start();
        running.ready();
        let keepalive = running.keepalive();
        harness::wait_until("keepalive to leave the directory", || {
            let own = std::fs::read_link(format!("/proc/{keepalive}/cwd")).unwrap();
            (own.to_str() == Some("/")).then_some(())
        });
    });
}

#[test]
fn the_child_inherits_the_environment_unchanged() {
    let mut run = Run::init(Place::Child, &[], &["/usr/bin/env"]);
    run.command.env_clear().env("A", "b c").env("EMPTY", "");
    let (_, stdout, _) = run.finish();
    let mut lines: Vec<_> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=b c", "EMPTY="]);
}

// sd_listen_fds(3); a container runtime sets LISTEN_PID=1 for what it believes is the service.
#[test]
fn the_child_inherits_listening_sockets() {
    if !harness::have_namespaces() {
        return;
    }
    let script = "test $LISTEN_PID = $$ && test -z \"$LISTEN_PIDFDID\" && echo mine";
    let mut run = Run::init(Place::Init, &[], &["sh", "-c", script]);
    run.command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").env("LISTEN_PIDFDID", "7");
    assert_eq!(run.finish().1, "mine");
}

// execvp(3): "If the header of a file isn't recognized (the attempted execve(2) failed with the error ENOEXEC), these
// functions will execute the shell (/bin/sh) with the path of the file as its first argument."
#[test]
fn the_shell_runs_a_script_without_an_interpreter_line() {
    let directory = Directory::new();
    let script = directory.file("script", b"echo \"$0 $1 $2\"\nexit 9\n", 0o755);
    in_every_place(|place| {
        let (code, stdout, _) = Run::init(place, &[], &[&script, "a", "b c"]).finish();
        assert_eq!((code, stdout.as_str()), (9, format!("{script} a b c").as_str()));
        let mut run = Run::init(place, &[], &["script", "a", "b"]);
        run.command.env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()));
        assert_eq!(run.finish().1, format!("{script} a b"));
    });
}

/// The exit code of `command` with this `PATH`, in a directory that has `program` (exits with 3), `denied/program` (not
/// executable) and `other/program` (exits with 4).
fn search(path: Option<&str>, command: &str) -> i32 {
    let directory = Directory::new();
    for name in ["denied", "other"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    directory.file("program", b"#!/bin/sh\nexit 3\n", 0o755);
    directory.file("denied/program", b"#!/bin/sh\nexit 5\n", 0o644);
    directory.file("other/program", b"#!/bin/sh\nexit 4\n", 0o755);
    let mut run = Run::init(Place::Child, &[], &[command]);
    run.command.current_dir(directory.path());
    match path {
        Some(path) => run.command.env("PATH", path),
        None => run.command.env_remove("PATH"),
    };
    run.finish().0
}

#[test]
fn the_program_is_searched_for_as_by_execvp() {
    assert_eq!(search(Some("other"), "program"), 4);
    assert_eq!(search(Some("nowhere:other:"), "program"), 4);
    assert_eq!(search(Some(":other"), "program"), 3, "an empty element is the working directory");
    assert_eq!(search(Some(""), "program"), 3);
    assert_eq!(search(Some("denied:other"), "program"), 4, "a denied one is passed over");
    assert_eq!(search(Some("denied:nowhere"), "program"), 126, "and remembered");
    assert_eq!(search(Some("nowhere"), "program"), 127);
    assert_eq!(search(Some("program:other"), "program"), 4, "an element that is no directory");
    assert_eq!(search(Some("nowhere"), "./program"), 3, "a name with a slash is not searched");
    assert_eq!(search(Some("nowhere"), "denied/program"), 126);
    assert_eq!(search(None, "true"), 0, "there is a default");
}

// docker run --read-only --cap-drop ALL --security-opt no-new-privileges --user 1000
#[test]
fn init_mode_needs_no_privileges() {
    if !harness::have_root() || !harness::have_namespaces() {
        return;
    }
    let directory = Directory::new();
    let keepalive = directory.file("keepalive", &std::fs::read(KEEPALIVE).unwrap(), 0o755);
    let puppet = directory.file("puppet", &std::fs::read(PUPPET).unwrap(), 0o755);
    let powerless = [
        "setpriv",
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
        &keepalive,
        "--",
        &puppet,
        "end-on-term",
        "6",
    ];
    let mut running = Run::words(Place::Init, &powerless).start();
    assert_eq!(running.ready().get(), 2);
    running.send(Signal::INT);
    running.expect("signal 2");
    running.send(Signal::TERM);
    running.expect("signal 15");
    assert_eq!(running.end(), 6);
    assert_eq!(running.stderr(), "");
}

#[test]
fn init_mode_prints_nothing() {
    in_every_place(|place| {
        let (code, stdout, stderr) = Run::puppet(place, &[], &["daemonise", "0", "exit", "0"]).finish();
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    });
}
