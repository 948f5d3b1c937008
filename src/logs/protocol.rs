//! The messages that PID 1 sends to the logger, one packet each, some with a descriptor.
//!
//! Both ends are the same program, so the encoding may change with any version.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use log::Level;

use super::line::Stream;
use crate::model::{RunId, ServiceIndex};

/// Longer messages of keepalive itself are truncated.
pub(super) const MAX_TEXT_BYTES: usize = 16 << 10;
/// The longest packet: a message text, or a path and names, and the fixed fields.
pub(super) const MAX_PACKET_BYTES: usize = MAX_TEXT_BYTES + (4 << 10);

/// How many of the last lines of a process are shown with its failure.
pub(super) const MAX_LAST_LINES: usize = 20;
/// The limit for all of them together.
pub(super) const MAX_LAST_LINES_BYTES: usize = 3 << 10;

/// A run of an instance, as the logger knows it: the slot of the instance, and the number of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunKey(u64);

impl RunKey {
    /// Numbers of runs that differ by a multiple of 2³² are the same here: no lines in memory are so far apart.
    #[must_use]
    pub fn new(slot: u32, run: RunId) -> Self {
        Self(run.get() << 32 | u64::from(slot))
    }

    /// The slot of the instance.
    pub(super) fn slot(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// The key of lines of this stream in the ring.
    pub(super) fn of_lines(self, stream: Stream) -> u64 {
        self.0 >> 32 << 32 | pipe_key(self.slot(), stream)
    }
}

/// The key of the current pipe of `slot` and `stream`.
pub(super) fn pipe_key(slot: u32, stream: Stream) -> u64 {
    u64::from(slot) * 2 + u64::from(stream == Stream::Stderr)
}

/// A pipe for the logger to read: who writes to it, and where its lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The number of the pipe, higher than those of all earlier pipes.
    pub serial: u64,
    /// The run that it was made for.
    pub run: RunKey,
    /// Whether this is the instance's stdout or stderr.
    pub stream: Stream,
    /// The name of the service.
    pub service: String,
    /// The name of the instance, or of its hook: `web.2`, `web.2/pre_start`.
    pub instance: String,
    /// The service. It selects the colour of the name.
    pub index: ServiceIndex,
    /// What goes to keepalive's own stream of the same name.
    pub target: Target,
    /// The log files that get the lines too.
    pub files: Vec<FileTarget>,
}

/// What of a pipe goes to keepalive's own stdout or stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the lines go to a file alone.
    Nowhere,
    /// The bytes, unchanged.
    Raw,
    /// Lines, each with the name of its instance.
    Lines,
}

/// A log file of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTarget {
    /// Absolute.
    pub path: PathBuf,
    /// The path as it was written, for messages; empty if there are no variables in it.
    pub shown: String,
    /// In bytes; a larger file is rotated.
    pub max_size: u64,
    /// How many rotated files are kept.
    pub max_files: u32,
}

/// The query of `GET /v1/logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsQuery {
    /// Services, instances, or `keepalive`; empty: all.
    pub names: Vec<String>,
    /// How many past lines; `None`: all that are still in memory.
    pub lines: Option<usize>,
    /// Earlier lines are left out, in milliseconds since 1970.
    pub since: u64,
    /// Whether new lines are sent as they come.
    pub follow: bool,
    /// Whether the client has connected to another address than the control socket.
    pub is_guest: bool,
}

/// The last lines of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLinesQuery {
    /// The run.
    pub run: RunKey,
    /// What is added if they say that an address is in use; may be empty.
    pub address_hint: String,
}

