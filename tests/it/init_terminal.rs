//! Init mode with a terminal on stdin: a real pty, and a puppet in the place of the shell.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs;

use crate::harness::{self, KEEPALIVE, PUPPET, Place, Run, Running, wait_for_state, wait_until};

/// A program on the terminal, and the terminal's other side. What is echoed there is so little that nobody has to read.
struct Session {
    running: Running,
    keyboard: File,
    /// To the puppet that is the shell, if there is one.
    commands: Option<File>,
}

impl Session {
    /// Starts `words` with the terminal as stdin; what is said comes on a pipe, so that no echo is in it.
    fn start(place: Place, words: &[&str], commands: Option<OwnedFd>, control: Option<File>) -> Self {
        let (master, slave) = open_pty();
        let mut run = Run::words(place, words);
        run.command.stdin(Stdio::from(slave));
        let commands = commands.map(|fd| (fd.as_raw_fd(), fd));
        if let Some((raw, _)) = &commands {
            inherit_as_3(&mut run, *raw);
        }
        let running = run.start();
        drop(commands);
        Self { running, keyboard: File::from(master), commands: control }
    }

    /// `shell keepalive OPTIONS… -- puppet VERB…`
    fn in_shell(verb: &[&str]) -> Self {
        let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let words = [&[PUPPET, "shell", KEEPALIVE, "--", PUPPET], verb].concat();
        Self::start(Place::Child, &words, Some(read_end), Some(File::from(write_end)))
    }

    fn press(&mut self, key: &[u8]) {
        self.keyboard.write_all(key).unwrap();
    }

    fn tell_shell(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    /// keepalive under the shell.
    fn keepalive(&self) -> Pid {
        let shell = Pid::new(self.running.child.id().cast_signed()).unwrap();
        wait_until("keepalive", || procfs::descendants(shell).first().copied())
    }

    fn foreground(&self) -> i32 {
        nix::unistd::tcgetpgrp(&self.keyboard).map_or(0, nix::unistd::Pid::as_raw)
    }
}

/// Lets the child have `fd` as its descriptor 3.
#[expect(unsafe_code, reason = "what runs between fork and exec")]
fn inherit_as_3(run: &mut Run, fd: i32) {
    use std::os::unix::process::CommandExt;
    let prepare = move || {
        // SAFETY: plain numbers; the child has one thread and nothing of its own on 3.
        let result = if fd == 3 { unsafe { libc::fcntl(3, libc::F_SETFD, 0) } } else { unsafe { libc::dup2(fd, 3) } };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: one system call.
    unsafe { run.command.pre_exec(prepare) };
}

/// Both sides of a new terminal, close-on-exec from the beginning: a child of another test that had the keyboard would
/// keep it from being hung up.
fn open_pty() -> (OwnedFd, OwnedFd) {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).expect("a pty");
    nix::pty::grantpt(&master).unwrap();
    nix::pty::unlockpt(&master).unwrap();
    let name = nix::pty::ptsname_r(&master).unwrap();
    let slave = nix::fcntl::open(name.as_str(), flags, nix::sys::stat::Mode::empty()).unwrap();
    (master.into(), slave)
}

const CTRL_C: &[u8] = b"\x03";
const CTRL_Z: &[u8] = b"\x1a";

#[test]
fn the_child_becomes_the_foreground_group() {
    let session = Session::in_shell(&["echo"]);
    let child = session.running.ready();
    assert_eq!(session.foreground(), child.get());
}

#[test]
fn what_is_typed_is_read_by_the_child() {
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
    keepalive::sys::signal_process(session.keepalive(), Signal::HUP).unwrap();
    session.running.expect("signal 1");
    keepalive::sys::signal_process(child, Signal::KILL).unwrap();
    session.running.expect("ended 137");
}

#[test]
fn ctrl_c_ends_a_program_that_does_not_care() {
    let mut session = Session::in_shell(&["echo"]);
    session.running.ready();
    session.press(CTRL_C);
    session.running.expect("ended 130");
}

#[test]
fn ctrl_z_stops_the_job_and_fg_goes_on() {
    let mut session = Session::in_shell(&["echo"]);
    let child = session.running.ready();
    let keepalive = session.keepalive();
    for round in 0..3 {
        session.press(CTRL_Z);
        session.running.expect("stopped 20");
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
fn in_the_background_a_job_that_reads_is_stopped_and_fg_goes_on() {
    let mut session = Session::in_shell(&["echo"]);
    session.running.ready();
    session.press(CTRL_Z);
    session.running.expect("stopped 20");
    session.tell_shell("bg");
    // It reads from a terminal that is the shell's: SIGTTIN for it, SIGTSTP for the job.
    session.running.expect("stopped 20");
    session.tell_shell("fg");
    session.press(b"back\n");
    session.running.expect("line back");
}

#[test]
fn an_init_under_an_init_hands_the_terminal_on() {
    let mut session = Session::in_shell(&["with", "--", KEEPALIVE, "--", PUPPET, "echo"]);
    let child = session.running.ready();
    assert_eq!(session.foreground(), child.get());
    session.press(CTRL_Z);
    session.running.expect("stopped 20");
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

// pid_namespaces(7): PID 1 hears no signal that it has no handler for. Without an init Ctrl-Z does nothing.
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

// tty_ioctl(4): a hangup is told to the session's leader alone, who is PID 1 here.
#[test]
fn in_a_container_a_hangup_reaches_the_child() {
    if !harness::have_namespaces() {
        return;
    }
    let mut session = in_container(&["report-signals"]);
    session.running.ready();
    // A hangup as the kernel sends it.
    let keepalive = session.running.keepalive();
    assert_eq!(procfs::stat(keepalive).map(|stat| stat.session), Some(keepalive.get()));
    session.keyboard = File::open("/dev/null").unwrap();
    session.running.expect("signal 1");
}
