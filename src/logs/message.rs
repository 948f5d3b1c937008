//! What PID 1 tells the logger: one packet each, some with a descriptor. Both are the same program, so the form may
//! change with any version.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use log::Level;

use super::line::Stream;

/// Longer messages of keepalive's own are cut.
pub(super) const TEXT_LIMIT: usize = 16 << 10;
/// No packet is longer.
pub(super) const PACKET_LIMIT: usize = TEXT_LIMIT + (4 << 10);

/// A pipe that is read: whose it is, and where its lines go. The descriptor of its reading end belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Each pipe has its own; later ones have higher ones.
    pub serial: u64,
    /// The number that stands for the instance.
    pub slot: u32,
    /// Which of its two.
    pub stream: Stream,
    /// The name of its service.
    pub service: String,
    /// Its number.
    pub instance: u32,
    /// The position of its service, for the colour.
    pub turn: u32,
    /// Where on keepalive's own stream of the same name.
    pub target: Target,
    /// And the file besides.
    pub file: Option<FileTarget>,
}

/// What becomes of the lines of a pipe on keepalive's own stdout or stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: they go to a file alone.
    Nowhere,
    /// The bytes as they are.
    Raw,
    /// Line by line, each with its name.
    Lines,
}

/// A log file of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTarget {
    /// Absolute.
    pub path: PathBuf,
    /// In bytes.
    pub max_size: u64,
    /// How many old ones are kept.
    pub max_files: u32,
}

/// `GET /v1/logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsQuery {
    /// Services, instances, or `keepalive`; empty: all.
    pub names: Vec<String>,
    /// So many of the last ones; `None`: all that are still known.
    pub lines: Option<usize>,
    /// Whether to go on with what is still to come.
    pub follow: bool,
    /// Who asks has not come by the control socket.
    pub is_guest: bool,
}

/// What PID 1 tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// With the reading end of the pipe.
    Pipe(Source),
    /// A line of keepalive's own.
    Own {
        /// How important it is.
        level: Level,
        /// When it was written, since 1970.
        milliseconds: u64,
        /// The line.
        text: String,
    },
    /// The process of an instance has ended: what it has written comes before any later line of keepalive's own.
    Ended {
        /// The instance.
        slot: u32,
    },
    /// With the connection.
    Client(LogsQuery),
    /// Write out what there is and end.
    End {
        /// So many milliseconds may that take.
        within: u64,
    },
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut packet = Packet(Vec::new());
        match self {
            Self::Pipe(source) => {
                packet.byte(1);
                packet.source(source);
            }
            Self::Own { level, milliseconds, text } => {
                packet.byte(2);
                packet.byte(*level as u8);
                packet.number(*milliseconds);
                let end = text.floor_char_boundary(TEXT_LIMIT);
                packet.bytes(text.get(..end).unwrap_or_default().as_bytes());
            }
            Self::Ended { slot } => {
                packet.byte(3);
                packet.number((*slot).into());
            }
            Self::Client(LogsQuery { names, lines, follow, is_guest }) => {
                packet.byte(4);
                packet.byte(u8::from(*follow));
                packet.byte(u8::from(*is_guest));
                packet.number(lines.map_or(u64::MAX, |lines| u64::try_from(lines).unwrap_or(u64::MAX)));
                names.iter().for_each(|name| packet.bytes(name.as_bytes()));
            }
            Self::End { within } => {
                packet.byte(5);
                packet.number(*within);
            }
        }
        packet.0
    }

    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut rest = Rest(packet);
        Some(match rest.byte()? {
            1 => Self::Pipe(rest.source()?),
            2 => {
                let level = Level::iter().nth(usize::from(rest.byte()?).checked_sub(1)?)?;
                Self::Own { level, milliseconds: rest.number()?, text: rest.string()? }
            }
            3 => Self::Ended { slot: rest.small()? },
            4 => {
                let follow = rest.byte()? != 0;
                let is_guest = rest.byte()? != 0;
                let lines = usize::try_from(rest.number()?).ok().filter(|lines| *lines != usize::MAX);
                let names = std::iter::from_fn(|| rest.string()).collect();
                Self::Client(LogsQuery { names, lines, follow, is_guest })
            }
            5 => Self::End { within: rest.number()? },
            _ => return None,
        })
    }
}

struct Packet(Vec<u8>);

impl Packet {
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
        for number in [source.slot, source.instance, source.turn] {
            self.number(number.into());
        }
        self.bytes(source.service.as_bytes());
        if let Some(file) = &source.file {
            self.number(file.max_size);
            self.number(file.max_files.into());
            self.bytes(file.path.as_os_str().as_bytes());
        }
    }
}

struct Rest<'p>(&'p [u8]);

impl<'p> Rest<'p> {
    fn take(&mut self, length: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take(8)?.try_into().ok()?))
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<&'p [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn source(&mut self) -> Option<Source> {
        let stream = if self.byte()? == 0 { Stream::Stdout } else { Stream::Stderr };
        let target = match self.byte()? {
            0 => Target::Nowhere,
            1 => Target::Raw,
            _ => Target::Lines,
        };
        let serial = self.number()?;
        let (slot, instance, turn) = (self.small()?, self.small()?, self.small()?);
        let service = self.string()?;
        let mut file = None;
        if !self.0.is_empty() {
            let (max_size, max_files) = (self.number()?, self.small()?);
            let path = Path::new(std::ffi::OsStr::from_bytes(self.bytes()?)).to_owned();
            file = Some(FileTarget { path, max_size, max_files });
        }
        Some(Source { serial, slot, stream, service, instance, turn, target, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(file: Option<FileTarget>) -> Source {
        let (serial, slot, instance, turn) = (u64::MAX, 7, 2, u32::MAX);
        let (stream, service, target) = (Stream::Stderr, "web".to_owned(), Target::Lines);
        Source { serial, slot, stream, service, instance, turn, target, file }
    }

    #[test]
    fn what_is_told_is_what_was_said() {
        let names = vec!["web".to_owned(), "db.1".to_owned()];
        let file = FileTarget { path: PathBuf::from("/v/w"), max_size: u64::MAX, max_files: 3 };
        for message in [
            Message::Pipe(source(None)),
            Message::Pipe(Source { target: Target::Raw, stream: Stream::Stdout, ..source(Some(file)) }),
            Message::Own { level: Level::Error, milliseconds: 12, text: "→ b".to_owned() },
            Message::Own { level: Level::Trace, milliseconds: 12, text: String::new() },
            Message::Ended { slot: 1 },
            Message::Client(LogsQuery { names, lines: Some(0), follow: true, is_guest: true }),
            Message::Client(LogsQuery::default()),
            Message::End { within: 2_000 },
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn a_long_message_is_cut_between_letters_and_a_broken_packet_is_none() {
        let long = Message::Own { level: Level::Info, milliseconds: 0, text: "→".repeat(TEXT_LIMIT) };
        let packet = long.encode();
        assert!(packet.len() <= PACKET_LIMIT);
        let Some(Message::Own { text, .. }) = Message::decode(&packet) else { panic!("it is no message any more") };
        assert_eq!(text, "→".repeat(TEXT_LIMIT / 3));
        for packet in [&b""[..], b"\0", b"\x01\x01", b"\x02\x09", b"\x05123"] {
            assert_eq!(Message::decode(packet), None, "{packet:?}");
        }
    }
}