/// A message from PID 1 to the logger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Read this pipe. The read end comes along.
    Pipe(Source),
    /// Write a message of keepalive itself.
    Log {
        /// Its severity.
        level: Level,
        /// When it was logged, since 1970.
        milliseconds: u64,
        /// Its text, without a newline.
        text: String,
        /// The last lines that follow the text.
        last_lines: Option<LastLinesQuery>,
    },
    /// Send PID 1 the last lines of a run.
    LastLines(LastLinesQuery),
    /// A run of an instance has ended: write what it has written before any later [`Message::Log`].
    RunEnded(RunKey),
    /// Answer this client. The connection comes along.
    Client(LogsQuery),
    /// Write what has been read and exit.
    Stop {
        /// The time limit, in milliseconds.
        within: u64,
    },
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut packet = Encoder(Vec::new());
        match self {
            Self::Pipe(source) => {
                packet.byte(1);
                packet.source(source);
            }
            Self::Log { level, milliseconds, text, last_lines } => {
                packet.byte(2);
                packet.byte(*level as u8);
                packet.number(*milliseconds);
                let end = text.floor_char_boundary(MAX_TEXT_BYTES);
                packet.bytes(text.get(..end).unwrap_or_default().as_bytes());
                last_lines.iter().for_each(|query| packet.query(query));
            }
            Self::LastLines(query) => {
                packet.byte(6);
                packet.query(query);
            }
            Self::RunEnded(run) => {
                packet.byte(3);
                packet.number(run.0);
            }
            Self::Client(LogsQuery { names, lines, since, follow, is_guest }) => {
                packet.byte(4);
                packet.byte(u8::from(*follow));
                packet.byte(u8::from(*is_guest));
                packet.number(lines.map_or(u64::MAX, |lines| u64::try_from(lines).unwrap_or(u64::MAX)));
                packet.number(*since);
                names.iter().for_each(|name| packet.bytes(name.as_bytes()));
            }
            Self::Stop { within } => {
                packet.byte(5);
                packet.number(*within);
            }
        }
        packet.0
    }

    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut decoder = Decoder(packet);
        Some(match decoder.byte()? {
            1 => Self::Pipe(decoder.source()?),
            2 => {
                let level = Level::iter().nth(usize::from(decoder.byte()?).checked_sub(1)?)?;
                let (milliseconds, text) = (decoder.number()?, decoder.string()?);
                Self::Log { level, milliseconds, text, last_lines: decoder.query() }
            }
            3 => Self::RunEnded(RunKey(decoder.number()?)),
            4 => {
                let follow = decoder.byte()? != 0;
                let is_guest = decoder.byte()? != 0;
                let lines = usize::try_from(decoder.number()?).ok().filter(|lines| *lines != usize::MAX);
                let since = decoder.number()?;
                let names = std::iter::from_fn(|| decoder.string()).collect();
                Self::Client(LogsQuery { names, lines, since, follow, is_guest })
            }
            5 => Self::Stop { within: decoder.number()? },
            6 => Self::LastLines(decoder.query()?),
            _ => return None,
        })
    }
}

/// The answer of the logger to [`Message::LastLines`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLines {
    /// The slot of the instance.
    pub slot: u32,
    /// The lines, see [`MAX_LAST_LINES`] and [`MAX_LAST_LINES_BYTES`], without control characters but tabs.
    pub text: String,
}

impl LastLines {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut packet = Encoder(Vec::new());
        packet.number(self.slot.into());
        packet.bytes(self.text.as_bytes());
        packet.0
    }

    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut decoder = Decoder(packet);
        Some(Self { slot: decoder.number_u32()?, text: decoder.string()? })
    }
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn query(&mut self, query: &LastLinesQuery) {
        self.number(query.run.0);
        self.bytes(query.address_hint.as_bytes());
    }

    fn source(&mut self, source: &Source) {
        self.byte(match source.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        });
        self.byte(match source.target {
            Target::Nowhere => 0,
            Target::Raw => 1,
            Target::Lines => 2,
        });
        self.number(source.serial);
        self.number(source.run.0);
        self.number(source.index.0.into());
        self.bytes(source.service.as_bytes());
        self.bytes(source.instance.as_bytes());
        for file in &source.files {
            self.number(file.max_size);
            self.number(file.max_files.into());
            self.bytes(file.path.as_os_str().as_bytes());
            self.bytes(file.shown.as_bytes());
        }
    }
}

