//! What loading a configuration needs to know about the system, apart from the configuration itself.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::files::Files;
use crate::model::plan::LogStyle;

/// What loading a configuration needs to know about the system.
#[derive(Clone, Copy)]
pub struct Environment<'e> {
    /// Answers queries about files: [`query_fs`](super::query_fs), or recorded results of it.
    pub files: Files<'e>,
    /// The environment variables that keepalive was started with.
    pub variables: &'e [(OsString, OsString)],
    /// The root directory for `etc/passwd`, `etc/group` and the default configuration files. `/` except in tests.
    pub root: &'e Path,
    /// The current directory.
    pub directory: &'e Path,
    /// The value of `instances = "cpus"`.
    pub cpus: &'e dyn Fn() -> u32,
    /// The hard limit of an `RLIMIT_` number; `None`: unlimited.
    pub hard_limit: &'e dyn Fn(u32) -> Option<u64>,
    /// Why keepalive would not write a file at this path; `None` if it would.
    pub unsafe_path: &'e dyn Fn(&Path) -> Option<String>,
    /// Whether keepalive's stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// The `log` of `[keepalive]` that is in effect, whatever the configuration says; `None`: that of the configuration.
    pub log: Option<LogStyle>,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// Why the configuration is loaded.
    pub purpose: Purpose,
}

/// Why a configuration is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run it. Does not check what may change before a service starts, such as a program on a volume.
    Run,
    /// To report everything that is currently wrong with it.
    Check,
}

impl<'e> Environment<'e> {
    pub(super) fn variable(&self, name: &[u8]) -> Option<&'e [u8]> {
        let entry = self.variables.iter().find(|(known, _)| known.as_bytes() == name);
        entry.map(|(_, value)| OsStr::as_bytes(value))
    }
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Environment").field("root", &self.root).finish_non_exhaustive()
    }
}
