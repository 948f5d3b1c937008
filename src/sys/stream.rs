//! Streams to others: connect(2), socketpair(2). Close-on-exec all of them; nothing here waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getpeername, getsockname, getsockopt, setsockopt,
    socket, socketpair, sockopt,
};

/// Both ends of a stream, socketpair(2). Neither is non-blocking: that is a matter of each call, and the child's affair.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
}

/// Begins to connect to a TCP port. When the socket can be written, [`connected`] tells what has come of it.
///
/// # Errors
/// ECONNREFUSED and what else connect(2) knows at once; EMFILE, ENFILE.
pub fn begin_to_connect(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(client.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(client),
        Err(errno) => Err(errno),
    }
}

/// What has come of a connection that was begun.
///
/// # Errors
/// ECONNREFUSED and what else connect(2) says. That too if it is connected with itself: to a local port at which nobody
/// listens this happens when it is chosen as our own, and TCP finds nothing wrong with it.
pub fn connected(connection: impl AsFd) -> Result<(), Errno> {
    let fd = connection.as_fd();
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => {}
        number => return Err(Errno::from_raw(number)),
    }
    let own: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let peer: SockaddrStorage = getpeername(fd.as_raw_fd())?;
    if own == peer {
        // Without this the port would be taken for a minute after.
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&fd, sockopt::Linger, &at_once)?;
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
        let client = begin_to_connect(address)?;
        poll(&mut [PollFd::new(client.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE).unwrap();
        connected(&client)
    }

    #[test]
    fn a_port_at_which_somebody_listens_takes_connections_until_nobody_does() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            assert_eq!(outcome(address), Ok(()));
            drop(listener);
            assert_eq!(outcome(address), Err(Errno::ECONNREFUSED));
        }
    }

    // A connection to a port of the ephemeral range gets each of its ports in turn as its own, also that one.
    #[test]
    fn a_connection_with_itself_is_none() {
        let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        nix::sys::socket::bind(client.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        let own: SockaddrStorage = getsockname(client.as_raw_fd()).unwrap();
        connect(client.as_raw_fd(), &own).unwrap();
        assert_eq!(connected(&client), Err(Errno::ECONNREFUSED));
    }
}
