//! Writes bytes to stdout and stderr.

use std::io::Write;
use std::os::fd::AsRawFd;

use super::act;

/// Any number of OUT TEXT or ERR TEXT, then the verb after THEN.
///
/// `\n`, `\\` and `\xHH` stand for bytes; `TEXT*N` for N times the text.
pub(super) fn put(words: &[&str]) -> u8 {
    match words {
        [] => 0,
        ["THEN", rest @ ..] => act(rest),
        ["OUT", text, rest @ ..] => {
            write_all(&std::io::stdout(), &bytes(text));
            put(rest)
        }
        ["ERR", text, rest @ ..] => {
            write_all(&std::io::stderr(), &bytes(text));
            put(rest)
        }
        _ => panic!("puppet: OUT TEXT or ERR TEXT expected, found {words:?}"),
    }
}

/// `line 00000001` to `line COUNT`, then the verb REST.
pub(super) fn lines(count: u64, rest: &[&str]) -> u8 {
    let mut buffer = Vec::new();
    for number in 1..=count {
        writeln!(buffer, "line {number:08}").expect("memory");
        if buffer.len() > 4_000 || number == count {
            write_all(&std::io::stdout(), &buffer);
            buffer.clear();
        }
    }
    if rest.is_empty() { 0 } else { act(rest) }
}

/// Without a buffer of the standard library, and with the inherited action of SIGPIPE.
fn write_all(stream: &impl AsRawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the buffer has at least this many readable bytes.
        let written = unsafe { libc::write(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        let written = usize::try_from(written).expect("the stream takes it");
        bytes = &bytes[written..];
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let (text, times) = match text.rsplit_once('*') {
        Some((text, times)) => (text, times.parse().expect("a number")),
        None => (text, 1),
    };
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes() {
            [b'n', ..] => (b'\n', 1),
            [b'x', ..] => (u8::from_str_radix(&escape[1..3], 16).expect("two digits"), 3),
            _ => (b'\\', 1),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes.repeat(times)
}
