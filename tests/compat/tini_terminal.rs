//! tini on a terminal: a real pty, and a puppet in place of the shell.

use crate::harness::{self, PUPPET, Place, wait_for_state, wait_until};
use crate::session::{CTRL_C, CTRL_Z, Session};
use crate::subject::Subject;

fn in_shell(tini: &Subject) -> Session {
    Session::job_of_shell(&[tini.path(), "-s", "--", PUPPET, "echo"])
}

#[test]
fn the_child_has_the_terminal_and_ctrl_c_ends_it() {
    for tini in Subject::all("tini") {
        let mut session = in_shell(&tini);
        let child = session.running.ready();
        wait_until("the child to have the terminal", || (session.foreground() == child.get()).then_some(()));
        session.press(b"hello\n");
        session.running.expect("line hello");
        session.press(CTRL_C);
        session.running.expect("ended 130");
    }
}

// tini forwards a pending signal even if the child has the terminal by then.
#[test]
fn input_typed_before_the_child_has_the_terminal_reaches_it() {
    for tini in Subject::all("tini") {
        let script = "echo ready $$; read line; exec \"$@\"";
        let before = [PUPPET, "with", "block=2", "--", "/bin/sh", "-c", script, "sh"];
        let job = [&before[..], &[tini.path(), "-s", "--", PUPPET, "report-signals"]].concat();
        let mut session = Session::job_of_shell(&job);
        session.running.ready();
        session.press(CTRL_C);
        session.press(b"\n");
        session.running.ready();
        session.running.expect("signal 2");
    }
}

// As `docker run --init -it`: PID 1 leads the session of the terminal.
#[test]
fn the_child_of_pid_1_has_the_terminal() {
    if !harness::have_namespaces() {
        return;
    }
    for tini in Subject::all("tini") {
        let words = ["setsid", "--ctty", tini.path(), "--", PUPPET, "echo"];
        let mut session = Session::start(Place::Init, &words, None, None);
        session.running.ready();
        session.press(b"hello\n");
        session.running.expect("line hello");
        session.press(CTRL_C);
        assert_eq!(session.running.end(), 130);
    }
}

// On purpose: with tini, only the child is stopped, and the shell waits forever.
#[test]
fn ctrl_z_stops_the_whole_job_of_keepalive_and_fg_continues_it() {
    let tini = Subject::ours("tini");
    let mut session = in_shell(&tini);
    let child = session.running.ready();
    session.press(CTRL_Z);
    session.running.expect("stopped 20, terminal: job");
    wait_for_state(child, b'T');
    session.tell_shell("fg");
    session.press(b"back\n");
    session.running.expect("line back");
    session.press(CTRL_C);
    session.running.expect("ended 130");
}
