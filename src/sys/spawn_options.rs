//! How a process is to be started: what [`super::spawn`] is given.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use super::signals::ChildSignals;
use super::strings::StringList;
use super::terminal::TerminalLookup;
use crate::model::plan::{Credentials, Limit};
use crate::model::{EnvFileError, Signal};

/// How long a child waits for its [`StoredDescriptors`]: longer than keepalive waits for the process that sends them.
pub(super) const STORED_TIMEOUT: Duration = Duration::from_secs(20);

/// The program and the attributes of a process to be started.
#[derive(Clone, Copy, Debug)]
pub struct SpawnOptions<'a> {
    /// Program and arguments. The program is searched for as execvp(3) does, in the `PATH` of `env`.
    pub argv: &'a StringList,
    /// The complete environment. If `LISTEN_PID` or `WATCHDOG_PID` is keepalive's own id, it becomes the child's.
    pub env: &'a StringList,
    /// Files that add variables to `env`.
    pub env_files: Option<&'a EnvFiles>,
    /// The working directory; `None`: inherited.
    pub cwd: Option<&'a CStr>,
    /// Session, process group and terminal.
    pub session: Session,
    /// stdin, stdout, stderr; `None`: the one that keepalive was started with, closed if it was closed.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
    /// Further descriptors: the number in the child, from 3 on and each at most once, and the descriptor to put there.
    pub descriptors: &'a [(u8, BorrowedFd<'a>)],
    /// Descriptors that another process sends.
    pub stored: Option<StoredDescriptors<'a>>,
    /// The number of one of `descriptors`, and the size in bytes that its file gets. ftruncate(2)
    pub resize: Option<(u8, u64)>,
    /// A file that the child opens before it executes the program.
    pub file: Option<OpenFile<'a>>,
    /// User and groups; `None`: inherited.
    pub credentials: Option<&'a Credentials>,
    /// umask(2); `None`: inherited.
    pub umask: Option<u32>,
    /// Limits that all descendants inherit, and that have no other effect; they may fail. setrlimit(2)
    pub mark: [Option<Limit>; 2],
    /// setrlimit(2).
    pub limits: &'a [Limit],
    /// setpriority(2); `None`: inherited.
    pub nice: Option<i8>,
    /// proc_pid_oom_score_adj(5); `None`: inherited.
    pub oom_score_adj: Option<i16>,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// The signal that the process gets when keepalive dies; `None`: no signal. prctl(2) `PR_SET_PDEATHSIG`
    pub death_signal: Option<Signal>,
    /// Signal mask and dispositions.
    pub signals: ChildSignals,
    /// Whether the result of execve(2) is reported on a pipe, if there is a free descriptor.
    pub reports_exec: bool,
}

/// Returns the variables of a file. The second argument is the environment, for `${VAR}`.
pub type ReadEnvFile = fn(&Path, &[(OsString, OsString)]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, EnvFileError>;

/// Files with variables that a child reads when it has become its user.
#[derive(Clone, Debug)]
pub struct EnvFiles {
    /// The absolute paths in the order in which they are read, and whether the file must exist.
    pub files: Vec<(CString, bool)>,
    /// How many variables, at the start of the environment, are not overridden by those of a file.
    pub fixed: usize,
    /// Reads a file. Its time must be limited, as it may be a FIFO.
    pub read: ReadEnvFile,
}

/// Descriptors that the child receives from another process before it executes the program. unix(7) `SCM_RIGHTS`
#[derive(Clone, Copy, Debug)]
pub struct StoredDescriptors<'a> {
    /// The stream socket over which they come.
    pub socket: BorrowedFd<'a>,
    /// The number of the first one, from 3 on. None of the numbers is among [`SpawnOptions::descriptors`].
    pub first: u8,
    /// How many there are. If fewer come, or none within [`STORED_TIMEOUT`], the start fails.
    pub count: u8,
}

/// A file that a process finds open for reading and writing. open(2), openat2(2)
///
/// Must be a regular file, and the last component of its path no symbolic link. It is opened with the rights of the user
/// that the process runs as. If it does not exist, it is created with mode 0600 for that user: with keepalive's rights if
/// no component of the path is a symbolic link, otherwise with the user's.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile<'a> {
    /// The absolute path.
    pub path: &'a CStr,
    /// The minimum size in bytes: a shorter file is extended with zeros.
    pub size: u64,
    /// The descriptor's number, from 3 on and not among [`SpawnOptions::descriptors`].
    pub number: u8,
}

/// The session and process group of a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// A new session without a terminal. setsid(2)
    NewSession,
    /// As `NewSession`, with the terminal on stdin as its controlling terminal if no other session has it.
    /// ioctl_tty(2) `TIOCSCTTY`
    NewSessionOnTerminal,
    /// The session and process group of keepalive.
    Same,
    /// A new process group in the session of keepalive. setpgid(2)
    NewGroup,
    /// As `NewGroup`. If keepalive's group is the foreground group of the terminal, the new group takes its place.
    /// tcsetpgrp(3)
    Foreground(TerminalLookup),
}
