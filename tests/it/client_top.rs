//! `keepalive top`, with and without a terminal.

use std::io::{Read as _, Write as _};
use std::process::Command;

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::fake_server::{FakeServer, response, status};
use crate::harness::KEEPALIVE;
use crate::terminal::{CTRL_C, Terminal};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

fn serve() -> FakeServer {
    let looks = std::sync::atomic::AtomicU64::new(0);
    FakeServer::answering(move |_| {
        let look = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut status = status();
        status["services"][0]["instances"][0]["cpu_ms"] = (1_250 + 700 * look).into();
        (200, status)
    })
}

fn on_a_terminal(server: &FakeServer) -> Terminal {
    // With the terminal as its controlling terminal, so that Ctrl-C sends a signal.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "env", "--default-signal=HUP,INT,QUIT,TERM", KEEPALIVE, "top"]);
    command.env("KEEPALIVE_SOCKET", &server.path).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for_text(ENTER);
    terminal.wait_for_text("NAME");
    terminal
}

#[test]
fn top_updates_its_table_until_q() {
    let server = serve();
    let mut terminal = on_a_terminal(&server);
    terminal.wait_for_text("web.0");
    // The second frame has CPU shares and overwrites the first one.
    terminal.wait_for_text("\x1b[H");
    terminal.wait_for_text("CPU ");
    terminal.wait_for_text("\x1b[32mrunning");
    terminal.type_in("xq");
    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(0));
    assert!(rest.ends_with(LEAVE), "{rest:?}");
}

#[test]
fn ctrl_c_and_sigterm_make_top_restore_the_terminal() {
    let server = serve();
    let mut terminal = on_a_terminal(&server);
    terminal.type_in(CTRL_C);
    let (code, rest) = terminal.wait_for_end();
    assert_eq!((code, rest.ends_with(LEAVE)), (Some(0), true), "{rest:?}");
    let terminal = on_a_terminal(&server);
    signal_process(id(&terminal), Signal::TERM).unwrap();
    let (code, rest) = terminal.wait_for_end();
    assert_eq!((code, rest.ends_with(LEAVE)), (Some(0), true), "{rest:?}");
}

#[test]
fn a_suspended_top_restores_the_terminal_until_it_continues() {
    let server = serve();
    let mut command = Command::new("setsid");
    command.args([KEEPALIVE, "top"]).env("KEEPALIVE_SOCKET", &server.path).env("TERM", "xterm");
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for_text(ENTER);
    terminal.wait_for_text("NAME");
    // In a new session its process group is orphaned, so the kernel would not stop it.
    signal_process(id(&terminal), Signal::TSTP).unwrap();
    terminal.wait_for_text(LEAVE);
    terminal.wait_for_text(ENTER);
    terminal.wait_for_text("NAME");
    terminal.type_in("q");
    assert_eq!(terminal.wait_for_end().0, Some(0));
}

// ioctl_tty(2) `TIOCGWINSZ`
#[test]
fn top_adapts_its_table_to_a_new_terminal_size() {
    let server = serve();
    let mut terminal = on_a_terminal(&server);
    let device = format!("/proc/{}/fd/0", id(&terminal));
    assert!(Command::new("stty").args(["-F", &device, "cols", "12"]).status().unwrap().success());
    signal_process(id(&terminal), Signal::WINCH).unwrap();
    // The shortened summary line.
    terminal.wait_for_text("keepalive 0…");
    terminal.type_in("q");
    assert_eq!(terminal.wait_for_end().0, Some(0));
}

// signal(7): the default action of SIGUSR1 and SIGALRM is to end the process.
#[test]
fn other_signals_do_not_end_top_on_a_terminal() {
    let server = serve();
    let mut terminal = on_a_terminal(&server);
    for signal in [Signal::USR1, Signal::PIPE, Signal::TTOU] {
        signal_process(id(&terminal), signal).unwrap();
    }
    terminal.wait_for_text("\x1b[H");
    terminal.type_in("q");
    let (code, rest) = terminal.wait_for_end();
    assert_eq!((code, rest.ends_with(LEAVE)), (Some(0), true), "{rest:?}");
}

fn id(terminal: &Terminal) -> Pid {
    Pid::new(terminal.program.id().cast_signed()).unwrap()
}

