//! The result of parsing the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::InlineService;
use crate::control::{Form, Request};
use crate::init::Options;

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Init mode: one command.
    Init {
        /// The options before `--`.
        options: Options,
        /// The command after `--`; not empty.
        command: Vec<OsString>,
    },
    /// Supervise the services of a configuration file.
    Supervise {
        /// `-c`.
        config: Option<PathBuf>,
        /// The command after `--`, for the service `main`; not empty.
        main: Option<Vec<OsString>>,
    },
    /// Supervise one service that the command line defines.
    SuperviseOne(InlineService),
    /// Validate the configuration and show the resolved plan.
    Check {
        /// `-c`.
        config: Option<PathBuf>,
        /// The output format.
        form: Form,
    },
    /// Execute keepalive-tools with these arguments.
    Tools(Vec<OsString>),
    /// Print a text of another init instead of running a command.
    Print {
        /// The stream to print to.
        stream: Stream,
        /// Whole lines.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// A request to a running keepalive.
    Client(Request),
    /// Print a help text, the manual page or a completion script.
    Help(String),
    /// `--version`.
    Version,
}

/// An output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// For texts that the user has requested.
    Stdout,
    /// For errors.
    Stderr,
}
