//! Whether a pipe holds up the logger, and the loggers that were killed for that.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::logs::logger::ReadMark;
use crate::model::{Mono, Pid};
use crate::runtime::ended_helpers::EndedHelpers;
use crate::sys::deferred_close::{Owner, deferred_close};

/// A system call on a pipe that takes longer is held up by a writer. The timer of the logger expires less often.
const HOLD_UP_TIMEOUT: Duration = Duration::from_millis(1500);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HoldUp {
    /// The timer of the logger has expired.
    pub(super) has_expired: bool,
    /// The system call in which the logger was first seen, and when.
    seen: Option<(ReadMark, Mono)>,
    killed: EndedHelpers,
    /// Both ends of the pipes that hold up the killed loggers. To close them could take as long.
    pipes: Vec<(Pid, Owner, Vec<OwnedFd>)>,
}

impl HoldUp {
    /// The timer of the logger has expired while it was in this system call, or in none. Returns the call if it was in the same
    /// one long ago.
    pub(super) fn look(&mut self, mark: Option<ReadMark>, now: Mono) -> Option<ReadMark> {
        let mark = mark?;
        match self.seen {
            Some((seen, since)) if seen == mark => (now.since(since) >= HOLD_UP_TIMEOUT).then_some(mark),
            Some(_) | None => {
                self.seen = Some((mark, now));
                None
            }
        }
    }

    /// Another logger begins.
    pub(super) const fn forget(&mut self) {
        self.seen = None;
    }

    /// A logger was killed; `pipe`: the ends of the pipe of `owner` that holds it up.
    pub(super) fn on_killed(&mut self, logger: Pid, owner: Owner, pipe: Vec<OwnedFd>, now: Mono) {
        self.killed.push(logger, now);
        self.pipes.push((logger, owner, pipe));
    }

    /// When [`Self::reap`] must be called.
    pub(super) const fn due(&self) -> Option<Mono> {
        self.killed.due()
    }

    /// Reaps the killed loggers whose system calls have ended, and has their pipes closed.
    pub(super) fn reap(&mut self, now: Mono) {
        if self.killed.due().is_some_and(|due| due <= now) {
            self.killed.reap(now);
            let ended = self.pipes.extract_if(.., |(logger, ..)| !self.killed.pids().contains(logger));
            ended.for_each(|(_, owner, pipe)| deferred_close(owner, pipe));
        }
    }

    /// The killed loggers that have not been reaped.
    pub(super) fn killed(&self) -> &[Pid] {
        self.killed.pids()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::model::Signal;
    use crate::sys::{fork, kill, pipe};

    fn mark(word: u64) -> Option<ReadMark> {
        ReadMark::load(&AtomicU64::new(word))
    }

    const fn at(milliseconds: u64) -> Mono {
        Mono::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn a_logger_is_held_up_if_it_is_in_the_same_call_for_long() {
        let mut hold_up = HoldUp::default();
        assert_eq!(hold_up.look(mark(7), at(0)), None);
        // keepalive was suspended: the timer has gone on meanwhile.
        assert_eq!(hold_up.look(mark(7), at(100)), None);
        assert_eq!(hold_up.look(mark(7), at(2000)), mark(7));
    }

    #[test]
    fn a_logger_that_reads_slowly_or_waits_elsewhere_is_not_held_up() {
        let mut hold_up = HoldUp::default();
        assert_eq!([7, 8, 7, 0, 0].map(|word| hold_up.look(mark(word), at(word * 10_000))), [None; 5]);
        let mut hold_up = HoldUp::default();
        assert_eq!(hold_up.look(mark(7), at(0)), None);
        hold_up.forget();
        assert_eq!(hold_up.look(mark(7), at(4000)), None, "the next logger");
        assert_eq!(hold_up.look(mark(7), at(6000)), mark(7));
    }

    #[test]
    fn the_pipe_is_closed_when_the_killed_logger_has_ended() {
        let (_read_end, write_end) = pipe::pipe().unwrap();
        let logger = fork::fork_unseen_helper(&[write_end.as_fd()], c"test", || {
            nix::unistd::pause();
            0
        });
        let logger = logger.unwrap();
        let mut hold_up = HoldUp::default();
        hold_up.on_killed(logger, Owner::Unknown, vec![write_end], at(0));
        hold_up.reap(hold_up.due().unwrap());
        assert_eq!((hold_up.killed(), hold_up.pipes.len()), (&[logger][..], 1));
        kill::signal_process(logger, Signal::KILL).unwrap();
        while let Some(due) = hold_up.due() {
            hold_up.reap(due);
            std::thread::yield_now();
        }
        assert_eq!((hold_up.killed(), hold_up.pipes.len()), (&[][..], 0));
    }
}
