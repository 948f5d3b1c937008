//! Where lines go: keepalive's own two streams, files, and the ring.

use log::Level;

use super::file::{self, LogFile};
use super::ring::{Meta, OWN, Ring};
use super::sink::{ENOUGH, Sink};
use crate::logs::line::{Label, OwnStyle, Piece, Stream, write_time};
use crate::logs::message::{FileTarget, Target};
use crate::logs::stamp::Stamp;
use crate::model::Mono;
use crate::model::plan::LogFormat;
use crate::sys::Poller;

/// Where the lines of one pipe go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) key: u64,
    pub(super) label: Label,
    pub(super) stream: Stream,
    pub(super) target: Target,
    /// Position in `files`.
    pub(super) file: Option<usize>,
}

impl Route {
    /// The sink that can make it wait.
    pub(super) const fn sink(&self) -> Option<Stream> {
        match self.target {
            Target::Nowhere => None,
            Target::Raw | Target::Lines => Some(self.stream),
        }
    }
}

#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) style: OwnStyle,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
    /// Both are one, so that one buffer keeps the lines of both whole, and in order.
    pub(super) are_one: bool,
    pub(super) files: Vec<LogFile>,
    pub(super) ring: Ring,
    /// Of keepalive's own, as stderr was full.
    pub(super) lost: u64,
}

impl Outputs {
    pub(super) const fn sink(&mut self, stream: Stream) -> &mut Sink {
        match stream {
            Stream::Stderr if !self.are_one => &mut self.stderr,
            Stream::Stdout | Stream::Stderr => &mut self.stdout,
        }
    }

    /// The position of this file, which all who name its path have in common.
    pub(super) fn file(&mut self, target: FileTarget) -> usize {
        let known = self.files.iter().position(|file| file.path() == target.path);
        known.unwrap_or_else(|| {
            self.files.push(LogFile::new(target));
            self.files.len() - 1
        })
    }

    /// One line of a pipe.
    pub(super) fn put(&mut self, route: &Route, stamp: &Stamp, text: &[u8], piece: Piece) {
        let style = self.style.style;
        if route.target == Target::Lines {
            route.label.write(style, stamp, text, piece, &mut self.sink(route.stream).buffer);
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
                    Piece::Cut => file.leave_open(route.key),
                }
            }
        }
        let mark = u8::from(piece == Piece::Cut);
        self.ring.push(Meta { key: route.key, milliseconds: stamp.milliseconds(), mark }, text);
    }

    /// A line of keepalive's own. Where there is no room for it, it is counted; nobody waits for stderr.
    pub(super) fn put_own(&mut self, stamp: &Stamp, level: Level, message: &str) {
        let mark = Level::iter().position(|known| known == level).and_then(|position| u8::try_from(position).ok());
        let meta = Meta { key: OWN, milliseconds: stamp.milliseconds(), mark: mark.unwrap_or(0) };
        self.ring.push(meta, message.as_bytes());
        // The services' lines have filled it up to there at most, so that some of ours still fit.
        let (style, lost) = (self.style, self.lost);
        let sink = self.sink(Stream::Stderr);
        if sink.waiting() > 2 * ENOUGH {
            self.lost += 1;
            return;
        }
        if lost > 0 {
            let told = format!("{lost} messages were dropped: stderr was full");
            style.write(stamp.milliseconds(), Level::Warn, &told, &mut sink.buffer);
        }
        style.write(stamp.milliseconds(), level, message, &mut sink.buffer);
        self.lost = 0;
    }

    /// Writes what can be written; which sinks have room again is seen by [`Sink::has_room`].
    pub(super) fn flush(&mut self, poller: &Poller, now: Mono, stamp: &Stamp) {
        let mut told = vec![];
        told.extend(self.stdout.flush(poller, now));
        told.extend(self.files.iter_mut().filter_map(|file| file.flush(now)));
        for message in told {
            self.put_own(stamp, Level::Warn, &message);
        }
        if let Some(message) = self.stderr.flush(poller, now) {
            self.put_own(stamp, Level::Warn, &message);
        }
    }

    /// After one chunk, so that buffers stay small while many pipes are read in one turn.
    pub(super) fn flush_if_large(&mut self, poller: &Poller, now: Mono, stamp: &Stamp) {
        let is_large = |sink: &Sink| sink.waiting() >= ENOUGH && !sink.is_full();
        let files = self.files.iter().any(|log| log.buffer.len() >= file::ENOUGH);
        if is_large(&self.stdout) || is_large(&self.stderr) || files {
            self.flush(poller, now, stamp);
        }
    }

    /// Whether everything has been written, as far as that is possible.
    pub(super) fn is_empty(&self) -> bool {
        self.stdout.waiting() == 0 && self.stderr.waiting() == 0
    }
}
