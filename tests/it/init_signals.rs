//! Init mode: forwarding of signals.

use std::process::Stdio;

use keepalive::model::Signal;
use keepalive::sys::{procfs, signal_process};

use crate::harness::{self, Place, Run, in_every_place, wait_until};

fn signal(number: u8) -> Signal {
    Signal::new(number).unwrap()
}

// signal(7): all but SIGKILL and SIGSTOP can be caught. SIGCHLD is about children.
#[test]
fn every_signal_that_can_be_caught_is_forwarded() {
    in_every_place(|place| {
        let running = Run::puppet(place, &[], &["report-signals"]).start();
        running.ready();
        for signal in Signal::all().filter(|signal| signal.is_catchable() && *signal != Signal::CHLD) {
            running.send(signal);
            running.expect(&format!("signal {}", signal.number()));
        }
    });
}

#[test]
fn an_init_below_an_init_forwards_a_signal() {
    in_every_place(|place| {
        let inner = [harness::KEEPALIVE, "--", harness::PUPPET, "end-on-term", "7"];
        let mut running = Run::init(place, &[], &inner).start();
        running.ready();
        running.send(Signal::HUP);
        running.expect("signal 1");
        running.send(Signal::TERM);
        running.expect("signal 15");
        assert_eq!(running.end(), 7);
    });
}

#[test]
fn a_signal_can_be_rewritten_or_dropped() {
    in_every_place(|place| {
        let options = ["-r", "TERM:QUIT", "-r", "RTMIN+3:TERM", "-r", "HUP:0"];
        let running = Run::puppet(place, &options, &["report-signals"]).start();
        running.ready();
        for (sent, received) in [(15, 3), (37, 15)] {
            running.send(signal(sent));
            running.expect(&format!("signal {received}"));
        }
        running.send(Signal::HUP);
        running.send(Signal::USR1);
        running.expect("signal 10");
    });
}

#[test]
fn only_the_child_receives_a_signal() {
    let running = Run::puppet(Place::Child, &[], &["with-companion", "report-signals"]).start();
    running.ready();
    running.ready();
    running.send(Signal::USR1);
    running.expect("signal 10");
    running.send(Signal::USR2);
    // If the companion got the signal too, there would be a second 10 before this.
    running.expect("signal 12");
}

#[test]
fn with_group_the_group_of_the_child_receives_a_signal() {
    in_every_place(|place| {
        let running = Run::puppet(place, &["-g"], &["with-companion", "report-signals"]).start();
        running.ready();
        running.ready();
        running.send(Signal::USR1);
        running.expect("signal 10");
        running.expect("signal 10");
    });
}

#[test]
fn with_group_a_child_in_another_group_receives_the_signal_alone() {
    in_every_place(|place| {
        let running = Run::puppet(place, &["-g"], &["leave-group", "report-signals"]).start();
        running.ready();
        running.send(Signal::USR1);
        running.expect("signal 10");
        running.send(Signal::USR2);
        running.expect("signal 12");
    });
}

#[test]
fn with_group_the_group_that_the_child_has_left_receives_a_signal_too() {
    in_every_place(|place| {
        let verb = ["with-companion", "report-signals", "AND", "leave-group", "report-signals"];
        let running = Run::puppet(place, &["-g"], &verb).start();
        running.ready();
        running.ready();
        running.send(Signal::USR1);
        running.expect("signal 10");
        running.expect("signal 10");
    });
}

// README: "If the command is stopped when it receives SIGTERM, SIGINT or SIGQUIT, keepalive continues it". Here both come
// at once: SIGTERM has a lower number than SIGCHLD, so keepalive handles it before it knows of the stop.
#[test]
fn a_child_stopped_just_before_sigterm_receives_it() {
    in_every_place(|place| {
        for options in [["-r", "CONT:0"].as_slice(), &["-r", "CONT:0", "-g"]] {
            let mut running = Run::puppet(place, options, &["end-on-term", "5"]).start();
            running.ready();
            let (init, command) = (running.keepalive(), running.command());
            // Both signals are pending when keepalive continues.
            signal_process(init, Signal::STOP).unwrap();
            harness::wait_for_state(init, b'T');
            signal_process(command, Signal::STOP).unwrap();
            harness::wait_for_state(command, b'T');
            running.send(Signal::TERM);
            running.send(Signal::CONT);
            running.expect("signal 15");
            assert_eq!(running.end(), 5, "{place:?} {options:?}");
        }
    });
}

// keepalive continues the command once for a termination signal. A later stop is intended.
#[test]
fn a_child_that_is_stopped_during_its_exit_is_continued_once() {
    let running = Run::puppet(Place::Child, &[], &["report-signals"]).start();
    let command = running.ready();
    running.send(Signal::TERM);
    running.expect("signal 15");
    signal_process(command, Signal::STOP).unwrap();
    running.expect("signal 18");
    signal_process(command, Signal::STOP).unwrap();
    harness::wait_for_state(command, b'T');
    // Two signals in succession: when the second has been handled, the stop has been handled too.
    for signal in [Signal::USR1, Signal::USR2] {
        running.send(signal);
        wait_until("the signal to be pending for the command", || {
            let pending = u64::from_str_radix(&harness::status_field(command, "ShdPnd"), 16).unwrap();
            (pending & signal.bit() != 0).then_some(())
        });
    }
    assert_eq!(procfs::stat(command).map(|stat| stat.state), Some(b'T'));
}

