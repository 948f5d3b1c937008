//! Closing descriptors that other processes have passed to keepalive, or have too: close(2), socket(7), unix(7), clone(2).
//!
//! Closing the last copy of such a descriptor can take any time: a socket with `SO_LINGER` waits until its data has been sent,
//! and closing a unix socket closes the descriptors queued in it. Closing a pipe waits for a process that writes to it, and
//! that can be stopped by a page fault. So keepalive never closes the last copy itself. Descriptors wait in a queue for a
//! [`CloseWorker`], a process with copies of its own. It closes these when keepalive has closed its own, and when no other
//! child has copies any more: a child has copies of all descriptors until it closes them or executes its program.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::descriptor_copies::{self, Handover};
use super::{clock, fork, kill, signals, wait};
use crate::model::{Pid, ServiceIndex, Signal};

/// The time after which a descriptor hangs, so that a worker continues with the next one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The size of the stack of a closer, in bytes.
const STACK_SIZE: usize = 32 << 10;

static NEEDS_HOLDER: AtomicBool = AtomicBool::new(false);
static QUEUE: Mutex<VecDeque<(Owner, OwnedFd)>> = Mutex::new(VecDeque::new());

/// The service whose processes have the descriptor too, or can send others into it; `None`: it is not known.
pub type Owner = Option<ServiceIndex>;

fn queue() -> MutexGuard<'static, VecDeque<(Owner, OwnedFd)>> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues descriptors to be closed by a [`CloseWorker`].
pub fn deferred_close(owner: Owner, descriptors: impl IntoIterator<Item = OwnedFd>) {
    queue().extend(descriptors.into_iter().map(|descriptor| (owner, descriptor)));
}

/// A descriptor that is queued as by [`deferred_close`] when it is dropped.
#[derive(Debug)]
pub struct DeferredFd {
    owner: Owner,
    descriptor: ManuallyDrop<OwnedFd>,
}

impl DeferredFd {
    /// Takes a descriptor that the service has, too.
    #[must_use]
    pub fn new(service: ServiceIndex, descriptor: OwnedFd) -> Self {
        require_holder();
        Self { owner: Some(service), descriptor: ManuallyDrop::new(descriptor) }
    }
}

impl Deref for DeferredFd {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.descriptor
    }
}

impl Drop for DeferredFd {
    fn drop(&mut self) {
        // SAFETY: taken once, since nobody uses the value after it has been dropped.
        deferred_close(self.owner, [unsafe { ManuallyDrop::take(&mut self.descriptor) }]);
    }
}

/// keepalive has, or has had, the last copy of a descriptor whose close can hang: see [`fork::fork_sharing_fds`].
pub fn require_holder() {
    NEEDS_HOLDER.store(true, Ordering::Relaxed);
}

/// Whether keepalive needs a process that shares its descriptors.
#[must_use]
pub fn needs_holder() -> bool {
    NEEDS_HOLDER.load(Ordering::Relaxed) || !queue().is_empty()
}

/// How many descriptors of these owners are queued.
#[must_use]
pub fn queued(is_counted: impl Fn(Owner) -> bool) -> usize {
    queue().iter().filter(|(owner, _)| is_counted(*owner)).count()
}

/// A process that closes descriptors from the queue. It is reaped like any child.
#[derive(Debug)]
pub struct CloseWorker {
    pid: Pid,
    owner: Owner,
    /// The other copies.
    pub copies: Handover,
}

impl CloseWorker {
    /// Starts a worker for up to `count` descriptors of the first owner in the queue that may have another worker; `None`: there
    /// is none. It waits for [`Self::begin`].
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: the process cannot be created; the queue is unchanged.
    pub fn start(count: usize, may_have: impl Fn(Owner) -> bool) -> Result<Option<Self>, Errno> {
        let mut queue = queue();
        let Some(owner) = queue.iter().map(|(owner, _)| *owner).find(|owner| may_have(*owner)) else { return Ok(None) };
        let copies = descriptor_copies::begin_handover();
        let of_owner = queue.iter().filter(|(of, _)| *of == owner);
        let descriptors: Vec<BorrowedFd<'_>> = of_owner.take(count).map(|(_, descriptor)| descriptor.as_fd()).collect();
        // In a process of tests, which has several threads, a child cannot allocate.
        let numbers: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
        let pid = fork::fork_helper(&descriptors, || {
            fork::set_name(c"keepalive-close");
            wait_for_begin();
            close_all(&numbers);
            0
        })?;
        // Not the last copies: the worker has some.
        queue.retain(|(_, descriptor)| !numbers.contains(&descriptor.as_raw_fd()));
        Ok(Some(Self { pid, owner, copies }))
    }

