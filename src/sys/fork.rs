//! Helper processes that do not execute another program: fork(2), clone(2), prctl(2) `PR_SET_NAME`.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::{descriptor_copies, memory, process};
use crate::model::{Pid, Signal};

/// The process in which [`fork_without_sigchld`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkResult {
    /// The child. The parent still owns every value that was copied: the child must not drop them and must not return.
    Child,
    /// The parent, with the id of the child.
    Parent(Pid),
}

/// Forks a child that sends no SIGCHLD when it exits and that only [`super::wait::reap_without_sigchld`] sees, so that it
/// does not count among the children that an init waits for.
///
/// Only for a program with one thread. The child has all signals blocked, as the parent has.
///
/// # Errors
/// EAGAIN, ENOMEM: the process cannot be created.
pub fn fork_without_sigchld() -> Result<ForkResult, Errno> {
    fork(0)
}

/// `flags`: of clone(2), with the signal that the parent gets when the child exits.
fn fork(flags: i32) -> Result<ForkResult, Errno> {
    if flags & libc::CLONE_FILES == 0 {
        descriptor_copies::before_fork();
    }
    let (flags, none) = (flags.unsigned_abs() as usize, 0_usize);
    // SAFETY: equivalent to fork(2). The process has one thread, so no other thread can hold a lock. As no stack is
    // given, the child continues on a copy of the parent's.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })?;
    let pid = i32::try_from(pid).ok().and_then(Pid::new);
    Ok(pid.map_or(ForkResult::Child, ForkResult::Parent))
}

/// Forks a helper that runs `work`, which may take any time, and exits with the code that it returns.
///
/// The helper is reaped like any child and killed when keepalive dies. It keeps only stdin, stdout, stderr, the
/// descriptors that keepalive was started with, and `kept`, so that no other descriptor stays open because of it.
///
/// Only for a program with one thread. `work` may use existing memory, `kept` and system calls.
///
/// # Errors
/// EAGAIN, ENOMEM: the process cannot be created.
pub fn fork_helper(kept: &[BorrowedFd<'_>], work: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    fork_mortal(libc::SIGCHLD, || {
        process::close_fds_in_fork(kept);
        work()
    })
}

/// Forks a helper that does nothing. While it lives, a keepalive that is killed closes no descriptor when it exits, because
/// they share the table: closing can take any time, and a PID 1 that exits kills the other processes only afterwards.
/// No SIGCHLD comes, as for [`fork_unseen_helper`]. clone(2) `CLONE_FILES`
///
/// # Errors
/// EAGAIN, ENOMEM: the process cannot be created.
pub fn fork_holder() -> Result<Pid, Errno> {
    fork_mortal(libc::CLONE_FILES, || {
        set_name(c"keepalive-hold");
        memory::release_code_pages();
        loop {
            nix::unistd::pause();
        }
    })
}

/// Forks a helper that shares keepalive's descriptors, runs `work` and exits with the code that it returns. It is reaped like any
/// child and killed when keepalive dies. `work`: as for [`fork_helper`]. clone(2) `CLONE_FILES`
///
/// # Errors
/// EAGAIN, ENOMEM: the process cannot be created.
pub fn fork_sharing_fds(work: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    fork_mortal(libc::CLONE_FILES | libc::SIGCHLD, work)
}

/// Forks a child that is killed when keepalive dies.
fn fork_mortal(flags: i32, work: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    let parent = process::id();
    match fork(flags)? {
        ForkResult::Parent(pid) => Ok(pid),
        ForkResult::Child => {
            // Cannot fail: SIGKILL is a valid signal.
            process::set_death_signal_of(Some(parent), Signal::KILL).ok();
            process::exit_now(work())
        }
    }
}

/// As [`fork_helper`], but no SIGCHLD comes and only [`super::wait::reap_without_sigchld`] sees the helper, so that it does not
/// count among the children that an init waits for. `name`: as for [`set_name`].
///
/// # Errors
/// EAGAIN, ENOMEM: the process cannot be created.
pub fn fork_unseen_helper(kept: &[BorrowedFd<'_>], name: &CStr, work: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    fork_mortal(0, || {
        process::close_fds_in_fork(kept);
        set_name(name);
        work()
    })
}

/// Sets the process name that ps(1) and top(1) show, at most 15 bytes.
pub fn set_name(name: &CStr) {
    // SAFETY: the kernel copies the NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0_usize, 0_usize, 0_usize) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};

    use super::*;
    use crate::model::ExitStatus;
    use crate::sys::wait::reap;

    #[test]
    fn a_helper_exits_with_the_code_that_its_work_returns() {
        assert_eq!(status_of_helper(&[], || 42), ExitStatus::Code(42));
    }

    #[test]
    fn a_helper_has_no_descriptor_other_than_the_one_that_it_keeps() {
        let (kept, other) = nix::unistd::pipe().unwrap();
        let is_open = |fd: &OwnedFd| u8::from(nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok());
        let both = || is_open(&kept) * 2 + is_open(&other);
        assert_eq!(status_of_helper(&[kept.as_fd()], both), ExitStatus::Code(2));
        assert_eq!(status_of_helper(&[other.as_fd()], both), ExitStatus::Code(1));
        assert_eq!(both(), 3, "the parent's descriptors stay open");
    }

    fn status_of_helper(kept: &[BorrowedFd<'_>], work: impl FnOnce() -> u8) -> ExitStatus {
        let pid = fork_helper(kept, work).unwrap();
        loop {
            match reap(pid) {
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                ended => return ended.unwrap().status,
            }
        }
    }
}
