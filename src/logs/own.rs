//! keepalive's own messages: to stderr, the level by `KEEPALIVE_LOG` in the syntax of env_logger.

use env_filter::{Builder, Filter};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::sys::StandardError;

/// The variable that sets the level: `debug`, `warn`, `off`, `keepalive=debug`, …
const LEVEL_VARIABLE: &str = "KEEPALIVE_LOG";

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
        log::warn!("{LEVEL_VARIABLE} is not understood: `{wish}`; such as debug, info, warn, error, off");
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
        let severity = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        StandardError.write_line(format!("keepalive: {severity}{}", record.args()).as_bytes());
    }

    fn flush(&self) {}
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
