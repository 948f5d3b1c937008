//! Speaks: what a client says to a running keepalive, and how the answer is shown.
//!
//! The protocol is HTTP/1.1 over a unix socket, one request for each connection; bodies are JSON, streams are lines of
//! JSON. This room is the client's half and [`places()`], which the server shares. It holds no state of services, knows
//! nothing of the supervisor, and is never used by PID 1 itself but for the places. Start reading at [`perform`];
//! `http.rs` is the wire, `status.rs` and `top.rs` the tables, `lines.rs` what is streamed.

mod client;
mod health;
mod http;
mod human;
mod lines;
mod output;
mod places;
mod signals;
mod status;
mod table;
mod top;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Signal;

pub use client::{Surroundings, perform};
pub use places::{Place, places};

/// The answer is no: refused, unknown, not in time, not healthy.
pub const NO: u8 = 1;
/// Nothing answers.
pub const NOBODY: u8 = 3;
/// How many lines `logs` shows of what has been, unless told otherwise.
pub const LOG_LINES: u32 = 100;

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// `--json`.
    Json,
}

/// What is asked of a running keepalive, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub task: Task,
    /// `--socket`: there and nowhere else.
    pub socket: Option<PathBuf>,
    /// For whom the answer is printed.
    pub form: Form,
    /// `--timeout`: how long an answer may take.
    pub timeout: Option<Duration>,
}

/// What is asked of a running keepalive. Names are `web`, `web.2` or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// What runs. No name: everything.
    Status(Vec<String>),
    /// What is to be done, in this order; at least one name, but for a reload: without one, of the configuration.
    Change(Change, Vec<String>),
    /// So many instances.
    Scale(String, u32),
    /// A signal for the main process of each instance.
    Signal(String, Signal),
    /// What services have written. No name: all.
    Logs {
        /// Whose.
        names: Vec<String>,
        /// How many lines of what has been; `None`: all that there are.
        lines: Option<u32>,
        /// Whether what comes is waited for.
        follow: Follow,
    },
    /// What has happened.
    Events(Follow),
    /// A table that is kept up to date.
    Top,
    /// Whether keepalive is alive.
    Alive,
    /// Whether all is ready that should be, or this service.
    Ready(Option<String>),
    /// The ordered stop.
    Shutdown,
    /// The names that can be given, one a line, for completions: nothing at all if nobody answers.
    Names(Names),
}

/// What can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Services, instances where there are several, and `all`.
    All,
    /// Services alone.
    Services,
    /// Whoever writes logs: services, instances, and keepalive itself.
    Writers,
}

/// What can be done to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `start`.
    Start,
    /// `stop`.
    Stop,
    /// `restart`.
    Restart,
    /// `reload`.
    Reload,
}

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Until somebody ends it.
    Yes,
    /// It ends with what there is.
    No,
}

impl Names {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "names",
            Self::Services => "services",
            Self::Writers => "writers",
        }
    }
}

impl Change {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}
