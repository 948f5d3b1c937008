//! Writing to a descriptor that others use too without ever waiting: pwritev2(2), send(2), poll(2).
//!
//! `O_NONBLOCK` belongs to the open file description that every process shares, so it is never set there: a pipe or
//! terminal is opened anew, for a description of our own. Where that is refused, the kernel is asked first.

use std::ffi::{CString, c_int};
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;

/// Values of a route; from 0 on it is the private descriptor. Written as it is: a regular file does not block.
const PLAIN: i32 = -2;
const SOCKET: i32 = -3;
/// A pipe or terminal that could not be opened anew.
const ASK_FIRST: i32 = -4;
const CLOSED: i32 = -5;

/// stdout or stderr, for whoever writes to it for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub struct NonBlockingWriter {
    fd: RawFd,
    route: i32,
}

impl NonBlockingWriter {
    /// Finds out how the descriptor `fd`, which stays open for good, is written to without waiting.
    #[must_use]
    pub fn of(fd: RawFd) -> Self {
        Self { fd, route: find_route(fd) }
    }

    /// Writes what can be written now and says how much that was.
    ///
    /// # Errors
    /// EAGAIN: nothing can. EPIPE, EBADF, EIO: nobody will ever read it. ENOSPC and the rest of write(2).
    pub fn write(&self, text: &[u8]) -> Result<usize, Errno> {
        write_some(self.fd, self.route, text)
    }

    /// What becomes writable when there is room again.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'static> {
        let fd = if self.route >= 0 { self.route } else { self.fd };
        // SAFETY: the private descriptor is never closed, the other one stays open as the caller of `of` has promised.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Whether both are the same pipe, terminal, socket or file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let identity = |writer: &Self| {
            nix::sys::stat::fstat(writer.descriptor()).map(|status| (status.st_dev, status.st_ino, status.st_rdev))
        };
        matches!((identity(self), identity(other)), (Ok(ours), Ok(theirs)) if ours == theirs)
    }

    /// isatty(3)
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        use std::io::IsTerminal;
        self.descriptor().is_terminal()
    }
}

/// Writes as much as can be without waiting, as often as needed.
pub(super) fn write_some(fd: RawFd, route: i32, text: &[u8]) -> Result<usize, Errno> {
    let (start, length) = (text.as_ptr().cast(), text.len());
    let written = match route {
        CLOSED => return Err(Errno::EBADF),
        // SAFETY: `length` bytes may be read from `start`.
        PLAIN => unsafe { libc::write(fd, start, length) },
        // SAFETY: as above.
        SOCKET => unsafe { libc::send(fd, start, length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) },
        ASK_FIRST => return write_asking_first(fd, text),
        // SAFETY: as above.
        private => unsafe { libc::write(private, start, length) },
    };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

/// pwritev2(2) with `RWF_NOWAIT`, and where that is not supported, poll(2) and no more than a pipe with any room takes.
fn write_asking_first(fd: RawFd, text: &[u8]) -> Result<usize, Errno> {
    const WHERE_IT_STANDS: i64 = -1;
    const RWF_NOWAIT: c_int = 8;
    let (start, length) = (text.as_ptr().cast_mut().cast(), text.len());
    let part = libc::iovec { iov_base: start, iov_len: length };
    // As wide as the kernel's registers: what is narrower is passed on with anything in its upper half.
    let (parts, low, high) = (1_usize, WHERE_IT_STANDS, 0_usize);
    // SAFETY: one part, of which `length` bytes may be read.
    let written = unsafe { libc::syscall(libc::SYS_pwritev2, fd, &raw const part, parts, low, high, RWF_NOWAIT) };
    match Errno::result(written) {
        Ok(written) => return Ok(usize::try_from(written).unwrap_or(0)),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ESPIPE) => {}
        Err(errno) => return Err(errno),
    }
    if !has_room(fd, 0) {
        return Err(Errno::EAGAIN);
    }
    let length = length.min(libc::PIPE_BUF);
    // SAFETY: `length` bytes may be read from `start`.
    let written = unsafe { libc::write(fd, start, length) };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

pub(super) fn find_route(fd: RawFd) -> i32 {
    // SAFETY: only asked about; that it is closed is an answer.
    let Ok(status) = nix::sys::stat::fstat(unsafe { BorrowedFd::borrow_raw(fd) }) else { return CLOSED };
    match status.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => SOCKET,
        libc::S_IFIFO | libc::S_IFCHR => open_private(fd),
        _ => PLAIN,
    }
}

fn open_private(fd: RawFd) -> i32 {
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let path = CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    // SAFETY: the path is NUL-terminated; the rest are plain flags.
    let private = unsafe { libc::open(path.as_ptr(), flags) };
    if private < 0 { ASK_FIRST } else { private }
}

pub(super) fn has_room(fd: RawFd, milliseconds: c_int) -> bool {
    let mut descriptor = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut descriptor, 1, milliseconds) > 0 }
}
