//! Job control on the controlling terminal: tcgetpgrp(3), tcsetpgrp(3), ioctl_tty(2).
//!
//! No call here stops the process, because all signals are blocked ([`super::signals::block_all`]), including SIGTTOU.

use std::ffi::{c_int, c_long};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::syscall::{reading, syscall};
use crate::model::Pgid;

/// How to find the controlling terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalLookup {
    /// The terminal on stdin.
    Stdin,
    /// The terminal on stdin, or else the controlling terminal of the session, /dev/tty. tty(4)
    StdinOrSession,
}

/// The foreground process group of the terminal; `None` if there is no terminal, or the group is in another PID namespace.
#[must_use]
pub fn foreground_group(lookup: TerminalLookup) -> Option<Pgid> {
    foreground_group_raw(lookup).and_then(Pgid::new)
}

/// Makes `to` the foreground process group of the terminal, provided that `from` is the current one.
pub fn transfer_foreground(lookup: TerminalLookup, from: Pgid, to: Pgid) {
    if foreground_group(lookup) == Some(from) {
        // Fails only if the terminal or the group no longer exists.
        set_foreground_group_raw(lookup, to.get());
    }
}

/// As [`foreground_group`], for `spawn_child.rs`: only makes system calls.
pub(super) fn foreground_group_raw(lookup: TerminalLookup) -> Option<c_int> {
    with_terminal(lookup, |terminal| {
        let mut group: c_int = 0;
        let (operation, to) = (libc::TIOCGPGRP as c_long, (&raw mut group) as c_long);
        // SAFETY: `group` is writable; on anything but a terminal this is an error.
        unsafe { syscall(libc::SYS_ioctl, [terminal.into(), operation, to]) }.ok()?;
        Some(group)
    })
}

/// Makes `group` the foreground process group of the terminal. Only makes system calls; ignores failures.
pub(super) fn set_foreground_group_raw(lookup: TerminalLookup, group: c_int) {
    with_terminal(lookup, |terminal| {
        let (operation, from) = (libc::TIOCSPGRP as c_long, (&raw const group) as c_long);
        reading(libc::SYS_ioctl, [terminal.into(), operation, from]).ok()
    });
}

/// Applies `operation` to stdin. If it returns `None`, applies it to the controlling terminal, if `lookup` includes that.
fn with_terminal<T>(lookup: TerminalLookup, operation: impl Fn(c_int) -> Option<T>) -> Option<T> {
    let on_stdin = operation(libc::STDIN_FILENO);
    if on_stdin.is_some() || lookup == TerminalLookup::Stdin {
        return on_stdin;
    }
    let terminal = open_session_terminal().ok()?;
    let result = operation(terminal);
    // The descriptor was opened above and nothing else owns it.
    reading(libc::SYS_close, [terminal.into()]).ok();
    result
}

/// Opens /dev/tty without waiting for a carrier.
fn open_session_terminal() -> Result<c_int, Errno> {
    let flags = c_long::from(libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let (directory, path) = (c_long::from(libc::AT_FDCWD), c"/dev/tty".as_ptr() as c_long);
    let descriptor = reading(libc::SYS_openat, [directory, path, flags, 0])?;
    c_int::try_from(descriptor).map_err(|_| Errno::EBADF)
}

/// Checks that the session has a controlling terminal that can be opened.
///
/// # Errors
/// ENXIO: the session has none. The errors of open(2).
pub fn check_session_terminal() -> Result<(), Errno> {
    // SAFETY: the descriptor is new, so nothing else owns it.
    open_session_terminal().map(|terminal| drop(unsafe { OwnedFd::from_raw_fd(terminal) }))
}

/// Makes the terminal on stdin the controlling terminal of the calling process, which must be a session leader. Only makes
/// one system call. Does nothing if stdin is not a terminal, or is the terminal of another session. ioctl_tty(2) `TIOCSCTTY`
pub(super) fn set_controlling() {
    reading(libc::SYS_ioctl, [libc::STDIN_FILENO.into(), libc::TIOCSCTTY as c_long, 0]).ok();
}

/// Gives up the terminal on stdin as the controlling terminal. If the process is the session leader, the whole session loses
/// it, and its foreground group gets SIGHUP and SIGCONT. ioctl_tty(2) `TIOCNOTTY`
///
/// # Errors
/// ENOTTY: stdin is not the controlling terminal. EBADF: stdin is closed.
pub fn detach() -> Result<(), Errno> {
    // SAFETY: the operation takes no argument; on anything but a terminal this is an error.
    Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCNOTTY) }).map(drop)
}

/// Checks that stdin is a terminal.
///
/// # Errors
/// ENOTTY: stdin is something else. EBADF: stdin is closed.
pub fn check_stdin_terminal() -> Result<(), Errno> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `settings` is a writable termios, which is never read.
    Errno::result(unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) }).map(drop)
}
