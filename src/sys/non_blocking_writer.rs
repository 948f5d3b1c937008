//! Writing to an inherited descriptor without ever waiting: pwritev2(2), send(2), poll(2).
//!
//! `O_NONBLOCK` belongs to the open file description, which other processes share, so keepalive never sets it there. It
//! opens a pipe or terminal again instead, for an open file description of its own. Where that is not permitted, it uses
//! writes that fail rather than block.

use std::ffi::{CString, c_int};
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;

// The methods of writing. A value from 0 on is the private descriptor of a pipe or terminal that was opened again.

/// write(2): a regular file, which does not block.
const DIRECT: i32 = -2;
/// send(2) with `MSG_DONTWAIT`.
pub(super) const SOCKET: i32 = -3;
/// pwritev2(2) with `RWF_NOWAIT`: a pipe or terminal that could not be opened again.
const NOWAIT: i32 = -4;
const CLOSED: i32 = -5;

/// How keepalive's own messages are written to stderr: a method, or [`NONE`] before the first one. Static, because stderr
/// belongs to the process.
pub(super) static STDERR_METHOD: AtomicI32 = AtomicI32::new(NONE);
/// The socket of the helper process that writes them, or [`NONE`].
pub(super) static STDERR_WRITER: AtomicI32 = AtomicI32::new(NONE);
pub(super) const NONE: i32 = -1;

/// The descriptors that were opened for messages. Functions that close all descriptors keep them open.
pub(super) fn private_descriptors() -> impl Iterator<Item = RawFd> + Clone {
    [&STDERR_METHOD, &STDERR_WRITER].into_iter().map(|fd| fd.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Writes to stdout or stderr, which are never closed.
#[derive(Clone, Copy, Debug)]
pub struct NonBlockingWriter {
    fd: RawFd,
    method: i32,
}

impl NonBlockingWriter {
    /// Detects how to write to `fd` without waiting. `fd` must stay open until the process exits.
    #[must_use]
    pub fn new(fd: RawFd) -> Self {
        Self { fd, method: detect_method(fd) }
    }

    /// Writes as much as possible without waiting and returns the number of bytes written.
    ///
    /// # Errors
    /// EAGAIN: nothing can be written now. EPIPE, EBADF, EIO: nothing can ever be written again. ENOSPC and the other errors
    /// of write(2).
    pub fn write(&self, text: &[u8]) -> Result<usize, Errno> {
        write_some(self.fd, self.method, text)
    }

    /// The descriptor to poll for writability.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'static> {
        let fd = if self.method >= 0 { self.method } else { self.fd };
        // SAFETY: the private descriptor is never closed, and the caller of `new` guarantees the same for `fd`.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Whether both write to the same pipe, terminal, socket or file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        are_same(self.descriptor(), other.descriptor())
    }

    /// isatty(3)
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        use std::io::IsTerminal;
        self.descriptor().is_terminal()
    }
}

/// Whether stdout and stderr of this process are the same pipe, terminal, socket or file.
#[must_use]
pub fn stdout_is_stderr() -> bool {
    are_same(std::io::stdout().as_fd(), std::io::stderr().as_fd())
}

fn are_same(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> bool {
    let identity = |fd| nix::sys::stat::fstat(fd).map(|status| (status.st_dev, status.st_ino, status.st_rdev));
    matches!((identity(first), identity(second)), (Ok(first), Ok(second)) if first == second)
}

/// Writes as much as one system call can write without waiting.
pub(super) fn write_some(fd: RawFd, method: i32, text: &[u8]) -> Result<usize, Errno> {
    let (start, length) = (text.as_ptr().cast(), text.len());
    let written = match method {
        CLOSED => return Err(Errno::EBADF),
        // SAFETY: `length` bytes may be read from `start`.
        DIRECT => unsafe { libc::write(fd, start, length) },
        // SAFETY: as above.
        SOCKET => unsafe { libc::send(fd, start, length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) },
        NOWAIT => return write_nowait(fd, text),
        // SAFETY: as above.
        private => unsafe { libc::write(private, start, length) },
    };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

/// pwritev2(2) with `RWF_NOWAIT`. Where that is not supported: poll(2), then at most `PIPE_BUF` bytes, for which a writable
/// pipe has room.
pub(super) fn write_nowait(fd: RawFd, text: &[u8]) -> Result<usize, Errno> {
    const CURRENT_POSITION: i64 = -1;
    const RWF_NOWAIT: c_int = 8;
    let (start, length) = (text.as_ptr().cast_mut().cast(), text.len());
    let part = libc::iovec { iov_base: start, iov_len: length };
    // Arguments as wide as a register: the upper half of a narrower one would be undefined.
    let (parts, low, high) = (1_usize, CURRENT_POSITION, 0_usize);
    // SAFETY: `part` is one valid iovec with `length` readable bytes.
    let written = unsafe { libc::syscall(libc::SYS_pwritev2, fd, &raw const part, parts, low, high, RWF_NOWAIT) };
    match Errno::result(written) {
        Ok(written) => return Ok(usize::try_from(written).unwrap_or(0)),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ESPIPE) => {}
        Err(errno) => return Err(errno),
    }
    if !is_writable(fd, 0) {
        return Err(Errno::EAGAIN);
    }
    let length = length.min(libc::PIPE_BUF);
    // SAFETY: `length` bytes may be read from `start`.
    let written = unsafe { libc::write(fd, start, length) };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

pub(super) fn detect_method(fd: RawFd) -> i32 {
    // SAFETY: used only for this fstat(2), which reports a closed descriptor as EBADF.
    let status = match nix::sys::stat::fstat(unsafe { BorrowedFd::borrow_raw(fd) }) {
        Ok(status) => status,
        Err(Errno::EBADF) => return CLOSED,
        // A sandbox refuses the call.
        Err(_) => return NOWAIT,
    };
    match status.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => SOCKET,
        libc::S_IFIFO | libc::S_IFCHR => reopen_nonblocking(fd),
        _ => DIRECT,
    }
}

fn reopen_nonblocking(fd: RawFd) -> i32 {
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let path = CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    // SAFETY: the path is NUL-terminated; the other arguments are plain flags.
    let private = unsafe { libc::open(path.as_ptr(), flags) };
    if private < 0 { NOWAIT } else { private }
}

pub(super) fn is_writable(fd: RawFd, milliseconds: c_int) -> bool {
    let mut descriptor = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer refers to one valid entry.
    unsafe { libc::poll(&raw mut descriptor, 1, milliseconds) > 0 }
}
