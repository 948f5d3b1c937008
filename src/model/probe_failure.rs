//! Why an attempt of a readiness probe has failed.

use std::fmt;

use nix::errno::Errno;

use super::{ExitStatus, errno};

/// Why an attempt of a readiness probe has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// A system call has failed.
    Errno(Errno),
    /// The address is none.
    InvalidAddress,
    /// The answer is not HTTP.
    NotHttp,
    /// The HTTP status is not successful.
    Status(u16),
    /// The command has failed.
    Ended(ExitStatus),
    /// There was no answer in time.
    TimedOut,
    /// Too much data on `ready.fd` without a newline.
    NoNewline,
    /// The file has not been changed since the process was started.
    OldFile,
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(number) => formatter.write_str(errno::words(*number)),
            Self::InvalidAddress => formatter.write_str("invalid address"),
            Self::NotHttp => formatter.write_str("not an HTTP response"),
            Self::Status(status) => write!(formatter, "HTTP status {status}"),
            Self::Ended(status) => status.fmt(formatter),
            Self::TimedOut => formatter.write_str("timed out"),
            Self::NoNewline => formatter.write_str("no newline in the data written to its descriptor"),
            Self::OldFile => formatter.write_str("the file is older than the process"),
        }
    }
}
