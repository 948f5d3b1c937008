//! Init mode with a terminal on stdin: a real pty, and a puppet in place of the shell.

use std::fs::File;

use keepalive::model::{Pid, Signal};
use keepalive::sys::{procfs, signal_process};

use crate::harness::{self, KEEPALIVE, PUPPET, Place, wait_for_state, wait_until};
use crate::session::{CTRL_C, CTRL_Z, Session};

#[test]
fn the_child_becomes_the_foreground_group() {
    let session = Session::in_shell(&["echo"]);
    let child = session.running.ready();
    assert_eq!(session.foreground(), child.get());
}

#[test]
fn the_child_reads_the_input_of_the_terminal() {
    let mut session = Session::in_shell(&["echo"]);
    session.running.ready();
    session.press(b"hello\n");
    session.running.expect("line hello");
    session.press(b"\x04");
    session.running.expect("ended 0");
}

#[test]
fn ctrl_c_reaches_the_child_once() {
    let mut session = Session::in_shell(&["report-signals"]);
    let child = session.running.ready();
    session.press(CTRL_C);
    session.running.expect("signal 2");
    signal_process(session.keepalive(), Signal::HUP).unwrap();
    session.running.expect("signal 1");
    signal_process(child, Signal::KILL).unwrap();
    session.running.expect("ended 137");
}

// Input raises signals for keepalive until the child has the terminal. keepalive must forward them even if the child
// has the terminal by then. Pending signals survive execve(2).
#[test]
fn input_typed_before_the_child_has_the_terminal_reaches_it() {
    for (key, number) in [(CTRL_C, 2), (b"\x1c", 3), (CTRL_Z, 20)] {
        let blocks = [PUPPET, "with", "block=2", "block=3", "block=20", "--"];
        let waits = ["/bin/sh", "-c", "echo ready $$; read line; exec \"$@\"", "sh"];
        let job = [&blocks[..], &waits, &[KEEPALIVE, "--", PUPPET, "report-signals"]].concat();
        let mut session = Session::job_of_shell(&job);
        session.running.ready();
        session.press(key);
        session.press(b"\n");
        let child = session.running.ready();
        assert_eq!(session.foreground(), child.get());
        session.running.expect(&format!("signal {number}"));
        // Now the terminal itself signals the child, once.
        session.press(key);
        session.running.expect(&format!("signal {number}"));
        signal_process(session.keepalive(), Signal::HUP).unwrap();
        session.running.expect("signal 1");
    }
}

#[test]
fn ctrl_c_ends_a_program_without_a_handler() {
    let mut session = Session::in_shell(&["echo"]);
    session.running.ready();
    session.press(CTRL_C);
    session.running.expect("ended 130");
}

#[test]
fn ctrl_z_stops_the_job_and_fg_continues_it() {
    let mut session = Session::in_shell(&["echo"]);
    let child = session.running.ready();
    let keepalive = session.keepalive();
    for round in 0..3 {
        session.press(CTRL_Z);
        session.running.expect("stopped 20, terminal: job");
        wait_for_state(child, b'T');
        wait_for_state(keepalive, b'T');
        session.tell_shell("fg");
        wait_for_state(child, b'S');
        wait_until("the child to have the terminal again", || (session.foreground() == child.get()).then_some(()));
        session.press(format!("round {round}\n").as_bytes());
        session.running.expect(&format!("line round {round}"));
    }
    session.press(CTRL_C);
    session.running.expect("ended 130");
}

#[test]
fn a_background_job_that_reads_is_stopped_and_fg_continues_it() {
    let mut session = Session::in_shell(&["echo"]);
    session.running.ready();
    session.press(CTRL_Z);
    session.running.expect("stopped 20, terminal: job");
    session.tell_shell("bg");
    // It reads from the terminal that the shell has: SIGTTIN for it, SIGTSTP for the job.
    session.running.expect("stopped 20, terminal: shell");
    session.tell_shell("fg");
    session.press(b"back\n");
    session.running.expect("line back");
}

// `keepalive -- program </dev/null` in a shell: stdin is not the terminal, but its signals reach the group of
// keepalive.
#[test]
fn with_stdin_redirected_terminal_signals_are_forwarded_to_the_child() {
    let job = [PUPPET, "with", "null=0", "--", KEEPALIVE, "--", PUPPET, "ignore"];
    let mut session = Session::job_of_shell(&job);
    let child = session.running.ready();
    for _ in 0..2 {
        session.press(CTRL_Z);
        session.running.expect("stopped 20, terminal: job");
        wait_for_state(child, b'T');
        session.tell_shell("fg");
        wait_for_state(child, b'S');
    }
    session.press(CTRL_C);
    session.running.expect("ended 130");
}

/// Reads a line from the terminal even if stdin is redirected.
const ASKS: [&str; 3] = ["/bin/sh", "-c", "read line </dev/tty; echo got $line"];

// `echo x | keepalive -- less` in a shell: a program that reads from the terminal gets it although stdin is redirected.
#[test]
fn with_stdin_redirected_a_child_can_take_the_terminal() {
    let job = [&[PUPPET, "with", "null=0", "--", KEEPALIVE, "--"][..], &ASKS].concat();
    let mut session = Session::job_of_shell(&job);
    session.press(b"hello\n");
    session.running.expect("got hello");
    session.running.expect("ended 0");
}

