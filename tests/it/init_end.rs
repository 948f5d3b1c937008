//! Init mode: exit codes and the grace period.

use keepalive::model::{Pid, Signal};

use crate::harness::{self, Directory, PUPPET, Place, Run, in_every_place, wait_for_state, wait_until};
use crate::services::Set;

#[track_caller]
fn check(options: &[&str], command: &[&str], expect: i32) {
    in_every_place(|place| {
        let (code, _, stderr) = Run::init(place, options, command).finish();
        assert_eq!(code, expect, "{place:?} {options:?} {command:?}: {stderr}");
    });
}

#[track_caller]
fn check_puppet(options: &[&str], verb: &[&str], expect: i32) {
    check(options, &[&[PUPPET], verb].concat(), expect);
}

// sysexits(3): EX_SOFTWARE, 70. The puppet panics in place of keepalive.
#[test]
fn a_panic_is_reported_and_exits_with_70() {
    in_every_place(|place| {
        let directory = Directory::new();
        let file = directory.file("end", b"what was there before", 0o644);
        let (code, _, stderr) = Run::words(place, &[PUPPET, "panic", &file]).finish();
        assert_eq!(code, 70, "{stderr}");
        let line = concat!("keepalive: error: this is a bug in keepalive ", env!("CARGO_PKG_VERSION"));
        assert!(stderr.starts_with(line), "{stderr}");
        assert!(stderr.contains("please report it: on purpose at tests/puppet/puppet.rs:"), "{stderr}");
        assert_eq!(format!("keepalive: error: {}", std::fs::read_to_string(&file).unwrap()), stderr);
    });
}

/// A release has no messages for panics: the instruction that the compiler puts in their place is reported.
#[test]
fn an_instruction_that_must_never_be_executed_is_reported_and_exits_with_70() {
    in_every_place(|place| {
        let directory = Directory::new();
        let file = directory.file("end", b"what was there before", 0o644);
        let (code, _, stderr) = Run::words(place, &[PUPPET, "fault", &file]).finish();
        assert_eq!(code, 70, "{stderr}");
        let line = concat!("keepalive: error: this is a bug in keepalive ", env!("CARGO_PKG_VERSION"));
        let address = stderr.trim_end().strip_prefix(line).and_then(|rest| rest.split_once("instruction 0x"));
        let address = address.and_then(|(_, address)| u64::from_str_radix(address, 16).ok());
        let size = std::fs::metadata(PUPPET).unwrap().len();
        assert!(address.is_some_and(|address| address < size), "{stderr}");
        assert_eq!(format!("keepalive: error: {}", std::fs::read_to_string(&file).unwrap()), stderr);
    });
}

#[test]
fn keepalive_exits_with_the_code_of_the_child() {
    for code in ["0", "1", "3", "126", "127", "255"] {
        check_puppet(&[], &["exit", code], code.parse().unwrap());
    }
}

#[test]
fn a_death_by_signal_gives_128_plus_its_number() {
    // Without signals that may write core files, such as SIGABRT.
    for signal in [1, 2, 9, 13, 15, 34, 37, 64] {
        check_puppet(&[], &["die-of", &signal.to_string()], 128 + signal);
    }
}

#[test]
fn exit_codes_are_remapped_after_128_is_added() {
    check_puppet(&["-e", "143", "-e", "3"], &["die-of", "15"], 0);
    check_puppet(&["-e", "143", "-e", "3"], &["exit", "3"], 0);
    check_puppet(&["-e", "143", "-e", "3"], &["exit", "15"], 15);
}

#[test]
fn a_program_that_does_not_exist_exits_with_127() {
    check(&[], &["no-such-program-anywhere"], 127);
    check(&[], &["/no/such/program"], 127);
    check(&[], &[""], 127);
}

#[test]
fn a_file_that_cannot_be_executed_exits_with_126() {
    check(&[], &["/etc"], 126);
    check(&[], &["/etc/passwd"], 126);
    check(&[], &["/etc/passwd/x"], 126);
}

#[test]
fn an_exec_failure_names_the_program_and_the_reason() {
    let (_, _, stderr) = Run::init(Place::Child, &[], &["no-such-program"]).finish();
    assert!(stderr.contains("cannot run `no-such-program`: not found"), "{stderr}");
    let (_, _, stderr) = Run::init(Place::Child, &[], &["/etc"]).finish();
    assert!(stderr.contains("cannot run `/etc`: Permission denied"), "{stderr}");
}

