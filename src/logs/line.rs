//! Formats lines: as text with the name of the instance in front, or as JSON. Appends to a buffer and does nothing else.

use log::Level;

use super::timestamp::Timestamp;
use crate::model::plan::{LogFormat, LogStyle};
use crate::model::visible::one_line;

/// The name that stands for a service in keepalive's own messages.
pub const KEEPALIVE_NAME: &str = "keepalive";

/// Colours (SGR) of names, assigned to services in turn. They carry no meaning.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

/// The stream that a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// `stdout`, `stderr`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Whether a piece of text ends a line. A line that is too long comes in several pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line, or the last piece of one.
    Whole,
    /// More of the same line follows.
    Partial,
}

/// Whether a stream gets colours: on a terminal, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// No colours.
    #[default]
    Without,
    /// Colours.
    With,
}

/// The fixed part of all lines of one stream of one instance.
#[derive(Clone, Debug, Default)]
pub struct Label {
    whole: Vec<u8>,
    partial: Vec<u8>,
    json: Vec<u8>,
}

impl Label {
    /// `web.0 | ` in text, the name padded to `width`.
    #[must_use]
    pub fn new(service: &str, name: &str, stream: Stream, width: usize, colour: Option<usize>) -> Self {
        let (on, off) = match colour.and_then(|colour_index| COLOURS.get(colour_index % COLOURS.len())) {
            Some(colour) => (format!("\x1b[{colour}m"), "\x1b[0m"),
            None => (String::new(), ""),
        };
        let text = |mark: char| format!("{on}{name:<width$} {mark}{off} ").into_bytes();
        // The name of a service needs no escapes.
        let json = format!(r#","service":"{service}","instance":"{name}","stream":"{}","message":""#, stream.as_str());
        Self { whole: text('|'), partial: text('+'), json: json.into_bytes() }
    }

    /// Appends one line in `style`.
    pub fn write(&self, style: LogStyle, stamp: &Timestamp, text: &[u8], piece: Piece, to: &mut Vec<u8>) {
        if style.format == LogFormat::Json {
            return self.write_json(stamp, text, piece, to);
        }
        write_time(style, stamp, to);
        to.extend_from_slice(match piece {
            Piece::Whole => &self.whole,
            Piece::Partial => &self.partial,
        });
        to.extend_from_slice(text);
        to.push(b'\n');
    }

    /// Appends one line of JSON.
    pub fn write_json(&self, stamp: &Timestamp, text: &[u8], piece: Piece, to: &mut Vec<u8>) {
        to.extend_from_slice(br#"{"time":""#);
        to.extend_from_slice(stamp.as_bytes());
        to.push(b'"');
        to.extend_from_slice(&self.json);
        escape(text, to);
        to.extend_from_slice(match piece {
            Piece::Whole => b"\",\"partial\":false}\n",
            Piece::Partial => b"\",\"partial\":true}\n",
        });
    }
}

/// Appends the timestamp and a space if text lines have timestamps.
pub fn write_time(style: LogStyle, stamp: &Timestamp, to: &mut Vec<u8>) {
    if style.timestamps {
        to.extend_from_slice(stamp.as_bytes());
        to.push(b' ');
    }
}

/// The format of keepalive's own messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageStyle {
    /// The format of the services' lines, which messages follow.
    pub style: LogStyle,
    /// The width of the column of names; `None`: lines have no names.
    pub width: Option<usize>,
}

impl MessageStyle {
    /// Appends one message of `milliseconds` since 1970, with a newline.
    pub fn write(self, milliseconds: u64, level: Level, message: &str, to: &mut Vec<u8>) {
        if self.style.format == LogFormat::Json {
            return write_message_json(&Timestamp::at(milliseconds), level, message, to);
        }
        if self.style.timestamps {
            write_time(self.style, &Timestamp::at(milliseconds), to);
        }
        let severity = match level {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        to.extend_from_slice(KEEPALIVE_NAME.as_bytes());
        let mark = match self.width {
            Some(width) => {
                to.extend(std::iter::repeat_n(b' ', width.saturating_sub(KEEPALIVE_NAME.len())));
                " | "
            }
            None => ": ",
        };
        for part in [mark, severity, &*one_line(message), "\n"] {
            to.extend_from_slice(part.as_bytes());
        }
    }
}

/// Appends one message as a line of JSON.
pub fn write_message_json(stamp: &Timestamp, level: Level, message: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"time":""#);
    to.extend_from_slice(stamp.as_bytes());
    to.extend_from_slice(br#"","service":"keepalive","instance":null,"stream":"stderr","message":""#);
    escape(message.as_bytes(), to);
    to.extend_from_slice(br#"","partial":false,"level":""#);
    to.extend_from_slice(match level {
        Level::Error => b"error",
        Level::Warn => b"warning",
        Level::Info => b"info",
        Level::Debug => b"debug",
        Level::Trace => b"trace",
    });
    to.extend_from_slice(b"\"}\n");
}

/// Appends `text` with the escapes of a JSON string. Bytes that are not UTF-8 become U+FFFD.
fn escape(text: &[u8], to: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid().as_bytes(), to);
        if !chunk.invalid().is_empty() {
            to.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_valid(mut text: &[u8], to: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // 0xc2 begins U+0080 to U+009F, which terminals obey as they do those below U+0020.
    let needs_escape = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\' | 0x7f | 0xc2);
    while let Some(position) = text.iter().position(needs_escape) {
        let (plain, rest) = text.split_at(position);
        to.extend_from_slice(plain);
        let Some((mut byte, mut rest)) = rest.split_first() else { return };
        if *byte == 0xc2 {
            let Some((second, after)) = rest.split_first() else { return };
            rest = after;
            if *second >= 0xa0 {
                to.extend([*byte, *second]);
                text = rest;
                continue;
            }
            byte = second;
        }
        match byte {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            b'\t' => to.extend_from_slice(b"\\t"),
            b'\r' => to.extend_from_slice(b"\\r"),
            byte => {
                to.extend_from_slice(b"\\u00");
                let digit = |half: u8| HEX.get(usize::from(half)).copied().unwrap_or(b'0');
                to.extend([digit(byte >> 4), digit(byte & 15)]);
            }
        }
        text = rest;
    }
    to.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: LogStyle = LogStyle { format: LogFormat::Text, timestamps: false };
    const JSON: LogStyle = LogStyle { format: LogFormat::Json, timestamps: false };

    fn written(style: LogStyle, text: &[u8], piece: Piece) -> String {
        let mut line = Vec::new();
        Label::new("web", "web.2", Stream::Stderr, 8, None).write(style, &Timestamp::at(0), text, piece, &mut line);
        String::from_utf8(line).unwrap()
    }

    // date -u -d @SECONDS +%FT%TZ
    #[test]
    fn timestamps_follow_rfc_3339() {
        let check = |milliseconds, expect: &str| assert_eq!(Timestamp::at(milliseconds).as_bytes(), expect.as_bytes());
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(951_868_800_001, "2000-03-01T00:00:00.001Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        check(1_795_247_999_120, "2026-11-21T07:59:59.120Z");
        check(253_402_300_799_000, "9999-12-31T23:59:59.000Z");
        check(u64::MAX, "9999-12-31T23:59:59.615Z");
    }

    #[test]
    fn a_text_line_has_the_name_in_front_and_keeps_its_bytes() {
        assert_eq!(written(TEXT, b"one", Piece::Whole), "web.2    | one\n");
        assert_eq!(written(TEXT, b"", Piece::Partial), "web.2    + \n");
        let timed = LogStyle { timestamps: true, ..TEXT };
        assert_eq!(written(timed, b"one", Piece::Whole), "1970-01-01T00:00:00.000Z web.2    | one\n");
        let mut line = Vec::new();
        let label = Label::new("a", "a.0", Stream::Stdout, 0, Some(7));
        label.write(TEXT, &Timestamp::at(0), b"\xff\x00", Piece::Whole, &mut line);
        assert_eq!(line, b"\x1b[33ma.0 |\x1b[0m \xff\x00\n");
    }

    #[test]
    fn a_json_line_is_an_object_whatever_its_bytes() {
        let text = b"q\"b\\t\tr\rc\x01\x1f\x7f u\xc3\xa4 \xc2\xa0\xc2\x9b bad\xff\xfe cut\xe2\x82";
        let line = written(JSON, text, Piece::Partial);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let message = "q\"b\\t\tr\rc\u{1}\u{1f}\u{7f} u\u{e4} \u{a0}\u{9b} bad\u{fffd}\u{fffd} cut\u{fffd}";
        let expect = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "service": "web", "instance": "web.2", "stream": "stderr",
            "message": message, "partial": true,
        });
        assert_eq!(value, expect);
        assert_eq!(line.find(char::is_control), line.len().checked_sub(1), "only the newline");
    }

    #[test]
    fn messages_have_the_format_of_service_lines() {
        let check = |style: MessageStyle, expect: &str| {
            let mut line = Vec::new();
            style.write(0, Level::Warn, "a \"b\"", &mut line);
            assert_eq!(String::from_utf8(line).unwrap(), expect);
        };
        check(MessageStyle::default(), "keepalive: warning: a \"b\"\n");
        check(MessageStyle { style: TEXT, width: Some(11) }, "keepalive   | warning: a \"b\"\n");
        check(
            MessageStyle { style: JSON, width: None },
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"service\":\"keepalive\",\"instance\":null,\"stream\":\"stderr\",\
             \"message\":\"a \\\"b\\\"\",\"partial\":false,\"level\":\"warning\"}\n",
        );
    }
}