    /// The worker's process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// The service whose descriptors it closes.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Lets the worker close its descriptors.
    pub fn begin(&self) {
        kill::signal_process(self.pid, Signal::USR1).ok();
    }
}

/// Runs in the worker.
fn wait_for_begin() {
    signals::block_all_but(&[]);
    while let Ok(received) = signals::wait_for(None) {
        if received.is_some_and(|received| received.signal == Signal::USR1) {
            return;
        }
    }
}

/// Runs in the worker: closes them in processes that share its memory and its descriptors, the next one of which continues
/// when one hangs. Returns when none hangs any more.
fn close_all(descriptors: &[RawFd]) {
    let work = Work { descriptors, next: AtomicUsize::new(0) };
    while work.next.load(Ordering::Acquire) < descriptors.len() {
        match start_closer(&work) {
            Ok(closer) => wait_or_kill(closer),
            Err(_) => work.close(),
        }
    }
    while nix::sys::wait::wait().is_ok() {}
}

/// Kills a closer that hangs: that ends the wait for a peer of a socket, but none for a file system.
fn wait_or_kill(closer: Pid) {
    let deadline = clock::now() + CLOSE_TIMEOUT;
    // SIGCHLD can be that of a closer that was killed before.
    while wait::reap(closer) == Err(Errno::EAGAIN) {
        let remaining = deadline.since(clock::now());
        if remaining.is_zero() {
            kill::signal_process(closer, Signal::KILL).ok();
            return;
        }
        signals::wait_for(Some(remaining)).ok();
    }
}

struct Work<'a> {
    descriptors: &'a [RawFd],
    /// The position of the next descriptor.
    next: AtomicUsize,
}

impl Work<'_> {
    fn close(&self) {
        let no_linger = libc::linger { l_onoff: 0, l_linger: 0 };
        while let Some(descriptor) = self.descriptors.get(self.next.fetch_add(1, Ordering::AcqRel)) {
            // SAFETY: the descriptor is open, it is the worker's own copy, and nobody else gets this position.
            let descriptor = unsafe { OwnedFd::from_raw_fd(*descriptor) };
            setsockopt(&descriptor, sockopt::Linger, &no_linger).ok();
        }
    }
}

/// Starts a closer: clone(2) `CLONE_VM`, `CLONE_FILES`. SIGCHLD comes when it has ended.
fn start_closer(work: &Work<'_>) -> Result<Pid, Errno> {
    extern "C" fn run(work: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `close_all` keeps it until all closers have ended.
        unsafe { &*work.cast::<Work<'_>>() }.close();
        0
    }
    let (protection, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at an address that the kernel chooses replaces no other.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), STACK_SIZE, protection, private, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD;
    let work = std::ptr::from_ref(work).cast_mut().cast();
    // SAFETY: the stack is large enough, aligned to pages, and never freed. `close_all` waits for the closer.
    let closer = Errno::result(unsafe { libc::clone(run, stack.wrapping_byte_add(STACK_SIZE), flags, work) })?;
    Pid::new(closer).ok_or(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{pipe, socket, stream};

    /// Starts workers until `is_done`. Other tests use the queue, too.
    fn close_until(is_done: impl Fn() -> bool) {
        while !is_done() {
            if let Some(worker) = CloseWorker::start(2, |_| true).unwrap() {
                finish(&worker);
            }
        }
    }

    fn finish(worker: &CloseWorker) {
        worker.begin();
        while wait::reap(worker.pid()) == Err(Errno::EAGAIN) {
            std::thread::yield_now();
        }
    }

    fn is_peer_closed(socket: &OwnedFd) -> bool {
        socket::receive(socket, &mut [0]) == Ok(0)
    }

    #[test]
    fn workers_close_all_queued_descriptors() {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..5).map(|_| stream::pair().unwrap()).unzip();
        deferred_close(None, theirs);
        close_until(|| ours.iter().all(is_peer_closed));
    }

    #[test]
    fn a_worker_waits_until_it_may_begin() {
        let (ours, theirs) = stream::pair().unwrap();
        deferred_close(None, [theirs]);
        // None: a worker of another test has the descriptor.
        let worker = CloseWorker::start(64, |_| true).unwrap();
        if let Some(worker) = &worker {
            assert!(!pipe::wait_for_input(&ours, Duration::from_millis(50)));
            finish(worker);
        }
        close_until(|| is_peer_closed(&ours));
    }
}
