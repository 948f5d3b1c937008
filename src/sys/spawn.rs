//! Starting a process: clone(2) and what has to be done between it and execve(2).
//!
//! The parent's half: everything that allocates or may fail is prepared here, so that the child's half
//! (`spawn_child.rs`) is system calls alone.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::path_search::{self, Search};
use super::signals::ChildSignals;
use super::spawn_child::{self, Job, OWN_IDS};
use super::strings::StringList;
use super::terminal::Reach;
use crate::model::plan::{Credentials, Limit};
use crate::model::{Pid, Signal, StartFailure, StartStep};

/// What the child's half needs at most, in bytes; it has no deep calls and no large locals.
const CHILD_STACK: usize = 16 * 1024;

#[repr(align(16))]
struct Stack([u8; CHILD_STACK]);

/// The child's stack. Not a piece of our own, which may be all but used up by a low `RLIMIT_STACK`; only the pages at its
/// top are ever touched. Held by one start at a time.
static STACK: Mutex<Stack> = Mutex::new(Stack([0; CHILD_STACK]));

/// How a process is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Program and arguments; the program is looked up as execvp(3) does, in the `PATH` of `env`.
    pub argv: &'a StringList,
    /// The complete environment. A `LISTEN_PID` or `WATCHDOG_PID` that is our own id becomes the child's.
    pub env: &'a StringList,
    /// The working directory; `None`: ours.
    pub cwd: Option<&'a CStr>,
    /// Session, process group and terminal.
    pub session: Session,
    /// stdin, stdout, stderr; `None`: as ours is, closed if we were started with it closed.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
    /// Which descriptors it has besides: the number, from 3 on, each once, and what it is to be.
    pub descriptors: &'a [(u8, BorrowedFd<'a>)],
    /// A file that it has open besides.
    pub file: Option<OpenFile<'a>>,
    /// Who it runs as; `None`: as we do.
    pub credentials: Option<&'a Credentials>,
    /// `None`: ours.
    pub umask: Option<u32>,
    /// setrlimit(2).
    pub limits: &'a [Limit],
    /// `None`: ours.
    pub nice: Option<i8>,
    /// `None`: ours.
    pub oom_score_adj: Option<i16>,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// What it gets when we die without having ended it; `None`: nothing. prctl(2) `PR_SET_PDEATHSIG`
    pub death_signal: Option<Signal>,
    /// Mask and dispositions.
    pub signals: ChildSignals,
}

/// A file that a process finds open for reading and writing. It is opened as the user that the process runs as.
///
/// A regular file, not by a symbolic link; made, for that user alone, if it is not there: in a directory that is not his, by
/// us, if no symbolic link leads there. open(2), openat2(2)
#[derive(Clone, Copy, Debug)]
pub struct OpenFile<'a> {
    /// Absolute.
    pub path: &'a CStr,
    /// It has so many bytes at least.
    pub size: u64,
    /// The descriptor, from 3 on; none of [`Setup::descriptors`].
    pub number: u8,
}

/// The session and process group of a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// A session of its own, without a terminal. setsid(2)
    NewSession,
    /// As `NewSession`, with the terminal on stdin as its controlling one, if there is one and it is nobody's.
    /// ioctl_tty(2) `TIOCSCTTY`
    NewSessionOnTerminal,
    /// Ours, and our group.
    Same,
    /// A process group of its own in our session. setpgid(2)
    NewGroup,
    /// As `NewGroup`; and if there is a terminal within reach and we are its foreground group, it takes that place.
    /// tcsetpgrp(3)
    Foreground(Reach),
}

/// What parent and child have in common until the child executes its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnMode {
    /// The memory, as after vfork(2): fastest, but we stand still until the child executes or fails.
    ///
    /// Not done for a process with other [`Credentials`], because a process of that user could stop the child before
    /// it executes and so hold us; it is started as with `Fork`.
    Vfork,
    /// Nothing: we go on at once and hear of the result later.
    Fork,
}

