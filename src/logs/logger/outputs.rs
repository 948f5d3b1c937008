//! The outputs of lines: keepalive's own stdout and stderr, log files, and the ring.

use log::Level;

use super::file::{self, LogFile};
use super::ring::{KEEPALIVE_KEY, LineMeta, Ring};
use super::sink::{HIGH_WATER_BYTES, Sink};
use crate::logs::line::{Label, MessageStyle, Piece, Stream, write_time};
use crate::logs::protocol::{FileTarget, Target};
use crate::logs::timestamp::Timestamp;
use crate::model::Mono;
use crate::model::plan::LogFormat;
use crate::model::visible::log_line;
use crate::sys::Poller;

/// The outputs of one pipe.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) key: u64,
    pub(super) label: Label,
    pub(super) stream: Stream,
    pub(super) target: Target,
    /// The position in [`Outputs::files`].
    pub(super) file: Option<usize>,
}

impl Route {
    /// The sink that the pipe has to wait for while it is full.
    pub(super) const fn sink(&self) -> Option<Stream> {
        match self.target {
            Target::Nowhere => None,
            Target::Raw | Target::Lines => Some(self.stream),
        }
    }
}

#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) style: MessageStyle,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
    /// Whether both streams are the same file: then `stdout` gets the lines of both, which keeps them whole and in order.
    pub(super) are_one: bool,
    pub(super) files: Vec<LogFile>,
    pub(super) ring: Ring,
    /// How many messages were dropped since the last one that was written, because stderr was full.
    pub(super) dropped: u64,
}

impl Outputs {
    pub(super) const fn sink(&mut self, stream: Stream) -> &mut Sink {
        match stream {
            Stream::Stderr if !self.are_one => &mut self.stderr,
            Stream::Stdout | Stream::Stderr => &mut self.stdout,
        }
    }

    /// The position of the file in `files`. All pipes that name the same path share one.
    pub(super) fn file(&mut self, target: FileTarget) -> usize {
        let known = self.files.iter().position(|file| file.path() == target.path);
        known.unwrap_or_else(|| {
            self.files.push(LogFile::new(target));
            self.files.len() - 1
        })
    }

    /// Passes on one line of a pipe.
    pub(super) fn put_line(&mut self, route: &Route, stamp: &Timestamp, text: &[u8], piece: Piece) {
        let style = self.style.style;
        if route.target == Target::Lines {
            let sink = self.sink(route.stream);
            let is_steered = sink.is_terminal && style.format == LogFormat::Text;
            let shown = if is_steered { log_line(text) } else { text.into() };
            route.label.write(style, stamp, &shown, piece, &mut sink.buffer);
        }
        if let Some(file) = route.file.and_then(|position| self.files.get_mut(position)) {
            if style.format == LogFormat::Json {
                route.label.write_json(stamp, text, piece, &mut file.buffer);
            } else {
                if !file.begin_line(route.key) {
                    write_time(style, stamp, &mut file.buffer);
                }
                file.buffer.extend_from_slice(text);
                match piece {
                    Piece::Whole => file.buffer.push(b'\n'),
                    Piece::Partial => file.leave_line_open(route.key),
                }
            }
        }
        let mark = u8::from(piece == Piece::Partial);
        self.ring.push(LineMeta { key: route.key, milliseconds: stamp.milliseconds(), mark }, text);
    }

    /// Writes a message of keepalive itself, or drops and counts it if stderr is full.
    pub(super) fn put_message(&mut self, stamp: &Timestamp, level: Level, message: &str) {
        let mark = Level::iter().position(|known| known == level).and_then(|position| u8::try_from(position).ok());
        let meta = LineMeta { key: KEEPALIVE_KEY, milliseconds: stamp.milliseconds(), mark: mark.unwrap_or(0) };
        self.ring.push(meta, message.as_bytes());
        // Lines of services fill the buffer up to HIGH_WATER_BYTES at most: the rest is for messages.
        let (style, dropped) = (self.style, self.dropped);
        let sink = self.sink(Stream::Stderr);
        if sink.pending_bytes() > 2 * HIGH_WATER_BYTES {
            self.dropped += 1;
            return;
        }
        if dropped > 0 {
            let text = format!("messages dropped because stderr was full: {dropped}");
            style.write(stamp.milliseconds(), Level::Warn, &text, &mut sink.buffer);
        }
        style.write(stamp.milliseconds(), level, message, &mut sink.buffer);
        self.dropped = 0;
    }

    /// Writes what can be written without waiting, and reports outputs that fail or work again.
    pub(super) fn flush(&mut self, poller: &Poller, now: Mono, stamp: &Timestamp) {
        let mut errors = vec![];
        errors.extend(self.stdout.flush(poller, now));
        errors.extend(self.files.iter_mut().filter_map(|file| file.flush(now)));
        for message in errors {
            self.put_message(stamp, Level::Warn, &message);
        }
        if let Some(message) = self.stderr.flush(poller, now) {
            self.put_message(stamp, Level::Warn, &message);
        }
    }

    /// Flushes after a chunk, so that buffers stay small while many pipes are read in one turn.
    pub(super) fn flush_if_large(&mut self, poller: &Poller, now: Mono, stamp: &Timestamp) {
        let needs_flush = |sink: &Sink| sink.pending_bytes() >= HIGH_WATER_BYTES && !sink.is_full();
        let files = self.files.iter().any(|log| log.buffer.len() >= file::FLUSH_THRESHOLD_BYTES);
        if needs_flush(&self.stdout) || needs_flush(&self.stderr) || files {
            self.flush(poller, now, stamp);
        }
    }

    /// Whether both sinks have written all that they have.
    pub(super) fn is_empty(&self) -> bool {
        self.stdout.pending_bytes() == 0 && self.stderr.pending_bytes() == 0
    }
}
