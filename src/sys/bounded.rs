//! System calls that another process or a file system can hold up, perhaps for ever: a helper process makes them, and
//! keepalive waits for it for a limited time. clone(2), pipe(7), poll(2)
//!
//! - Those that use a path: bind(2), unlink(2), chown(2), chmod(2). A process that reads a directory into memory that does not
//!   come holds its lock, and the file system may not answer.
//! - Those that use a socket that other processes have: setsockopt(2). One that sends from such memory holds its lock.
//!
//! Needs no helper: what is done before the first process is started, and bind(2) and listen(2) for a new socket with an
//! address of ip(7), or an abstract one of unix(7): they take the lock of this socket only.
//!
//! The helper has copies of the descriptors that it uses. A late one changes nothing in keepalive's table, and notices when it
//! reports that nobody waits any more.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::{fork, pipe};
use crate::model::Pid;

/// What a helper has found.
pub type Report = [u64; 2];

/// The result of a helper. `None`: it takes longer, or was killed.
pub type Outcome = Option<Result<Report, Errno>>;

/// Starts a helper that does `work` with the descriptors `kept`, and waits for its result, at most `timeout`. The helper is
/// reaped by [`super::wait::reap_without_sigchld`]. `undo`: what it does with its report if nobody waits any more.
///
/// Only for a program with one thread, which ignores or blocks SIGPIPE.
///
/// # Errors
/// EAGAIN, ENOMEM, EMFILE, ENFILE: the process or its pipe cannot be created.
pub fn run(
    kept: &[BorrowedFd<'_>],
    timeout: Duration,
    work: &dyn Fn() -> Result<Report, Errno>,
    undo: &dyn Fn(Report),
) -> Result<(Pid, Outcome), Errno> {
    let (read_end, write_end) = pipe::non_blocking()?;
    let kept: Vec<BorrowedFd<'_>> = kept.iter().copied().chain([write_end.as_fd()]).collect();
    let pid = fork::fork_unseen_helper(&kept, c"keepalive-bind", || {
        let result = work();
        let [one, other] = result.unwrap_or_default();
        let errno = result.err().map_or(0, |errno| errno as u64);
        let reported = nix::unistd::write(&write_end, [errno, one, other].map(u64::to_ne_bytes).as_flattened());
        if let (Err(_), Ok(report)) = (reported, result) {
            undo(report);
        }
        0
    })?;
    drop(write_end);
    if !pipe::wait_for_input(&read_end, timeout) {
        return Ok((pid, None));
    }
    let mut words = [[0; 8]; 3];
    let has_reported = nix::unistd::read(&read_end, words.as_flattened_mut()).is_ok_and(|length| length > 0);
    let [errno, one, other] = words.map(u64::from_ne_bytes);
    let result = match errno {
        0 => Ok([one, other]),
        errno => Err(Errno::from_raw(i32::try_from(errno).unwrap_or(0))),
    };
    Ok((pid, has_reported.then_some(result)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{kill, wait};
    use std::os::fd::OwnedFd;

    const LONG: Duration = Duration::from_secs(60);

    fn reap(pid: Pid) {
        while wait::reap_without_sigchld(pid) == Ok(None) {
            std::thread::yield_now();
        }
    }

    fn outcome_of(work: &dyn Fn() -> Result<Report, Errno>) -> Outcome {
        let (pid, outcome) = run(&[], LONG, work, &|_| unreachable!()).unwrap();
        reap(pid);
        outcome
    }

    #[test]
    fn the_result_of_the_helper_is_returned() {
        assert_eq!(outcome_of(&|| Ok([7, u64::MAX])), Some(Ok([7, u64::MAX])));
        assert_eq!(outcome_of(&|| Err(Errno::EADDRINUSE)), Some(Err(Errno::EADDRINUSE)));
    }

    #[test]
    fn a_helper_that_is_killed_has_no_result() {
        let suicide = || {
            kill::signal_process(crate::sys::process::id(), crate::model::Signal::KILL)?;
            Ok([0; 2])
        };
        assert_eq!(outcome_of(&suicide), None);
    }

    #[test]
    fn a_late_helper_undoes_its_work() {
        let [(held, release), (undone, undo)]: [(OwnedFd, OwnedFd); 2] = [(); 2].map(|()| nix::unistd::pipe().unwrap());
        let kept = [held.as_fd(), undo.as_fd()];
        let work = || {
            nix::unistd::read(&held, &mut [0])?;
            Ok([1, 2])
        };
        let notify = |report: Report| {
            nix::unistd::write(&undo, &report.map(|word| word.to_le_bytes()[0])).ok();
        };
        // A process that another test has just forked can have copies of the pipe.
        let mut report = [0; 3];
        while report == [0; 3] {
            let (pid, outcome) = run(&kept, Duration::ZERO, &work, &notify).unwrap();
            assert_eq!(outcome, None);
            assert_eq!(wait::reap_without_sigchld(pid), Ok(None), "it still works");
            nix::unistd::write(&release, b"!").unwrap();
            reap(pid);
            if pipe::is_readable(&undone) {
                assert_eq!(nix::unistd::read(&undone, &mut report), Ok(2));
            }
        }
        assert_eq!(report, [1, 2, 0]);
    }
}
