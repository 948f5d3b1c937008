//! How a line looks: text with the name of its instance before it, or JSON. Appends to a buffer and does nothing else.

use log::Level;

use super::stamp::Stamp;
use crate::model::plan::{LogFormat, LogStyle};

/// What keepalive's own lines have in the place of a service.
pub const OWN_NAME: &str = "keepalive";

/// The name of a prefix in colour, one for each service in turn; none of them means anything.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

/// Which of the two a line was written to.
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

/// Whether a piece of text is a line, or was cut because the line is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line, or the end of one.
    Whole,
    /// More of the same line follows.
    Cut,
}

/// Whether a stream is shown in colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// It is not.
    #[default]
    Without,
    /// It is a terminal, and nobody has asked for none.
    With,
}

/// What stands before and after the text of each line of one stream of one instance.
#[derive(Clone, Debug, Default)]
pub struct Label {
    whole: Vec<u8>,
    cut: Vec<u8>,
    json: Vec<u8>,
}

impl Label {
    /// `web.0 | `, the names filled up to `width`.
    #[must_use]
    pub fn new(service: &str, instance: u32, stream: Stream, width: usize, colour: Option<usize>) -> Self {
        let name = format!("{service}.{instance}");
        let (on, off) = match colour.and_then(|turn| COLOURS.get(turn % COLOURS.len())) {
            Some(colour) => (format!("\x1b[{colour}m"), "\x1b[0m"),
            None => (String::new(), ""),
        };
        let text = |mark: char| format!("{on}{name:<width$} {mark}{off} ").into_bytes();
        // Names of services need no escape.
        let json = format!(r#","service":"{service}","instance":"{name}","stream":"{}","message":""#, stream.as_str());
        Self { whole: text('|'), cut: text('+'), json: json.into_bytes() }
    }

    /// Appends one line.
    pub fn write(&self, style: LogStyle, stamp: &Stamp, text: &[u8], piece: Piece, to: &mut Vec<u8>) {
        if style.format == LogFormat::Json {
            return self.write_json(stamp, text, piece, to);
        }
        write_time(style, stamp, to);
        to.extend_from_slice(match piece {
            Piece::Whole => &self.whole,
            Piece::Cut => &self.cut,
        });
        to.extend_from_slice(text);
        to.push(b'\n');
    }

    /// Appends one object and a newline.
    pub fn write_json(&self, stamp: &Stamp, text: &[u8], piece: Piece, to: &mut Vec<u8>) {
        to.extend_from_slice(br#"{"time":""#);
        to.extend_from_slice(stamp.as_bytes());
        to.push(b'"');
        to.extend_from_slice(&self.json);
        escape(text, to);
        to.extend_from_slice(match piece {
            Piece::Whole => b"\",\"partial\":false}\n",
            Piece::Cut => b"\",\"partial\":true}\n",
        });
    }
}

/// Appends the time and a blank where lines of text have it.
pub fn write_time(style: LogStyle, stamp: &Stamp, to: &mut Vec<u8>) {
    if style.timestamps {
        to.extend_from_slice(stamp.as_bytes());
        to.push(b' ');
    }
}

/// How keepalive's own lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnStyle {
    /// As the services' lines.
    pub style: LogStyle,
    /// So long is the longest name of an instance, where lines have names: then this is one of them.
    pub width: Option<usize>,
}

impl OwnStyle {
    /// Appends one line of `milliseconds` since 1970.
    pub fn write(self, milliseconds: u64, level: Level, message: &str, to: &mut Vec<u8>) {
        if self.style.format == LogFormat::Json {
            return write_own_json(&Stamp::at(milliseconds), level, message, to);
        }
        if self.style.timestamps {
            write_time(self.style, &Stamp::at(milliseconds), to);
        }
        let severity = match level {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        to.extend_from_slice(OWN_NAME.as_bytes());
        let mark = match self.width {
            Some(width) => {
                to.extend(std::iter::repeat_n(b' ', width.saturating_sub(OWN_NAME.len())));
                " | "
            }
            None => ": ",
        };
        for part in [mark, severity, message, "\n"] {
            to.extend_from_slice(part.as_bytes());
        }
    }
}

/// Appends one object and a newline.
pub fn write_own_json(stamp: &Stamp, level: Level, message: &str, to: &mut Vec<u8>) {
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

/// Appends `text` as it stands between the quotes of a JSON string; what is no UTF-8 becomes U+FFFD.
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
    let needs_escape = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    while let Some(position) = text.iter().position(needs_escape) {
        let (plain, rest) = text.split_at(position);
        to.extend_from_slice(plain);
        let Some((byte, rest)) = rest.split_first() else { return };
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
        Label::new("web", 2, Stream::Stderr, 8, None).write(style, &Stamp::at(0), text, piece, &mut line);
        String::from_utf8(line).unwrap()
    }

    // date -u -d @SECONDS +%FT%TZ
    #[test]
    fn instants_are_written_as_rfc_3339_has_them() {
        let check = |milliseconds, expect: &str| assert_eq!(Stamp::at(milliseconds).as_bytes(), expect.as_bytes());
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
    fn a_line_of_text_has_the_name_before_it_and_keeps_its_bytes() {
        assert_eq!(written(TEXT, b"one", Piece::Whole), "web.2    | one\n");
        assert_eq!(written(TEXT, b"", Piece::Cut), "web.2    + \n");
        let timed = LogStyle { timestamps: true, ..TEXT };
        assert_eq!(written(timed, b"one", Piece::Whole), "1970-01-01T00:00:00.000Z web.2    | one\n");
        let mut line = Vec::new();
        let label = Label::new("a", 0, Stream::Stdout, 0, Some(7));
        label.write(TEXT, &Stamp::at(0), b"\xff\x00", Piece::Whole, &mut line);
        assert_eq!(line, b"\x1b[33ma.0 |\x1b[0m \xff\x00\n");
    }

    #[test]
    fn a_line_of_json_is_an_object_whatever_is_in_it() {
        let text = b"q\"b\\t\tr\rc\x01\x1f\x7f u\xc3\xa4 bad\xff\xfe cut\xe2\x82";
        let line = written(JSON, text, Piece::Cut);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let message = "q\"b\\t\tr\rc\u{1}\u{1f}\u{7f} u\u{e4} bad\u{fffd}\u{fffd} cut\u{fffd}";
        let expect = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "service": "web", "instance": "web.2", "stream": "stderr",
            "message": message, "partial": true,
        });
        assert_eq!(value, expect);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn own_lines_look_like_the_others_where_there_are_others() {
        let check = |style: OwnStyle, expect: &str| {
            let mut line = Vec::new();
            style.write(0, Level::Warn, "a \"b\"", &mut line);
            assert_eq!(String::from_utf8(line).unwrap(), expect);
        };
        check(OwnStyle::default(), "keepalive: warning: a \"b\"\n");
        check(OwnStyle { style: TEXT, width: Some(11) }, "keepalive   | warning: a \"b\"\n");
        check(
            OwnStyle { style: JSON, width: None },
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"service\":\"keepalive\",\"instance\":null,\"stream\":\"stderr\",\
             \"message\":\"a \\\"b\\\"\",\"partial\":false,\"level\":\"warning\"}\n",
        );
    }
}
