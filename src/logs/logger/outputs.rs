//! The outputs of lines: keepalive's own stdout and stderr, log files, and the ring.

use log::Level;

use super::file::{self, LogFile};
use super::ring::{KEEPALIVE_KEY, LineMeta, Ring};
use super::sink::{HIGH_WATER_BYTES, Sink};
use crate::logs::line::{Label, MessageStyle, Piece, Stream, write_time};
use crate::logs::protocol::{FileTarget, Target};
use crate::logs::timestamp::Timestamp;
use crate::model::Mono;
use crate::model::plan::{LogFormat, LogStyle};
use crate::model::visible::log_line;
use crate::sys::Poller;
use crate::sys::strings::memchr;

/// The end of a message that the last lines of a process follow.
const LAST_LINES_FOLLOW: &str = "; its last lines:";

/// The outputs of one pipe.
#[derive(Debug)]
pub(super) struct Route {
    /// The key of lines of this run and stream in the ring.
    pub(super) key: u64,
    /// The number of this pipe alone: a line is continued by its own pipe only.
    pub(super) serial: u64,
    pub(super) label: Label,
    pub(super) stream: Stream,
    pub(super) target: Target,
    /// Positions in [`Outputs::files`].
    pub(super) files: Vec<usize>,
}

impl LogFile {
    fn put(&mut self, route: &Route, style: LogStyle, stamp: &Timestamp, text: &[u8], piece: Piece) {
        if style.format == LogFormat::Json {
            return route.label.write_json(stamp, text, piece, &mut self.buffer);
        }
        if !self.open_line.begin(route.serial, &mut self.buffer) {
            write_time(style, stamp, &mut self.buffer);
        }
        self.buffer.extend_from_slice(text);
        match piece {
            Piece::Whole => self.buffer.push(b'\n'),
            Piece::Partial => self.open_line.leave(route.serial),
        }
    }
}

