//! What the command of a readiness probe writes: its last line is part of the reason why the process is not ready.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::errno::Errno;

use crate::model::visible;
use crate::runtime::token::Token;
use crate::sys::Poller;

/// The number of bytes that are kept: a line, and what may follow it, such as empty lines.
const MAX_TAIL: usize = 1 << 10;
/// The maximum length of the line, in bytes.
const MAX_LINE: usize = 200;
/// The number of bytes that are read of one attempt. A command that writes more has to wait until its time is over.
const MAX_OUTPUT: usize = 1 << 20;
/// The number of bytes read at once.
const READ_SIZE: usize = 4 << 10;

/// The output of a command.
#[derive(Debug)]
pub(super) struct Output {
    /// The read end of its pipe; `None`: it is not read any more.
    pipe: Option<OwnedFd>,
    /// The last bytes.
    tail: Vec<u8>,
    /// The number of bytes that have been read.
    read: usize,
}

impl Output {
    /// The poller reports input with `token`.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub(super) fn new(pipe: OwnedFd, poller: &Poller, token: Token) -> Result<Self, Errno> {
        poller.add(&pipe, token)?;
        Ok(Self { pipe: Some(pipe), tail: Vec::new(), read: 0 })
    }

    /// Reads what has been written, at most [`READ_SIZE`] bytes, without waiting.
    pub(super) fn read(&mut self, poller: &Poller) {
        let mut buffer = [0; READ_SIZE];
        let Some(pipe) = &self.pipe else { return };
        let length = match nix::unistd::read(pipe, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            result => result.unwrap_or(0),
        };
        self.tail.extend_from_slice(buffer.get(..length).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(MAX_TAIL));
        self.read += length;
        if length == 0 {
            self.close(poller);
        } else if self.read >= MAX_OUTPUT {
            // It stays open: the command must not get SIGPIPE.
            poller.remove(pipe).ok();
        }
    }

    /// Closes the pipe. Closing the descriptor is not enough while a child has it open.
    pub(super) fn close(&mut self, poller: &Poller) {
        if let Some(pipe) = self.pipe.take() {
            poller.remove(&pipe).ok();
        }
    }

    /// The command has ended: its last line; `None` if it has written nothing.
    pub(super) fn last_line(&mut self, poller: &Poller) -> Option<Rc<str>> {
        self.read(poller);
        self.close(poller);
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.trim_end().rsplit(['\n', '\r']).next()?.trim_start();
        let line = line.get(..line.floor_char_boundary(MAX_LINE))?;
        (!line.is_empty()).then(|| visible::one_line(line).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use crate::sys::pipe;

    #[track_caller]
    fn check(written: &[u8], expected: Option<&str>) {
        let poller = Poller::new().unwrap();
        let (read_end, write_end) = pipe::pipe().unwrap();
        let mut output = Output::new(read_end, &poller, Token::Probe(RunId::new(1))).unwrap();
        for piece in written.chunks(READ_SIZE) {
            nix::unistd::write(&write_end, piece).unwrap();
            output.read(&poller);
        }
        // The pipe is still open elsewhere: this does not wait.
        assert_eq!(output.last_line(&poller).as_deref(), expected);
    }

    #[test]
    fn the_last_line_that_is_not_empty_is_shown() {
        check(b"", None);
        check(b"\n \n", None);
        check(b"no response\n", Some("no response"));
        check(b"  % Total\r\n\tcurl: (7) failed \n\n", Some("curl: (7) failed"));
        check(b"\x1b[31mred\xff", Some("\\x1b[31mred\u{fffd}"));
    }

    #[test]
    fn a_long_line_is_cut_and_a_flood_costs_no_memory() {
        let line = "é".repeat(MAX_LINE);
        check(line.as_bytes(), Some(&"é".repeat(MAX_LINE / 2)));
        let flood = [&vec![b'x'; MAX_OUTPUT / 2][..], b"\nthe end"].concat();
        check(&flood, Some("the end"));
    }
}
