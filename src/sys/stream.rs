//! Stream sockets to other processes: connect(2), socketpair(2).
//!
//! All sockets are close-on-exec, and no function waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getpeername, getsockname, getsockopt, setsockopt,
    socket, socketpair, sockopt,
};

use super::socket::tcp_address;

/// A pair of connected sockets. socketpair(2)
///
/// Both are blocking: keepalive makes each call on its own end with `MSG_DONTWAIT`, and the child decides about the other.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
}

/// Starts to connect to a TCP port, non-blocking. When the socket is writable, [`finish_connect`] returns the result.
///
/// # Errors
/// ECONNREFUSED and the other errors that connect(2) returns at once; EMFILE, ENFILE.
pub fn start_connect(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(client.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(client),
        Err(errno) => Err(errno),
    }
}

/// The result of [`start_connect`].
///
/// # Errors
/// ECONNREFUSED and the other errors of connect(2). ECONNREFUSED also for a connection to itself: if nothing listens on a
/// local port and the kernel chooses that port as the connection's own, TCP connects the socket to itself.
pub fn finish_connect(connection: impl AsFd) -> Result<(), Errno> {
    let fd = connection.as_fd();
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => {}
        number => return Err(Errno::from_raw(number)),
    }
    let (own, peer) = (getsockname(fd.as_raw_fd())?, getpeername(fd.as_raw_fd())?);
    if tcp_address(&own) == tcp_address(&peer) {
        // Otherwise the port would stay in TIME_WAIT for a minute.
        let reset_on_close = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&fd, sockopt::Linger, &reset_on_close)?;
        return Err(Errno::ECONNREFUSED);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn outcome(address: SocketAddr) -> Result<(), Errno> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let client = start_connect(address)?;
        poll(&mut [PollFd::new(client.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE).unwrap();
        finish_connect(&client)
    }

    #[test]
    fn connecting_succeeds_only_while_a_process_listens() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            assert_eq!(outcome(address), Ok(()));
            drop(listener);
            assert_eq!(outcome(address), Err(Errno::ECONNREFUSED));
        }
    }

    // The kernel may choose any port of the ephemeral range as the connection's own, also the one that it connects to.
    #[test]
    fn a_connection_to_itself_is_refused() {
        let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        nix::sys::socket::bind(client.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        let own: SockaddrStorage = getsockname(client.as_raw_fd()).unwrap();
        connect(client.as_raw_fd(), &own).unwrap();
        assert_eq!(finish_connect(&client), Err(Errno::ECONNREFUSED));
    }
}
