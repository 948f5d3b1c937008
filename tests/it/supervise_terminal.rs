//! Supervise mode on a terminal.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::harness::{KEEPALIVE, PUPPET, Place, have_namespaces, wait_for_state, wait_until};
use crate::services::Set;
use crate::session::{CTRL_C, CTRL_Z, Session};
use crate::terminal::{self, Terminal};

const ONE_SERVICE: &str = "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nenv = { WHO_SAYS = \"a\" }\n";

/// `keepalive -c CONFIG WORDS…` as the session leader of the terminal, as under `docker run -it`.
fn in_container(set: &Set, words: &[&str]) -> Session {
    let words = [&["setsid", "--ctty", KEEPALIVE, "-c", &set.config], words].concat();
    Session::start(Place::Init, &words, None, None)
}

#[test]
fn ctrl_c_stops_everything_in_order() {
    let set = Set::new(ONE_SERVICE);
    let mut session = Session::job_of_shell(&[KEEPALIVE, "-c", &set.config]);
    assert!(session.running.line().starts_with("a: ready"));
    session.press(CTRL_C);
    // The service has its own session and gets SIGTERM only from keepalive.
    session.running.expect("a: signal 15");
    session.running.expect("ended 0");
}

#[test]
fn ctrl_c_stops_everything_in_a_container_too() {
    if !have_namespaces() {
        return;
    }
    let set = Set::new(ONE_SERVICE);
    let mut session = in_container(&set, &[]);
    assert!(session.running.line().starts_with("a: ready"));
    session.press(CTRL_C);
    session.running.expect("a: signal 15");
    assert_eq!(session.running.end(), 0);
}

// "The first line of the stop says so on a terminal."
#[test]
fn a_second_ctrl_c_is_announced_and_kills_all_processes() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\nstop_timeout = \"1h\"\n");
    let mut command = Command::new("setsid");
    command.args(["--ctty", "env", "--default-signal=HUP,INT,QUIT,TERM", KEEPALIVE, "-c", &set.config]);
    command.env("KEEPALIVE_SOCKET", set.socket());
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for_text("ready");
    terminal.type_in(terminal::CTRL_C);
    terminal.wait_for_text("received SIGINT: shutting down (press Ctrl-C again to kill all processes now)");
    // The time from which it counts.
    std::thread::sleep(Duration::from_millis(200));
    terminal.type_in(terminal::CTRL_C);
    terminal.wait_for_text("received SIGINT again: killing all processes now");
    assert_eq!(terminal.wait_for_end().0, Some(137));
}

#[test]
fn the_added_command_has_the_terminal() {
    if !have_namespaces() {
        return;
    }
    let set = Set::new(ONE_SERVICE);
    let mut session = in_container(&set, &["--", PUPPET, "echo"]);
    let mut up = [session.running.line(), session.running.line()];
    up.sort();
    assert!(up[0].starts_with("a: ready") && up[1].starts_with("ready"), "{up:?}");
    session.press(b"hello\n");
    session.running.expect("line hello");
    // There is no shell to return to.
    session.press(CTRL_Z);
    session.press(b"still here\n");
    session.running.expect("line still here");
    session.press(CTRL_C);
    session.running.expect("a: signal 15");
    assert_eq!(session.running.end(), 130);
}

#[test]
fn ctrl_z_returns_the_terminal_to_the_shell_and_fg_continues() {
    let set = Set::new(ONE_SERVICE);
    let mut session = Session::job_of_shell(&[KEEPALIVE, "-c", &set.config, "--", PUPPET, "echo"]);
    session.running.line();
    session.running.line();
    session.press(CTRL_Z);
    session.running.expect("stopped 20, terminal: job");
    session.tell_shell("fg");
    session.press(b"hello\n");
    session.running.expect("line hello");
    session.press(b"\x04");
    session.running.expect("a: signal 15");
    session.running.expect("ended 0");
}