struct Decoder<'p>(&'p [u8]);

impl<'p> Decoder<'p> {
    fn take(&mut self, length: usize) -> Option<&'p [u8]> {
        let (taken, decoder) = self.0.split_at_checked(length)?;
        self.0 = decoder;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take(8)?.try_into().ok()?))
    }

    fn number_u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<&'p [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn query(&mut self) -> Option<LastLinesQuery> {
        Some(LastLinesQuery { run: RunKey(self.number()?), address_hint: self.string()? })
    }

    fn source(&mut self) -> Option<Source> {
        let stream = if self.byte()? == 0 { Stream::Stdout } else { Stream::Stderr };
        let target = match self.byte()? {
            0 => Target::Nowhere,
            1 => Target::Raw,
            _ => Target::Lines,
        };
        let (serial, run) = (self.number()?, RunKey(self.number()?));
        let index = ServiceIndex(self.number_u32()?);
        let (service, instance) = (self.string()?, self.string()?);
        let mut files = Vec::new();
        while !self.0.is_empty() {
            let (max_size, max_files) = (self.number()?, self.number_u32()?);
            let path = Path::new(std::ffi::OsStr::from_bytes(self.bytes()?)).to_owned();
            let shown = self.string()?;
            files.push(FileTarget { path, shown, max_size, max_files });
        }
        Some(Source { serial, run, stream, service, instance, index, target, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: Vec<FileTarget>) -> Source {
        let (serial, run, index) = (u64::MAX, RunKey::new(7, RunId::new(9)), ServiceIndex(u32::MAX));
        let (service, instance) = ("web".to_owned(), "web.2/pre_start".to_owned());
        let (stream, target) = (Stream::Stderr, Target::Lines);
        Source { serial, run, stream, service, instance, index, target, files }
    }

    #[test]
    fn a_message_survives_encoding_and_decoding() {
        let names = vec!["web".to_owned(), "db.1".to_owned()];
        let run = RunKey::new(7, RunId::new(u64::MAX - 1));
        let query = LastLinesQuery { run, address_hint: "→".to_owned() };
        let file =
            FileTarget { path: PathBuf::from("/v/w"), shown: "${V}/w".to_owned(), max_size: u64::MAX, max_files: 3 };
        for message in [
            Message::Pipe(source(Vec::new())),
            Message::Pipe(Source { target: Target::Raw, stream: Stream::Stdout, ..source(vec![file.clone(), file]) }),
            Message::Log {
                level: Level::Error,
                milliseconds: 12,
                text: "→ b".to_owned(),
                last_lines: Some(query.clone()),
            },
            Message::Log { level: Level::Trace, milliseconds: 12, text: String::new(), last_lines: None },
            Message::LastLines(query),
            Message::RunEnded(run),
            Message::Client(LogsQuery { names, lines: Some(0), since: u64::MAX, follow: true, is_guest: true }),
            Message::Client(LogsQuery::default()),
            Message::Stop { within: 2_000 },
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn a_long_message_is_truncated_between_characters_and_a_broken_packet_is_none() {
        let long =
            Message::Log { level: Level::Info, milliseconds: 0, text: "→".repeat(MAX_TEXT_BYTES), last_lines: None };
        let packet = long.encode();
        assert!(packet.len() <= MAX_PACKET_BYTES);
        let Some(Message::Log { text, .. }) = Message::decode(&packet) else { panic!("it is no message any more") };
        assert_eq!(text, "→".repeat(MAX_TEXT_BYTES / 3));
        for packet in [&b""[..], b"\0", b"\x01\x01", b"\x02\x09", b"\x05123"] {
            assert_eq!(Message::decode(packet), None, "{packet:?}");
        }
    }
}