/// The lines of `text`, each of which ends with a newline, without the newlines.
fn lines_of(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (line, rest) = memchr(b'\n', text).and_then(|end| text.split_at_checked(end))?;
        text = rest.get(1..).unwrap_or_default();
        Some(line)
    })
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
        if let Some(known) = self.files.iter().position(|file| file.path() == target.path) {
            self.files.get_mut(known).into_iter().for_each(|file| file.set_limits(&target));
            return known;
        }
        match self.files.iter().position(|file| file.is_unused && file.buffer.is_empty()) {
            Some(unused) => {
                self.files.get_mut(unused).into_iter().for_each(|file| *file = LogFile::new(target.clone()));
                unused
            }
            None => {
                self.files.push(LogFile::new(target));
                self.files.len() - 1
            }
        }
    }

    /// Passes on whole lines of a pipe, each with its newline. Returns how many.
    pub(super) fn put_lines(&mut self, route: &Route, stamp: &Timestamp, lines: &[u8]) -> u64 {
        if route.target == Target::Raw {
            self.sink(route.stream).put(route.serial, lines);
        } else {
            lines_of(lines).for_each(|line| self.put_labelled(route, stamp, line, Piece::Whole));
        }
        let is_plain = self.style.style == LogStyle::default();
        for position in &route.files {
            let Some(file) = self.files.get_mut(*position) else { continue };
            if is_plain {
                file.open_line.begin(route.serial, &mut file.buffer);
                file.buffer.extend_from_slice(lines);
            } else {
                lines_of(lines).for_each(|line| file.put(route, self.style.style, stamp, line, Piece::Whole));
            }
        }
        let meta = LineMeta { key: route.key, milliseconds: stamp.milliseconds(), mark: 0 };
        self.ring.push_lines(meta, lines)
    }

    /// Passes on a line of a pipe without its newline, or a piece of one.
    pub(super) fn put_piece(&mut self, route: &Route, stamp: &Timestamp, text: &[u8], piece: Piece) {
        if route.target == Target::Raw {
            let sink = self.sink(route.stream);
            sink.put(route.serial, text);
            match piece {
                Piece::Whole => sink.buffer.push(b'\n'),
                Piece::Partial => sink.open_line.leave(route.serial),
            }
        } else {
            self.put_labelled(route, stamp, text, piece);
        }
        for position in &route.files {
            let Some(file) = self.files.get_mut(*position) else { continue };
            file.put(route, self.style.style, stamp, text, piece);
        }
        let mark = u8::from(piece == Piece::Partial);
        self.ring.push(LineMeta { key: route.key, milliseconds: stamp.milliseconds(), mark }, text);
    }

    fn put_labelled(&mut self, route: &Route, stamp: &Timestamp, text: &[u8], piece: Piece) {
        if route.target != Target::Lines {
            return;
        }
        let style = self.style.style;
        let sink = self.sink(route.stream);
        let is_steered = sink.is_terminal && style.format == LogFormat::Text;
        let shown = if is_steered { log_line(text) } else { text.into() };
        sink.open_line.begin(route.serial, &mut sink.buffer);
        route.label.write(style, stamp, &shown, piece, &mut sink.buffer);
    }

    /// Writes a message of keepalive itself, or drops and counts it if stderr is full. The `last_lines` of a process may
    /// belong to it.
    pub(super) fn put_message(&mut self, stamp: &Timestamp, level: Level, message: &str, last_lines: &str) {
        let whole = match last_lines {
            "" => message.to_owned(),
            last_lines => format!("{message}{LAST_LINES_FOLLOW}\n{last_lines}"),
        };
        let mark = Level::iter().position(|known| known == level).and_then(|position| u8::try_from(position).ok());
        let meta = LineMeta { key: KEEPALIVE_KEY, milliseconds: stamp.milliseconds(), mark: mark.unwrap_or(0) };
        self.ring.push(meta, whole.as_bytes());
        // Lines of services fill the buffer up to HIGH_WATER_BYTES at most: the rest is for messages.
        let (style, dropped) = (self.style, self.dropped);
        let sink = self.sink(Stream::Stderr);
        if sink.pending_bytes() > 2 * HIGH_WATER_BYTES {
            self.dropped += 1;
            return;
        }
        sink.open_line.begin(KEEPALIVE_KEY, &mut sink.buffer);
        if dropped > 0 {
            let text = format!("messages dropped because stderr was full: {dropped}");
            style.write(stamp.milliseconds(), Level::Warn, &text, &mut sink.buffer);
        }
        if style.style.format == LogFormat::Json {
            style.write(stamp.milliseconds(), level, &whole, &mut sink.buffer);
        } else {
            let follow = if last_lines.is_empty() { "" } else { LAST_LINES_FOLLOW };
            style.write(stamp.milliseconds(), level, &format!("{message}{follow}"), &mut sink.buffer);
            for line in last_lines.lines() {
                style.write(stamp.milliseconds(), Level::Info, &format!("  {line}"), &mut sink.buffer);
            }
        }
        self.dropped = 0;
    }

    /// Writes what can be written without waiting, and reports outputs that fail or work again.
    pub(super) fn flush(&mut self, poller: &Poller, now: Mono, stamp: &Timestamp) {
        let mut errors = vec![];
        errors.extend(self.stdout.flush(poller, now));
        errors.extend(self.files.iter_mut().filter_map(|file| file.flush(now)));
        for message in errors {
            self.put_message(stamp, Level::Warn, &message, "");
        }
        if let Some(message) = self.stderr.flush(poller, now) {
            self.put_message(stamp, Level::Warn, &message, "");
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

    /// Releases what nothing is in.
    pub(super) fn release_memory(&mut self) {
        let buffers = [&mut self.stdout.buffer, &mut self.stderr.buffer];
        let files = self.files.iter_mut().map(|file| &mut file.buffer);
        buffers.into_iter().chain(files).for_each(Vec::shrink_to_fit);
        self.ring.release_memory();
    }

    /// Whether both sinks have written all that they have.
    pub(super) fn is_empty(&self) -> bool {
        self.stdout.pending_bytes() == 0 && self.stderr.pending_bytes() == 0
    }
}
