//! What the command line asks for.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::InlineService;
use crate::control::{Form, Request};
use crate::init::Options;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// One command, run as a tiny init does.
    Init {
        /// What goes before `--`.
        options: Options,
        /// What goes after it; not empty.
        command: Vec<OsString>,
    },
    /// A service set from a file.
    Supervise {
        /// `-c`.
        config: Option<PathBuf>,
        /// The command after `--`, for the service `main`; not empty.
        main: Option<Vec<OsString>>,
    },
    /// A service set of one, from the command line.
    SuperviseOne(InlineService),
    /// Whether the configuration is right, and what it comes to.
    Check {
        /// `-c`.
        config: Option<PathBuf>,
        /// For whom to print it.
        form: Form,
    },
    /// What another init prints instead of running a command.
    Print {
        /// Where.
        stream: Stream,
        /// Whole lines.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// A request to a running keepalive.
    Client(Request),
    /// A text to be read.
    Help(String),
    /// `--version`.
    Version,
}

/// Where something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// To whoever asked for it.
    Stdout,
    /// To whoever has to hear of it.
    Stderr,
}
