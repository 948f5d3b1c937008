//! An option of a command line.

use crate::control::Names;

#[derive(Debug)]
pub(super) struct Opt {
    /// `-x`, or empty.
    pub(super) short: &'static str,
    /// `--long`, or empty.
    pub(super) long: &'static str,
    /// The placeholder for its value; empty if it takes none.
    pub(super) value: &'static str,
    #[cfg_attr(not(feature = "tools"), expect(dead_code, reason = "completions are in keepalive-tools"))]
    pub(super) values: Values,
    pub(super) help: &'static str,
}

/// The values to which a shell can complete a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Nothing,
    Files,
    Directories,
    Users,
    Signals,
    Shells,
    Commands,
    /// Names that a running keepalive knows; `keepalive completions` prints them.
    Named(Names),
    Choice(&'static [&'static str]),
}

pub(super) const fn flag(short: &'static str, long: &'static str, help: &'static str) -> Opt {
    Opt { short, long, value: "", values: Values::Nothing, help }
}

pub(super) const fn option(
    short: &'static str,
    long: &'static str,
    value: &'static str,
    values: Values,
    help: &'static str,
) -> Opt {
    Opt { short, long, value, values, help }
}
