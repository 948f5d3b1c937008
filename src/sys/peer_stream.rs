//! Connections from other processes, which can send descriptors along: unix(7) `SCM_RIGHTS`, `MSG_PEEK`, `MSG_CTRUNC`.
//!
//! keepalive must not become the owner of such a descriptor, and must not hold the last reference to its file either:
//! closing the file can block for ever, and the kernel does that in the process that drops the last reference. recvmsg(2)
//! drops it when there is no room for control messages; close(2) drops it for everything that is queued in the socket, or
//! in a connection that has not been accepted.
//!
//! So a [`PeerStream`] looks at its input before it receives it. `MSG_PEEK` takes additional references only, and without
//! room for control messages `MSG_CTRUNC` says that the data carries descriptors. Then a helper process receives it.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use super::deferred_close::{Owner, deferred_close};
use super::{fork, packet, socket};
use crate::model::{Pid, ServiceIndex};

/// A connected stream socket whose peer is another process. Dropping it never blocks.
#[derive(Debug)]
pub struct PeerStream {
    socket: ManuallyDrop<OwnedFd>,
    family: Family,
    owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Data can carry descriptors.
    Unix,
    Tcp,
}

/// What [`PeerStream::receive`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// So many bytes were received.
    Bytes(usize),
    /// So many bytes were only peeked. They, or what follows them, carry descriptors. [`PeerStream::discard`] receives them.
    Descriptors(usize),
    /// The peer has shut down its sending side.
    End,
}

impl PeerStream {
    /// A unix socket.
    #[must_use]
    pub fn unix(socket: OwnedFd) -> Self {
        // Peeking would skip a byte sent with MSG_OOB, and receiving the next one would drop it with its descriptors.
        // Fails only for other kinds of sockets.
        setsockopt(&socket, sockopt::OobInline, &true).ok();
        let owner = socket::peer_uid(&socket).map_or(Owner::Unknown, Owner::User);
        Self { socket: ManuallyDrop::new(socket), family: Family::Unix, owner }
    }

    /// The unix socket of a service.
    #[must_use]
    pub fn of_service(service: ServiceIndex, socket: OwnedFd) -> Self {
        let mut stream = Self::unix(socket);
        stream.owner = Owner::Service(service);
        stream
    }

    /// A TCP socket.
    #[must_use]
    pub const fn tcp(socket: OwnedFd) -> Self {
        Self { socket: ManuallyDrop::new(socket), family: Family::Tcp, owner: Owner::Unknown }
    }

    /// Receives bytes without waiting, unless any data that waits to be received carries descriptors.
    ///
    /// # Errors
    /// EAGAIN: there is no data. ECONNRESET.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Input, Errno> {
        let mut wanted = buffer.len();
        if self.family == Family::Unix {
            let peeked = self.peek(buffer)?;
            if peeked.carries_descriptors {
                return Ok(Input::Descriptors(peeked.length));
            }
            wanted = peeked.length;
        }
        // What has been peeked stays at the front of the queue: only keepalive receives from this socket.
        match socket::receive(self, buffer.get_mut(..wanted).unwrap_or_default())? {
            0 => Ok(Input::End),
            length => Ok(Input::Bytes(length)),
        }
    }

    /// Looks at the next bytes. The kernel also looks at the data behind them for descriptors, so that it is not known which
    /// of the bytes carry them.
    fn peek(&self, buffer: &mut [u8]) -> Result<Peeked, Errno> {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message = packet::empty_message(&mut part);
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the message points to one part, which is writable and alive.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, flags) };
        let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
        Ok(Peeked { length, carries_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0 })
    }

    /// Starts a process that receives the next `length` bytes, which have been peeked, and closes the descriptors that they
    /// carry. Its exit code is 0 if it has done so. It can take any time, and is reaped like any child. Until it has exited,
    /// nothing may be received.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: the process cannot be created.
    pub fn discard(&self, length: usize) -> Result<Pid, Errno> {
        fork::fork_helper(&[self.as_fd()], || {
            fork::set_name(c"keepalive-close");
            let (mut buffer, mut left) = ([0; 4 << 10], length);
            while left > 0 {
                let size = left.min(buffer.len());
                // It ends before data that carries other descriptors.
                match socket::receive(self, buffer.get_mut(..size).unwrap_or_default()) {
                    Ok(received @ 1..) => left -= received,
                    Ok(0) | Err(_) => return 1,
                }
            }
            0
        })
    }

    /// Closes the socket in a worker, without a look at its input. A process that [`Self::discard`] has started may be
    /// receiving it: then a look could take the last reference to a descriptor.
    pub fn close_in_worker(self) {
        let mut closed = ManuallyDrop::new(self);
        // SAFETY: `closed` is never dropped, and nothing uses the socket afterwards.
        deferred_close(closed.owner, [unsafe { ManuallyDrop::take(&mut closed.socket) }]);
    }

    /// Shuts down the receiving side of a unix socket, so that the peer can send nothing more. Returns whether everything
    /// that it has sent was received: then any process can close the socket.
    #[must_use]
    pub fn end_input(&self) -> bool {
        if self.family == Family::Tcp {
            return true;
        }
        // Fails if the peer has already closed the connection.
        shutdown(self.socket.as_raw_fd(), Shutdown::Read).ok();
        match self.peek(&mut [0]) {
            Ok(Peeked { length, .. }) => length == 0,
            Err(errno) => matches!(errno, Errno::EAGAIN | Errno::ECONNRESET),
        }
    }
}

struct Peeked {
    length: usize,
    carries_descriptors: bool,
}

impl AsFd for PeerStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        let is_safe = self.end_input();
        // SAFETY: `self` is being dropped, and nothing uses the socket afterwards.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        if !is_safe {
            deferred_close(self.owner, [socket]);
        }
    }
}

/// Closes a listening unix socket. Connections that have not been accepted can hold descriptors.
pub fn close_listener(listener: OwnedFd) {
    deferred_close(Owner::Unknown, [listener]);
}

/// As [`close_listener`] for an abstract address, which other sockets can use immediately afterwards unless there are
/// connections that have not been accepted. The listener is shut down, also for other processes that have it.
pub fn close_abstract_listener(owner: Owner, listener: OwnedFd) {
    // After this there are no new connections, and accept(2) does not wait.
    shutdown(listener.as_raw_fd(), Shutdown::Read).ok();
    match socket::accept(&listener) {
        Err(Errno::EINVAL) => {}
        Ok(connection) => deferred_close(owner, [connection, listener]),
        Err(_) => deferred_close(owner, [listener]),
    }
}

#[cfg(test)]
#[path = "peer_stream_tests.rs"]
mod tests;
