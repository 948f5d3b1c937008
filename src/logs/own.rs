//! keepalive's own messages: to stderr, the level by `KEEPALIVE_LOG` in the syntax of env_logger.

use std::io::{self, Write};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

use crate::sys::StandardError;

/// The variable that sets the level: `debug`, `warn`, `off`, `keepalive=debug`, …
pub const LEVEL_VARIABLE: &str = "KEEPALIVE_LOG";

/// Sends what is logged from now on to stderr, up to `level` unless `KEEPALIVE_LOG` says otherwise.
///
/// Has no effect if it has been called before.
pub fn start(level: LevelFilter) {
    let mut builder = Builder::new();
    builder.filter_level(level).parse_env(LEVEL_VARIABLE).format(format_line);
    let started = builder.target(Target::Pipe(Box::new(Lines(StandardError)))).try_init();
    // A second start leaves the first as it is.
    drop(started);
}

fn format_line(formatter: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> io::Result<()> {
    let severity = match record.level() {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Debug => "debug: ",
        Level::Trace => "trace: ",
        Level::Info => "",
    };
    writeln!(formatter, "keepalive: {severity}{}", record.args())
}

/// Takes whole lines and never fails: a message that nobody can read must not stop anything.
struct Lines(StandardError);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line.strip_suffix(b"\n").unwrap_or(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
