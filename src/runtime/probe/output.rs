//! What the command of a readiness probe writes: its last line is part of the reason why the process is not ready.
//!
//! A process that writes to a pipe, and waits for memory on the way, holds up everybody who reads from it. So PID 1 does not
//! read: when the command has failed, a helper process does, and passes the line on.

use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::unistd;

use crate::model::{ExitStatus, Pid, ServiceIndex, visible};
use crate::sys::deferred_close::DeferredFd;
use crate::sys::{fork, pipe};

/// The number of bytes that are kept: a line, and what may follow it, such as empty lines.
const MAX_TAIL: usize = 1 << 10;
/// The maximum length of the line, in bytes.
const MAX_LINE: usize = 200;
/// The number of bytes that are read of one attempt.
const MAX_OUTPUT: usize = 1 << 20;
/// The number of bytes read at once.
const READ_SIZE: usize = 4 << 10;

/// The read end of the pipe that a command writes to. Nobody reads it before the command has ended: one that writes more
/// than fits has to wait until its time is over.
#[derive(Debug)]
pub(super) struct Output(DeferredFd);

/// The last line of a command that has failed, on its way from a helper process.
#[derive(Debug)]
pub(super) struct LastLine {
    /// How the command has ended.
    pub(super) status: ExitStatus,
    answer: OwnedFd,
}

impl Output {
    pub(super) fn new(service: ServiceIndex, pipe: OwnedFd) -> Self {
        Self(DeferredFd::new(service, pipe))
    }

    /// Starts the helper process that reads the last line of a command that has ended with `status`. `None`: it has written
    /// nothing, or no process can be created.
    pub(super) fn read(self, status: ExitStatus) -> Option<(Pid, LastLine)> {
        let pipe = Some(&*self.0).filter(|pipe| pipe::is_readable(pipe))?;
        let (answer, ours) = pipe::pipe().ok()?;
        let read = || {
            let line = last_line(pipe);
            u8::from(unistd::write(&ours, line.as_deref().unwrap_or_default().as_bytes()).is_err())
        };
        let pid = fork::fork_helper(&[pipe.as_fd(), ours.as_fd()], read).ok()?;
        Some((pid, LastLine { status, answer }))
    }
}

impl LastLine {
    /// The helper process has exited. `None`: it has found no line.
    pub(super) fn text(&self) -> Option<Rc<str>> {
        let mut buffer = [0; MAX_LINE * 4];
        let length = unistd::read(&self.answer, &mut buffer).unwrap_or(0);
        let line = String::from_utf8_lossy(buffer.get(..length)?);
        (!line.is_empty()).then(|| line.as_ref().into())
    }
}

/// Reads what has been written, without waiting for more.
fn last_line(pipe: &OwnedFd) -> Option<String> {
    let mut buffer = [0; READ_SIZE];
    let (mut tail, mut read) = (Vec::new(), 0);
    while read < MAX_OUTPUT {
        let length = match unistd::read(pipe, &mut buffer) {
            Err(Errno::EINTR) => continue,
            Err(_) | Ok(0) => break,
            Ok(length) => length,
        };
        tail.extend_from_slice(buffer.get(..length)?);
        tail.drain(..tail.len().saturating_sub(MAX_TAIL));
        read += length;
    }
    let text = String::from_utf8_lossy(&tail);
    let line = text.trim_end().rsplit(['\n', '\r']).next()?.trim_start();
    let line = line.get(..line.floor_char_boundary(MAX_LINE))?;
    Some(visible::one_line(line).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &[u8], expected: &str) {
        let (read_end, write_end) = pipe::pipe().unwrap();
        pipe::set_capacity(&write_end, 1 << 20);
        unistd::write(&write_end, written).unwrap();
        // The pipe is still open elsewhere: this does not wait.
        assert_eq!(last_line(&read_end).as_deref(), Some(expected));
    }

    #[test]
    fn the_last_line_that_is_not_empty_is_shown() {
        check(b"", "");
        check(b"\n \n", "");
        check(b"no response\n", "no response");
        check(b"  % Total\r\n\tcurl: (7) failed \n\n", "curl: (7) failed");
        check(b"\x1b[31mred\xff", "\\x1b[31mred\u{fffd}");
    }

    #[test]
    fn a_long_line_is_cut() {
        let line = "é".repeat(MAX_LINE);
        check(line.as_bytes(), &"é".repeat(MAX_LINE / 2));
        check(&[&vec![b'x'; 100_000][..], b"\nthe end"].concat(), "the end");
    }
}
