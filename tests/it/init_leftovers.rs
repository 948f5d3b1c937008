//! Init mode: orphans and leftover processes.

use keepalive::model::Signal;
use keepalive::sys::signal_process;

use crate::harness::{self, Place, Run, in_every_place, wait_for_death};

#[test]
fn all_of_twenty_thousand_orphans_are_reaped() {
    if !harness::have_namespaces() {
        return;
    }
    let (code, stdout, stderr) = Run::puppet(Place::Init, &[], &["orphans", "20000"]).finish();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "made 20000\nnone left", ""));
}

// Reaping many processes does not delay a signal until all of them have been reaped.
#[test]
fn a_signal_is_handled_between_two_batches_of_zombies() {
    let running = Run::puppet(Place::Child, &["-r", "RTMAX:USR2"], &["zombies", "4000"]).start();
    let child = running.ready();
    let keepalive = running.keepalive();
    // The child stops keepalive when it gets the signal. Meanwhile keepalive reaps more.
    let mut attempts = (0..10).map(|_| {
        signal_process(keepalive, Signal::STOP).unwrap();
        harness::wait_for_state(keepalive, b'T');
        signal_process(child, Signal::USR1).unwrap();
        running.expect("made 4000");
        // This signal is handled after SIGCHLD, because its number is higher.
        signal_process(keepalive, Signal::new(64).unwrap()).unwrap();
        signal_process(keepalive, Signal::CONT).unwrap();
        let left = running.number("left");
        signal_process(keepalive, Signal::CONT).unwrap();
        left
    });
    assert!(attempts.any(|left| left > 0), "all zombies were reaped before the signal was forwarded");
}

#[test]
fn orphans_are_adopted_and_reaped_as_pid_1_and_as_a_child() {
    in_every_place(|place| {
        let options = ["-w"];
        let running = Run::puppet(place, &options, &["with-companion", "daemonise", "0", "report-signals"]).start();
        running.ready();
        running.ready();
        let keepalive = running.keepalive();
        let daemon = harness::wait_until("the daemon to be adopted", || {
            let mut processes = keepalive::sys::procfs::processes();
            let adopted = processes.find(|stat| stat.ppid == keepalive.get() && stat.pgrp != stat.pid.get());
            adopted.map(|stat| stat.pid)
        });
        signal_process(daemon, Signal::KILL).unwrap();
        harness::wait_until("the daemon to be reaped", || keepalive::sys::procfs::stat(daemon).is_none().then_some(()));
    });
}

#[test]
fn each_adopted_zombie_is_logged_on_request() {
    in_every_place(|place| {
        let mut running = Run::puppet(place, &["-w", "--linger", "60s"], &["daemonise", "0", "exit", "0"]).start();
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        // The puppet itself reaps the process between it and the daemon.
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("keepalive: warning: reaped orphaned process "), "{stderr}");
    });
}

#[test]
fn without_linger_keepalive_exits_at_once() {
    let mut running = Run::puppet(Place::Child, &[], &["daemonise", "3", "report-signals"]).start();
    let daemon = running.ready();
    assert_eq!(running.end(), 3);
    assert!(keepalive::sys::procfs::stat(daemon).is_some(), "the daemon outlives a keepalive that is not PID 1");
    signal_process(daemon, Signal::KILL).unwrap();
    wait_for_death(daemon);
}

#[test]
fn with_linger_leftovers_get_sigterm_and_are_awaited() {
    in_every_place(|place| {
        let mut running = Run::puppet(place, &["--linger", "60s"], &["daemonise", "3", "end-on-term", "9"]).start();
        running.ready();
        // SIGTERM comes first and leaves no process for the next signals.
        running.expect("signal 15");
        assert_eq!(running.end(), 3);
    });
}

#[test]
fn a_stopped_leftover_receives_sigterm() {
    in_every_place(|place| {
        let verb = ["with-companion", "daemonise", "0", "echo"];
        let mut running = Run::puppet(place, &["--linger", "60s"], &verb).start();
        let (first, second) = (running.ready(), running.ready());
        assert_ne!(first, second);
        let keepalive = running.keepalive();
        let mut stopped = 0;
        for pid in keepalive::sys::procfs::descendants(keepalive) {
            let stat = keepalive::sys::procfs::stat(pid);
            if stat.is_some_and(|stat| stat.session == stat.pgrp && stat.pgrp != pid.get()) {
                signal_process(pid, Signal::STOP).unwrap();
                harness::wait_for_state(pid, b'T');
                stopped += 1;
            }
        }
        assert_eq!(stopped, 1);
        // This ends the child. The daemon does not exit by itself, because stdin stays open.
        signal_process(running.command(), Signal::KILL).unwrap();
        assert_eq!(running.end(), 137);
    });
}

#[test]
fn a_leftover_that_ignores_sigterm_is_killed_after_the_timeout() {
    in_every_place(|place| {
        let verb = ["daemonise", "3", "ignore", "15"];
        let mut running = Run::puppet(place, &["--linger", "50ms"], &verb).start();
        let daemon = running.ready();
        assert_eq!(running.end(), 3);
        if place == Place::Child {
            assert_eq!(keepalive::sys::procfs::stat(daemon), None);
        }
        assert!(running.stderr().contains("SIGKILL"));
    });
}

#[test]
fn signals_are_forwarded_to_leftovers() {
    in_every_place(|place| {
        let verb = ["daemonise", "3", "report-signals"];
        let mut running = Run::puppet(place, &["--linger", "60s"], &verb).start();
        running.ready();
        running.expect("signal 15");
        running.expect("signal 18");
        running.send(Signal::USR1);
        running.expect("signal 10");
        let keepalive = running.keepalive();
        for pid in keepalive::sys::procfs::descendants(keepalive) {
            signal_process(pid, Signal::KILL).unwrap();
        }
        assert_eq!(running.end(), 3);
    });
}

#[test]
fn without_leftovers_linger_does_not_wait() {
    in_every_place(|place| {
        assert_eq!(Run::puppet(place, &["--linger", "60s"], &["exit", "2"]).finish().0, 2);
    });
}
