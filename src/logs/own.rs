//! keepalive's own messages: to the logger, and to stderr where there is none; the level by `KEEPALIVE_LOG` in the
//! syntax of env_logger.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use env_filter::{Builder, Filter};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::link;
use super::message::{Message, PACKET_LIMIT};
use crate::sys::{self, StandardError, packet};

/// The variable that sets the level: `debug`, `warn`, `off`, `keepalive=debug`, …
const LEVEL_VARIABLE: &str = "KEEPALIVE_LOG";
/// In bytes.
const TYPICAL_LINE: usize = 160;

/// Sends what is logged from now on to stderr, up to `level` unless `KEEPALIVE_LOG` says otherwise.
///
/// Has no effect if it has been called before.
pub fn start(level: LevelFilter) {
    let mut builder = Builder::new();
    builder.filter_level(level);
    let value = std::env::var_os(LEVEL_VARIABLE).unwrap_or_default();
    let wish = value.to_string_lossy();
    let invalid = builder.try_parse(&wish).is_err() || !speaks_of_us(&wish);
    let filter = builder.build();
    log::set_max_level(filter.filter());
    // Refused the second time, as promised above.
    log::set_boxed_logger(Box::new(OwnLines(filter))).ok();
    if invalid {
        log::warn!("invalid {LEVEL_VARIABLE} `{wish}`: expected error, warn, info, debug or off");
    }
}

/// Whether each part is a level or names a module of ours: to env_logger any other word is some module too.
fn speaks_of_us(wish: &str) -> bool {
    let parts = wish.split('/').next().unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.into_iter().all(|part| {
        let (name, level) = part.split_once('=').unwrap_or((part, ""));
        let is_level = level.is_empty() && name.parse::<LevelFilter>().is_ok();
        is_level || name == "keepalive" || name.starts_with("keepalive::")
    })
}

/// Writes whole lines and never waits.
struct OwnLines(Filter);

impl Log for OwnLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.0.matches(record) {
            return;
        }
        // Most lines are shorter: no memory is asked for twice.
        let mut message = String::with_capacity(TYPICAL_LINE);
        // A String takes every write.
        let _ = message.write_fmt(*record.args());
        write(record.level(), message);
    }

    fn flush(&self) {}
}

/// The very last line, whatever the level of messages: to stderr, after everything else. As it is the reason of an
/// end, text has no severity before it.
pub fn write_final_line(reason: &str) {
    let mut style = link::style();
    // Where there are names before lines this one has none, so that whoever looks for it finds the same everywhere.
    style.width = None;
    let level = if style.style.format == crate::model::plan::LogFormat::Json { Level::Error } else { Level::Info };
    let mut line = Vec::new();
    style.write(milliseconds(), level, reason, &mut line);
    line.pop();
    StandardError.write_final_line(&line);
}

/// Writes to stderr what no logger has read from `peer`, the other end of the way to it, as none ever will.
pub fn write_unread(peer: &OwnedFd) {
    let mut packet = vec![0; PACKET_LIMIT];
    loop {
        link::flush();
        let Ok((length @ 1.., _)) = packet::receive(peer, &mut packet) else { return };
        if let Some(Message::Own { level, milliseconds, text }) = packet.get(..length).and_then(Message::decode) {
            write_to_stderr(milliseconds, level, &text);
        }
    }
}

/// Now, since 1970.
fn milliseconds() -> u64 {
    u64::try_from(sys::wall().as_millis()).unwrap_or(u64::MAX)
}

fn write(level: Level, message: String) {
    let milliseconds = milliseconds();
    if let Err(message) = link::own_line(level, milliseconds, message) {
        write_to_stderr(milliseconds, level, &message);
    }
}

fn write_to_stderr(milliseconds: u64, level: Level, message: &str) {
    let mut line = Vec::with_capacity(TYPICAL_LINE);
    link::style().write(milliseconds, level, message, &mut line);
    // stderr brings its own newline.
    line.pop();
    StandardError.write_line(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_and_no_module_of_ours_is_not_understood() {
        for wish in ["", "debug", "WARN", "off,keepalive::init=trace", " info , keepalive", "debug/signal"] {
            assert!(speaks_of_us(wish), "{wish}");
        }
        for wish in ["!!", "debgu", "keepalive=info,hyper=debug", "\u{fffd}", "=debug", "keepalives=info"] {
            assert!(!speaks_of_us(wish), "{wish}");
        }
    }
}
