//! keepalive's own stdout and stderr: whole lines, many at once, and nobody waits for a reader but those who write to
//! just this one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use crate::model::{Mono, errno};
use crate::sys::Poller;
use crate::sys::non_blocking_writer::NonBlockingWriter;

/// With so much waiting, nothing more is read that would come here.
pub(super) const ENOUGH: usize = 128 << 10;
/// Who has taken nothing for so long is not waited for where others have to wait too.
const PATIENCE: Duration = Duration::from_secs(1);
/// A buffer that has grown beyond this is given back when it is empty.
const LARGE: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Sink {
    name: &'static str,
    non_blocking_writer: NonBlockingWriter,
    token: u64,
    pub(super) buffer: Vec<u8>,
    written: usize,
    /// There is no room, since then.
    full_since: Option<Mono>,
    /// It was waited for long enough: no more of that until everything is written.
    pub(super) is_slow: bool,
    /// Pipes that are not read until there is room again.
    pub(super) paused: Vec<u64>,
    trouble: Option<Errno>,
    /// The last thing that was written was no whole line, and its rest is lost.
    partial_line: bool,
    /// Not 0 while what has been written so far ends within a line: for the logger that comes after us.
    mark: Option<&'static AtomicU64>,
}

impl Sink {
    /// `mark` is what the logger before us has left, if there was one.
    pub(super) fn new(
        name: &'static str,
        non_blocking_writer: NonBlockingWriter,
        token: u64,
        mark: Option<&'static AtomicU64>,
    ) -> Self {
        let partial_line = mark.is_some_and(|mark| mark.load(Ordering::Relaxed) != 0);
        Self {
            name,
            non_blocking_writer,
            token,
            buffer: Vec::new(),
            written: 0,
            full_since: None,
            is_slow: false,
            paused: Vec::new(),
            trouble: None,
            partial_line,
            mark,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Whether more may be put into the buffer.
    pub(super) fn has_room(&self) -> bool {
        self.waiting() < ENOUGH
    }

    /// When it is stuck, if nothing is taken until then; `None`: it is not full.
    pub(super) fn stuck_at(&self) -> Option<Mono> {
        self.full_since.map(|since| since + PATIENCE)
    }

    pub(super) const fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Writes what can be written. What there is to tell: that it cannot be written to, or can again.
    pub(super) fn flush(&mut self, poller: &Poller, now: Mono) -> Option<String> {
        if self.waiting() == 0 {
            return None;
        }
        let result = self.write();
        let was_full = self.full_since.is_some();
        match result {
            Ok(written) if self.waiting() > 0 => {
                if !was_full {
                    // Only what can be full can be waited for.
                    poller.add_writable(self.non_blocking_writer.descriptor(), self.token).ok();
                }
                self.full_since = self.full_since.filter(|_| written == 0).or(Some(now));
                return None;
            }
            Ok(_) | Err(_) => {
                if was_full {
                    poller.remove(self.non_blocking_writer.descriptor()).ok();
                    self.full_since = None;
                }
            }
        }
        let trouble = result.err();
        if trouble.is_some() {
            let before = self.written.checked_sub(1).and_then(|last| self.buffer.get(last));
            self.partial_line = before.map_or(self.partial_line, |byte| *byte != b'\n');
        }
        self.empty();
        let told = std::mem::replace(&mut self.trouble, trouble);
        match (told, trouble) {
            (None, Some(errno)) => {
                Some(format!("cannot write to {}: {}; lines are dropped", self.name, errno::words(errno)))
            }
            (Some(_), None) => Some(format!("{} is writable again", self.name)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// How much was written.
    fn write(&mut self) -> Result<usize, Errno> {
        let mut total = 0;
        // Whoever is killed in the middle has not said how far it came.
        if let Some(mark) = self.mark {
            mark.store(1, Ordering::Relaxed);
        }
        if self.partial_line {
            match self.non_blocking_writer.write(b"\n") {
                Ok(_) => self.partial_line = false,
                Err(Errno::EAGAIN) => return Ok(0),
                Err(errno) => return Err(errno),
            }
        }
        while let Some(rest) = self.buffer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.non_blocking_writer.write(rest) {
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
        self.leave_mark();
        if self.written > ENOUGH {
            // The last byte stays, for what has been written so far to tell whether it ends a line.
            self.buffer.drain(..self.written - 1);
            self.written = 1;
        }
        Ok(total)
    }

    fn leave_mark(&self) {
        let last = self.written.checked_sub(1).and_then(|last| self.buffer.get(last));
        if let Some(mark) = self.mark {
            mark.store(u64::from(last.map_or(self.partial_line, |byte| *byte != b'\n')), Ordering::Relaxed);
        }
    }

    fn empty(&mut self) {
        self.buffer.clear();
        self.written = 0;
        self.is_slow = false;
        if self.buffer.capacity() > LARGE {
            self.buffer = Vec::new();
        }
    }
}
