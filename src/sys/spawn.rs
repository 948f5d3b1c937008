//! Starting a process, clone(2): the parent's half.
//!
//! Everything that allocates is prepared here, so that the child's half (`spawn_child.rs`, between clone(2) and
//! execve(2)) only makes system calls.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::exec_failure;
use super::path_search::{self, PathSearch};
use super::spawn_child::{self, ChildContext, PID_VARIABLES};
use super::spawn_options::SpawnOptions;
use super::strings::StringList;
use crate::model::{Pid, StartFailure};

/// The size of the child's stack in bytes. The child's half has no deep calls and no large locals.
const CHILD_STACK_SIZE: usize = 16 * 1024;

#[repr(align(16))]
struct Stack([u8; CHILD_STACK_SIZE]);

/// The child's stack. It is not part of the parent's stack, of which a low `RLIMIT_STACK` may leave too little. Only the
/// pages at its top are ever written. Locked for the duration of one clone(2).
static STACK: Mutex<Stack> = Mutex::new(Stack([0; CHILD_STACK_SIZE]));

/// What the child shares with the parent until it executes its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnMode {
    /// The memory, as with vfork(2): fastest, but the parent is suspended until the child executes or fails.
    ///
    /// A process with other credentials is started with `Fork` instead: another process of that user could stop the
    /// child before it executes, and the parent with it.
    Vfork,
    /// Nothing, as with fork(2): the parent continues at once and learns the result later.
    Fork,
}

/// Whether the child has executed its program.
#[derive(Debug)]
pub enum ExecResult {
    /// The program runs.
    Executed,
    /// The program could not be executed. The process exits with 127, 126, or 71 (a resource shortage), and must be
    /// reaped like any other.
    Failed(StartFailure),
    /// Not known yet. When this descriptor is readable, call [`poll_exec_result`].
    Pending(OwnedFd),
}

/// Starts processes. Reuses the memory for argument vectors.
#[derive(Debug, Default)]
pub struct Spawner {
    candidates: StringList,
    candidate_pointers: Vec<*const c_char>,
    /// `[/bin/sh, argv…, NULL]`: the program gets the vector from index 1 on, a shell that runs a script without `#!`
    /// gets all of it.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Pairs of target and source.
    descriptors: Vec<[c_int; 2]>,
}

impl Spawner {
    /// Makes a spawner without allocating memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            candidates: StringList::new(),
            candidate_pointers: Vec::new(),
            argv: Vec::new(),
            envp: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Starts a process. All signals must be blocked ([`super::signals::block_all`]), so that none is lost or handled in
    /// the wrong process.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: the process cannot be created. EMFILE, ENFILE: the pipe cannot be created.
    pub fn spawn(&mut self, options: &SpawnOptions<'_>, spawn_mode: SpawnMode) -> Result<(Pid, ExecResult), Errno> {
        let search = self.prepare(options);
        let mut context = ChildContext::new(options, search, pid_variables(options.env));
        context.candidates = self.candidate_pointers.as_ptr();
        context.shell_argv = self.argv.as_mut_ptr();
        context.envp = self.envp.as_mut_ptr();
        self.descriptors.clear();
        self.descriptors.extend(options.descriptors.iter().map(|(target, fd)| [c_int::from(*target), fd.as_raw_fd()]));
        context.descriptors = self.descriptors.as_mut_ptr();
        if spawn_mode == SpawnMode::Vfork && options.credentials.is_none() {
            return spawn_sharing_memory(&context);
        }
        spawn_sharing_nothing(context)
    }

    fn prepare(&mut self, options: &SpawnOptions<'_>) -> PathSearch {
        let program = options.argv.get(0).unwrap_or_default();
        let search = path_search::candidates(program, || value_of(options.env, b"PATH="), &mut self.candidates);
        self.candidate_pointers.clear();
        self.candidates.append_pointers(&mut self.candidate_pointers);
        self.candidate_pointers.push(std::ptr::null());
        self.argv.clear();
        self.argv.push(c"/bin/sh".as_ptr());
        options.argv.append_pointers(&mut self.argv);
        // For a script the child overwrites the second element, so there must be one even without an argv[0].
        while self.argv.len() < 2 {
            self.argv.push(c"".as_ptr());
        }
        self.argv.push(std::ptr::null());
        self.envp.clear();
        options.env.append_pointers(&mut self.envp);
        self.envp.push(std::ptr::null());
        search
    }
}

/// The positions in `env` of those [`PID_VARIABLES`] that hold keepalive's own id: the child's id replaces it.
fn pid_variables(env: &StringList) -> [Option<usize>; PID_VARIABLES.len()] {
    PID_VARIABLES.map(|name| {
        let name = name.to_bytes();
        let value: i32 = str::from_utf8(value_of(env, name)?).ok()?.parse().ok()?;
        (value == super::process::id().get()).then(|| env.position(env.len(), name))?
    })
}

