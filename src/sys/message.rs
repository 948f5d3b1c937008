//! keepalive's own messages on stderr, written without ever waiting.
//!
//! A line that cannot be written at once ([`super::non_blocking_writer`]) is dropped and counted. The next line that can be
//! written reports the count.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;

use super::non_blocking_writer;
use crate::model::visible;

const STDERR: c_int = libc::STDERR_FILENO;
/// How long keepalive's final line waits for stderr to become writable.
const FINAL_LINE_TIMEOUT_MS: c_int = 200;

/// How stderr is written to, see [`non_blocking_writer::write_some`]. Static, because stderr belongs to the process.
static METHOD: AtomicI32 = AtomicI32::new(UNKNOWN);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LINE_IS_PARTIAL: AtomicBool = AtomicBool::new(false);

/// The value of [`METHOD`] before the first write.
const UNKNOWN: i32 = -1;

/// Writes whole lines to stderr.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardError;

impl StandardError {
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
        wait_for_room(FINAL_LINE_TIMEOUT_MS);
        self.write_line(line);
    }
}

/// The descriptor that was opened for messages, if any. Functions that close all descriptors keep it open.
pub(super) fn private_descriptor() -> Option<RawFd> {
    Some(METHOD.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Writes as much of `text` as possible without waiting and returns the number of bytes written.
fn write_now(text: &[u8]) -> usize {
    let mut method = METHOD.load(Ordering::Relaxed);
    if method == UNKNOWN {
        method = non_blocking_writer::detect_method(STDERR);
        METHOD.store(method, Ordering::Relaxed);
    }
    let mut rest = text;
    while !rest.is_empty() {
        match non_blocking_writer::write_some(STDERR, method, rest) {
            Ok(0) => break,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // Nothing can ever read it, so it does not count as dropped.
            Err(Errno::EBADF | Errno::EPIPE | Errno::EIO) => return text.len(),
            Err(_) => break,
        }
    }
    text.len() - rest.len()
}

fn wait_for_room(milliseconds: c_int) {
    let fd = private_descriptor().unwrap_or(STDERR);
    non_blocking_writer::is_writable(fd, milliseconds);
}
