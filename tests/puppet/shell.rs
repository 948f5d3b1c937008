//! A shell with job control for one job, by "Implementing a Job Control Shell" in the manual of glibc.

use std::io::{BufRead, BufReader};
use std::os::fd::FromRawFd;

use super::{execute, fork, say};

/// The descriptor for commands: `fg`, `bg`.
const CONTROL: i32 = 3;

/// Becomes the leader of a session with the terminal on stdin and runs `program` as a job on it.
///
/// Prints `stopped N, terminal: OWNER` when signal N has stopped the job, and `ended N` with its exit code when it has
/// exited.
pub(super) fn shell(program: &[&str]) -> u8 {
    // SAFETY: takes nothing.
    unsafe { libc::setsid() };
    // SAFETY: plain numbers.
    let taken = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    assert_eq!(taken, 0, "{}", std::io::Error::last_os_error());
    // A shell changes the foreground group from the background.
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let job = fork(|| {
        enter_foreground();
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_DFL) };
        // SAFETY: only this process uses it; the job must not inherit it.
        unsafe { libc::close(CONTROL) };
        execute(program)
    });
    // SAFETY: nothing else in this process uses it.
    let control = unsafe { std::fs::File::from_raw_fd(CONTROL) };
    let mut control = BufReader::new(control).lines();
    while let Some(signal) = wait_until_stopped(job) {
        // SAFETY: a plain number.
        let whose = match unsafe { libc::tcgetpgrp(0) } {
            group if group == job => "job",
            group if group == own_group() => "shell",
            _ => "other",
        };
        set_foreground(own_group());
        say(&format!("stopped {signal}, terminal: {whose}"));
        if control.next().expect("a command").expect("a command") == "fg" {
            set_foreground(job);
        }
        // SAFETY: plain numbers.
        unsafe { libc::kill(-job, libc::SIGCONT) };
    }
    0
}

fn own_group() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getpgrp() }
}

fn enter_foreground() {
    // SAFETY: plain numbers.
    unsafe { libc::setpgid(0, 0) };
    set_foreground(own_group());
}

fn set_foreground(group: i32) {
    // SAFETY: plain numbers.
    let result = unsafe { libc::tcsetpgrp(0, group) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The signal that stopped it; `None` if it has exited.
fn wait_until_stopped(job: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(job, &raw mut status, libc::WUNTRACED) };
    if libc::WIFSTOPPED(status) {
        return Some(libc::WSTOPSIG(status));
    }
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    say(&format!("ended {code}"));
    None
}