/// How far a start has come.
#[derive(Debug)]
pub enum Progress {
    /// The program runs.
    Executed,
    /// It does not. The process ends by itself, with 127, 126, or 71 if the system was short of something, and must be
    /// reaped as any other.
    Failed(StartFailure),
    /// Not known yet: ask [`progress`] when this is readable.
    Pending(OwnedFd),
}

/// Starts processes; keeps the memory for argument vectors from one to the next.
#[derive(Debug, Default)]
pub struct Spawner {
    candidates: StringList,
    candidate_pointers: Vec<*const c_char>,
    /// `[/bin/sh, argv…, NULL]`: the program's argv starts at 1; a script without `#!` is run with all of it.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Targets and sources.
    descriptors: Vec<[c_int; 2]>,
}

impl Spawner {
    /// Allocates nothing yet.
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

    /// Starts a process. All signals have to be blocked ([`super::signals::take_over`]): none is then lost or handled
    /// in the wrong process.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: no process could be made. EMFILE, ENFILE: no pipe.
    pub fn spawn(&mut self, setup: &Setup<'_>, spawn_mode: SpawnMode) -> Result<(Pid, Progress), Errno> {
        let search = self.prepare(setup);
        let mut job = Job::new(setup, search, own_ids(setup.env));
        job.candidates = self.candidate_pointers.as_ptr();
        job.shell_argv = self.argv.as_mut_ptr();
        job.envp = self.envp.as_mut_ptr();
        self.descriptors.clear();
        self.descriptors.extend(setup.descriptors.iter().map(|(target, fd)| [c_int::from(*target), fd.as_raw_fd()]));
        job.descriptors = self.descriptors.as_mut_ptr();
        if spawn_mode == SpawnMode::Vfork && setup.credentials.is_none() {
            return spawn_sharing_memory(&job);
        }
        spawn_sharing_nothing(job)
    }

    fn prepare(&mut self, setup: &Setup<'_>) -> Search {
        let program = setup.argv.get(0).unwrap_or_default();
        let search = path_search::candidates(program, || value_of(setup.env, b"PATH="), &mut self.candidates);
        self.candidate_pointers.clear();
        self.candidates.append_pointers(&mut self.candidate_pointers);
        self.candidate_pointers.push(std::ptr::null());
        self.argv.clear();
        self.argv.push(c"/bin/sh".as_ptr());
        setup.argv.append_pointers(&mut self.argv);
        // The child sets the second element for a script, even if there should be no argv[0].
        while self.argv.len() < 2 {
            self.argv.push(c"".as_ptr());
        }
        self.argv.push(std::ptr::null());
        self.envp.clear();
        setup.env.append_pointers(&mut self.envp);
        self.envp.push(std::ptr::null());
        search
    }
}

/// Where in an environment those of [`OWN_IDS`] stand that mean us. What was for us is passed on to the child.
fn own_ids(env: &StringList) -> [Option<usize>; OWN_IDS.len()] {
    OWN_IDS.map(|name| {
        let name = name.to_bytes();
        let value: i32 = str::from_utf8(value_of(env, name)?).ok()?.parse().ok()?;
        (value == super::process::id().get()).then(|| env.position(env.len(), name))?
    })
}

/// What `NAME=` is set to.
fn value_of<'a>(env: &'a StringList, name: &[u8]) -> Option<&'a [u8]> {
    env.get(env.position(env.len(), name)?)?.strip_prefix(name)
}

/// Asks a pending start again.
///
/// `None`: still pending.
#[must_use]
pub fn progress(pipe: BorrowedFd<'_>) -> Option<Progress> {
    let mut record = [0_u8; 8];
    match nix::unistd::read(pipe, &mut record) {
        Ok(8) => Some(Progress::Failed(decode_failure(u64::from_ne_bytes(record)))),
        Err(Errno::EAGAIN | Errno::EINTR) => None,
        Ok(_) | Err(_) => Some(Progress::Executed),
    }
}

