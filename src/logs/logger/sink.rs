//! keepalive's own stdout and stderr: whole lines, many with one write, without waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use super::open_line::OpenLine;
use crate::model::{Mono, errno};
use crate::sys::Poller;
use crate::sys::non_blocking_writer::NonBlockingWriter;

/// With so much to be written, the pipes that lead here are not read.
pub(super) const HIGH_WATER_BYTES: usize = 128 << 10;
/// A sink that takes nothing for so long is stuck: messages no longer wait for it.
const STUCK_TIMEOUT: Duration = Duration::from_secs(1);
/// So much text of one pipe is written directly.
const MIN_DIRECT_BYTES: usize = 4 << 10;
/// An empty buffer with a larger capacity is freed.
const MAX_IDLE_BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Sink {
    name: &'static str,
    writer: NonBlockingWriter,
    pub(super) is_terminal: bool,
    token: u64,
    pub(super) buffer: Vec<u8>,
    written: usize,
    /// Since when the stream takes nothing more; `None`: it is not full.
    full_since: Option<Mono>,
    /// Messages have waited for this sink for [`super::RUN_END_TIMEOUT`], and do not wait again until it is empty.
    pub(super) is_slow: bool,
    /// The keys of pipes that are not polled until there is room again.
    pub(super) paused: Vec<u64>,
    error: Option<Errno>,
    pub(super) open_line: OpenLine,
    /// What was written last ends within a line, and the rest of that line is lost.
    partial_line: bool,
    /// Nonzero while what has been written ends within a line: the next logger reads it if this one is killed.
    partial_line_mark: Option<&'static AtomicU64>,
}

impl Sink {
    /// `partial_line_mark` has the value that the logger before us has left.
    pub(super) fn new(
        name: &'static str,
        writer: NonBlockingWriter,
        token: u64,
        partial_line_mark: Option<&'static AtomicU64>,
    ) -> Self {
        let partial_line =
            partial_line_mark.is_some_and(|partial_line_mark| partial_line_mark.load(Ordering::Relaxed) != 0);
        Self {
            name,
            is_terminal: writer.is_terminal(),
            writer,
            token,
            buffer: Vec::new(),
            written: 0,
            full_since: None,
            is_slow: false,
            paused: Vec::new(),
            error: None,
            open_line: OpenLine::default(),
            partial_line,
            partial_line_mark,
        }
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Adds `text` of the pipe `key`. Much of it is written at once, without a copy.
    pub(super) fn put(&mut self, key: u64, text: &[u8]) {
        let is_idle = self.pending_bytes() == 0 && !self.partial_line && self.error.is_none() && !self.is_full();
        self.open_line.begin(key, &mut self.buffer);
        if !is_idle || self.pending_bytes() > 0 || text.len() < MIN_DIRECT_BYTES {
            return self.buffer.extend_from_slice(text);
        }
        self.mark_partial_line(1);
        // What is not written, and any error, is left to the next flush.
        let written = self.writer.write(text).unwrap_or(0);
        // The last byte stays, since it tells whether what has been written ends a line.
        let kept = written.saturating_sub(1);
        self.buffer.clear();
        self.buffer.extend_from_slice(text.get(kept..).unwrap_or_default());
        self.written = written - kept;
        self.store_partial_line_mark();
    }

    /// Whether pipes that lead here may be read.
    pub(super) fn has_room(&self) -> bool {
        self.pending_bytes() < HIGH_WATER_BYTES
    }

    /// When the sink is stuck unless it takes something before; `None`: it is not full.
    pub(super) fn stuck_at(&self) -> Option<Mono> {
        self.full_since.map(|since| since + STUCK_TIMEOUT)
    }

    pub(super) const fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Writes what the stream takes. Returns a message if writing begins to fail, or works again.
    pub(super) fn flush(&mut self, poller: &Poller, now: Mono) -> Option<String> {
        if self.pending_bytes() == 0 {
            return None;
        }
        let result = self.write();
        let was_full = self.full_since.is_some();
        match result {
            Ok(written) if self.pending_bytes() > 0 => {
                if !was_full {
                    // A file that can be full can be polled.
                    poller.add_writable(self.writer.descriptor(), self.token).ok();
                }
                self.full_since = self.full_since.filter(|_| written == 0).or(Some(now));
                return None;
            }
            Ok(_) | Err(_) => {
                if was_full {
                    poller.remove(self.writer.descriptor()).ok();
                    self.full_since = None;
                }
            }
        }
        let error = result.err();
        if error.is_some() {
            let before = self.written.checked_sub(1).and_then(|last| self.buffer.get(last));
            self.partial_line = before.map_or(self.partial_line, |byte| *byte != b'\n');
            self.open_line.clear();
        }
        self.clear();
        let previous = std::mem::replace(&mut self.error, error);
        match (previous, error) {
            (None, Some(errno)) => {
                Some(format!("cannot write to {}: {}; lines are dropped", self.name, errno::words(errno)))
            }
            (Some(_), None) => Some(format!("{} is writable again", self.name)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// Returns how many bytes were written.
    fn write(&mut self) -> Result<usize, Errno> {
        let mut total = 0;
        // Set while writing: a logger that is killed in the middle cannot say how far it came.
        self.mark_partial_line(1);
        if self.partial_line {
            match self.writer.write(b"\n") {
                Ok(_) => self.partial_line = false,
                Err(Errno::EAGAIN) => return Ok(0),
                Err(errno) => return Err(errno),
            }
        }
        while let Some(rest) = self.buffer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.writer.write(rest) {
                Ok(0) => return Err(Errno::EIO),
                Ok(written) => {
                    self.written += written;
                    total += written;
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.store_partial_line_mark();
        if self.written > HIGH_WATER_BYTES {
            // The last byte stays, since it tells whether what has been written ends a line.
            self.buffer.drain(..self.written - 1);
            self.written = 1;
        }
        Ok(total)
    }

    fn store_partial_line_mark(&self) {
        let last = self.written.checked_sub(1).and_then(|last| self.buffer.get(last));
        self.mark_partial_line(u64::from(last.map_or(self.partial_line, |byte| *byte != b'\n')));
    }

    fn mark_partial_line(&self, value: u64) {
        if let Some(mark) = self.partial_line_mark {
            mark.store(value, Ordering::Relaxed);
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.written = 0;
        self.is_slow = false;
        if self.buffer.capacity() > MAX_IDLE_BUFFER_BYTES {
            self.buffer = Vec::new();
        }
    }
}
