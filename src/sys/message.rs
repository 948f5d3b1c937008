//! keepalive's own messages on stderr, written without ever waiting.
//!
//! A line that cannot be written at once ([`super::non_blocking_writer`]) is dropped and counted. The next line that can be
//! written reports the count.
//!
//! When services have stderr, too, a write to a pipe or file waits for a process that stands in a write of its own, which can
//! be stopped by a page fault. Then a helper process writes the lines. In init mode there is only the command, which can
//! ignore keepalive anyway.

use std::ffi::c_int;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::non_blocking_writer::{NONE, STDERR_METHOD, STDERR_WRITER};
use super::{fork, memory, non_blocking_writer, pipe, stream, wait};
use crate::model::{Pid, visible};

const STDERR: c_int = libc::STDERR_FILENO;
/// How long keepalive's final line waits for stderr to become writable.
const FINAL_LINE_TIMEOUT_MS: c_int = 200;

static DROPPED: AtomicU64 = AtomicU64::new(0);
static LINE_IS_PARTIAL: AtomicBool = AtomicBool::new(false);
/// The helper processes that write to stderr, until they are reaped.
static WRITERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
/// Other processes may have stderr, too.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// Writes whole lines to stderr.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardError;

impl StandardError {
    /// From now on other processes may have stderr, too, and keepalive does not wait for them.
    pub fn share(&self) {
        IS_SHARED.store(true, Ordering::Relaxed);
    }

    /// Writes `line` and a newline, with control characters made visible, or drops the line if the write would block. Does nothing if stderr is closed.
    pub fn write_line(&self, line: &[u8]) {
        let lost = DROPPED.load(Ordering::Relaxed);
        let mut text = Vec::with_capacity(line.len() + 80);
        if LINE_IS_PARTIAL.load(Ordering::Relaxed) {
            text.push(b'\n');
        }
        if lost > 0 {
            text.extend_from_slice(
                format!("keepalive: warning: messages dropped because stderr was full: {lost}\n").as_bytes(),
            );
        }
        text.extend_from_slice(&visible::lines(line));
        text.push(b'\n');
        let written = write_now(&text);
        LINE_IS_PARTIAL.store(written > 0 && written < text.len(), Ordering::Relaxed);
        if written == text.len() {
            DROPPED.store(0, Ordering::Relaxed);
        } else {
            DROPPED.store(lost.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// As [`Self::write_line`], but waits up to 200 ms until stderr is writable. For the last line before keepalive exits.
    pub fn write_final_line(&self, line: &[u8]) {
        let (fd, method) = target();
        non_blocking_writer::is_writable(if method >= 0 { method } else { fd }, FINAL_LINE_TIMEOUT_MS);
        self.write_line(line);
        self.flush();
    }

    /// Writes `line` and a newline if that is possible without waiting. Allocates no memory.
    pub fn write_without_memory(&self, line: &[u8]) {
        if non_blocking_writer::write_nowait(STDERR, line).is_ok() {
            non_blocking_writer::write_nowait(STDERR, b"\n").ok();
        }
    }

    /// The helper processes that write messages.
    #[must_use]
    pub fn writers(&self) -> Vec<Pid> {
        writers().clone()
    }

    /// Waits up to 200 ms until a helper process has written all lines. Before keepalive exits.
    pub fn flush(&self) {
        let Some(socket) = take_writer() else { return };
        shutdown(socket.as_raw_fd(), Shutdown::Write).ok();
        // The helper process exits when it has written everything.
        let _ = pipe::wait_for_input(&socket, Duration::from_millis(FINAL_LINE_TIMEOUT_MS.unsigned_abs().into()));
        reap_writers();
    }
}

/// Writes as much of `text` as possible without waiting and returns the number of bytes written.
fn write_now(text: &[u8]) -> usize {
    let (mut fd, mut method) = target();
    let mut rest = text;
    while !rest.is_empty() {
        match non_blocking_writer::write_some(fd, method, rest) {
            Ok(0) => break,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // It has been killed. The next one could be, too.
            Err(Errno::EPIPE) if fd != STDERR => {
                drop(take_writer());
                (fd, method) = target();
                if non_blocking_writer::write_some(fd, method, rest) == Ok(rest.len()) {
                    return text.len();
                }
                break;
            }
            // Nothing can ever read it, so it does not count as dropped.
            Err(Errno::EBADF | Errno::EPIPE | Errno::EIO) => return text.len(),
            Err(_) => break,
        }
    }
    text.len() - rest.len()
}

/// Where lines are written to, and by which method: to a helper process, if stderr is shared and one can be created.
fn target() -> (RawFd, i32) {
    if IS_SHARED.load(Ordering::Relaxed) {
        if STDERR_WRITER.load(Ordering::Relaxed) == NONE {
            start_writer();
        }
        let writer = STDERR_WRITER.load(Ordering::Relaxed);
        if writer != NONE {
            return (writer, non_blocking_writer::SOCKET);
        }
    }
    let mut method = STDERR_METHOD.load(Ordering::Relaxed);
    if method == NONE {
        method = non_blocking_writer::detect_method(STDERR);
        STDERR_METHOD.store(method, Ordering::Relaxed);
    }
    (STDERR, method)
}

fn take_writer() -> Option<OwnedFd> {
    let socket = STDERR_WRITER.swap(NONE, Ordering::Relaxed);
    // SAFETY: `start_writer` has given up the ownership of this descriptor.
    (socket != NONE).then(|| unsafe { OwnedFd::from_raw_fd(socket) })
}

fn start_writer() {
    let Ok((ours, theirs)) = stream::pair() else { return };
    let write = || {
        memory::release_code_pages();
        let mut buffer = [0; 4 << 10];
        while let Ok(length @ 1..) = nix::unistd::read(&theirs, &mut buffer) {
            write_all(buffer.get(..length).unwrap_or_default());
        }
        0
    };
    if let Ok(pid) = fork::fork_unseen_helper(&[theirs.as_fd()], c"keepalive-write", write) {
        STDERR_WRITER.store(ours.into_raw_fd(), Ordering::Relaxed);
        writers().push(pid);
    }
    reap_writers();
}

fn writers() -> MutexGuard<'static, Vec<Pid>> {
    WRITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps those that have been killed, for which no SIGCHLD comes.
fn reap_writers() {
    writers().retain(|pid| wait::reap_without_sigchld(*pid) == Ok(None));
}

/// Runs in the helper process: waits until everything has been written, unless nothing can ever read it.
fn write_all(mut text: &[u8]) {
    while !text.is_empty() {
        match nix::unistd::write(std::io::stderr(), text) {
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(Errno::EAGAIN) => drop(non_blocking_writer::is_writable(STDERR, -1)),
            Err(_) => return,
        }
    }
}
