//! dumb-init on a terminal.

use crate::harness::{self, PUPPET, Place, wait_for_state, wait_until};
use crate::session::{CTRL_C, CTRL_Z, Session};
use crate::subject::{Subject, pending};

// As `docker run -it`: PID 1 leads the session of the terminal and detaches from it. The kernel then sends SIGHUP and
// SIGCONT to the session, which are not meant for the child.
#[test]
fn the_child_of_pid_1_has_the_terminal() {
    if !harness::have_namespaces() {
        return;
    }
    for init in Subject::all("dumb-init") {
        let words = ["setsid", "--ctty", init.path(), "-v", "--", PUPPET, "echo"];
        let mut session = Session::start(Place::Init, &words, None, None);
        session.running.ready();
        session.press(b"hello\n");
        session.running.expect("line hello");
        let own = session.running.keepalive();
        wait_until("both signals to be handled", || (pending(own) == 0).then_some(()));
        session.press(CTRL_C);
        assert_eq!(session.running.end(), 130);
        let stderr = session.running.stderr();
        for line in [
            "Detached from controlling tty, ignoring the first SIGHUP and SIGCONT we receive.",
            "Ignoring tty hand-off signal 1.",
            "Ignoring tty hand-off signal 18.",
        ] {
            assert!(stderr.contains(&format!("[dumb-init] {line}\n")), "{stderr}");
        }
    }
}

#[test]
fn job_control_of_a_shell_reaches_the_child() {
    for init in Subject::all("dumb-init") {
        for options in [["--"].as_slice(), &["-c", "--"]] {
            let words = [&[init.path()], options, &[PUPPET, "echo"]].concat();
            let mut session = Session::job_of_shell(&words);
            let child = session.running.ready();
            session.press(b"hello\n");
            session.running.expect("line hello");
            session.press(CTRL_Z);
            session.running.expect("stopped 19, terminal: job");
            wait_for_state(child, b'T');
            session.tell_shell("fg");
            session.press(b"back\n");
            session.running.expect("line back");
            session.press(CTRL_C);
            session.running.expect("ended 130");
        }
    }
}
