//! One channel: bytes to lines, lines to bytes, and no more of either than there is room for.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::model::InstanceId;
use crate::runtime::close_queue::CloseQueue;
use crate::runtime::token::Token;
use crate::sys::datagram::{self, Datagram};
use crate::sys::{self, Interest, Poller, socket, strings};

/// A line is no longer, its end not counted.
const MAX_LINE_LENGTH: usize = 64 << 10;
/// Read at once.
const PIECE: usize = 16 << 10;
/// So much waits for a worker that does not read.
pub(super) const MAX_WAITING_BYTES: usize = 256 << 10;
/// So much of what others send to it: the rest is for answers to itself, which nobody else is to cost it.
pub(super) const MAX_BYTES_FROM_OTHERS: usize = 192 << 10;
/// What is kept of the memory when nothing is in it.
const MAX_IDLE_CAPACITY: usize = 4 << 10;

/// Our end of the channel of one process.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) fd: OwnedFd,
    pub(super) token: Token,
    pub(super) instance: InstanceId,
    pub(super) service: Box<str>,
    /// It waits for its turn.
    pub(super) is_queued: bool,
    /// Something has come for it in this turn.
    pub(super) is_fed: bool,
    /// Of messages to it.
    pub(super) lost: u64,
    /// Nobody is there any more to read; what was said before that is still to be heard.
    is_deaf: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    interest: Interest,
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Something,
    Nothing,
    /// There will be no more.
    End,
}

/// A line is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Channel {
    pub(super) const fn new(fd: OwnedFd, token: Token, instance: InstanceId, service: Box<str>) -> Self {
        Self {
            fd,
            token,
            instance,
            service,
            is_queued: false,
            is_fed: false,
            lost: 0,
            is_deaf: false,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            interest: Interest::Input,
        }
    }

    /// `web.0`
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.service, self.instance.slot().number)
    }

    /// Whether it is one of those whom `to` means: `*`, a service or one of its instances.
    pub(super) fn is_meant(&self, to: &str) -> bool {
        let name = &*self.service;
        if is_group(to) {
            return to == "*" || to == name;
        }
        let number = to.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|number| number == self.instance.slot().number.to_string())
    }

    /// Takes in another piece.
    pub(super) fn read(&mut self) -> Read {
        let mut buffer = [0; PIECE];
        // What a worker hands over we have no use for; but the kernel would close it in our place.
        match datagram::receive(&self.fd, &mut buffer) {
            Ok(Datagram { length: 0, .. }) => Read::End,
            Ok(Datagram { length, descriptors, .. }) => {
                if !descriptors.is_empty() {
                    sys::deferred_close(descriptors);
                    if !CloseQueue::have_room() {
                        return Read::End;
                    }
                }
                self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Read::Something
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    /// Closes it, and what is still under way in it.
    pub(super) fn close(self) {
        // Nothing more comes then.
        socket::shutdown_read(&self.fd);
        if socket::is_readable(&self.fd) {
            sys::deferred_close(vec![self.fd]);
        }
    }

    /// Whether there is a whole line.
    pub(super) fn has_line(&self) -> bool {
        strings::memchr(b'\n', &self.input).is_some()
    }

    /// What has been read, whole lines and the beginning of one; to be put back.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Without the first `done` bytes.
    ///
    /// # Errors
    /// What is left begins with a line that is too long.
    pub(super) fn put_back(&mut self, mut input: Vec<u8>, done: usize) -> Result<(), TooLong> {
        input.drain(..done.min(input.len()));
        if input.is_empty() && input.capacity() > MAX_IDLE_CAPACITY {
            input = Vec::new();
        }
        self.input = input;
        if self.input.len() > MAX_LINE_LENGTH && !self.has_line() { Err(TooLong) } else { Ok(()) }
    }

    /// Has `line` wait to be sent; if more than `most` would wait then, it is lost. Whether it is not.
    pub(super) fn push(&mut self, line: &[u8], most: usize) -> bool {
        if self.is_deaf {
            return true;
        }
        if self.output.len() - self.sent + line.len() > most {
            if self.lost == 0 {
                log::warn!("{} does not read its ipc channel: messages to it are dropped", self.name());
            }
            self.lost += 1;
            return false;
        }
        if self.output.len() + line.len() > MAX_WAITING_BYTES {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.output.extend_from_slice(line);
        true
    }

    /// Sends what there is room for, and waits for room for the rest. Nothing more if nobody reads it any more.
    pub(super) fn flush(&mut self, poller: &Poller) {
        while let Some(rest @ [_, ..]) = self.output.get(self.sent..) {
            match socket::send(&self.fd, rest) {
                Ok(sent) => self.sent += sent,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.is_deaf = true;
                    self.sent = self.output.len();
                }
                // No room, or no memory: both will come.
                Err(_) => break,
            }
        }
        let is_empty = self.sent == self.output.len();
        if is_empty {
            self.output.clear();
            self.output.shrink_to(MAX_IDLE_CAPACITY);
            self.sent = 0;
        }
        let interest = if is_empty { Interest::Input } else { Interest::Either };
        if interest != self.interest {
            self.interest = interest;
            poller.modify(&self.fd, self.token, interest).ok();
        }
    }
}

/// Whether a line of this length may be.
pub(super) const fn is_short_enough(length: usize) -> bool {
    length <= MAX_LINE_LENGTH
}

/// Whether `to` means more than one instance.
pub(super) fn is_group(to: &str) -> bool {
    !to.contains('.')
}
