//! A pipe that the logger reads: bytes in, lines out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::hold_up::PipeCalls;
use super::outputs::{Outputs, Route};
use super::split::Splitter;
use crate::logs::line::Label;
use crate::logs::protocol::Source;
use crate::logs::timestamp::Timestamp;
use crate::sys::pipe::readable_bytes;
use crate::sys::strings::memchr;

/// The result of reading once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The buffer was filled; the pipe may hold more.
    Some,
    /// All that the pipe held.
    All,
    /// The pipe was empty.
    Nothing,
    /// No process has the write end any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) source: Source,
    descriptor: OwnedFd,
    calls: PipeCalls,
    splitter: Splitter,
    pub(super) route: Route,
    lines: Option<&'static AtomicU64>,
    bytes: Option<&'static AtomicU64>,
    /// How many bytes of this pipe have been read. (The counters are for all pipes of the slot and stream.)
    bytes_read: u64,
    /// The pipe of the run before, which may have to be read first.
    pub(super) predecessor: Option<u64>,
    /// The bytes at which runs have ended. No line continues past one.
    run_ends: VecDeque<u64>,
}

impl Pipe {
    pub(super) fn new(
        source: Source,
        (descriptor, calls): (OwnedFd, PipeCalls),
        label: Label,
        files: Vec<usize>,
        [lines, bytes]: [Option<&'static AtomicU64>; 2],
    ) -> Self {
        let key = source.run.of_lines(source.stream);
        let route = Route { key, serial: source.serial, label, stream: source.stream, target: source.target, files };
        let (splitter, run_ends) = (Splitter::default(), VecDeque::new());
        Self { source, descriptor, calls, splitter, route, lines, bytes, bytes_read: 0, predecessor: None, run_ends }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// How many bytes have been read.
    pub(super) const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// How many bytes have been written to the pipe, read or not.
    pub(super) fn bytes_written(&mut self) -> u64 {
        self.bytes_read.saturating_add(self.calls.perform(|| readable_bytes(&self.descriptor)))
    }

    /// Records that a run has ended now, and returns at which byte.
    pub(super) fn mark_run_end(&mut self) -> u64 {
        let end = self.bytes_written();
        if self.run_ends.back() != Some(&end) {
            self.run_ends.push_back(end);
        }
        end
    }

    /// Reads at most `limit` bytes, once, into `buffer` after the line that has begun, and passes the lines on.
    pub(super) fn read(&mut self, buffer: &mut [u8], limit: usize, stamp: &Timestamp, outputs: &mut Outputs) -> Read {
        self.finish_ended_lines(stamp, outputs);
        let held = self.splitter.copy_to(buffer);
        // Not past the end of a run: the next run begins a new line, however late this is read.
        let run = self.run_ends.front().and_then(|end| usize::try_from(end - self.bytes_read).ok());
        let end = buffer.len().min(held + run.map_or(limit, |run| run.min(limit)));
        let room = buffer.get_mut(held..end).unwrap_or_default();
        let count = match self.calls.perform(|| nix::unistd::read(&self.descriptor, room)) {
            Ok(0) => return Read::Closed,
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Read::Nothing,
            Err(_) => return Read::Closed,
        };
        self.bytes_read += count as u64;
        if let Some(bytes) = self.bytes {
            bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.splitter.release();
        self.pass_on(buffer.get(..held + count).unwrap_or_default(), stamp, outputs);
        self.finish_ended_lines(stamp, outputs);
        if held + count == end { Read::Some } else { Read::All }
    }

    fn pass_on(&mut self, mut text: &[u8], stamp: &Timestamp, outputs: &mut Outputs) {
        let (route, mut lines) = (&self.route, 0);
        while !text.is_empty() {
            let (whole, rest) = self.splitter.whole_lines(text);
            if !whole.is_empty() {
                lines += outputs.put_lines(route, stamp, whole);
            }
            // A line that goes on, or that is too long.
            let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, rest) = rest.split_at_checked(end).unwrap_or_default();
            self.splitter.feed(line, |text, piece| {
                outputs.put_piece(route, stamp, text, piece);
                lines += 1;
            });
            text = rest;
        }
        if let Some(counter) = self.lines.filter(|_| lines > 0) {
            counter.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Passes on the unterminated line at each end of a run that has been reached.
    pub(super) fn finish_ended_lines(&mut self, stamp: &Timestamp, outputs: &mut Outputs) {
        while self.run_ends.front().is_some_and(|end| *end <= self.bytes_read) {
            self.run_ends.pop_front();
            self.finish_line(stamp, outputs);
        }
    }

    /// Passes on the unterminated line, since its writer has ended.
    pub(super) fn finish_line(&mut self, stamp: &Timestamp, outputs: &mut Outputs) {
        let (route, mut lines) = (&self.route, 0);
        self.splitter.finish(|text, piece| {
            outputs.put_piece(route, stamp, text, piece);
            lines += 1;
        });
        if let Some(counter) = self.lines.filter(|_| lines > 0) {
            counter.fetch_add(lines, Ordering::Relaxed);
        }
    }
}
