//! Waiting for events on descriptors, epoll(7).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::memory::release_code_pages;
use crate::model::Woken;

/// How many ready descriptors one call to [`Poller::wait`] returns; the next call returns the rest.
const MAX_READY_PER_WAIT: usize = 64;

/// A descriptor that is ready; `data()` is its token.
pub type Ready = EpollEvent;

/// The events that a descriptor is polled for. Hang-ups and errors are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Hang-ups and errors only.
    Nothing,
    /// The descriptor is readable.
    Input,
    /// The descriptor is writable.
    Output,
    /// The descriptor is readable or writable.
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

/// A set of descriptors to be polled, level-triggered.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    ready: [EpollEvent; MAX_READY_PER_WAIT],
    woken: Woken,
    /// Before the next wait.
    releases_code_pages: bool,
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Poller {
    /// Opens an empty set, close-on-exec.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let ready = [EpollEvent::empty(); MAX_READY_PER_WAIT];
        Ok(Self { epoll, ready, woken: Woken::Normally, releases_code_pages: false })
    }

    /// Adds `fd` and polls it for input. [`Poller::wait`] returns `token` when it is ready.
    ///
    /// # Errors
    /// EEXIST, ENOMEM, ENOSPC; EPERM for a regular file, which is always ready.
    pub fn add(&self, fd: impl AsFd, token: impl Into<u64>) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.into()))
    }

    /// Changes the interest and the token of `fd`, which must be in the set.
    ///
    /// # Errors
    /// ENOENT, ENOMEM.
    pub fn modify(&self, fd: impl AsFd, token: impl Into<u64>, interest: Interest) -> Result<(), Errno> {
        self.epoll.modify(fd, &mut EpollEvent::new(interest.flags(), token.into()))
    }

    /// As [`Poller::add`], but polls `fd` for output.
    ///
    /// # Errors
    /// As [`Poller::add`].
    pub fn add_writable(&self, fd: impl AsFd, token: impl Into<u64>) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(Interest::Output.flags(), token.into()))
    }

    /// As [`Poller::add`], but polls `fd` for hang-ups and errors only.
    ///
    /// # Errors
    /// As [`Poller::add`].
    pub fn add_hangup(&self, fd: impl AsFd, token: impl Into<u64>) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(Interest::Nothing.flags(), token.into()))
    }

    /// Removes `fd`. Must be called before `fd` is closed: a duplicate in a child would keep it in the set.
    ///
    /// # Errors
    /// ENOENT: `fd` was not in the set.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        self.epoll.delete(fd)
    }

    /// Calls [`release_code_pages`] at the last moment before the next wait: until then code would be mapped again.
    pub const fn release_code_pages_before_wait(&mut self) {
        self.releases_code_pages = true;
    }

    /// Waits until at least one descriptor is ready, for at most `timeout`. Returns an empty slice if the timeout expires or
    /// the call is interrupted.
    ///
    /// # Errors
    /// None that the manual page lists.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<&[Ready], Errno> {
        if std::mem::take(&mut self.releases_code_pages) {
            release_code_pages();
        }
        let result = self.epoll.wait(&mut self.ready, milliseconds(timeout));
        self.woken = if result == Err(Errno::EINTR) { Woken::Interrupted } else { Woken::Normally };
        let count = match result {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        Ok(self.ready.get(..count).unwrap_or_default())
    }

    /// How the last wait has ended. signal(7): epoll_wait(2) "fails with the error EINTR after the process is stopped by one
    /// of the stop signals and then resumed via SIGCONT", and so it does after its control group was frozen.
    #[must_use]
    pub const fn woken(&self) -> Woken {
        self.woken
    }
}

/// Rounds up, so that the loop does not wake up before a deadline, find nothing to do and wait again.
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
    fn the_timeout_is_rounded_up_to_milliseconds() {
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
    fn wait_returns_the_token_of_a_readable_descriptor_until_it_is_removed() {
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&read_end, 7_u64).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        nix::unistd::write(&write_end, b"x").unwrap();
        let tokens: Vec<_> = poller.wait(None).unwrap().iter().map(EpollEvent::data).collect();
        assert_eq!(tokens, [7], "descriptor {}", read_end.as_raw_fd());
        poller.remove(&read_end).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