// A debugger or an operator may stop it. keepalive continues.
#[test]
fn without_a_terminal_a_stopped_command_does_not_stop_others() {
    let set = Set::new(ONE_SERVICE);
    let job = [PUPPET, "with", "null=0", "--", KEEPALIVE, "-c", &set.config, "--", PUPPET, "report-signals"];
    let session = Session::job_of_shell(&job);
    let up = [session.running.line(), session.running.line()];
    let main = up.iter().find_map(|line| line.strip_prefix("ready ")?.parse().ok()).and_then(Pid::new).unwrap();
    signal_process(main, Signal::STOP).unwrap();
    wait_for_state(main, b'T');
    // If keepalive had stopped too, the next line would be `stopped` of the shell.
    let keepalive = session.keepalive();
    signal_process(keepalive, Signal::USR1).unwrap();
    session.running.expect("a: signal 10");
    signal_process(main, Signal::CONT).unwrap();
    // The order of the two signals at the command is undefined. The other service got its signal before.
    let signals = [session.running.line(), session.running.line()];
    assert!(signals.contains(&"signal 10".to_owned()) && signals.contains(&"signal 18".to_owned()), "{signals:?}");
}

#[test]
fn a_closed_terminal_stops_the_services() {
    if !have_namespaces() {
        return;
    }
    let set = Set::new(
        "[services.a]\ncommand = [\"/bin/sh\", \"-c\", \"trap 'echo stopped > DIR/stopped; exit 0' TERM; echo up; sleep 1000 & wait\"]\n",
    );
    let mut session = in_container(&set, &[]);
    session.running.expect("up");
    session.keyboard = File::open("/dev/null").unwrap();
    wait_until("the service to get SIGTERM", || set.directory.path().join("stopped").exists().then_some(()));
    assert_eq!(session.running.end(), 0);
}

#[test]
fn the_shell_keeps_the_terminal_while_keepalive_is_in_the_background() {
    let set = Set::new(ONE_SERVICE);
    let mut session = Session::job_of_shell(&[KEEPALIVE, "-c", &set.config, "--", PUPPET, "echo"]);
    session.running.line();
    session.running.line();
    session.press(CTRL_Z);
    session.running.expect("stopped 20, terminal: job");
    session.tell_shell("bg");
    // It reads from the terminal that the shell has: SIGTTIN for it, SIGTSTP for the job.
    session.running.expect("stopped 20, terminal: shell");
    session.tell_shell("fg");
    session.press(b"back\n");
    session.running.expect("line back");
    session.press(CTRL_C);
    session.running.expect("a: signal 15");
    session.running.expect("ended 130");
}

// Without a terminal there is no job control: the process that stopped it continues it. The services and keepalive run
// on.
#[test]
fn a_main_process_stopped_by_others_does_not_stop_keepalive() {
    let set = Set::new(ONE_SERVICE);
    let job = [PUPPET, "with", "null=0", "--", KEEPALIVE, "-c", &set.config, "--", PUPPET, "ignore", "10", "12"];
    let session = Session::job_of_shell(&job);
    let mut up = [session.running.line(), session.running.line()];
    up.sort();
    let main = up[1].strip_prefix("ready ").and_then(|pid| Pid::new(pid.parse().ok()?)).unwrap();
    signal_process(main, Signal::STOP).unwrap();
    wait_for_state(main, b'T');
    for signal in [Signal::USR1, Signal::USR2] {
        signal_process(session.keepalive(), signal).unwrap();
        session.running.expect(&format!("a: signal {}", signal.number()));
    }
    signal_process(session.keepalive(), Signal::TERM).unwrap();
    session.running.expect("a: signal 15");
    session.running.expect("ended 0");
}

#[test]
fn the_next_command_of_a_script_has_the_terminal_again() {
    let set = Set::new(ONE_SERVICE);
    let script = format!("{KEEPALIVE} -c {} -- true; read word; echo read $word", set.config);
    let mut session = Session::job_of_shell(&["/bin/sh", "-c", &script]);
    session.press(b"hello\n");
    // If `true` exits before the service is ready, the service prints nothing.
    let mut line = session.running.line();
    while line.starts_with("a: ") {
        line = session.running.line();
    }
    assert_eq!(line, "read hello");
    session.running.expect("ended 0");
}