// kill(2): EPERM. Without CAP_KILL, a child that has changed its user cannot be signalled. keepalive must continue.
#[test]
fn a_permission_error_of_kill_does_not_end_keepalive() {
    if !harness::have_root() {
        return;
    }
    let drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-kill", harness::KEEPALIVE, "--"];
    let verb = [harness::PUPPET, "as-user", "1000", "echo"];
    let mut running = Run::words(Place::Child, &[&drop[..], &verb].concat()).start();
    running.ready();
    running.send(Signal::TERM);
    running.send(Signal::USR1);
    let pid = running.keepalive();
    wait_until("both signals to be handled", || {
        (harness::status_field(pid, "ShdPnd") == "0000000000000000").then_some(())
    });
    std::mem::drop(running.stdin.take());
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(stderr.contains("cannot send SIGTERM") && stderr.contains("Operation not permitted"), "{stderr}");
}

// The reader of stderr does not read. Messages must not block keepalive.
#[test]
fn a_stalled_reader_of_stderr_does_not_block_keepalive() {
    in_every_place(|place| {
        for (_reader, writer) in [harness::stalled_pipe(), harness::stalled_socket()] {
            let mut run = Run::puppet(place, &["-v", "-w"], &["end-on-term", "4"]);
            run.command.stderr(Stdio::from(writer));
            let mut running = run.start();
            running.ready();
            for _ in 0..50 {
                running.send(Signal::USR1);
                running.expect("signal 10");
            }
            running.send(Signal::TERM);
            assert_eq!(running.end(), 4);
        }
    });
}

// fcntl(2): O_NONBLOCK is a flag of the open file description, which the child shares.
#[test]
fn lost_messages_are_counted_and_the_shared_stderr_stays_as_it_is() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (reader, writer) = harness::stalled_pipe();
    let shared = writer.try_clone().unwrap();
    let mut run = Run::puppet(Place::Child, &["-v"], &["end-on-term", "0"]);
    run.command.stderr(Stdio::from(writer));
    let mut running = run.start();
    running.ready();
    for _ in 0..3 {
        running.send(Signal::USR1);
        running.expect("signal 10");
    }
    assert_eq!(fcntl(&shared, FcntlArg::F_GETFL).unwrap() & OFlag::O_NONBLOCK.bits(), 0);
    drop(shared);
    let full = nix::unistd::read(&reader, &mut vec![0; 1 << 20]).unwrap();
    assert!(full >= 4096, "{full}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    drop(running);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut rest).unwrap();
    assert!(rest.starts_with("keepalive: warning: messages dropped because stderr was full: 3\n"), "{rest}");
}

// write(2) to a pipe without a reader raises SIGPIPE, which concerns only keepalive.
#[test]
fn the_child_gets_no_sigpipe_from_a_closed_stderr_of_keepalive() {
    in_every_place(|place| {
        let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        drop(read_end);
        let mut run = Run::puppet(place, &["-v"], &["end-on-term", "4"]);
        run.command.stderr(Stdio::from(write_end));
        let mut running = run.start();
        running.ready();
        for sent in [10, 12, 15] {
            running.send(signal(sent));
            running.expect(&format!("signal {sent}"));
        }
        assert_eq!(running.end(), 4);
    });
}

// prctl(2) PR_SET_PDEATHSIG
#[test]
fn the_child_gets_a_signal_when_the_parent_of_keepalive_dies() {
    let words =
        [harness::PUPPET, "parent", harness::KEEPALIVE, "-p", "USR2", "--", harness::PUPPET, "end-on-term", "0"];
    let mut running = Run::words(Place::Child, &words).start();
    let (mut lines, mut keepalive) = (0, None);
    while lines < 2 {
        let line = running.line();
        if let Some(pid) = line.strip_prefix("started ") {
            keepalive = keepalive::model::Pid::new(pid.parse().unwrap());
        }
        lines += 1;
    }
    drop(running.stdin.take());
    running.end();
    running.expect("signal 12");
    let keepalive = keepalive.expect("the parent prints the pid of keepalive");
    signal_process(keepalive, Signal::TERM).unwrap();
    running.expect("signal 15");
    harness::wait_for_death(keepalive);
}

#[test]
fn keepalive_does_not_wake_up_while_nothing_happens() {
    in_every_place(|place| {
        let running = Run::puppet(place, &[], &["report-signals"]).start();
        running.ready();
        let pid = running.keepalive();
        harness::wait_for_state(pid, b'S');
        let wakes = || harness::status_field(pid, "voluntary_ctxt_switches");
        // Observation periods, not waits: an init that polls does so every second.
        let watch = |milliseconds| std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        let before = wait_until("keepalive to sleep", || {
            let first = wakes();
            watch(50);
            (first == wakes()).then_some(first)
        });
        watch(1500);
        assert_eq!(wakes(), before, "{place:?}");
        running.send(Signal::HUP);
        running.expect("signal 1");
        wait_until("the counter to increase", || (wakes() != before).then_some(()));
    });
}
