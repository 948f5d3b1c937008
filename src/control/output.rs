//! stdout and stderr of a client.

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use nix::errno::Errno;

use crate::model::errno;
use crate::model::exit_code::OS_ERROR;
use crate::sys::termios;

/// How wide a table may be on a terminal where nobody knows better.
const COLUMNS: usize = 80;
/// No table can be narrower: a name of eight letters, and the longest state.
const COLUMNS_AT_LEAST: usize = 20;

/// How stdout is to be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colour: Colour,
    pub(super) columns: usize,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Yes,
    No,
}

impl Style {
    /// As stdout and the environment want it.
    pub(super) fn find(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb(variable);
        let size = termios::size().map(|size| size.columns);
        let unknown = if is_terminal() { COLUMNS } else { usize::MAX };
        let columns = columns(size, variable("COLUMNS"), unknown);
        Self { colour: if is_terminal() && !unwanted { Colour::Yes } else { Colour::No }, columns }
    }
}

/// How wide a table may be: as the terminal, or else `$COLUMNS`, or else `unknown`: a file or a pipe takes whole names.
fn columns(terminal: Option<usize>, variable: Option<OsString>, unknown: usize) -> usize {
    let said = || variable?.to_str()?.parse().ok().filter(|columns| *columns > 0);
    terminal.or_else(said).map_or(unknown, |columns| columns.max(COLUMNS_AT_LEAST))
}

/// Whether stdout is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether the terminal takes nothing but text.
pub(super) fn is_dumb(variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|value| value == "dumb")
}

impl Colour {
    /// `text` in the colour of `code` (SGR).
    pub(super) fn paint(self, code: &'static str, text: &str) -> String {
        self.code(code).map_or_else(|| text.to_owned(), |code| format!("\x1b[{code}m{text}\x1b[0m"))
    }

    /// `code` (SGR) where there are colours and this is one.
    pub(super) fn code(self, code: &'static str) -> Option<&'static str> {
        Some(code).filter(|code| self == Self::Yes && !code.is_empty())
    }
}

/// To stdout, at once.
pub(super) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_ref())?;
    output.flush()
}

/// One line to stderr, whatever is in it.
pub(super) fn tell(line: &str) {
    // There is nobody left to tell if this fails.
    io::stderr().write_all(format!("keepalive: {}\n", harmless(line)).as_bytes()).ok();
}

/// As [`tell`], of a reason that may have several lines, such as what is wrong with a configuration.
pub(super) fn tell_lines(what: &str, reason: &str) {
    let (first, rest) = reason.split_once('\n').unwrap_or((reason, ""));
    tell(&format!("{what}: {first}"));
    let rest: String = rest.lines().map(|line| harmless(line) + "\n").collect();
    // As above.
    io::stderr().write_all(rest.as_bytes()).ok();
}

/// The exit code when stdout cannot be written to: that nobody reads any more is no failure of ours.
pub(super) fn unwritten(error: &io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    tell(&format!("cannot write to stdout: {}", errno::words(errno)));
    OS_ERROR
}

/// `text` without what could steer a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_limits_a_table_unless_columns_are_said() {
        let said = |text: &str| Some(OsString::from(text));
        assert_eq!(columns(Some(100), said("60"), 80), 100);
        assert_eq!(columns(Some(10), None, 80), COLUMNS_AT_LEAST);
        assert_eq!(columns(None, None, 80), 80);
        assert_eq!(columns(None, said("60"), 80), 60);
        assert_eq!(columns(None, said("60"), usize::MAX), 60);
        for nonsense in [None, said(""), said("0"), said("wide")] {
            assert_eq!(columns(None, nonsense, usize::MAX), usize::MAX);
        }
    }
}
