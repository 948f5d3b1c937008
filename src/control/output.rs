//! stdout and stderr of a client.

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use nix::errno::Errno;
use serde_json::Value;

use super::request::EXIT_FAILURE;
use crate::model::errno;
use crate::model::visible::one_line;
use crate::sys::entry::was_closed;
use crate::sys::termios;

/// The width of a table on a terminal of unknown size.
const DEFAULT_COLUMNS: usize = 80;
/// The least width of a table: a name of eight letters and the longest state.
const MIN_COLUMNS: usize = 20;

/// The style of what is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colour: Colour,
    pub(super) columns: usize,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Yes,
    No,
}

impl Style {
    /// Finds the style for stdout in this environment.
    pub(super) fn find(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb(variable);
        let size = termios::size().map(|size| size.columns);
        let unknown = if is_terminal() { DEFAULT_COLUMNS } else { usize::MAX };
        let columns = columns(size, variable("COLUMNS"), unknown);
        Self { colour: if is_terminal() && !unwanted { Colour::Yes } else { Colour::No }, columns }
    }
}

/// The width of a table: that of the terminal, or `$COLUMNS`, or `unknown`. A file or a pipe gets whole names.
fn columns(terminal: Option<usize>, variable: Option<OsString>, unknown: usize) -> usize {
    let said = || variable?.to_str()?.parse().ok().filter(|columns| *columns > 0);
    terminal.or_else(said).map_or(unknown, |columns| columns.max(MIN_COLUMNS))
}

/// Whether stdout is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether the terminal supports plain text only.
pub(super) fn is_dumb(variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|value| value == "dumb")
}

impl Colour {
    /// `text` in the colour `code` (SGR).
    pub(super) fn paint(self, code: &'static str, text: &str) -> String {
        self.code(code).map_or_else(|| text.to_owned(), |code| format!("\x1b[{code}m{text}\x1b[0m"))
    }

    /// `code` (SGR) if colours are used and it is one.
    pub(super) fn code(self, code: &'static str) -> Option<&'static str> {
        Some(code).filter(|code| self == Self::Yes && !code.is_empty())
    }
}

/// Prints a text that was asked for, and returns the exit code.
#[must_use]
pub fn print_text(text: &str) -> u8 {
    print(text).err().map_or(0, |error| output_error_code(&error))
}

/// Writes to stdout, and flushes.
pub(super) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if was_closed(&output) {
        return Err(Errno::EBADF.into());
    }
    output.write_all(text.as_ref())?;
    output.flush()
}

/// `value` as a line. As `Display` it would need two formatters more: `{:#}` is another one.
pub(super) fn json_line(value: &Value) -> String {
    // Serialization of a value cannot fail.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// Writes one line to stderr, whatever `line` contains.
pub(super) fn print_error(line: &str) {
    // If stderr fails, nothing is left to report to.
    io::stderr().write_all(format!("keepalive: {}\n", one_line(line)).as_bytes()).ok();
}

/// As [`print_error`], of a reason that may have several lines, such as the errors of a configuration.
pub(super) fn print_error_lines(what: &str, reason: &str) {
    let (first, rest) = reason.split_once('\n').unwrap_or((reason, ""));
    print_error(&format!("{what}: {first}"));
    let rest: String = rest.lines().map(|line| one_line(line).into_owned() + "\n").collect();
    // As above.
    io::stderr().write_all(rest.as_bytes()).ok();
}

/// The exit code when stdout cannot be written to. A reader that has gone is no failure.
pub(super) fn output_error_code(error: &io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    print_error(&format!("cannot write to stdout: {}", errno::words(errno)));
    EXIT_FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_or_columns_limits_the_width_of_a_table() {
        let said = |text: &str| Some(OsString::from(text));
        assert_eq!(columns(Some(100), said("60"), 80), 100);
        assert_eq!(columns(Some(10), None, 80), MIN_COLUMNS);
        assert_eq!(columns(None, None, 80), 80);
        assert_eq!(columns(None, said("60"), 80), 60);
        assert_eq!(columns(None, said("60"), usize::MAX), 60);
        for nonsense in [None, said(""), said("0"), said("wide")] {
            assert_eq!(columns(None, nonsense, usize::MAX), usize::MAX);
        }
    }
}
