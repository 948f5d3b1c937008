//! keepalive's own messages: where the macros of the `log` crate lead.
//!
//! `KEEPALIVE_LOG` filters them, in the syntax of env_logger. They go to the logger process, or to stderr where there is
//! none; neither is ever waited for.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use env_filter::{Builder, Filter};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::channel;
use super::protocol::{MAX_PACKET_BYTES, Message};
use super::termination_log;
use crate::sys::{self, StandardError, packet};

/// The variable with the filter: `debug`, `warn`, `off`, `keepalive=debug`, …
const FILTER_VARIABLE: &str = "KEEPALIVE_LOG";
/// The initial capacity of a message, which most messages do not exceed.
const TYPICAL_LINE_BYTES: usize = 160;

/// Starts logging, up to `level` unless `KEEPALIVE_LOG` says otherwise.
///
/// `termination_log`: where errors are written too, for a program that ends with its first error.
///
/// A second call has no effect.
pub fn init(level: LevelFilter, termination_log: Option<&'static Path>) {
    let mut builder = Builder::new();
    builder.filter_level(level);
    let value = std::env::var_os(FILTER_VARIABLE).unwrap_or_default();
    let text = value.to_string_lossy();
    let is_valid = builder.try_parse(&text).is_ok() && names_only_keepalive(&text);
    let filter = builder.build();
    log::set_max_level(filter.filter());
    // An error if there is a logger already.
    log::set_boxed_logger(Box::new(Messages { filter, termination_log })).ok();
    if !is_valid {
        log::warn!("invalid {FILTER_VARIABLE} `{text}`: expected error, warn, info, debug or off");
    }
}

/// Whether each directive is a level or names a module of keepalive. env_logger takes any other word for a module, a
/// misspelt level too.
fn names_only_keepalive(filter: &str) -> bool {
    let parts = filter.split('/').next().unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.into_iter().all(|part| {
        let (name, level) = part.split_once('=').unwrap_or((part, ""));
        let is_level = level.is_empty() && name.parse::<LevelFilter>().is_ok();
        is_level || name == "keepalive" || name.starts_with("keepalive::")
    })
}

/// The logger of the `log` crate.
struct Messages {
    filter: Filter,
    termination_log: Option<&'static Path>,
}

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let mut message = String::with_capacity(TYPICAL_LINE_BYTES);
        // Writing to a String cannot fail.
        let _ = message.write_fmt(*record.args());
        if let Some(path) = self.termination_log.filter(|_| record.level() == Level::Error) {
            // The same text goes to stderr.
            termination_log::write(path, &format!("{message}\n")).ok();
        }
        write(record.level(), message);
    }

    fn flush(&self) {}
}

/// Writes `reason`, why keepalive exits, to stderr as the last line, whatever the filter says. In text it has no severity.
pub fn write_final_line(reason: &str) {
    let mut style = channel::style();
    // Without the column of names, so that the line is the same with and without a logger.
    style.width = None;
    let level = if style.style.format == crate::model::plan::LogFormat::Json { Level::Error } else { Level::Info };
    let mut line = Vec::new();
    style.write(milliseconds(), level, reason, &mut line);
    line.pop();
    StandardError.write_final_line(&line);
}

/// Writes to stderr the messages that no logger has read from `peer`, the logger's end of the socket.
pub fn write_unread(peer: &OwnedFd) {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    loop {
        channel::flush();
        let Ok((length @ 1.., _)) = packet::receive(peer, &mut packet) else { return };
        if let Some(Message::Log { level, milliseconds, text, .. }) = packet.get(..length).and_then(Message::decode) {
            write_to_stderr(milliseconds, level, &text);
        }
    }
}

/// The time since 1970.
fn milliseconds() -> u64 {
    u64::try_from(sys::wall().as_millis()).unwrap_or(u64::MAX)
}

fn write(level: Level, message: String) {
    let milliseconds = milliseconds();
    if let Err(message) = channel::send_message(level, milliseconds, message) {
        write_to_stderr(milliseconds, level, &message);
    }
}

fn write_to_stderr(milliseconds: u64, level: Level, message: &str) {
    let mut line = Vec::with_capacity(TYPICAL_LINE_BYTES);
    channel::style().write(milliseconds, level, message, &mut line);
    // `write_line` appends the newline.
    line.pop();
    StandardError.write_line(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_neither_a_level_nor_a_module_of_keepalive_is_invalid() {
        for filter in ["", "debug", "WARN", "off,keepalive::init=trace", " info , keepalive", "debug/signal"] {
            assert!(names_only_keepalive(filter), "{filter}");
        }
        for filter in ["!!", "debgu", "keepalive=info,hyper=debug", "\u{fffd}", "=debug", "keepalives=info"] {
            assert!(!names_only_keepalive(filter), "{filter}");
        }
    }
}
