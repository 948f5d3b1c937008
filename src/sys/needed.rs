//! The system calls that keepalive cannot do without, and whether a sandbox refuses them: seccomp(2).

use std::ffi::c_long;
use std::fmt;

use nix::errno::Errno;

use crate::model::errno;

/// A system call, and arguments with which it has no effect.
#[derive(Clone, Copy, Debug)]
pub struct NeededCall {
    name: &'static str,
    number: c_long,
    arguments: [c_long; 4],
}

/// A system call that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// The name of the system call.
    pub name: &'static str,
    /// ENOSYS or EPERM.
    pub errno: Errno,
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot run without the system call {}: {}", self.name, errno::words(self.errno))
    }
}

/// No descriptor.
const NO_FD: c_long = -1;
/// Invalid options or flags.
const INVALID: c_long = -1;
/// More than any process id, which is 2^22 at most. pid_max(5)
const NO_PROCESS: c_long = i32::MAX as c_long;

const fn needed(name: &'static str, number: c_long, arguments: [c_long; 4]) -> NeededCall {
    NeededCall { name, number, arguments }
}

#[cfg(target_arch = "x86_64")]
const OPEN: NeededCall = needed("open", libc::SYS_open, [0; 4]);
#[cfg(not(target_arch = "x86_64"))]
const OPEN: NeededCall = needed("openat", libc::SYS_openat, [NO_FD, 0, 0, 0]);

/// What every program needs that allocates memory.
pub(super) const MMAP: NeededCall = needed("mmap", libc::SYS_mmap, [0; 4]);
pub(super) const SENDMSG: NeededCall = needed("sendmsg", libc::SYS_sendmsg, [NO_FD, 0, 0, 0]);
pub(super) const RECVMSG: NeededCall = needed("recvmsg", libc::SYS_recvmsg, [NO_FD, 0, 0, 0]);

/// What init mode needs, besides what every program needs to start.
pub const BY_INIT_MODE: [NeededCall; 5] = [
    needed("getpid", libc::SYS_getpid, [0; 4]),
    needed("kill", libc::SYS_kill, [NO_PROCESS, 0, 0, 0]),
    needed("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, 0, 0, 8]),
    needed("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, [0, 0, 0, 8]),
    needed("wait4", libc::SYS_wait4, [NO_FD, 0, INVALID, 0]),
];

/// What supervise mode needs, besides what every program needs to start.
pub const BY_SUPERVISE_MODE: [NeededCall; 14] = [
    needed("getpid", libc::SYS_getpid, [0; 4]),
    needed("kill", libc::SYS_kill, [NO_PROCESS, 0, 0, 0]),
    needed("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, 0, 0, 8]),
    OPEN,
    needed("read", libc::SYS_read, [NO_FD, 0, 0, 0]),
    needed("close", libc::SYS_close, [NO_FD, 0, 0, 0]),
    needed("fcntl", libc::SYS_fcntl, [NO_FD, libc::F_GETFD as c_long, 0, 0]),
    needed("fstat", libc::SYS_fstat, [NO_FD, 0, 0, 0]),
    needed("signalfd4", libc::SYS_signalfd4, [NO_FD, 0, 8, INVALID]),
    needed("eventfd2", libc::SYS_eventfd2, [0, INVALID, 0, 0]),
    needed("epoll_create1", libc::SYS_epoll_create1, [INVALID, 0, 0, 0]),
    needed("epoll_ctl", libc::SYS_epoll_ctl, [NO_FD, libc::EPOLL_CTL_DEL as c_long, NO_FD, 0]),
    needed("epoll_pwait", libc::SYS_epoll_pwait, [NO_FD, 0, 0, 0]),
    needed("waitid", libc::SYS_waitid, [libc::P_ALL as c_long, 0, 0, 0]),
];

/// What a process is answered with: a client, or one that has an ipc channel.
pub const BY_ANSWERS: [NeededCall; 3] = [
    needed("recvfrom", libc::SYS_recvfrom, [NO_FD, 0, 0, 0]),
    needed("sendto", libc::SYS_sendto, [NO_FD, 0, 0, 0]),
    RECVMSG,
];

/// What supervise mode needs for clients, besides [`BY_ANSWERS`].
pub const BY_CLIENTS: [NeededCall; 2] = [
    needed("accept4", libc::SYS_accept4, [NO_FD, 0, 0, 0]),
    needed("getsockopt", libc::SYS_getsockopt, [NO_FD, 0, 0, 0]),
];

/// Makes each of these system calls once, without effect.
///
/// # Errors
/// The first one that is refused: with ENOSYS, or with EPERM, which no call returns for these arguments.
pub fn check(calls: &[NeededCall]) -> Result<(), RefusedCall> {
    calls.iter().try_for_each(|call| {
        let [first, second, third, fourth] = call.arguments;
        // SAFETY: with the arguments above the kernel accesses no memory: the pointers are null, the numbers invalid.
        let result = unsafe { libc::syscall(call.number, first, second, third, fourth, 0_usize, 0_usize) };
        match Errno::result(result) {
            Err(errno @ (Errno::ENOSYS | Errno::EPERM)) => Err(RefusedCall { name: call.name, errno }),
            Ok(_) | Err(_) => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The manual pages of these calls list neither ENOSYS nor EPERM for such arguments.
    #[test]
    fn the_kernel_refuses_none_of_the_needed_calls() {
        assert_eq!(check(&BY_INIT_MODE), Ok(()));
        assert_eq!(check(&BY_SUPERVISE_MODE), Ok(()));
        assert_eq!(check(&BY_ANSWERS), Ok(()));
        assert_eq!(check(&BY_CLIENTS), Ok(()));
        assert_eq!(check(&[MMAP, SENDMSG]), Ok(()));
    }

    #[test]
    fn a_call_that_does_not_exist_is_named() {
        let refused = RefusedCall { name: "none", errno: Errno::ENOSYS };
        assert_eq!(check(&[needed("none", 100_000, [0; 4])]), Err(refused));
    }
}
