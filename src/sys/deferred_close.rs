//! Closing descriptors that other processes have passed to keepalive, or have too: close(2), dup(2), socket(7), unix(7), clone(2).
//!
//! Closing the last copy of such a descriptor can take any time: a socket with `SO_LINGER` waits until its data has been sent,
//! and closing a unix socket closes the descriptors queued in it. Closing a pipe waits for a process that writes to it, and
//! that can be stopped by a page fault. So keepalive never closes one itself: it cannot know that its copy is not the last
//! one, since a process of its own user can kill its helpers at any time. Descriptors wait in a queue, and then:
//!
//! 1. A [`CloseWorker`] is forked, a process with copies of its own.
//! 2. A remover is forked, a process that shares keepalive's table of descriptors. It replaces each one by a copy of a harmless
//!    descriptor, dup3(2), which anybody can close. The kernel takes the old one out of the table first and closes it then, in
//!    the remover. So it is the remover that hangs if the worker has been killed meanwhile; and if the remover is killed, too,
//!    another one does the same again.
//! 3. When the remover has exited, keepalive closes the harmless copies. Until then the numbers are taken: nothing else can get
//!    one that is still to be replaced.
//! 4. The worker closes its copies when no other child has any more: a child has copies of all descriptors until it closes them
//!    or executes its program. It would hang there if its copy were the last one.
//!
//! If keepalive is killed, or exits, its table is still that of the holder, see [`fork::fork_holder`]: it closes nothing.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::descriptor_copies::{self, Handover};
use super::{clock, fork, kill, process, signals, wait};
use crate::model::{ExitStatus, Pid, ServiceIndex, Signal};

/// The time after which a descriptor hangs, so that a worker continues with the next one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a worker that waits looks whether keepalive is still there.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);
/// The size of the stack of a closer, in bytes.
const STACK_SIZE: usize = 32 << 10;

static NEEDS_HOLDER: AtomicBool = AtomicBool::new(false);
static QUEUE: Mutex<VecDeque<Queued>> = Mutex::new(VecDeque::new());

/// Whose processes have the descriptor too, or can send others into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This service.
    Service(ServiceIndex),
    /// A client with this user id.
    User(u32),
    /// It is not known.
    Unknown,
}

/// A descriptor that keepalive still has.
struct Queued {
    owner: Owner,
    /// Not an `OwnedFd`: dropping that would close it.
    number: RawFd,
    has_worker: bool,
}

