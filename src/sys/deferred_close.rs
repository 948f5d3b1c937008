//! Closing what others have handed to us, close(2), which may take any time: a socket with `SO_LINGER` waits until
//! everything in it has been sent, a file of a network file system until its server answers, and with a unix socket is
//! closed what is under way in it. socket(7), unix(7), clone(2) `CLONE_FILES`
//!
//! So none of it is closed here: it waits for a [`CloseWorker`], a process that has the same descriptors as we have.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};

use super::fork;
use crate::model::Pid;

/// What nobody wants any more.
static WAITING: Mutex<VecDeque<OwnedFd>> = Mutex::new(VecDeque::new());

fn queue() -> MutexGuard<'static, VecDeque<OwnedFd>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `descriptors` closed, whatever they are.
pub fn deferred_close(descriptors: Vec<OwnedFd>) {
    // A pipe is closed in no time: the most frequent of all, BARRIER=1 of sd_notify(3), needs no process.
    queue().extend(descriptors.into_iter().filter(|descriptor| !is_pipe(descriptor)));
}

/// How many wait to be closed.
#[must_use]
pub fn waiting() -> usize {
    queue().len()
}

fn is_pipe(descriptor: &OwnedFd) -> bool {
    fstat(descriptor).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

/// A process that closes some of what waits, in our table of descriptors. It is reaped as any child, after which
/// [`CloseWorker::finish`] has to be called; before that nobody else touches these.
#[derive(Debug)]
pub struct CloseWorker {
    pid: Pid,
    descriptors: Vec<RawFd>,
    begun: Counter,
}

impl CloseWorker {
    /// Has the first `count` at most of what waits closed; `None`: nothing waits.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: no process could be made, and all wait as before.
    pub fn start(count: usize) -> Result<Option<Self>, Errno> {
        let mut queue = queue();
        if queue.is_empty() {
            return Ok(None);
        }
        let begun = Counter::new()?;
        let count = count.min(queue.len());
        let descriptors: Vec<RawFd> = queue.iter().take(count).map(|descriptor| descriptor.as_raw_fd()).collect();
        let pid = fork::fork_with_our_descriptors(|| {
            fork::set_name(c"keepalive-close");
            close_all(&descriptors, begun.get());
            0
        })?;
        // From here on they are the other process's.
        queue.drain(..count).for_each(std::mem::forget);
        Ok(Some(Self { pid, descriptors, begun }))
    }

    /// Its id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// It has ended: what it has not come to waits again.
    pub fn finish(self) {
        let begun = self.begun.get().load(Ordering::Acquire);
        let mut queue = queue();
        for descriptor in self.descriptors.into_iter().skip(begun).rev() {
            // SAFETY: it is open, as nobody but the process that has ended would have closed it; and nobody else owns it.
            queue.push_front(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}

/// In the other process.
fn close_all(descriptors: &[RawFd], begun: &AtomicUsize) {
    let at_once = libc::linger { l_onoff: 0, l_linger: 0 };
    for (position, descriptor) in descriptors.iter().enumerate() {
        // Before, so that none is ever closed twice: by then its number may be another's.
        begun.store(position + 1, Ordering::Release);
        // SAFETY: open, and ours alone until it is closed; `start` has given it up.
        let descriptor = unsafe { OwnedFd::from_raw_fd(*descriptor) };
        setsockopt(&descriptor, sockopt::Linger, &at_once).ok();
    }
}

/// A number that both processes see.
#[derive(Debug)]
struct Counter(NonNull<AtomicUsize>);

impl Counter {
    const SIZE: usize = size_of::<AtomicUsize>();

    fn new() -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, wherever there is room.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, access, kind, -1, 0) };
        match NonNull::new(place.cast()) {
            Some(place) if place.as_ptr() != libc::MAP_FAILED.cast() => Ok(Self(place)),
            Some(_) | None => Err(Errno::last()),
        }
    }

    const fn get(&self) -> &AtomicUsize {
        // SAFETY: mapped as long as we live, aligned to a page, and all zero at first.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody refers to any more.
        unsafe { libc::munmap(self.0.as_ptr().cast::<c_void>(), Self::SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use super::*;
    use crate::sys::{socket, stream, wait};

    /// Other tests have things closed, too.
    fn close_until(is_done: impl Fn() -> bool) {
        while !is_done() {
            if let Some(closer) = CloseWorker::start(2).unwrap() {
                while wait::reap(closer.pid()) == Err(Errno::EAGAIN) {
                    std::thread::yield_now();
                }
                closer.finish();
            }
        }
    }

    fn is_over(end: &OwnedFd) -> bool {
        socket::receive(end, &mut [0]) == Ok(0)
    }

    #[test]
    fn a_pipe_is_closed_at_once() {
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        deferred_close(vec![write_end]);
        assert_eq!(nix::unistd::read(&read_end, &mut [0]), Ok(0));
    }

    #[test]
    fn all_are_closed_by_other_processes() {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..5).map(|_| stream::pair().unwrap()).unzip();
        deferred_close(theirs);
        close_until(|| ours.iter().all(is_over));
    }

    #[test]
    fn what_a_process_has_not_come_to_waits_again() {
        let (ours, theirs) = stream::pair().unwrap();
        let (descriptors, begun) = (vec![-1, theirs.into_raw_fd()], Counter::new().unwrap());
        begun.get().store(1, Ordering::Release);
        CloseWorker { pid: crate::sys::process::id(), descriptors, begun }.finish();
        close_until(|| is_over(&ours));
    }
}
