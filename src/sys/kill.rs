//! Sending signals: kill(2), pidfd_open(2), pidfd_send_signal(2).
//!
//! The id of a child identifies it from its start until it is reaped, the id of a process group until its leader is
//! reaped. Afterwards the kernel may reuse the number.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::model::{Pgid, Pid, Signal};

/// Signals a process.
///
/// # Errors
/// ESRCH, EPERM.
pub fn signal_process(pid: Pid, signal: Signal) -> Result<(), Errno> {
    kill(pid.get(), signal)
}

/// Whether a process has this id: running, or exited and not reaped. kill(2) with signal 0
#[must_use]
pub fn exists(pid: Pid) -> bool {
    has_receiver(pid.get())
}

/// Signals every process of a process group.
///
/// # Errors
/// ESRCH: the group has no members, or is that of the first process: kill(2) would take its number for all processes. EPERM:
/// none of them may be signalled.
pub fn signal_group(group: Pgid, signal: Signal) -> Result<(), Errno> {
    if group.get() == 1 { Err(Errno::ESRCH) } else { kill(-group.get(), signal) }
}

/// Signals a child that has not been reaped, with its process group if it leads one: between fork and setsid it does not.
///
/// # Errors
/// As [`signal_group`].
pub fn signal_group_or_process(child: Pid, signal: Signal) -> Result<(), Errno> {
    match signal_group(child.led_group(), signal) {
        Err(Errno::ESRCH) => signal_process(child, signal),
        other => other,
    }
}

/// Signals every process in the PID namespace except keepalive itself. Only permitted for PID 1: elsewhere it would also
/// reach processes that have nothing to do with keepalive.
///
/// # Errors
/// ESRCH: there is no other process. EPERM: none may be signalled, or keepalive is not PID 1.
pub fn signal_everyone(signal: Signal) -> Result<(), Errno> {
    if super::process::is_init() { kill(-1, signal) } else { Err(Errno::EPERM) }
}

fn kill(target: c_int, signal: Signal) -> Result<(), Errno> {
    // SAFETY: kill(2) accesses no memory of the caller, and libc passes every signal number to the kernel.
    Errno::result(unsafe { libc::kill(target, c_int::from(signal.number())) }).map(drop)
}

/// Whether there is a process, or a process group if `target` is negative, even one that may not be signalled.
fn has_receiver(target: c_int) -> bool {
    // SAFETY: all arguments are plain numbers; signal 0 only checks for existence.
    Errno::result(unsafe { libc::kill(target, 0) }) != Err(Errno::ESRCH)
}

/// Signals `pid`, which is not a child of keepalive, if `is_target` confirms that it is the intended process.
///
/// A pidfd refers to the process during the check, so that the id cannot be reused between check and signal. On kernels
/// without pidfds that race remains.
///
/// # Errors
/// ESRCH: the process does not exist or is not the intended one. EPERM.
pub fn signal_exactly(pid: Pid, signal: Signal, is_target: impl Fn(Pid) -> bool) -> Result<(), Errno> {
    let pidfd = match pidfd_open(pid) {
        Ok(pidfd) => Some(pidfd),
        Err(Errno::ESRCH) => return Err(Errno::ESRCH),
        Err(_) => None,
    };
    if !is_target(pid) {
        return Err(Errno::ESRCH);
    }
    let Some(pidfd) = pidfd else { return signal_process(pid, signal) };
    let (number, no_info) = (c_int::from(signal.number()), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open, no siginfo is passed, no flags are set.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, no_info, 0) };
    match Errno::result(sent) {
        Err(Errno::ENOSYS) => signal_process(pid, signal),
        other => other.map(drop),
    }
}

/// A descriptor that refers to `pid`, a child or not, and becomes readable when the process exits. pidfd_open(2)
///
/// # Errors
/// ESRCH; EMFILE, ENFILE, ENOMEM; ENOSYS or EPERM where the kernel or a sandbox does not provide it.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: all arguments are plain numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.get(), 0) })?;
    let fd = c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the process of a pidfd has been waited for, so that its id may be reused. pidfd_send_signal(2) with signal 0
#[must_use]
pub fn is_reaped(pidfd: impl AsFd) -> bool {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, no siginfo is passed, no flags are set; signal 0 only checks for existence.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), 0, no_info, 0) };
    Errno::result(result) == Err(Errno::ESRCH)
}

/// Checks whether ids are in use. The cost does not depend on the number of processes.
#[derive(Debug)]
pub struct PidLiveness(OwnedFd);

impl PidLiveness {
    /// Opens the descriptor that the checks need.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: all arguments are plain numbers.
        let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether a process, process group or session has this id. After `pid` has been reaped: whether the group or session
    /// that it led still has members. fcntl(2) `F_SETOWN_EX`
    ///
    /// Where fcntl(2) refuses that, checks only the process group, with kill(2).
    #[must_use]
    pub fn is_in_use(&self, pid: Pid) -> bool {
        #[repr(C)]
        struct Owner {
            kind: c_int,
            id: c_int,
        }
        const F_SETOWN_EX: c_int = 15;
        const F_OWNER_PGRP: c_int = 2;
        let owner = Owner { kind: F_OWNER_PGRP, id: pid.get() };
        // SAFETY: `owner` has the layout of the kernel's struct f_owner_ex. The descriptor is never set to `O_ASYNC`, so
        // no signals are sent to the owner.
        let answer = unsafe { libc::fcntl(self.0.as_raw_fd(), F_SETOWN_EX, &raw const owner) };
        match Errno::result(answer) {
            Ok(_) => true,
            Err(Errno::ESRCH) => false,
            Err(_) => has_receiver(-pid.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_in_use_only_if_a_process_has_it() {
        let probe = PidLiveness::new().unwrap();
        assert!(probe.is_in_use(super::super::process::id()));
        // pid_max is 2^22 at most.
        assert!(!probe.is_in_use(Pid::new(i32::MAX).unwrap()));
    }

    #[test]
    fn a_process_that_is_not_the_intended_one_is_not_signalled() {
        let own = super::super::process::id();
        assert_eq!(signal_exactly(own, Signal::KILL, |_| false), Err(Errno::ESRCH));
        assert_eq!(signal_exactly(own, Signal::WINCH, |_| true), Ok(()));
    }

    #[test]
    fn only_pid_1_can_signal_everyone() {
        if !super::super::process::is_init() {
            assert_eq!(signal_everyone(Signal::WINCH), Err(Errno::EPERM));
        }
    }
}
