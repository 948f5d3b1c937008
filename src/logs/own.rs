//! keepalive's own messages: to stderr, the level by `KEEPALIVE_LOG` in the syntax of env_logger.

use env_filter::{Builder, Filter};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::sys::StandardError;

/// The variable that sets the level: `debug`, `warn`, `off`, `keepalive=debug`, …
pub const LEVEL_VARIABLE: &str = "KEEPALIVE_LOG";

/// Sends what is logged from now on to stderr, up to `level` unless `KEEPALIVE_LOG` says otherwise.
///
/// Has no effect if it has been called before.
pub fn start(level: LevelFilter) {
    let mut builder = Builder::new();
    builder.filter_level(level);
    let wish = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let is_invalid = !wish.is_empty() && builder.try_parse(&wish).is_err();
    let filter = builder.build();
    log::set_max_level(filter.filter());
    // A second start leaves the first as it is.
    drop(log::set_boxed_logger(Box::new(Lines(filter))));
    if is_invalid {
        log::warn!("{LEVEL_VARIABLE} is not understood: `{wish}`; write debug, info, warn, error or off");
    }
}

/// One line for each message. A message that nobody can read must not stop anything.
struct Lines(Filter);

impl Log for Lines {
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
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
            Level::Info => "",
        };
        StandardError.write_line(format!("keepalive: {severity}{}", record.args()).as_bytes());
    }

    fn flush(&self) {}
}
