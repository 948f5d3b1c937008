//! Waiting for descriptors, epoll(7).

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How many ready descriptors are told of at once; the rest follows with the next wait.
const BATCH: usize = 64;

/// A descriptor that is ready: `data()` is its token.
pub type Ready = EpollEvent;

/// What is waited for. That its peer has closed it is told in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing else.
    Nothing,
    /// That it can be read.
    Input,
    /// That it can be written.
    Output,
    /// Either of them.
    Either,
}

impl Interest {
    const fn flags(self) -> EpollFlags {
        match self {
            Self::Nothing => EpollFlags::empty(),
            Self::Input => EpollFlags::EPOLLIN,
            Self::Output => EpollFlags::EPOLLOUT,
            Self::Either => EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT),
        }
    }
}

/// A set of descriptors that are waited for, level-triggered.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    ready: [EpollEvent; BATCH],
}

impl Poller {
    /// Opens it, close-on-exec.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, ready: [EpollEvent::empty(); BATCH] })
    }

    /// Waits for `fd` to become readable (or closed by its peer) from now on; `token` is what [`Poller::wait`] says then.
    ///
    /// # Errors
    /// EEXIST, ENOMEM, ENOSPC; EPERM for a regular file, which is always ready.
    pub fn add(&self, fd: impl AsFd, token: u64) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
    }

    /// From now on waits for something else of `fd`, which is in the set.
    ///
    /// # Errors
    /// ENOENT, ENOMEM.
    pub fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Errno> {
        self.epoll.modify(fd, &mut EpollEvent::new(interest.flags(), token))
    }

    /// Waits for `fd` to have room from now on; otherwise as [`Poller::add`].
    ///
    /// # Errors
    /// As [`Poller::add`].
    pub fn add_output(&self, fd: impl AsFd, token: u64) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(Interest::Output.flags(), token))
    }

    /// Waits from now on only for the peer of `fd` to close it, or for an error; otherwise as [`Poller::add`].
    ///
    /// # Errors
    /// As [`Poller::add`].
    pub fn add_end(&self, fd: impl AsFd, token: u64) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(Interest::Nothing.flags(), token))
    }

    /// Waits for `fd` no longer. Call it before `fd` is closed: a duplicate in a child would keep it in the set.
    ///
    /// # Errors
    /// ENOENT: it was not in the set.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        self.epoll.delete(fd)
    }

    /// Waits until at least one descriptor is ready, with `timeout` no longer than that. Empty: nothing is, the time is
    /// over or the call was interrupted.
    ///
    /// # Errors
    /// None that the manual knows of.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<&[Ready], Errno> {
        let count = match self.epoll.wait(&mut self.ready, milliseconds(timeout)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        Ok(self.ready.get(..count).unwrap_or_default())
    }
}

/// Rounded up, so that nobody wakes before it is time, finds nothing to do and waits again.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let rounded = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(i32::try_from(rounded).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_time_is_rounded_up() {
        let check = |nanoseconds, expect: i32| {
            let timeout = milliseconds(Some(Duration::from_nanos(nanoseconds)));
            assert_eq!(timeout, EpollTimeout::try_from(expect).unwrap(), "{nanoseconds} ns");
        };
        check(0, 0);
        check(1, 1);
        check(1_000_000, 1);
        check(1_000_001, 2);
        check(u64::MAX, i32::MAX);
        assert_eq!(milliseconds(None), EpollTimeout::NONE);
    }

    #[test]
    fn a_readable_descriptor_gives_its_token_until_it_is_removed() {
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&read_end, 7).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        nix::unistd::write(&write_end, b"x").unwrap();
        let tokens: Vec<_> = poller.wait(None).unwrap().iter().map(EpollEvent::data).collect();
        assert_eq!(tokens, [7], "descriptor {}", read_end.as_raw_fd());
        poller.remove(&read_end).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
