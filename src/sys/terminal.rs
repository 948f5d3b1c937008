//! The terminal on stdin and its foreground process group, tcgetpgrp(3), tcsetpgrp(3).
//!
//! Signals are blocked all the time ([`super::signals::take_over`]), SIGTTOU too, so that no call here stops us.

use std::ffi::c_int;

use nix::errno::Errno;

use crate::model::Pgid;

/// The foreground process group of the terminal on stdin; `None` if stdin is no terminal, not our session's, or the
/// group is of another PID namespace.
#[must_use]
pub fn foreground_group() -> Option<Pgid> {
    foreground_number().and_then(Pgid::new)
}

/// Makes `to` the foreground process group of the terminal on stdin if `from` is it now.
pub fn hand_over(from: Pgid, to: Pgid) {
    if foreground_group() == Some(from) {
        // It can only fail if the terminal or the group has gone meanwhile.
        set_foreground_number(to.get());
    }
}

/// As [`foreground_group`], for the child's half of a start: one system call.
pub(super) fn foreground_number() -> Option<c_int> {
    let mut group: c_int = 0;
    // SAFETY: `group` is writable; on anything but a terminal this is an error.
    let result = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGPGRP, &raw mut group) };
    (result == 0).then_some(group)
}

/// Makes `group` the foreground process group of the terminal on stdin: one system call. Whether that was possible: not
/// where there is none, where it is another session's, or where the group has gone.
pub(super) fn set_foreground_number(group: c_int) -> bool {
    // SAFETY: the kernel only reads `group`; on anything but a terminal this is an error.
    unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSPGRP, &raw const group) == 0 }
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
