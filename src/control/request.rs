//! What a client asks of a running keepalive, as the command line says it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Signal;

/// Exit code: refused, unknown, not in time, not healthy.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: no keepalive can be reached.
pub const EXIT_UNREACHABLE: u8 = 3;
/// How many past lines `logs` shows by default.
pub const LOG_LINES: u32 = 100;

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// `--json`.
    Json,
    /// `--quiet`: a change prints errors only.
    Quiet,
}

/// A request to a running keepalive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub task: Task,
    /// `--socket`: the only path to try.
    pub socket: Option<PathBuf>,
    /// `-c`: the configuration file of the keepalive to talk to.
    pub config: Option<PathBuf>,
    /// How the response is printed.
    pub form: Form,
    /// `--timeout`: the time limit for the response.
    pub timeout: Option<Duration>,
}

/// What a request does. Names are `web`, `web.2` or `all`; those in a list, and that of a signal, can be patterns such as
/// `web*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Print the status. No name: of all services.
    Status(Vec<String>),
    /// Print the state, the definition and the latest events of services or instances.
    Describe(Vec<String>),
    /// Execute a command with the user, the directory and the environment of a service or an instance.
    Exec(String, Vec<OsString>),
    /// Change services, in this order. Without a name, reload the configuration; all other changes have a name.
    Change(Change, Vec<String>),
    /// Set the number of instances of a service: `4`, or relative to the current number, `+1` or `-1`.
    Scale(String, String),
    /// Send a signal to the main process of each instance.
    Signal(String, Signal),
    /// Print the output of services. No name: of all.
    Logs {
        /// Services, instances, or `keepalive`.
        names: Vec<String>,
        /// How many past lines; `None`: all that are in memory.
        lines: Option<u32>,
        /// `--since`: the age of the oldest line, or its time.
        since: Option<String>,
        /// `--timestamps`: whether lines of text start with the time.
        timestamps: bool,
        /// Whether to wait for new lines.
        follow: Follow,
    },
    /// Print events. No name: of all services, and of keepalive itself.
    Events {
        /// Services or instances.
        names: Vec<String>,
        /// How many past events; `None`: all that are in memory.
        lines: Option<u32>,
        /// Whether to wait for new events.
        follow: Follow,
    },
    /// Show a table that is kept up to date.
    Top,
    /// Check that keepalive is alive.
    Alive,
    /// Check that all services are ready, or this one.
    Ready(Option<String>),
    /// Stop all services, in order, and exit.
    Shutdown,
    /// Print names for completions, one a line; nothing if keepalive cannot be reached.
    Names(Names),
}

/// Which names completions want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Services, instances where there are several, and `all`.
    All,
    /// Services alone.
    Services,
    /// What has logs: services, instances, and keepalive itself.
    Writers,
}

/// A change of services.
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

/// Whether a stream continues with new lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It continues until it is interrupted.
    Yes,
    /// It ends after the past lines.
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
