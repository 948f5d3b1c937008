//! A pipe that is read: bytes in, lines out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::outputs::{Outputs, Route};
use super::split::Splitter;
use crate::logs::line::Label;
use crate::logs::message::{Source, Target};
use crate::logs::stamp::Stamp;
use crate::sys::pipe::readable_bytes;

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// As much as there was room for; perhaps there is more.
    Some,
    /// All that there was.
    All,
    /// There was nothing.
    Nothing,
    /// Nobody can write to it any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) source: Source,
    descriptor: OwnedFd,
    splitter: Splitter,
    pub(super) route: Route,
    lines: Option<&'static AtomicU64>,
    bytes: Option<&'static AtomicU64>,
    /// How many bytes we have read; the counters are those of all pipes and loggers there have been in its place.
    seen: u64,
    /// The pipe that was in our place and may have to be read first.
    pub(super) after: Option<u64>,
    /// Where a writer has ended: a line does not go on behind it.
    ends: VecDeque<u64>,
}

impl Pipe {
    pub(super) fn new(
        source: Source,
        descriptor: OwnedFd,
        key: u64,
        label: Label,
        file: Option<usize>,
        [lines, bytes]: [Option<&'static AtomicU64>; 2],
    ) -> Self {
        let route = Route { key, label, stream: source.stream, target: source.target, file };
        let (splitter, ends) = (Splitter::default(), VecDeque::new());
        Self { source, descriptor, splitter, route, lines, bytes, seen: 0, after: None, ends }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// How many bytes have been read.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// How many bytes there are with those that wait.
    pub(super) fn written(&self) -> u64 {
        self.seen.saturating_add(readable_bytes(&self.descriptor))
    }

    /// A writer has ended: how many bytes there are with those that wait.
    pub(super) fn end_of_writer(&mut self) -> u64 {
        let end = self.written();
        if self.ends.back() != Some(&end) {
            self.ends.push_back(end);
        }
        end
    }

    /// Reads once, and hands on the lines.
    pub(super) fn read(&mut self, buffer: &mut [u8], stamp: &Stamp, outputs: &mut Outputs) -> Read {
        self.finish_due(stamp, outputs);
        let size = buffer.len();
        // Whoever writes next begins a new line, however late this is read.
        let most = self.ends.front().and_then(|end| usize::try_from(end - self.seen).ok());
        let buffer = buffer.get_mut(..most.map_or(size, |most| most.min(size))).unwrap_or_default();
        let count = match nix::unistd::read(&self.descriptor, buffer) {
            Ok(0) => return Read::Closed,
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Read::Nothing,
            Err(_) => return Read::Closed,
        };
        let chunk = buffer.get(..count).unwrap_or_default();
        self.seen += count as u64;
        if let Some(bytes) = self.bytes {
            bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        if self.route.target == Target::Raw {
            outputs.sink(self.route.stream).buffer.extend_from_slice(chunk);
        }
        let (route, mut lines) = (&self.route, 0);
        self.splitter.feed(chunk, |text, piece| {
            outputs.put(route, stamp, text, piece);
            lines += 1;
        });
        if let Some(counter) = self.lines.filter(|_| lines > 0) {
            counter.fetch_add(lines, Ordering::Relaxed);
        }
        self.finish_due(stamp, outputs);
        if count == buffer.len() { Read::Some } else { Read::All }
    }

    /// Puts out the line that has no end where a writer has ended.
    pub(super) fn finish_due(&mut self, stamp: &Stamp, outputs: &mut Outputs) {
        while self.ends.front().is_some_and(|end| *end <= self.seen) {
            self.ends.pop_front();
            self.finish_line(stamp, outputs);
        }
    }

    /// Puts out a line that has no end, as its writer has ended.
    pub(super) fn finish_line(&mut self, stamp: &Stamp, outputs: &mut Outputs) {
        let (route, mut lines) = (&self.route, 0);
        self.splitter.end(|text, piece| {
            outputs.put(route, stamp, text, piece);
            lines += 1;
        });
        if let Some(counter) = self.lines.filter(|_| lines > 0) {
            counter.fetch_add(lines, Ordering::Relaxed);
        }
    }
}
