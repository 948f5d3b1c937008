//! A copy of ourselves that does one thing until it ends: clone(2) without execve(2), prctl(2) `PR_SET_NAME`.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::process;
use crate::model::{Pid, Signal};

/// Who returns from [`fork_without_sigchld`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The copy. It owns none of the values that it has a copy of, must not drop them and must not return.
    Child,
    /// We, and this is the copy.
    Parent(Pid),
}

/// Makes a copy of this process whose end sends no SIGCHLD and which no wait but [`super::wait::reap_quiet`] sees: it is
/// not one of those whom an init waits for.
///
/// For a program with one thread. The copy has all signals blocked as we have.
///
/// # Errors
/// EAGAIN, ENOMEM: no process could be made.
pub fn fork_without_sigchld() -> Result<Side, Errno> {
    const NO_EXIT_SIGNAL: usize = 0;
    let none = 0_usize;
    // SAFETY: as fork(2), of a process with one thread: no lock can be held by another. Without a stack of its own the
    // child goes on with a copy of ours.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, NO_EXIT_SIGNAL, none, none, none, none) })?;
    let pid = i32::try_from(pid).ok().and_then(Pid::new);
    Ok(pid.map_or(Side::Child, Side::Parent))
}

/// Has a copy of this process find something out that may take any time, and end with the answer; it is reaped as any child.
/// It dies with us. Of our descriptors it has but stdin, stdout, stderr, those that we were started with, and `kept`: what we
/// close is closed, however long it takes.
///
/// For a program with one thread. `answer` may use nothing but memory that is there, `kept` and system calls.
///
/// # Errors
/// EAGAIN, ENOMEM: no process could be made.
pub fn fork_helper(kept: Option<BorrowedFd<'_>>, answer: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    fork_with(0, || {
        process::release_copied(kept);
        answer()
    })
}

/// As [`fork_helper`], with a copy that has our descriptors in common with us: what it closes is closed.
/// clone(2) `CLONE_FILES`
///
/// # Errors
/// EAGAIN, ENOMEM: no process could be made.
pub(super) fn fork_with_our_descriptors(answer: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    fork_with(libc::CLONE_FILES, answer)
}

fn fork_with(flags: i32, answer: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    let parent = process::id();
    let (flags, none) = ((flags | libc::SIGCHLD).unsigned_abs() as usize, 0_usize);
    // SAFETY: as in `fork_without_sigchld`.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })?;
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::new) {
        return Ok(pid);
    }
    // It knows of no error that could come of this.
    process::set_death_signal_of(Some(parent), Signal::KILL).ok();
    process::exit_now(answer())
}

/// What ps(1) and top(1) call us; 15 bytes at most.
pub fn set_name(name: &CStr) {
    // SAFETY: a NUL-terminated string that the kernel copies.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0_usize, 0_usize, 0_usize) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};

    use super::*;
    use crate::model::ExitStatus;
    use crate::sys::wait::reap;

    #[test]
    fn a_copy_ends_with_its_answer() {
        assert_eq!(answered(None, || 42), ExitStatus::Code(42));
    }

    #[test]
    fn a_copy_has_no_descriptor_but_the_one_that_it_keeps() {
        let (kept, other) = nix::unistd::pipe().unwrap();
        let is_open = |fd: &OwnedFd| u8::from(nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok());
        let both = || is_open(&kept) * 2 + is_open(&other);
        assert_eq!(answered(Some(kept.as_fd()), both), ExitStatus::Code(2));
        assert_eq!(answered(Some(other.as_fd()), both), ExitStatus::Code(1));
        assert_eq!(both(), 3, "here nothing is closed");
    }

    fn answered(kept: Option<BorrowedFd<'_>>, answer: impl FnOnce() -> u8) -> ExitStatus {
        let pid = fork_helper(kept, answer).unwrap();
        loop {
            match reap(pid) {
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                ended => return ended.unwrap().status,
            }
        }
    }
}