/// The value of the variable `name`, which includes the `=`.
fn value_of<'a>(env: &'a StringList, name: &[u8]) -> Option<&'a [u8]> {
    env.get(env.position(env.len(), name)?)?.strip_prefix(name)
}

/// Reads the result of a pending start; `None`: still pending.
#[must_use]
pub fn poll_exec_result(pipe: BorrowedFd<'_>) -> Option<ExecResult> {
    let mut record = [0_u8; 8];
    match nix::unistd::read(pipe, &mut record) {
        Ok(8) => Some(ExecResult::Failed(exec_failure::decode(u64::from_ne_bytes(record)))),
        Err(Errno::EAGAIN | Errno::EINTR) => None,
        Ok(_) | Err(_) => Some(ExecResult::Executed),
    }
}

fn spawn_sharing_memory(context: &ChildContext<'_>) -> Result<(Pid, ExecResult), Errno> {
    let pid = clone(context, libc::CLONE_VM | libc::CLONE_VFORK)?;
    // The child has executed or exited by now. It stored its failure in the memory that it shares with the parent.
    let exec_result = match context.failure.load(Ordering::Acquire) {
        0 => ExecResult::Executed,
        failure => ExecResult::Failed(exec_failure::decode(failure)),
    };
    Ok((pid, exec_result))
}

fn spawn_sharing_nothing(mut context: ChildContext<'_>) -> Result<(Pid, ExecResult), Errno> {
    let (read_end, write_end) = failure_pipe()?;
    *context.pipe.get_mut() = write_end.as_raw_fd();
    let pid = clone(&context, 0)?;
    drop(write_end);
    match poll_exec_result(read_end.as_fd()) {
        Some(exec_result) => Ok((pid, exec_result)),
        None => Ok((pid, ExecResult::Pending(read_end))),
    }
}

/// A close-on-exec pipe. Only the read end is non-blocking.
fn failure_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

fn clone(context: &ChildContext<'_>, flags: i32) -> Result<Pid, Errno> {
    let mut stack = STACK.lock().unwrap_or_else(PoisonError::into_inner);
    let start: *mut c_void = stack.0.as_mut_ptr().cast();
    // SAFETY: one past the end of the array.
    let top = unsafe { start.byte_add(CHILD_STACK_SIZE) };
    let argument = std::ptr::from_ref(context).cast_mut().cast();
    // SAFETY: the stack is large enough, aligned, and grows down from `top` on every supported architecture. The lock
    // makes this call its only user. The stack and `context` outlive their use: without CLONE_VM the child has copies;
    // with CLONE_VM and CLONE_VFORK this call returns only after the child has executed or exited. `run` only makes
    // system calls.
    let pid = unsafe { libc::clone(spawn_child::run, top, flags | libc::SIGCHLD, argument) };
    let pid = Errno::result(pid)?;
    Pid::new(pid).ok_or(Errno::EAGAIN)
}

/// Whether a file system is mounted on which execve(2) or chdir(2) can hang, so that processes should be started with
/// [`SpawnMode::Fork`]. True if the mounts cannot be read. proc_pid_mountinfo(5)
#[must_use]
pub fn mounts_can_hang() -> bool {
    std::fs::read("/proc/self/mountinfo").map_or(true, |mounts| any_can_hang(&mounts))
}

fn any_can_hang(mounts: &[u8]) -> bool {
    mounts.split(|byte| *byte == b'\n').any(|line| file_system_type(line).is_some_and(can_hang))
}

/// The field after the one that is just `-`. No field before it contains a space.
fn file_system_type(line: &[u8]) -> Option<&[u8]> {
    let mut fields = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
    fields.next()?;
    fields.next()
}

fn can_hang(file_system: &[u8]) -> bool {
    const REMOTE: [&[u8]; 23] = [
        b"nfs",
        b"nfs4",
        b"cifs",
        b"smb3",
        b"smbfs",
        b"ncpfs",
        b"ceph",
        b"fuse",
        b"fuseblk",
        b"9p",
        b"virtiofs",
        b"glusterfs",
        b"lustre",
        b"afs",
        b"coda",
        b"gfs",
        b"gfs2",
        b"ocfs2",
        b"beegfs",
        b"gpfs",
        b"orangefs",
        b"pvfs2",
        b"autofs",
    ];
    REMOTE.contains(&file_system) || file_system.starts_with(b"fuse.")
}

#[cfg(test)]
#[path = "spawn_tests.rs"]
mod tests;
