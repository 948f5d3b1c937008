//! Why an attempt of a readiness probe, or a health check, has failed.

use std::fmt;
use std::rc::Rc;

use nix::errno::Errno;

use super::{ExitStatus, errno};

/// Why an attempt of a readiness probe, or a health check, has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// A system call has failed.
    Errno(Errno),
    /// The address is none.
    InvalidAddress,
    /// The answer is not HTTP.
    NotHttp,
    /// The HTTP status is not successful.
    Status(u16),
    /// The body does not contain what it must.
    Body,
    /// The command has failed. The last line of its output, if it has written any.
    Ended(ExitStatus, Option<Rc<str>>),
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
            Self::Body => formatter.write_str("the body does not contain `expect_body`"),
            Self::Ended(status, output) => {
                status.fmt(formatter)?;
                output.iter().try_for_each(|output| write!(formatter, ": {output}"))
            }
            Self::TimedOut => formatter.write_str("timed out"),
            Self::NoNewline => formatter.write_str("no newline in the data written to its descriptor"),
            Self::OldFile => formatter.write_str("the file is older than the process"),
        }
    }
}
