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
    let wish = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let invalid = !wish.is_empty() && builder.try_parse(&wish).is_err();
    let filter = builder.build();
    log::set_max_level(filter.filter());
    // Refused the second time, as promised above.
    log::set_boxed_logger(Box::new(OwnLines(filter))).ok();
    if invalid {
        log::warn!("{LEVEL_VARIABLE} is not understood: `{wish}`; such as debug, info, warn, error, off");
    }
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
