//! Starting a process, clone(2): the parent's half.
//!
//! Everything that allocates is prepared here, so that the child's half (`spawn_child.rs`, between clone(2) and
//! execve(2)) only makes system calls.
//!
//! The child shares the parent's memory, so that nothing is copied, as with vfork(2), but the parent does not wait for it:
//! the child may be stopped, hang in a file system, or get no time on a busy machine. So the child has a stack and copies of
//! all that it needs in memory of its own, which is kept until it has executed its program or has been reaped.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;

use super::child_memory::ChildMemory;
use super::descriptor_copies::DescriptorCopies;
use super::exec_failure;
use super::spawn_child;
use super::spawn_options::SpawnOptions;
use crate::model::{Pid, StartFailure};

/// Starts processes.
#[derive(Debug, Default)]
pub struct Spawner {
    /// The memory of an earlier child, for the next one.
    spare: Option<Box<ChildMemory>>,
    sharing: Sharing,
}

/// The children that share keepalive's memory now, except those of [`SpawnOptions::reports_exec`] `false`.
///
/// Meanwhile keepalive is not dumpable, PR_SET_DUMPABLE(2const). So nobody can trace a child that has become another user
/// already and read or write keepalive's memory through it. And before Linux 5.16 a child that dumps core takes all processes
/// with it that share its memory.
#[derive(Debug, Default)]
struct Sharing {
    children: usize,
    /// What keepalive was before.
    was_dumpable: bool,
}

/// Whether a child has executed its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecResult {
    /// The program runs.
    Executed,
    /// The program could not be executed. The process exits with 127, 126, or 71 (a resource shortage), and must be
    /// reaped like any other.
    Failed(StartFailure),
}

/// A child that has not executed its program yet, as far as is known.
///
/// When its pipe is readable, call [`Self::poll`]. At the end give it back with [`Spawner::reclaim`]. If it is dropped before
/// that, the memory of the child is never freed.
#[derive(Debug)]
pub struct PendingExec {
    /// The child writes a failure to this pipe. execve(2) closes its other end.
    pipe: Option<OwnedFd>,
    memory: NonNull<ChildMemory>,
    pid: Pid,
    /// [`Sharing`] counts the child.
    is_counted: bool,
    /// Until it has executed its program.
    _copies: Option<DescriptorCopies>,
    /// The child has reported a failure.
    has_failed: bool,
    /// The child does not use the memory any more.
    is_over: bool,
}

impl Spawner {
    /// Makes a spawner without allocating memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { spare: None, sharing: Sharing { children: 0, was_dumpable: false } }
    }

    /// Starts a process. All signals must be blocked ([`super::signals::block_all`]), so that none is lost or handled in
    /// the wrong process.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: the process cannot be created.
    pub fn spawn(&mut self, options: &SpawnOptions<'_>) -> Result<(Pid, PendingExec), Errno> {
        // A process can be started without a free descriptor, too.
        let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok().filter(|_| options.reports_exec);
        let (pipe, write_end) = pipe.unzip();
        let mut memory = self.spare.take().unwrap_or_else(|| Box::new(ChildMemory::new()));
        memory.fill(options, write_end.as_ref().map_or(-1, AsRawFd::as_raw_fd));
        let is_counted = options.reports_exec;
        if is_counted {
            self.sharing.begin();
        }
        let copies = is_counted.then(DescriptorCopies::new);
        match clone(&mut memory, flags_for(options)) {
            Ok(pid) => {
                let memory = NonNull::from(Box::leak(memory));
                Ok((
                    pid,
                    PendingExec { pipe, memory, pid, is_counted, _copies: copies, has_failed: false, is_over: false },
                ))
            }
            Err(errno) => {
                if is_counted {
                    self.sharing.end();
                }
                self.spare = Some(memory);
                Err(errno)
            }
        }
    }

    /// Takes back the memory of a child that has executed its program or has been reaped. Otherwise it is never freed.
    pub fn reclaim(&mut self, pending: PendingExec) {
        if pending.is_over {
            // SAFETY: `spawn` has leaked the box, and the child, its only user, does not use it any more.
            self.spare = Some(unsafe { Box::from_raw(pending.memory.as_ptr()) });
            if pending.is_counted {
                self.sharing.end();
            }
        }
    }
}