fn queue() -> MutexGuard<'static, VecDeque<Queued>> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues descriptors to be closed by a [`CloseWorker`].
pub fn deferred_close(owner: Owner, descriptors: impl IntoIterator<Item = OwnedFd>) {
    let numbers = descriptors.into_iter().map(IntoRawFd::into_raw_fd);
    queue().extend(numbers.map(|number| Queued { owner, number, has_worker: false }));
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
        Self { owner: Owner::Service(service), descriptor: ManuallyDrop::new(descriptor) }
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

/// keepalive has, or has had, the last copy of a descriptor whose close can hang: see [`fork::fork_holder`].
pub fn require_holder() {
    NEEDS_HOLDER.store(true, Ordering::Relaxed);
}

/// Whether keepalive needs a process that shares its descriptors.
#[must_use]
pub fn needs_holder() -> bool {
    NEEDS_HOLDER.load(Ordering::Relaxed) || !queue().is_empty()
}

/// How many descriptors of these owners keepalive still has.
#[must_use]
pub fn queued(is_counted: impl Fn(Owner) -> bool) -> usize {
    queue().iter().filter(|queued| is_counted(queued.owner)).count()
}

/// Whether descriptors of these owners wait for a worker.
#[must_use]
pub fn are_waiting(is_counted: impl Fn(Owner) -> bool) -> bool {
    queue().iter().any(|queued| !queued.has_worker && is_counted(queued.owner))
}

/// A process that closes descriptors from the queue, and one that removes them from keepalive's table. Both are reaped like any
/// child.
#[derive(Debug)]
pub struct CloseWorker {
    /// `None`: it is dead.
    pid: Option<Pid>,
    owner: Owner,
    remover: Option<Pid>,
    /// Those that keepalive still has.
    numbers: Vec<RawFd>,
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
        let mut waiting =
            queue.iter_mut().filter(|queued| !queued.has_worker).skip_while(|queued| !may_have(queued.owner));
        let Some(first) = waiting.next() else { return Ok(None) };
        let owner = first.owner;
        let others = waiting.filter(|queued| queued.owner == owner);
        let mut chosen: Vec<&mut Queued> = std::iter::once(first).chain(others).take(count).collect();
        let copies = descriptor_copies::begin_handover();
        // In a process of tests, which has several threads, a child cannot allocate.
        let numbers: Vec<RawFd> = chosen.iter().map(|queued| queued.number).collect();
        // SAFETY: queued descriptors are open until `on_removed`.
        let kept: Vec<BorrowedFd<'_>> =
            numbers.iter().map(|number| unsafe { BorrowedFd::borrow_raw(*number) }).collect();
        let keepalive = process::id();
        let pid = fork::fork_helper(&kept, || {
            fork::set_name(c"keepalive-close");
            wait_for_begin(keepalive);
            close_all(&numbers);
            0
        })?;
        chosen.iter_mut().for_each(|queued| queued.has_worker = true);
        Ok(Some(Self { pid: Some(pid), owner, remover: None, numbers, copies }))
    }

    /// Starts the remover. `harmless`: anybody can close it.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: the process cannot be created.
    pub fn start_remover(&mut self, harmless: impl AsFd) -> Result<(), Errno> {
        let (numbers, harmless) = (&self.numbers, harmless.as_fd().as_raw_fd());
        let remover = fork::fork_sharing_fds(|| {
            fork::set_name(c"keepalive-close");
            // SAFETY: nobody uses these descriptors any more.
            let replace = |number: &RawFd| unsafe { libc::dup3(harmless, *number, libc::O_CLOEXEC) } == *number;
            u8::from(!numbers.iter().all(replace))
        })?;
        self.remover = Some(remover);
        Ok(())
    }

    /// Whether `pid` is the worker or the remover.
    #[must_use]
    pub fn has(&self, pid: Pid) -> bool {
        self.pid == Some(pid) || self.remover == Some(pid)
    }

    /// Its remover, while that is running.
    #[must_use]
    pub const fn remover(&self) -> Option<Pid> {
        self.remover
    }

    /// The worker or the remover has been reaped.
    pub fn on_reaped(&mut self, pid: Pid, status: ExitStatus) {
        if self.pid == Some(pid) {
            self.pid = None;
            return;
        }
        self.remover = None;
        if status == ExitStatus::Code(0) {
            let numbers = std::mem::take(&mut self.numbers);
            queue().retain(|queued| !numbers.contains(&queued.number));
            // SAFETY: the numbers are those of copies of the harmless descriptor, and no longer queued.
            numbers.into_iter().for_each(|number| drop(unsafe { OwnedFd::from_raw_fd(number) }));
            self.copies.extend();
        }
    }

    /// Whether keepalive has the descriptors no more.
    #[must_use]
    pub const fn has_removed(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether all is done.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.pid.is_none() && self.has_removed()
    }

    /// Whose descriptors it closes.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Lets the worker close its descriptors.
    pub fn begin(&self) {
        self.pid.map(|pid| kill::signal_process(pid, Signal::USR1));
    }
}

/// Runs in the worker. It is killed when keepalive dies; where getppid(2) is refused, not if that has been a moment before.
fn wait_for_begin(keepalive: Pid) {
    signals::block_all_but(&[]);
    while let Ok(received) = signals::wait_for(Some(LIVENESS_INTERVAL)) {
        let is_over = match received {
            Some(received) => received.signal == Signal::USR1,
            None => !kill::exists(keepalive),
        };
        if is_over {
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
impl CloseWorker {
    /// Removes its descriptors from the table.
    fn remove(&mut self) {
        let (harmless, _) = nix::unistd::pipe().unwrap();
        while !self.has_removed() {
            self.start_remover(&harmless).unwrap();
            self.reap(self.remover.unwrap());
        }
    }

    /// Lets it do all that it has to do.
    pub(super) fn finish(&mut self) {
        self.remove();
        self.begin();
        self.reap(self.pid.unwrap());
    }

    fn reap(&mut self, pid: Pid) {
        let status = loop {
            match wait::reap(pid) {
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                ended => break ended.unwrap().status,
            }
        };
        self.on_reaped(pid, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{pipe, socket, stream};

    /// Starts workers until `is_done`. Other tests use the queue, too.
    fn close_until(is_done: impl Fn() -> bool) {
        while !is_done() {
            if let Some(mut worker) = CloseWorker::start(2, |_| true).unwrap() {
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
        deferred_close(Owner::Unknown, theirs);
        close_until(|| ours.iter().all(is_peer_closed));
    }

    #[test]
    fn a_worker_waits_until_it_may_begin() {
        let (ours, theirs) = stream::pair().unwrap();
        deferred_close(Owner::Unknown, [theirs]);
        // None: a worker of another test has the descriptor.
        let worker = CloseWorker::start(64, |_| true).unwrap();
        if let Some(mut worker) = worker {
            worker.remove();
            assert!(!pipe::wait_for_input(&ours, Duration::from_millis(50)));
            worker.finish();
        }
        close_until(|| is_peer_closed(&ours));
    }
}