// execve(2): ENOEXEC: an executable "is for the wrong architecture". ENOENT: "or a script interpreter does not exist".
#[test]
fn a_file_that_cannot_be_run_says_why_and_exits_with_126() {
    let directory = Directory::new();
    // keepalive itself with the machine type of another architecture.
    let mut foreign = std::fs::read(harness::KEEPALIVE).unwrap();
    foreign[18..20].copy_from_slice(&[0xf3, 0xf3]);
    let script = format!("#! {} -u\necho wrong\n", directory.file("interpreter", &foreign, 0o755));
    for (name, content, reason) in [
        ("tool.py", script.as_bytes(), "Exec format error (a program for another architecture)"),
        ("binary", b"MZ\x90\0\x03\0\n", "Exec format error"),
        ("foreign", &*foreign, "Exec format error (a program for another architecture)"),
        ("short", b"\x7fELF\x02\x01\x01\0\0\0\0\0", "Exec format error"),
        (
            "crlf",
            b"#!/bin/sh\r\nexit 0\r\n",
            "it needs `/bin/sh\\r`, which does not exist (the first line ends with CR LF: use LF)",
        ),
        ("script", b"#!/no/such/interpreter\n", "it needs `/no/such/interpreter`, which does not exist"),
    ] {
        let path = directory.file(name, content, 0o755);
        let file = std::path::Path::new(&path);
        for word in [path.as_str(), name] {
            let mut run = Run::init(Place::Child, &[], &[word]);
            run.command.env("PATH", file.parent().unwrap());
            let (code, _, stderr) = run.finish();
            assert_eq!(code, 126, "{stderr}");
            assert!(stderr.trim_end().ends_with(&format!("cannot run `{word}`: {reason}")), "{stderr}");
        }
        // With memory of its own, the process reports by the pipe alone.
        for score in ["", "oom_score_adj = 0\n"] {
            let set = Set::new(&format!("[services.a]\ncommand = [{path:?}]\n{score}"));
            let (code, _, stderr) = set.run(Place::Child).finish();
            assert_eq!(code, 126, "{stderr}");
            assert!(stderr.contains(&format!("cannot execute `{path}`: {reason}: exiting with code 126")), "{stderr}");
        }
    }
}

// setrlimit(2) RLIMIT_NPROC: fork fails with EAGAIN.
#[test]
fn a_refused_fork_exits_with_71() {
    if !harness::have_root() {
        return;
    }
    // The limit counts all processes of the user, so the test uses an unused user id.
    let directory = Directory::new();
    let binary = directory.file("keepalive", &std::fs::read(harness::KEEPALIVE).unwrap(), 0o755);
    let user = (300_000 + std::process::id()).to_string();
    let words = ["prlimit", "--nproc=1", "setpriv", "--reuid", &user, "--clear-groups", &binary, "--", "true"];
    let (code, _, stderr) = Run::words(Place::Child, &words).finish();
    assert_eq!(code, 71, "{stderr}");
    assert!(stderr.contains("cannot create a process: "), "{stderr}");
}

#[test]
fn the_child_is_killed_after_the_grace_period() {
    in_every_place(|place| {
        let mut running = Run::puppet(place, &["--grace", "50ms"], &["ignore", "15"]).start();
        running.ready();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 137);
        assert!(running.stderr().contains("SIGKILL"));
    });
}

#[test]
fn a_rewritten_signal_starts_the_grace_period_too() {
    for (options, signal) in [(["-r", "TERM:HUP"], Signal::TERM), (["-r", "USR1:TERM"], Signal::USR1)] {
        let options = [&options[..], &["--grace", "50ms"]].concat();
        let mut running = Run::puppet(Place::Child, &options, &["ignore", "1", "15"]).start();
        running.ready();
        running.send(signal);
        assert_eq!(running.end(), 137);
    }
}

#[test]
fn with_group_the_grace_period_ends_with_sigkill_to_the_group() {
    in_every_place(|place| {
        let options = ["-g", "--grace", "50ms"];
        let mut running = Run::puppet(place, &options, &["with-companion", "report-signals"]).start();
        running.ready();
        running.ready();
        running.send(Signal::TERM);
        // Both processes have stdout, so `finish` would wait forever if one of them were left.
        assert_eq!(running.end(), 137);
        running.stderr();
    });
}

#[test]
fn a_stopped_child_is_killed_after_the_grace_period() {
    let mut running = Run::puppet(Place::Child, &["--grace", "50ms"], &["ignore", "15", "18"]).start();
    let child = running.ready();
    keepalive::sys::signal_process(child, Signal::STOP).unwrap();
    wait_for_state(child, b'T');
    running.send(Signal::TERM);
    assert_eq!(running.end(), 137);
}

// signal(7): a stopped process handles only SIGKILL until it is continued.
#[test]
fn a_stopped_child_receives_the_termination_signal() {
    in_every_place(|place| {
        let mut running = Run::puppet(place, &[], &["end-on-term", "6"]).start();
        running.ready();
        let child = running.command();
        keepalive::sys::signal_process(child, Signal::STOP).unwrap();
        wait_for_state(child, b'T');
        // SIGTERM has a lower number than SIGCHLD and may be handled first. The second signal comes after SIGCHLD.
        running.send(Signal::USR2);
        wait_until("keepalive to handle the signals", || (!pending(running.keepalive())).then_some(()));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 6);
    });
}

fn pending(pid: Pid) -> bool {
    harness::status_field(pid, "ShdPnd") != "0000000000000000"
}
