//! Closing descriptors that other processes have passed to keepalive, or have too: close(2), socket(7), unix(7), clone(2)
//! `CLONE_FILES`.
//!
//! Closing such a descriptor can take any time: a socket with `SO_LINGER` waits until its data has been sent, a file on a
//! network file system waits for the server, and closing a unix socket closes the descriptors queued in it. Closing a pipe
//! waits for a process that writes to it, and that can be stopped by a page fault. So keepalive does not close them itself. They wait in a queue for a [`CloseWorker`], a process that shares the descriptor table.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::fork;
use crate::model::Pid;

static QUEUE: Mutex<VecDeque<OwnedFd>> = Mutex::new(VecDeque::new());

fn queue() -> MutexGuard<'static, VecDeque<OwnedFd>> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues descriptors to be closed by a [`CloseWorker`].
pub fn deferred_close(descriptors: Vec<OwnedFd>) {
    queue().extend(descriptors);
}

/// How many descriptors are queued.
#[must_use]
pub fn queued() -> usize {
    queue().len()
}

/// A process that closes descriptors from the queue in keepalive's descriptor table.
///
/// It is reaped like any child. Then [`CloseWorker::finish`] must be called; until then the worker owns its descriptors.
#[derive(Debug)]
pub struct CloseWorker {
    pid: Pid,
    descriptors: Vec<RawFd>,
    started: SharedCounter,
}

impl CloseWorker {
    /// Starts a worker that closes up to `count` descriptors from the front of the queue; `None`: the queue is empty.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: the process cannot be created; the queue is unchanged.
    pub fn start(count: usize) -> Result<Option<Self>, Errno> {
        let mut queue = queue();
        if queue.is_empty() {
            return Ok(None);
        }
        let started = SharedCounter::new()?;
        let count = count.min(queue.len());
        let descriptors: Vec<RawFd> = queue.iter().take(count).map(|descriptor| descriptor.as_raw_fd()).collect();
        let pid = fork::fork_sharing_fds(|| {
            fork::set_name(c"keepalive-close");
            close_all(&descriptors, started.get());
            0
        })?;
        // The worker owns them now.
        queue.drain(..count).for_each(std::mem::forget);
        Ok(Some(Self { pid, descriptors, started }))
    }

    /// The worker's process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// The worker has exited: as [`Self::release_rest`]. Returns whether it has closed any.
    pub fn finish(mut self) -> bool {
        self.release_rest() > 0
    }

    /// Puts the descriptors that the worker did not get to back to the front of the queue. Returns the number of the others.
    ///
    /// The worker must have exited, or have been killed so long ago that it stands in one close(2), after which it exits.
    pub fn release_rest(&mut self) -> usize {
        let started = self.started.get().load(Ordering::Acquire);
        let mut queue = queue();
        for descriptor in self.descriptors.drain(started.min(self.descriptors.len())..).rev() {
            // SAFETY: the descriptor is open, because only the worker would have closed it, and it has exited. Nothing
            // else owns it.
            queue.push_front(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
        started
    }
}

/// Runs in the worker.
fn close_all(descriptors: &[RawFd], started: &AtomicUsize) {
    let no_linger = libc::linger { l_onoff: 0, l_linger: 0 };
    for (position, descriptor) in descriptors.iter().enumerate() {
        // Counted before the close, so that none is closed twice: its number may have been reused by then.
        started.store(position + 1, Ordering::Release);
        // SAFETY: the descriptor is open, and `start` has given its ownership to this process.
        let descriptor = unsafe { OwnedFd::from_raw_fd(*descriptor) };
        setsockopt(&descriptor, sockopt::Linger, &no_linger).ok();
    }
}

/// A counter in memory that keepalive and the worker share. mmap(2) `MAP_SHARED`
#[derive(Debug)]
struct SharedCounter(NonNull<AtomicUsize>);

impl SharedCounter {
    const SIZE: usize = size_of::<AtomicUsize>();

    fn new() -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses replaces no other.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, protection, flags, -1, 0) };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => Ok(Self(start)),
            Some(_) | None => Err(Errno::last()),
        }
    }

    const fn get(&self) -> &AtomicUsize {
        // SAFETY: mapped until `self` is dropped, aligned to a page, and initialised to zero by the kernel.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedCounter {
    fn drop(&mut self) {
        // SAFETY: `new` made this mapping, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast::<c_void>(), Self::SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use super::*;
    use crate::sys::{socket, stream, wait};

    /// Starts workers until `is_done`. Other tests use the queue, too.
    fn close_until(is_done: impl Fn() -> bool) {
        while !is_done() {
            if let Some(worker) = CloseWorker::start(2).unwrap() {
                while wait::reap(worker.pid()) == Err(Errno::EAGAIN) {
                    std::thread::yield_now();
                }
                worker.finish();
            }
        }
    }

    fn is_peer_closed(socket: &OwnedFd) -> bool {
        socket::receive(socket, &mut [0]) == Ok(0)
    }

    #[test]
    fn workers_close_all_queued_descriptors() {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..5).map(|_| stream::pair().unwrap()).unzip();
        deferred_close(theirs);
        close_until(|| ours.iter().all(is_peer_closed));
    }

    #[test]
    fn a_descriptor_that_a_worker_did_not_get_to_is_queued_again() {
        let (ours, theirs) = stream::pair().unwrap();
        let (descriptors, started) = (vec![-1, theirs.into_raw_fd()], SharedCounter::new().unwrap());
        started.get().store(1, Ordering::Release);
        CloseWorker { pid: crate::sys::process::id(), descriptors, started }.finish();
        close_until(|| is_peer_closed(&ours));
    }
}
