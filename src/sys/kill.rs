//! Sending signals: kill(2), pidfd_send_signal(2).
//!
//! A process id is ours to signal from its start until it is reaped, a group's until its leader is.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::model::{Pgid, Pid, Signal};

/// Signals one process.
///
/// # Errors
/// ESRCH, EPERM.
pub fn signal_process(pid: Pid, signal: Signal) -> Result<(), Errno> {
    kill(pid.get(), signal)
}

/// Signals every process of a group.
///
/// # Errors
/// ESRCH: it has no member. EPERM: none of them may be signalled.
pub fn signal_group(group: Pgid, signal: Signal) -> Result<(), Errno> {
    kill(-group.get(), signal)
}

/// Signals every process that we may signal, except ourselves and PID 1. Only for the init of a PID namespace: for
/// anyone else that is strangers too, so it is refused.
///
/// # Errors
/// ESRCH: there is none. EPERM: none may be signalled, or we are not PID 1.
pub fn signal_everyone(signal: Signal) -> Result<(), Errno> {
    if super::process::is_init() { kill(-1, signal) } else { Err(Errno::EPERM) }
}

fn kill(target: c_int, signal: Signal) -> Result<(), Errno> {
    // SAFETY: kill(2) touches no memory of ours, and the signal is not one that our own libc keeps for itself: it
    // passes every number on.
    Errno::result(unsafe { libc::kill(target, c_int::from(signal.number())) }).map(drop)
}

/// Signals `pid`, which is no child of ours, if `still` says that it is the process that is meant.
///
/// It is held by a pidfd while it is asked about, so that the id cannot become another's in between. Where the kernel
/// has no pidfds that can.
///
/// # Errors
/// ESRCH: it has gone or is another. EPERM.
pub fn signal_exactly(pid: Pid, signal: Signal, still: impl Fn(Pid) -> bool) -> Result<(), Errno> {
    let holder = match hold(pid) {
        Ok(holder) => Some(holder),
        Err(Errno::ESRCH) => return Err(Errno::ESRCH),
        Err(_) => None,
    };
    if !still(pid) {
        return Err(Errno::ESRCH);
    }
    let Some(holder) = holder else { return signal_process(pid, signal) };
    let (number, no_info) = (c_int::from(signal.number()), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open, no siginfo is passed, no flags are set.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, holder.as_raw_fd(), number, no_info, 0) };
    match Errno::result(sent) {
        Err(Errno::ENOSYS) => signal_process(pid, signal),
        other => other.map(drop),
    }
}

/// A descriptor that stands for `pid`, whoever's child it is, and can be read once that has ended. pidfd_open(2)
///
/// # Errors
/// ESRCH; EMFILE, ENFILE, ENOMEM; ENOSYS, EPERM where the kernel or a sandbox does not have it.
pub fn hold(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes plain numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.get(), 0) })?;
    let fd = c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Answers whether an id is in use, at the same small cost however many processes there are.
#[derive(Debug)]
pub struct PidLiveness(OwnedFd);

impl PidLiveness {
    /// Opens the descriptor that it needs.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: takes plain numbers.
        let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether any process, process group or session has this number: so, after `pid` was reaped, whether anything is
    /// left in the group or session that it led. fcntl(2) `F_SETOWN_EX`; where that is refused, kill(2) for the group alone
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
        // SAFETY: the structure is the kernel's struct f_owner_ex. Nobody asks for signals from this descriptor.
        let answer = unsafe { libc::fcntl(self.0.as_raw_fd(), F_SETOWN_EX, &raw const owner) };
        match Errno::result(answer) {
            Ok(_) => true,
            Err(Errno::ESRCH) => false,
            // A sandbox without it: the group at least can be asked for.
            // SAFETY: takes plain numbers; signal 0 is sent to nobody.
            Err(_) => Errno::result(unsafe { libc::kill(-pid.get(), 0) }) != Err(Errno::ESRCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_in_use_only_while_something_has_it() {
        let probe = PidLiveness::new().unwrap();
        assert!(probe.is_in_use(super::super::process::id()));
        // pid_max is 2^22 at most.
        assert!(!probe.is_in_use(Pid::new(i32::MAX).unwrap()));
    }

    #[test]
    fn what_is_another_process_by_now_is_not_signalled() {
        let own = super::super::process::id();
        assert_eq!(signal_exactly(own, Signal::KILL, |_| false), Err(Errno::ESRCH));
        assert_eq!(signal_exactly(own, Signal::WINCH, |_| true), Ok(()));
    }

    #[test]
    fn everyone_is_signalled_by_pid_1_alone() {
        if !super::super::process::is_init() {
            assert_eq!(signal_everyone(Signal::WINCH), Err(Errno::EPERM));
        }
    }
}