impl Sharing {
    /// A child is going to be created.
    fn begin(&mut self) {
        if self.children == 0 {
            self.was_dumpable = prctl::get_dumpable() == Ok(true);
            prctl::set_dumpable(false).ok();
        }
        self.children += 1;
    }

    /// A child does not share the memory any more.
    fn end(&mut self) {
        self.children = self.children.saturating_sub(1);
        if self.children == 0 && self.was_dumpable {
            prctl::set_dumpable(true).ok();
        }
    }
}

impl PendingExec {
    /// The pipe that becomes readable; `None`: the result is known only when the child has been reaped.
    #[must_use]
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Whether the child has executed its program; `None`: not known yet. A failure is returned once, and then the child
    /// exits.
    pub fn poll(&mut self) -> Option<ExecResult> {
        let mut record = [0_u8; exec_failure::RECORD_SIZE];
        match nix::unistd::read(self.pipe.as_ref()?, &mut record) {
            Ok(exec_failure::RECORD_SIZE) => {
                self.has_failed = true;
                let (failure, name) = record.split_first_chunk()?;
                Some(ExecResult::Failed(exec_failure::decode(u64::from_ne_bytes(*failure), name)))
            }
            // The kernel closes the other end after the child has got, or has given up, its memory.
            Ok(_) => {
                self.is_over = true;
                (!self.has_failed).then_some(ExecResult::Executed)
            }
            Err(_) => None,
        }
    }

    /// The child.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// The child has executed its program, as is known from elsewhere.
    pub const fn on_executed(&mut self) {
        self.is_over = true;
    }

    /// The child has been reaped. Returns why it has not executed its program, if it shared keepalive's memory.
    pub fn on_reaped(&mut self) -> Option<StartFailure> {
        self.is_over = true;
        // SAFETY: `spawn` has leaked the box, and only `reclaim`, which takes `self`, frees it.
        unsafe { self.memory.as_ref() }.failure()
    }
}

/// The flags of clone(2) besides the signal.
///
/// A process that shares its memory with another one also shares its `oom_score_adj`, unless it was made by vfork(2):
/// proc_pid_oom_score_adj(5). So a child that sets it gets a copy of the memory, as with fork(2), which takes longer; and so
/// does a child that reads files, because it allocates.
const fn flags_for(options: &SpawnOptions<'_>) -> c_int {
    if options.oom_score_adj.is_some() || options.env_files.is_some() { 0 } else { libc::CLONE_VM }
}

fn clone(memory: &mut ChildMemory, flags: c_int) -> Result<Pid, Errno> {
    let top = memory.stack_top();
    let argument = std::ptr::from_mut(memory).cast();
    // SAFETY: the stack is large enough and aligned. `spawn` keeps the memory until the child does not use it any more; the
    // child of a clone without CLONE_VM has a copy. `run` only makes system calls.
    let pid = unsafe { libc::clone(spawn_child::run, top, flags | libc::SIGCHLD, argument) };
    let pid = Errno::result(pid)?;
    Pid::new(pid).ok_or(Errno::EAGAIN)
}

/// Executes a program in place of keepalive, without a new process. Returns only if that fails: keepalive may be another user
/// then, and must exit. execve(2)
#[must_use]
pub fn replace_process(options: &SpawnOptions<'_>) -> StartFailure {
    let mut memory = ChildMemory::new();
    memory.fill(options, -1);
    exec_failure::decode(spawn_child::become_program(&memory), &memory.name.get())
}

#[cfg(test)]
#[path = "spawn_tests.rs"]
mod tests;
