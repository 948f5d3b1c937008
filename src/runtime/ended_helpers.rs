//! Helper processes that have been killed, or have done their work, and have not been reaped. No signal reports their end.

use std::time::Duration;

use crate::model::{Mono, Pid, Signal};
use crate::sys::{self, kill, pipe, wait};

/// When keepalive looks again for the first time. The time doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// A process that hangs in the kernel is looked at so seldom.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long keepalive waits at its end for helpers that it has killed.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct EndedHelpers {
    pids: Vec<Pid>,
    pause: Duration,
    due: Option<Mono>,
}

impl EndedHelpers {
    /// A helper is about to exit.
    pub(super) fn push(&mut self, pid: Pid, now: Mono) {
        self.pids.push(pid);
        self.pause = FIRST_PAUSE;
        self.due = Some(now + self.pause);
    }

    /// When [`Self::reap`] must be called.
    pub(super) const fn due(&self) -> Option<Mono> {
        self.due
    }

    /// Reaps those that have exited.
    pub(super) fn reap(&mut self, now: Mono) {
        self.pids.retain(|pid| wait::reap_without_sigchld(*pid) == Ok(None));
        if self.pids.is_empty() {
            self.due = None;
        } else if self.due.is_some_and(|due| due <= now) {
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            self.due = Some(now + self.pause);
        }
    }

    pub(super) fn pids(&self) -> &[Pid] {
        &self.pids
    }
}

/// Kills `helpers`, which send no SIGCHLD, and waits a short time until they are gone. For the end of keepalive.
pub(super) fn kill_all(helpers: &[Pid]) {
    helpers.iter().for_each(|pid| _ = kill::signal_process(*pid, Signal::KILL));
    let deadline = sys::now() + KILL_TIMEOUT;
    for pid in helpers {
        if let Ok(pidfd) = kill::pidfd_open(*pid)
            && pipe::wait_for_input(pidfd, deadline.since(sys::now()))
        {
            wait::reap_without_sigchld(*pid).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::{fork, process};

    #[test]
    fn helpers_are_gone_at_the_end() {
        let (_read_end, write_end) = pipe::pipe().unwrap();
        let start = || {
            fork::fork_unseen_helper(&[write_end.as_fd()], c"test", || {
                nix::unistd::pause();
                0
            })
        };
        let helpers = [start().unwrap(), start().unwrap()];
        kill_all(&helpers);
        assert!(helpers.iter().all(|pid| wait::reap_without_sigchld(*pid) == Err(nix::errno::Errno::ECHILD)));
    }

    #[test]
    fn a_process_that_hangs_is_looked_at_less_and_less_often() {
        let (read_end, write_end) = pipe::pipe().unwrap();
        let pid = fork::fork_unseen_helper(&[write_end.as_fd()], c"test", || {
            nix::unistd::pause();
            0
        });
        let (pid, start) = (pid.unwrap(), Mono::from_nanos(0));
        let mut ended = EndedHelpers::default();
        ended.push(pid, start);
        let mut pauses = Vec::new();
        let mut now = start;
        for _ in 0..16 {
            let due = ended.due().unwrap();
            pauses.push(due.since(now).as_millis());
            now = due;
            ended.reap(now);
        }
        assert_eq!(pauses[..4], [1, 2, 4, 8]);
        assert_eq!(pauses.last(), Some(&10_000));
        assert!(process::id() != pid && ended.pids() == [pid]);
        kill::signal_process(pid, Signal::KILL).unwrap();
        drop(read_end);
        while ended.due().is_some() {
            std::thread::yield_now();
            ended.reap(now);
        }
        assert!(ended.pids().is_empty());
    }
}
