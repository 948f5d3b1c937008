//! Our own messages on stderr, which never make us wait.
//!
//! What cannot be written at once ([`super::non_blocking_writer`]) is dropped and counted, and the next line that gets through says
//! how many were lost.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;

use super::non_blocking_writer;

const STDERR: c_int = libc::STDERR_FILENO;
/// How long the last line may wait for room.
const LAST_LINE_MILLISECONDS: c_int = 200;

/// stderr is the process's, so what is known about it is too.
static ROUTE: AtomicI32 = AtomicI32::new(UNKNOWN);
static LOST: AtomicU64 = AtomicU64::new(0);
static TORN: AtomicBool = AtomicBool::new(false);

/// Values of [`ROUTE`]; from 0 on it is the private descriptor.
const UNKNOWN: i32 = -1;

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
        route = non_blocking_writer::find_route(STDERR);
        ROUTE.store(route, Ordering::Relaxed);
    }
    let mut rest = text;
    while !rest.is_empty() {
        match non_blocking_writer::write_some(STDERR, route, rest) {
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

fn wait_for_room(milliseconds: c_int) {
    let fd = private_descriptor().unwrap_or(STDERR);
    non_blocking_writer::has_room(fd, milliseconds);
}
