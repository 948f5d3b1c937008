//! What the kernel says of a process without /proc: pidfd_open(2), ioctl_pidfd(2) `PIDFD_GET_INFO`, getsid(2), getpgid(2).
//!
//! Reading /proc/PID can take any time, for example while the process executes a program on a file system that does not
//! answer. No call here waits for the process.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::kill::pidfd_open;
use crate::model::Pid;

/// The first version of `struct pidfd_info`, 64 bytes.
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    parent: u32,
    user: u32,
    group: u32,
    effective_user: u32,
    effective_group: u32,
    saved_user: u32,
    rest: [u32; 4],
}
const _: () = assert!(size_of::<Info>() == 64);

/// `_IOWR(0xFF, 11, struct pidfd_info)`
const PIDFD_GET_INFO: u32 = 0xC040_FF0B;

/// The parent of a process, which may be a zombie; `None`: the parent is in another PID namespace. Linux 6.13
///
/// # Errors
/// ESRCH: there is no such process. ENOTTY, EINVAL, ENOSYS, EPERM: the kernel or a sandbox does not tell.
pub fn parent_of(pid: Pid) -> Result<Option<Pid>, Errno> {
    Ok(c_int::try_from(info_of(pid)?.parent).ok().and_then(Pid::new))
}

/// Whether the real, effective and saved user of a process are this one. Linux 6.13
///
/// # Errors
/// As [`parent_of`].
pub fn belongs_to(pid: Pid, user: u32) -> Result<bool, Errno> {
    let info = info_of(pid)?;
    Ok([info.user, info.effective_user, info.saved_user] == [user; 3])
}

fn info_of(pid: Pid) -> Result<Info, Errno> {
    let pidfd = pidfd_open(pid)?;
    // SAFETY: all-zero bytes are a valid structure of numbers.
    let mut info: Info = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the kernel reads and writes the 64 bytes that the number of the operation says.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    Errno::result(result)?;
    Ok(info)
}

/// The session and the process group of a process; `None`: there is no such process, or they are those of another PID
/// namespace.
#[must_use]
pub fn session_and_group_of(pid: Pid) -> [Option<Pid>; 2] {
    let id = Some(nix::unistd::Pid::from_raw(pid.get()));
    let known = |found: nix::Result<nix::unistd::Pid>| found.ok().and_then(|found| Pid::new(found.as_raw()));
    [known(nix::unistd::getsid(id)), known(nix::unistd::getpgid(id))]
}

/// Whether the process of a pidfd has exited, whether or not it has been waited for.
#[must_use]
pub fn has_exited(pidfd: impl AsFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::super::process;
    use super::*;

    #[test]
    fn the_parent_is_told_where_the_kernel_knows_the_operation() {
        match parent_of(process::id()) {
            Ok(parent) => assert_eq!(parent, process::parent()),
            Err(errno) => assert!(matches!(errno, Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM)),
        }
        assert_eq!(
            parent_of(Pid::new(i32::MAX).unwrap()).err().filter(|errno| *errno != Errno::ENOSYS),
            Some(Errno::ESRCH)
        );
    }

    #[test]
    fn the_user_is_told_where_the_kernel_knows_the_operation() {
        let user = process::effective_user();
        if let Ok(belongs) = belongs_to(process::id(), user) {
            assert!(belongs);
            assert_eq!(belongs_to(process::id(), user + 1), Ok(false));
        }
    }

    #[test]
    fn a_running_process_has_a_session_and_a_group() {
        let own = process::id();
        assert_eq!(session_and_group_of(own)[1], process::group().and_then(|group| Pid::new(group.get())));
        assert_eq!(session_and_group_of(Pid::new(i32::MAX).unwrap()), [None, None]);
        assert!(pidfd_open(own).is_ok_and(|pidfd| !has_exited(&pidfd)));
    }
}