#[test]
fn top_restores_the_terminal_and_reports_it_when_keepalive_exits() {
    let server = serve();
    let terminal = on_a_terminal(&server);
    drop(server);
    let (code, rest) = terminal.wait_for_end();
    let (_, after) = rest.split_once(LEAVE).expect("top leaves the alternate screen");
    assert_eq!((code, after.starts_with("keepalive: cannot connect to ")), (Some(3), true), "{after}");
}

#[test]
fn top_shows_how_long_keepalive_has_not_answered_and_can_be_ended() {
    let server = || {
        let first = std::sync::atomic::AtomicBool::new(true);
        FakeServer::start(move |_, mut stream| {
            if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                stream.write_all(response(200, &status().to_string()).as_bytes()).unwrap();
            } else {
                // Keeps the connection open until the client closes it.
                stream.read_to_end(&mut Vec::new()).ok();
            }
        })
    };
    for by_signal in [false, true] {
        let server = server();
        let mut terminal = on_a_terminal(&server);
        terminal.wait_for_text("no response for 1s");
        if by_signal {
            signal_process(id(&terminal), Signal::TERM).unwrap();
        } else {
            terminal.type_in("q");
        }
        let (code, rest) = terminal.wait_for_end();
        assert_eq!((code, rest.ends_with(LEAVE)), (Some(0), true), "{rest:?}");
    }
}

#[test]
fn top_in_the_background_stops_before_it_changes_the_terminal() {
    let server = serve();
    // As an interactive shell runs `keepalive top &`, in its own process group.
    let script = r#"set -m
        "$0" top & id=$!
        for try in $(seq 100); do grep -q '^State:.T' "/proc/$id/status" && break; sleep 0.05; done
        grep -q '^State:.T' "/proc/$id/status" && stty -a | grep -q ' icanon' && echo stop''ped; fg; echo b''ack"#;
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "sh", "-c", script, KEEPALIVE]);
    command.env("KEEPALIVE_SOCKET", &server.path).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for_text("stopped");
    terminal.wait_for_text(ENTER);
    terminal.wait_for_text("NAME");
    terminal.type_in("q");
    terminal.wait_for_text(LEAVE);
    terminal.wait_for_text("back");
    assert_eq!(terminal.wait_for_end().0, Some(0));
}

#[test]
fn top_without_a_terminal_prints_one_table_after_two_samples() {
    let server = serve();
    let (code, stdout, stderr) = server.client(&["top"]).finish();
    assert_eq!((code, stderr.as_str()), (0, ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], "keepalive 0.1.0, pid 1, up 2m10s: 2 running, 1 backoff");
    assert!(lines[1].starts_with("CPU ") && lines[1].ends_with("%, memory 14.0M"), "{stdout}");
    assert_eq!(lines[2], "NAME   STATE    PID  CPU%  MEMORY  PROCS  RESTARTS  UPTIME");
    assert!(lines[3].starts_with("web.0  running   12"), "the busiest comes first: {stdout}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn top_as_json_is_the_status_with_cpu_shares() {
    let server = serve();
    let (code, stdout, stderr) = server.client(&["top", "--json"]).finish();
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let share = |service: usize, instance: usize| &status["services"][service]["instances"][instance]["cpu_percent"];
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(share(0, 0).as_f64().is_some_and(|share| share > 0.0), "{stdout}");
    assert_eq!((share(0, 1).is_null(), share(1, 0).as_f64()), (true, Some(0.0)));
}

#[test]
fn a_table_on_a_terminal_has_colours_unless_no_color_is_set() {
    let server = serve();
    let shown = |variable: &str, value: &str| {
        let mut command = Command::new(KEEPALIVE);
        command.args(["status"]).env("KEEPALIVE_SOCKET", &server.path);
        command.env("TERM", "xterm").env("NO_COLOR", "").env(variable, value);
        let (code, screen) = Terminal::start(&mut command).wait_for_end();
        assert_eq!(code, Some(0), "{screen}");
        screen.contains("\x1b[")
    };
    assert!(shown("LANG", "C"));
    assert!(!shown("NO_COLOR", "1"));
    assert!(!shown("TERM", "dumb"));
}
