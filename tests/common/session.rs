//! A terminal with a program on it: a real pty, and a puppet in the place of the shell.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use keepalive::model::Pid;
use keepalive::sys::procfs;

use crate::harness::{KEEPALIVE, PUPPET, Place, Run, Running, wait_until};

/// A program on the terminal, and the master side of the terminal. The echo is short enough to fit in its buffer.
pub(crate) struct Session {
    pub(crate) running: Running,
    pub(crate) keyboard: File,
    /// The command channel to the puppet that acts as the shell, if there is one.
    commands: Option<File>,
}

impl Session {
    /// Starts `words` with the terminal as stdin. The output goes to a pipe, so it has no echo.
    pub(crate) fn start(place: Place, words: &[&str], commands: Option<OwnedFd>, control: Option<File>) -> Self {
        let (master, slave) = open_pty();
        // As login programs do. Tests that run in the background are started with these signals ignored.
        let words = [&["env", "--default-signal=HUP,INT,QUIT"], words].concat();
        let mut run = Run::words(place, &words);
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
    pub(crate) fn in_shell(verb: &[&str]) -> Self {
        Self::job_of_shell(&[&[KEEPALIVE, "--", PUPPET], verb].concat())
    }

    /// `shell JOB…`
    pub(crate) fn job_of_shell(job: &[&str]) -> Self {
        let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let words = [&[PUPPET, "shell"], job].concat();
        Self::start(Place::Child, &words, Some(read_end), Some(File::from(write_end)))
    }

    pub(crate) fn press(&mut self, key: &[u8]) {
        self.keyboard.write_all(key).unwrap();
    }

    pub(crate) fn tell_shell(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    /// keepalive under the shell.
    pub(crate) fn keepalive(&self) -> Pid {
        let shell = Pid::new(self.running.child.id().cast_signed()).unwrap();
        wait_until("keepalive", || procfs::descendants(shell).first().copied())
    }

    pub(crate) fn foreground(&self) -> i32 {
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

pub(crate) const CTRL_C: &[u8] = b"\x03";
pub(crate) const CTRL_Z: &[u8] = b"\x1a";