#[test]
fn with_stdin_redirected_a_child_of_pid_1_can_take_the_terminal() {
    if !harness::have_namespaces() {
        return;
    }
    let without_stdin = ["/bin/sh", "-c", "exec \"$@\" </dev/null", "sh"];
    let words = [&["setsid", "--ctty"][..], &without_stdin, &[KEEPALIVE, "--"], &ASKS].concat();
    let mut session = Session::start(Place::Init, &words, None, None);
    session.press(b"hello\n");
    session.running.expect("got hello");
    assert_eq!(session.running.end(), 0);
}

// Other programs of a pipeline are in the group of keepalive. They would stop if the child took the terminal
// needlessly.
#[test]
fn in_a_pipeline_the_process_that_reads_keeps_the_terminal() {
    let mut session = Session::job_of_shell(&["/bin/sh", "-c", &format!("{PUPPET} echo | {KEEPALIVE} -- cat")]);
    session.running.ready();
    session.press(b"hello\n");
    session.running.expect("line hello");
    session.press(b"\x04");
    session.running.expect("ended 0");
}

#[test]
fn an_init_below_an_init_passes_the_terminal_to_its_child() {
    let mut session = Session::in_shell(&["with", "--", KEEPALIVE, "--", PUPPET, "echo"]);
    let child = session.running.ready();
    assert_eq!(session.foreground(), child.get());
    session.press(CTRL_Z);
    session.running.expect("stopped 20, terminal: job");
    session.tell_shell("fg");
    session.press(b"hello\n");
    session.running.expect("line hello");
    session.press(CTRL_C);
    session.running.expect("ended 130");
}

/// As `docker run -it`: PID 1 leads the session of the terminal.
fn in_container(verb: &[&str]) -> Session {
    let words = [&["setsid", "--ctty", KEEPALIVE, "--", PUPPET], verb].concat();
    Session::start(Place::Init, &words, None, None)
}

#[test]
fn in_a_container_with_a_terminal_ctrl_c_reaches_the_child() {
    if !harness::have_namespaces() {
        return;
    }
    let mut session = in_container(&["echo"]);
    session.running.ready();
    session.press(b"hello\n");
    session.running.expect("line hello");
    session.press(CTRL_C);
    assert_eq!(session.running.end(), 130);
}

// pid_namespaces(7): PID 1 gets no signal that it has no handler for. Without an init, Ctrl-Z has no effect.
#[test]
fn in_a_container_ctrl_z_does_nothing() {
    if !harness::have_namespaces() {
        return;
    }
    let mut session = in_container(&["echo"]);
    session.running.ready();
    session.press(CTRL_Z);
    session.press(b"still here\n");
    session.running.expect("line still here");
    session.press(b"\x04");
    assert_eq!(session.running.end(), 0);
}

// tty_ioctl(4): only the session leader gets SIGHUP on a hangup. It is PID 1 here.
#[test]
fn in_a_container_a_hangup_reaches_the_child() {
    if !harness::have_namespaces() {
        return;
    }
    let mut session = in_container(&["report-signals"]);
    session.running.ready();
    // The signals of the kernel on a hangup.
    let keepalive = session.running.keepalive();
    assert_eq!(procfs::stat(keepalive).map(|stat| stat.session), Some(keepalive.get()));
    session.keyboard = File::open("/dev/null").unwrap();
    session.running.expect("signal 1");
}

// As without an init, the next command of a script can read from the terminal.
#[test]
fn the_next_command_of_a_script_has_the_terminal_again() {
    let script = format!("{KEEPALIVE} -- true; read word; echo read $word; {KEEPALIVE} -- {PUPPET} echo");
    let mut session = Session::job_of_shell(&["/bin/sh", "-c", &script]);
    session.press(b"first\n");
    session.running.expect("read first");
    session.running.ready();
    session.press(b"second\n");
    session.running.expect("line second");
    session.press(CTRL_C);
    session.running.expect("ended 130");
}

// SIGSTOP is intended. Only Ctrl-Z without a shell to return to is undone.
#[test]
fn without_a_shell_a_stopped_child_stays_stopped() {
    let words = ["setsid", "--ctty", KEEPALIVE, "-v", "--", PUPPET, "end-on-term", "4"];
    let mut session = Session::start(Place::Child, &words, None, None);
    let child = session.running.ready();
    signal_process(child, Signal::STOP).unwrap();
    wait_for_state(child, b'T');
    let keepalive = Pid::new(procfs::stat(child).unwrap().ppid).unwrap();
    // Two signals in succession: when the second has been handled, the first has been handled too.
    for signal in [Signal::USR1, Signal::USR2] {
        signal_process(keepalive, signal).unwrap();
        wait_until("the signal to reach the child", || pending(child).contains(&signal).then_some(()));
    }
    assert_eq!(procfs::stat(child).map(|stat| stat.state), Some(b'T'));
    signal_process(child, Signal::CONT).unwrap();
    for number in [10, 12, 18] {
        session.running.expect(&format!("signal {number}"));
    }
    signal_process(keepalive, Signal::TERM).unwrap();
    session.running.expect("signal 15");
    assert_eq!(session.running.end(), 4);
}

fn pending(pid: Pid) -> Vec<Signal> {
    let bits = u64::from_str_radix(&harness::status_field(pid, "ShdPnd"), 16).unwrap();
    Signal::all().filter(|signal| bits & signal.bit() != 0).collect()
}