fn spawn_sharing_memory(job: &Job<'_>) -> Result<(Pid, Progress), Errno> {
    let pid = clone(job, libc::CLONE_VM | libc::CLONE_VFORK)?;
    // The child has executed or ended by now; what it stored before is here, as it is the same memory.
    let progress = match job.failure.load(Ordering::Acquire) {
        0 => Progress::Executed,
        failure => Progress::Failed(decode_failure(failure)),
    };
    Ok((pid, progress))
}

fn spawn_sharing_nothing(mut job: Job<'_>) -> Result<(Pid, Progress), Errno> {
    let (read_end, write_end) = failure_pipe()?;
    *job.pipe.get_mut() = write_end.as_raw_fd();
    let pid = clone(&job, 0)?;
    drop(write_end);
    match progress(read_end.as_fd()) {
        Some(progress) => Ok((pid, progress)),
        None => Ok((pid, Progress::Pending(read_end))),
    }
}

/// A pipe that closes on execve; only our end does not block.
fn failure_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

fn clone(job: &Job<'_>, flags: i32) -> Result<Pid, Errno> {
    let mut stack = STACK.lock().unwrap_or_else(PoisonError::into_inner);
    let start: *mut c_void = stack.0.as_mut_ptr().cast();
    // SAFETY: one past the end of the array.
    let top = unsafe { start.byte_add(CHILD_STACK) };
    let argument = std::ptr::from_ref(job).cast_mut().cast();
    // SAFETY: the stack is large enough, aligned, and grows down from `top` on every architecture that we build for.
    // It is ours alone while we hold it. It and `job` outlive their use: without CLONE_VM the child has copies, with it (and
    // CLONE_VFORK) we do not return from here before the child has executed or ended. `run` is made for this: it only makes system calls.
    let pid = unsafe { libc::clone(spawn_child::run, top, flags | libc::SIGCHLD, argument) };
    let pid = Errno::result(pid)?;
    Pid::new(pid).ok_or(Errno::EAGAIN)
}

/// A failure in eight bytes, never all zero.
pub(super) const fn encode_failure(step: u8, detail: u8, errno: i32) -> u64 {
    (step as u64 + 1) << 40 | (detail as u64) << 32 | errno.unsigned_abs() as u64
}

pub(super) fn decode_failure(failure: u64) -> StartFailure {
    let [_, _, step, detail, errno @ ..] = failure.to_be_bytes();
    let step = match step {
        1 => StartStep::Session,
        2 => StartStep::Stdio,
        3 => StartStep::OomScoreAdj,
        4 => StartStep::Limit(detail),
        5 => StartStep::Nice,
        6 => StartStep::Groups,
        7 => StartStep::Group,
        8 => StartStep::User,
        9 => StartStep::Directory,
        10 => StartStep::NoNewPrivs,
        12 => StartStep::Descriptors,
        13 => StartStep::State,
        _ => StartStep::Exec,
    };
    StartFailure { step, errno: Errno::from_raw(i32::from_be_bytes(errno)) }
}

/// Whether a file system is mounted on which execve(2) or chdir(2) may wait for ever, so that starts should share
/// [`SpawnMode::Fork`]. True if it cannot be told. proc_pid_mountinfo(5)
#[must_use]
pub fn mounts_can_hang() -> bool {
    std::fs::read("/proc/self/mountinfo").map_or(true, |mounts| any_can_hang(&mounts))
}

fn any_can_hang(mounts: &[u8]) -> bool {
    mounts.split(|byte| *byte == b'\n').any(|line| file_system_type(line).is_some_and(can_hang))
}

/// The field after the lone `-`; the ones before it have no blanks in them.
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

/// For [`Job`]: where a child that shares our memory leaves its failure.
pub(super) type Failure = AtomicU64;
