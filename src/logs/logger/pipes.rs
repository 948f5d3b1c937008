//! Pipes that come, and those in whose place another has come: each run of an instance has its own, so that its last line
//! is its own. The old one is read to its end, as something of its run may still write there; the new one is not read
//! before what stood in the old one then.

use std::os::fd::OwnedFd;

use super::source::Pipe;
use super::{COUNTERS_BEFORE_SLOTS, COUNTERS_FOR_EACH, FIRST_PIPE, Logger, Name, Pending};
use crate::logs::line::{Label, OWN_NAME, Stream};
use crate::logs::message::Source;
use crate::sys::poll::Interest;

/// A pipe that is not read before another has been read so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextPipe {
    key: u64,
    until: u64,
}

impl Logger {
    pub(super) fn add_pipe(&mut self, source: Source, descriptor: OwnedFd) {
        let key = key(source.slot, source.stream);
        let instance = format!("{}.{}", source.service, source.instance);
        self.newest = self.newest.max(Some(source.serial));
        let after = self.retire(key);
        if after.is_none() && self.poller.add(&descriptor, FIRST_PIPE + key).is_err() {
            return;
        }
        if instance.len() > self.width {
            self.width = instance.len();
            self.outputs.style.width = Some(self.width);
            let (width, colours) = (self.width, self.colours);
            self.pipes.values_mut().for_each(|pipe| pipe.route.label = label(&pipe.source, width, colours));
        }
        let label = label(&source, self.width, self.colours);
        let name = Name { service: source.service.clone(), instance, label: label.clone() };
        self.names.insert(key, name);
        let file = source.file.clone().map(|file| self.outputs.file(file));
        let position = COUNTERS_BEFORE_SLOTS + source.slot as usize * COUNTERS_FOR_EACH;
        let position = position + if source.stream == Stream::Stderr { 2 } else { 0 };
        let counters = [self.counters.get(position), self.counters.get(position + 1)];
        let mut pipe = Pipe::new(source, descriptor, key, label, file, counters);
        pipe.after = after;
        self.pipes.insert(key, pipe);
    }

    /// There is another pipe in the place of this one, which is still read to its end. Its new key if something stands in
    /// it that comes before the other's.
    fn retire(&mut self, key: u64) -> Option<u64> {
        let pipe = self.pipes.remove(&key)?;
        let retired = self.next_retired;
        self.next_retired += 1;
        // One that waits for room or for another is not in the set.
        self.poller.modify(pipe.descriptor(), FIRST_PIPE + retired, Interest::Input).ok();
        let sinks = [&mut self.outputs.stdout, &mut self.outputs.stderr];
        let paused = sinks.into_iter().flat_map(|sink| &mut sink.paused);
        let awaited = self.pending.iter_mut().filter_map(|pending| match pending {
            Pending::Ended { key, .. } => Some(key),
            Pending::Own { .. } => None,
        });
        let heir = pipe.after.and_then(|before| self.heirs.get_mut(&before)).map(|heir| &mut heir.key);
        paused.chain(awaited).chain(heir).filter(|known| **known == key).for_each(|known| *known = retired);
        let until = pipe.written();
        let comes_first = until > pipe.seen();
        if comes_first {
            self.heirs.insert(retired, NextPipe { key, until });
        }
        self.pipes.insert(retired, pipe);
        comes_first.then_some(retired)
    }

    /// The pipe that is to be read first, and how far.
    pub(super) fn predecessor(&self, key: u64) -> Option<(u64, u64)> {
        let before = self.pipes.get(&key)?.after?;
        Some((before, self.heirs.get(&before)?.until))
    }

    /// Something of the pipe `key` has been read: perhaps it is the turn of the one in its place.
    pub(super) fn let_heir_begin(&mut self, key: u64) {
        let Some(heir) = self.heirs.get(&key).copied() else { return };
        if self.pipes.get(&key).is_some_and(|pipe| pipe.seen() < heir.until) {
            return;
        }
        self.heirs.remove(&key);
        if let Some(pipe) = self.pipes.get(&heir.key) {
            self.poller.add(pipe.descriptor(), FIRST_PIPE + heir.key).ok();
        }
    }
}

pub(super) fn key(slot: u32, stream: Stream) -> u64 {
    u64::from(slot) * 2 + u64::from(stream == Stream::Stderr)
}

fn label(source: &Source, width: usize, [stdout, stderr]: [bool; 2]) -> Label {
    let in_colour = match source.stream {
        Stream::Stdout => stdout,
        Stream::Stderr => stderr,
    };
    let colour = in_colour.then_some(source.turn as usize);
    Label::new(&source.service, source.instance, source.stream, width.max(OWN_NAME.len()), colour)
}
