//! Text → [`Plan`], or everything that is wrong with it at once.
//!
//! [`load`] reads a file and what it includes into trees with places ([`toml`] gives all syntax errors, too), walks
//! over them, completes them with defaults, expands `${VAR}`, looks up users and orders dependencies. No step stops
//! at the first error: each notes what it finds, and the [`Report`] shows all of it with file, line and column.
//!
//! This room starts nothing and keeps nothing: what it gives away is the plan alone. What it needs to know of the
//! world besides files comes in as an [`Environment`]. Start reading at [`load`], then `service.rs`.

mod decoder;
mod document;
mod env_file;
mod expand;
mod files;
mod find;
mod global;
mod graph;
mod hints;
mod inline;
mod inspect;
mod limits;
mod log;
mod process;
mod read;
mod ready;
mod report;
mod service;
mod sockets;
#[cfg(test)]
mod tests;
mod users;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::model::Plan;

pub(crate) use decoder::{nearest, nearest_signal};
pub use document::{load, load_with_main};
pub use expand::FIRST_SOCKET;
pub use files::{Answer, Files, FsQuery, LimitedFs, Recording, RecordingFs, ask};
pub use find::{NotFound, find};
pub use graph::start_order;
pub use inline::{Inline, InlineOption, assemble};
pub use read::describe;
pub use report::{Finding, Report, write_warnings};
pub(crate) use service::NAME_LIMIT;

/// What keepalive itself tells processes, and nobody else does. `Decoder::is_overwritten` knows those of other protocols.
const RESERVED: [&str; 5] =
    ["KEEPALIVE_SERVICE", "KEEPALIVE_INSTANCE", "KEEPALIVE_RESTARTS", "KEEPALIVE_IPC_FD", "KEEPALIVE_STATE_FD"];

/// What reading a configuration needs to know of the world.
#[derive(Clone, Copy)]
pub struct Environment<'e> {
    /// Who is asked for files: [`ask`], or who remembers what that said.
    pub files: Files<'e>,
    /// The environment that keepalive was started with.
    pub variables: &'e [(OsString, OsString)],
    /// Below it are `etc/passwd` and `etc/group`, and the places where a configuration is looked for. `/`, but in tests.
    pub root: &'e Path,
    /// The current directory.
    pub directory: &'e Path,
    /// What `instances = "cpus"` stands for.
    pub cpus: &'e dyn Fn() -> u32,
    /// The hard limit of an `RLIMIT_` number; `None`: unlimited.
    pub hard_limit: &'e dyn Fn(u32) -> Option<u64>,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// What for.
    pub purpose: Purpose,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run it. What may still change until a service starts (a program on a volume) is not looked at.
    Run,
    /// To tell everything that is wrong with it here and now.
    Check,
}

/// A configuration that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it comes to.
    pub plan: Plan,
    /// What is odd, but no error.
    pub warnings: Vec<Finding>,
}

impl<'e> Environment<'e> {
    fn variable(&self, name: &[u8]) -> Option<&'e [u8]> {
        let entry = self.variables.iter().find(|(known, _)| known.as_bytes() == name);
        entry.map(|(_, value)| OsStr::as_bytes(value))
    }
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Environment").field("root", &self.root).finish_non_exhaustive()
    }
}
