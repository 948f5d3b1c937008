//! /dev/null, null(4), and the pipes that take its place where it does not exist.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::model::errno;
use crate::sys::pipe;

/// The stdin of services without input, and the stdout and stderr of those without output.
#[derive(Debug)]
pub(super) struct NullDevice {
    /// /dev/null, or a pipe without a writer: end of file.
    input: OwnedFd,
    /// A pipe that nobody reads, both ends. Writes fail with EAGAIN when it is full. While the read end is open, they cause
    /// no SIGPIPE.
    output: Option<(OwnedFd, OwnedFd)>,
}

impl NullDevice {
    /// # Errors
    /// EMFILE, ENFILE.
    pub(super) fn open() -> Result<Self, Errno> {
        match open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(input) => Ok(Self { input, output: None }),
            Err(error) => {
                let reason = errno::words(error);
                log::warn!("cannot open /dev/null: {reason}; a pipe takes its place, which holds 64 KiB of output");
                let (input, _) = pipe::non_blocking()?;
                Ok(Self { input, output: Some(pipe::non_blocking()?) })
            }
        }
    }

    /// For stdin.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// For stdout and stderr.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_ref().map_or(self.input(), |(_, write_end)| write_end.as_fd())
    }
}
