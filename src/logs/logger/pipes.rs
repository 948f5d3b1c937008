//! Adding pipes, and replacing the pipe of a slot and stream by the pipe of the next run.
//!
//! Each run of an instance has its own pipes, so that its last line is not continued by the next run. The replaced pipe is
//! read until it is closed, since processes of its run may still write to it; the new pipe is read once the old one has
//! been read as far as it was written when it was replaced.

use std::os::fd::OwnedFd;

use super::counters::{COUNTERS_PER_SLOT, FIRST_SLOT_COUNTER, READ_MARK};
use super::hold_up::PipeCalls;
use super::names::Name;
use super::source::Pipe;
use super::state::{FIRST_PIPE, Logger, NextPipe, Pending};
use crate::logs::line::{KEEPALIVE_NAME, Label, Stream};
use crate::logs::protocol::{Source, Target, pipe_key};
use crate::sys::poll::Interest;

impl Logger {
    pub(super) fn add_pipe(&mut self, source: Source, descriptor: OwnedFd) {
        let key = pipe_key(source.run.slot(), source.stream);
        let instance = source.instance.clone();
        self.newest_serial = self.newest_serial.max(Some(source.serial));
        let predecessor = self.retire(key);
        if predecessor.is_none() && self.poller.add(&descriptor, FIRST_PIPE + key).is_err() {
            return;
        }
        let (width, colours) = (instance.len().max(KEEPALIVE_NAME.len()), self.colours);
        if source.target == Target::Lines && self.outputs.style.width < Some(width) {
            self.outputs.style.width = Some(width);
            self.pipes.values_mut().for_each(|pipe| pipe.route.label = label(&pipe.source, width, colours));
        }
        let label = label(&source, self.outputs.style.width.unwrap_or(0), colours);
        let name = Name { service: source.service.clone(), instance, label: label.clone() };
        self.names.insert(key, name);
        let files = source.files.iter().map(|file| self.outputs.file(file.clone())).collect();
        let position = FIRST_SLOT_COUNTER + source.run.slot() as usize * COUNTERS_PER_SLOT;
        let position = position + if source.stream == Stream::Stderr { 2 } else { 0 };
        let counters = [self.counters.get(position), self.counters.get(position + 1)];
        let calls = PipeCalls::new(self.counters.get(READ_MARK), source.serial);
        let mut pipe = Pipe::new(source, (descriptor, calls), label, files, counters);
        pipe.predecessor = predecessor;
        self.pipes.insert(key, pipe);
    }

    /// Removes a pipe that is closed, and closes the log files that no other pipe leads to.
    pub(super) fn remove_pipe(&mut self, key: u64) {
        let Some(pipe) = self.pipes.remove(&key) else { return };
        for position in pipe.route.files {
            if let Some(file) = self.outputs.files.get_mut(position) {
                file.is_unused = self.pipes.values().all(|other| !other.route.files.contains(&position));
            }
        }
    }

    /// Gives the pipe `key` another key, since a new pipe takes its place. Returns that key if the old pipe has to be read
    /// first.
    fn retire(&mut self, key: u64) -> Option<u64> {
        let mut pipe = self.pipes.remove(&key)?;
        let retired = self.next_retired;
        self.next_retired += 1;
        // Fails for a pipe that is paused, or waits for another one: it is not polled.
        self.poller.modify(pipe.descriptor(), FIRST_PIPE + retired, Interest::Input).ok();
        let sinks = [&mut self.outputs.stdout, &mut self.outputs.stderr];
        let paused = sinks.into_iter().flat_map(|sink| &mut sink.paused);
        let awaited = self.pending.iter_mut().filter_map(|pending| match pending {
            Pending::RunEnded { key, .. } => Some(key),
            Pending::Message { .. } | Pending::LastLines(_) => None,
        });
        let successor =
            pipe.predecessor.and_then(|before| self.successors.get_mut(&before)).map(|successor| &mut successor.key);
        paused.chain(awaited).chain(successor).filter(|known| **known == key).for_each(|known| *known = retired);
        let until = pipe.bytes_written();
        let comes_first = until > pipe.bytes_read();
        if comes_first {
            self.successors.insert(retired, NextPipe { key, until });
        }
        self.pipes.insert(retired, pipe);
        comes_first.then_some(retired)
    }

    /// The pipe that has to be read first, and up to which byte.
    pub(super) fn pipe_before(&self, key: u64) -> Option<(u64, u64)> {
        let before = self.pipes.get(&key)?.predecessor?;
        Some((before, self.successors.get(&before)?.until))
    }

    /// Polls the successor of the pipe `key` once that has been read far enough.
    pub(super) fn start_successor(&mut self, key: u64) {
        let Some(successor) = self.successors.get(&key).copied() else { return };
        if self.pipes.get(&key).is_some_and(|pipe| pipe.bytes_read() < successor.until) {
            return;
        }
        self.successors.remove(&key);
        if let Some(pipe) = self.pipes.get(&successor.key) {
            self.poller.add(pipe.descriptor(), FIRST_PIPE + successor.key).ok();
        }
    }
}

fn label(source: &Source, width: usize, [stdout, stderr]: [bool; 2]) -> Label {
    let is_coloured = match source.stream {
        Stream::Stdout => stdout,
        Stream::Stderr => stderr,
    };
    let colour = is_coloured.then_some(source.index.position());
    Label::new(&source.service, &source.instance, source.stream, width, colour)
}
