//! The terminal and its foreground process group, tcgetpgrp(3), tcsetpgrp(3).
//!
//! Signals are blocked all the time ([`super::signals::take_over`]), SIGTTOU too, so that no call here stops us.

use std::ffi::{c_int, c_long};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::model::Pgid;

/// Where the terminal is looked for. It has to be our session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On stdin.
    Stdin,
    /// On stdin; where it is not, whatever terminal our session has. tty(4)
    Session,
}

/// The foreground process group of the terminal; `None` if there is none within reach, or the group is of another PID
/// namespace.
#[must_use]
pub fn foreground_group(reach: Reach) -> Option<Pgid> {
    foreground_number(reach).and_then(Pgid::new)
}

/// Makes `to` the foreground process group of the terminal if `from` is it now.
pub fn hand_over(reach: Reach, from: Pgid, to: Pgid) {
    if foreground_group(reach) == Some(from) {
        // It can only fail if the terminal or the group has gone meanwhile.
        set_foreground_number(reach, to.get());
    }
}

/// As [`foreground_group`], for the child's half of a start: system calls alone.
pub(super) fn foreground_number(reach: Reach) -> Option<c_int> {
    first_that_works(reach, |terminal| {
        let mut group: c_int = 0;
        // SAFETY: `group` is writable; on anything but a terminal this is an error.
        let result = unsafe { libc::ioctl(terminal, libc::TIOCGPGRP, &raw mut group) };
        (result == 0).then_some(group)
    })
}

/// Makes `group` the foreground process group of the terminal: system calls alone. It stays as it is where the terminal
/// or the group has gone.
pub(super) fn set_foreground_number(reach: Reach, group: c_int) {
    first_that_works(reach, |terminal| {
        // SAFETY: the kernel only reads `group`; on anything but a terminal this is an error.
        (unsafe { libc::ioctl(terminal, libc::TIOCSPGRP, &raw const group) } == 0).then_some(())
    });
}

/// What `operation` gives for stdin, or else for the session's terminal if that is within reach.
fn first_that_works<T>(reach: Reach, operation: impl Fn(c_int) -> Option<T>) -> Option<T> {
    let on_stdin = operation(libc::STDIN_FILENO);
    if on_stdin.is_some() || reach == Reach::Stdin {
        return on_stdin;
    }
    let terminal = open_sessions().ok()?;
    let result = operation(terminal);
    // SAFETY: it is ours, and nobody uses it any more.
    unsafe { libc::close(terminal) };
    result
}

/// It waits for no carrier.
fn open_sessions() -> Result<c_int, Errno> {
    let flags = c_long::from(libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let (directory, path) = (c_long::from(libc::AT_FDCWD), c"/dev/tty".as_ptr());
    // SAFETY: the path is NUL-terminated; the rest are plain numbers.
    let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, 0_usize) })?;
    c_int::try_from(descriptor).map_err(|_| Errno::EBADF)
}

/// Whether our session has a terminal that can be opened.
///
/// # Errors
/// ENXIO: it has none. Those of open(2).
pub fn sessions_is_there() -> Result<(), Errno> {
    // SAFETY: it is ours, and nobody else knows it.
    open_sessions().map(|terminal| drop(unsafe { OwnedFd::from_raw_fd(terminal) }))
}

/// Makes the terminal on stdin that of the calling process, a session's leader: one system call. It is not where there
/// is none, or it is another session's.
pub(super) fn acquire() {
    // SAFETY: the argument is a number; on anything but a terminal this is an error.
    unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
}

/// Lets go of the terminal on stdin; if we are our session's leader, the session does, and its foreground group gets
/// SIGHUP and SIGCONT. ioctl_tty(2) `TIOCNOTTY`
///
/// # Errors
/// ENOTTY: stdin is no terminal, or not ours. EBADF: there is no stdin.
pub fn let_go() -> Result<(), Errno> {
    // SAFETY: there is no argument; on anything but a terminal this is an error.
    Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCNOTTY) }).map(drop)
}

/// Whether stdin is a terminal.
///
/// # Errors
/// ENOTTY: it is something else. EBADF: there is no stdin.
pub fn is_there() -> Result<(), Errno> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the kernel may write the settings there; nobody reads them.
    Errno::result(unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) }).map(drop)
}
