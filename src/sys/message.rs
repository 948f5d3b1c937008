//! Our own messages on stderr, which never make us wait.
//!
//! `O_NONBLOCK` belongs to the open file description that every child shares, so it is never set there: a pipe or
//! terminal is opened anew, for a description of our own. What cannot be written is dropped and counted, and the next
//! line that gets through says how many were lost.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;

const STDERR: c_int = libc::STDERR_FILENO;
/// How long the last line may wait for room.
const LAST_LINE_MILLISECONDS: c_int = 200;

/// stderr is the process's, so what is known about it is too.
static ROUTE: AtomicI32 = AtomicI32::new(UNKNOWN);
static LOST: AtomicU64 = AtomicU64::new(0);
static TORN: AtomicBool = AtomicBool::new(false);

/// Values of [`ROUTE`]; from 0 on it is the private descriptor.
const UNKNOWN: i32 = -1;
/// Written as it is: a regular file does not block.
const PLAIN: i32 = -2;
const SOCKET: i32 = -3;
/// A pipe or terminal that could not be opened anew.
const ASK_FIRST: i32 = -4;
const CLOSED: i32 = -5;

/// stderr, for whole lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardError;

impl StandardError {
    /// Writes `line` and a newline, or drops it if that would block. Silent if stderr is closed.
    pub fn write_line(&self, line: &[u8]) {
        let lost = LOST.load(Ordering::Relaxed);
        let mut text = Vec::with_capacity(line.len() + 80);
        if TORN.load(Ordering::Relaxed) {
            text.push(b'\n');
        }
        if lost > 0 {
            text.extend_from_slice(
                format!("keepalive: warning: {lost} messages were lost: stderr was full\n").as_bytes(),
            );
        }
        text.extend_from_slice(line);
        text.push(b'\n');
        let written = write_now(&text);
        TORN.store(written > 0 && written < text.len(), Ordering::Relaxed);
        if written == text.len() {
            LOST.store(0, Ordering::Relaxed);
        } else {
            LOST.store(lost.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// As [`Self::write_line`], but waits a moment (200 ms) for room: for the reason at the very end.
    pub fn write_last(&self, line: &[u8]) {
        wait_for_room(LAST_LINE_MILLISECONDS);
        self.write_line(line);
    }
}

/// The descriptor that has been opened for messages, if any; what closes all others leaves it open.
pub(super) fn private_descriptor() -> Option<RawFd> {
    Some(ROUTE.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Writes as much of `text` as can be without waiting and says how much that was.
fn write_now(text: &[u8]) -> usize {
    let mut route = ROUTE.load(Ordering::Relaxed);
    if route == UNKNOWN {
        route = find_route();
        ROUTE.store(route, Ordering::Relaxed);
    }
    let mut rest = text;
    while !rest.is_empty() {
        match write_some(route, rest) {
            Ok(0) => break,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // Nobody will ever read it: that is not a loss to tell of.
            Err(Errno::EBADF | Errno::EPIPE | Errno::EIO) => return text.len(),
            Err(_) => break,
        }
    }
    text.len() - rest.len()
}

fn write_some(route: i32, text: &[u8]) -> Result<usize, Errno> {
    let (start, length) = (text.as_ptr().cast(), text.len());
    let written = match route {
        CLOSED => return Err(Errno::EBADF),
        // SAFETY: `length` bytes may be read from `start`.
        PLAIN => unsafe { libc::write(STDERR, start, length) },
        // SAFETY: as above.
        SOCKET => unsafe { libc::send(STDERR, start, length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) },
        ASK_FIRST => return write_asking_first(text),
        // SAFETY: as above.
        private => unsafe { libc::write(private, start, length) },
    };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

/// pwritev2(2) with `RWF_NOWAIT`, and where that is not supported, poll(2) and no more than a pipe with any room takes.
fn write_asking_first(text: &[u8]) -> Result<usize, Errno> {
    const WHERE_IT_STANDS: i64 = -1;
    const RWF_NOWAIT: c_int = 8;
    let (start, length) = (text.as_ptr().cast_mut().cast(), text.len());
    let part = libc::iovec { iov_base: start, iov_len: length };
    // As wide as the kernel's registers: what is narrower is passed on with anything in its upper half.
    let (parts, low, high) = (1_usize, WHERE_IT_STANDS, 0_usize);
    // SAFETY: one part, of which `length` bytes may be read.
    let written = unsafe { libc::syscall(libc::SYS_pwritev2, STDERR, &raw const part, parts, low, high, RWF_NOWAIT) };
    match Errno::result(written) {
        Ok(written) => return Ok(usize::try_from(written).unwrap_or(0)),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ESPIPE) => {}
        Err(errno) => return Err(errno),
    }
    if !has_room(STDERR, 0) {
        return Err(Errno::EAGAIN);
    }
    let length = length.min(libc::PIPE_BUF);
    // SAFETY: `length` bytes may be read from `start`.
    let written = unsafe { libc::write(STDERR, start, length) };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

fn find_route() -> i32 {
    let Ok(status) = nix::sys::stat::fstat(std::io::stderr()) else { return CLOSED };
    match status.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => SOCKET,
        libc::S_IFIFO | libc::S_IFCHR => open_private(),
        _ => PLAIN,
    }
}

fn open_private() -> i32 {
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: the path is NUL-terminated; the rest are plain flags.
    let fd = unsafe { libc::open(c"/proc/self/fd/2".as_ptr(), flags) };
    if fd < 0 { ASK_FIRST } else { fd }
}

fn wait_for_room(milliseconds: c_int) {
    let fd = private_descriptor().unwrap_or(STDERR);
    has_room(fd, milliseconds);
}

fn has_room(fd: c_int, milliseconds: c_int) -> bool {
    let mut descriptor = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut descriptor, 1, milliseconds) > 0 }
}
