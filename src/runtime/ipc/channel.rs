//! One channel: reads lines and queues lines, with limits on both.

use nix::errno::Errno;

use crate::model::InstanceId;
use crate::runtime::token::Token;
use crate::sys::peer_stream::Input;
use crate::sys::{Interest, PeerStream, Poller, socket, strings};

/// The maximum length of a line without its newline, in bytes: one worker cannot use more memory.
const MAX_LINE: usize = 64 << 10;
/// The number of bytes read at once.
const READ_SIZE: usize = 16 << 10;
/// The number of bytes queued for a worker that does not read.
pub(super) const MAX_QUEUED: usize = 256 << 10;
/// The part of [`MAX_QUEUED`] that messages of other workers can use. The rest is reserved for answers to the worker itself.
pub(super) const MAX_QUEUED_FROM_OTHERS: usize = 192 << 10;
/// The capacity that an empty buffer keeps, in bytes.
const MAX_IDLE_CAPACITY: usize = 4 << 10;

/// The end of keepalive of the channel of one process.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) fd: PeerStream,
    pub(super) token: Token,
    pub(super) instance: InstanceId,
    pub(super) service: Box<str>,
    pub(super) state: InputState,
    /// Messages were queued for it in this turn.
    pub(super) needs_flush: bool,
    /// The number of messages to it that were dropped.
    pub(super) lost: u64,
    /// The worker has closed its end for reading. Its own messages are still handled.
    is_write_closed: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    interest: Interest,
}

/// How the input of a channel is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// It is polled.
    Idle,
    /// It is in the queue of channels with input.
    Queued,
    /// The next data carries descriptors, and a helper process receives it: it is not polled.
    Paused,
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Something,
    Nothing,
    /// This is the next data, and carries descriptors. It was not read.
    Descriptors(Vec<u8>),
    /// End of file.
    End,
}

/// A line is longer than [`MAX_LINE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Channel {
    pub(super) const fn new(fd: PeerStream, token: Token, instance: InstanceId, service: Box<str>) -> Self {
        Self {
            fd,
            token,
            instance,
            service,
            state: InputState::Idle,
            needs_flush: false,
            lost: 0,
            is_write_closed: false,
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

    /// Whether `to` addresses it: `*`, its service or its instance.
    pub(super) fn is_addressed_by(&self, to: &str) -> bool {
        let name = &*self.service;
        if is_group(to) {
            return to == "*" || to == name;
        }
        let number = to.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|number| number == self.instance.slot().number.to_string())
    }

    /// Reads more input.
    pub(super) fn read(&mut self) -> Read {
        let mut buffer = [0; READ_SIZE];
        match self.fd.receive(&mut buffer) {
            Ok(Input::Bytes(length)) => {
                self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Read::Something
            }
            Ok(Input::Descriptors(length)) => Read::Descriptors(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::EAGAIN | Errno::EINTR) => Read::Nothing,
            Ok(Input::End) | Err(_) => Read::End,
        }
    }

    /// Stops polling it.
    pub(super) fn pause(&mut self, poller: &Poller) {
        self.state = InputState::Paused;
        poller.remove(&self.fd).ok();
    }

    /// Continues after [`Self::pause`], with the data that a helper has received.
    ///
    /// # Errors
    /// It cannot be polled.
    pub(super) fn resume(&mut self, data: &[u8], poller: &Poller) -> Result<(), Errno> {
        self.state = InputState::Idle;
        self.input.extend_from_slice(data);
        self.interest = Interest::Input;
        poller.add(&self.fd, self.token)?;
        self.flush(poller);
        Ok(())
    }

    /// Whether there is a whole line.
    pub(super) fn has_line(&self) -> bool {
        strings::memchr(b'\n', &self.input).is_some()
    }

    /// Takes the input buffer out. Return it with [`Self::put_back`].
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Returns the input buffer, without the first `done` bytes.
    ///
    /// # Errors
    /// The rest begins with a line that is too long.
    pub(super) fn put_back(&mut self, mut input: Vec<u8>, done: usize) -> Result<(), TooLong> {
        input.drain(..done.min(input.len()));
        if input.is_empty() && input.capacity() > MAX_IDLE_CAPACITY {
            input = Vec::new();
        }
        self.input = input;
        if self.input.len() > MAX_LINE && !self.has_line() { Err(TooLong) } else { Ok(()) }
    }

    /// Queues `line`. Drops it if more than `most` bytes would be queued. Returns whether it was queued.
    pub(super) fn push(&mut self, line: &[u8], most: usize) -> bool {
        if self.is_write_closed {
            return true;
        }
        if self.output.len() - self.sent + line.len() > most {
            if self.lost == 0 {
                log::warn!("{} does not read its ipc channel: messages to it are dropped", self.name());
            }
            self.lost += 1;
            return false;
        }
        if self.output.len() + line.len() > MAX_QUEUED {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.output.extend_from_slice(line);
        true
    }

    /// Sends queued lines, and watches for room for the rest.
    pub(super) fn flush(&mut self, poller: &Poller) {
        while let Some(rest @ [_, ..]) = self.output.get(self.sent..) {
            match socket::send(&self.fd, rest) {
                Ok(sent) => self.sent += sent,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.is_write_closed = true;
                    self.sent = self.output.len();
                }
                // No room or no memory at the moment.
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
        if interest != self.interest && self.state != InputState::Paused {
            self.interest = interest;
            poller.modify(&self.fd, self.token, interest).ok();
        }
    }
}

/// Whether a line of this length is permitted.
pub(super) const fn is_short_enough(length: usize) -> bool {
    length <= MAX_LINE
}

/// Whether `to` addresses more than one instance.
pub(super) fn is_group(to: &str) -> bool {
    !to.contains('.')
}
