//! The terminal on stdin and its foreground process group, tcgetpgrp(3), tcsetpgrp(3).
//!
//! Signals are blocked all the time ([`super::signals::take_over`]), SIGTTOU too, so that no call here stops us.

use std::ffi::c_int;

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
