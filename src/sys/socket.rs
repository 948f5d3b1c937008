//! Sockets of keepalive's own servers, and their clients: socket(2), unix(7), accept(2), recv(2), send(2), shutdown(2).
//!
//! All sockets are close-on-exec. All are non-blocking and no function waits, except [`connect_with_timeout`].

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr, accept4, connect,
    getpeername, getsockopt, listen, recv, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;

/// The backlog of the control socket. listen(2)
const MAX_PENDING_CONNECTIONS: i32 = 128;

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);
const NO_WAIT: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// Listens on a unix stream socket with mode 0600, which `bind` binds. Returns it with the result of `bind`.
///
/// # Errors
/// Those of `bind`; EMFILE.
pub fn listen_unix<T, E: From<Errno>>(bind: impl FnOnce(&OwnedFd) -> Result<T, E>) -> Result<(OwnedFd, T), E> {
    let listener = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    // bind(2) gives the file the mode of the socket, so that other users cannot connect at any moment.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let bound = bind(&listener)?;
    listen(&listener, Backlog::new(MAX_PENDING_CONNECTIONS)?)?;
    Ok((listener, bound))
}

/// Lets nobody send descriptors over connections that are made to `listener` from now on. `SO_PASSRIGHTS`
///
/// # Errors
/// ENOPROTOOPT: Linux before 6.16.
pub fn refuse_descriptors(listener: impl AsFd) -> Result<(), Errno> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let (listener, off) = (listener.as_fd().as_raw_fd(), 0_u32);
    // SAFETY: the option has a value of four bytes, which is only read.
    Errno::result(unsafe { libc::setsockopt(listener, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), 4) })
        .map(drop)
}

/// Connects to the unix stream socket at `path`.
///
/// # Errors
/// ECONNREFUSED: no process listens on it. EAGAIN: its backlog is full. ENOENT, EACCES, ENAMETOOLONG.
pub fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let client = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    connect(client.as_raw_fd(), &address(path)?)?;
    Ok(client)
}

/// Connects to the unix stream socket at `path`. Neither this call nor any later write takes longer than `timeout`, even
/// if the server's backlog is full. socket(7) `SO_SNDTIMEO`
///
/// # Errors
/// As [`connect_unix`]; EAGAIN: the timeout has expired.
pub fn connect_with_timeout(path: &Path, timeout: Duration) -> Result<UnixStream, Errno> {
    let client = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Zero would mean no timeout.
    let timeout = timeout.max(Duration::from_millis(1));
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&client, sockopt::SendTimeout, &TimeVal::new(seconds, i64::from(timeout.subsec_micros())))?;
    connect(client.as_raw_fd(), &address(path)?)?;
    Ok(UnixStream::from(client))
}

/// ENOENT for an empty path, which unix(7) would treat as an abstract or unnamed address.
fn address(path: &Path) -> Result<UnixAddr, Errno> {
    if path.as_os_str().is_empty() {
        return Err(Errno::ENOENT);
    }
    UnixAddr::new(path)
}

/// Listens on a TCP port. Connections are accepted when their clients have sent something, or after about a second.
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL, EACCES (a port below 1024), EMFILE.
pub fn listen_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    let listener = TcpListener::bind(address).map_err(errno)?;
    listener.set_nonblocking(true).map_err(errno)?;
    // Connections inherit these options: a peer that has vanished is detected within about two minutes.
    setsockopt(&listener, sockopt::KeepAlive, &true)?;
    setsockopt(&listener, sockopt::TcpKeepIdle, &60)?;
    setsockopt(&listener, sockopt::TcpKeepInterval, &15)?;
    setsockopt(&listener, sockopt::TcpKeepCount, &4)?;
    // A request that arrives with its connection is answered at once, however many connections come after it.
    defer_accept(&listener);
    // Connections that wait for that count as incomplete, of which there can be as many as the backlog.
    listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener.into())
}

/// A connection is not accepted for about a second while its client has sent nothing. tcp(7) `TCP_DEFER_ACCEPT`
fn defer_accept(listener: impl AsFd) {
    let seconds: libc::c_int = 1;
    let (fd, length) = (listener.as_fd().as_raw_fd(), libc::socklen_t::try_from(size_of_val(&seconds)).unwrap_or(0));
    // SAFETY: the value is an int, as the option demands, and the length is its own. Without the option, silent clients
    // are accepted too.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, (&raw const seconds).cast(), length) };
}

/// Accepts the next connection.
///
/// # Errors
/// EAGAIN: there is none. ECONNABORTED and the other errors of accept(2) for a connection that has been closed. EMFILE,
/// ENFILE, ENOMEM: the connection cannot be accepted now and stays in the queue.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = accept4(listener.as_fd().as_raw_fd(), FLAGS)?;
    // SAFETY: the descriptor is new, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The effective user id of a unix socket's peer at the time when it connected; `None` if unknown. unix(7) `SO_PEERCRED`
#[must_use]
pub fn peer_uid(connection: impl AsFd) -> Option<u32> {
    peer_user_and_group(connection).map(|(uid, _)| uid)
}

/// As [`peer_uid`], with the effective group id.
#[must_use]
pub fn peer_user_and_group(connection: impl AsFd) -> Option<(u32, u32)> {
    let credentials = getsockopt(&connection.as_fd(), sockopt::PeerCredentials).ok()?;
    Some((credentials.uid(), credentials.gid()))
}

/// The address of a TCP connection's peer; `None` for other connections. getpeername(2)
#[must_use]
pub fn peer_address(connection: impl AsFd) -> Option<IpAddr> {
    let address = getpeername(connection.as_fd().as_raw_fd()).ok()?;
    tcp_address(&address).map(|(address, _)| address)
}

/// The address and port of a TCP connection; `None` for others.
pub(super) fn tcp_address(address: &SockaddrStorage) -> Option<(IpAddr, u16)> {
    let v4 = address.as_sockaddr_in().map(|address| (IpAddr::V4(address.ip()), address.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| (IpAddr::V6(address.ip()), address.port())))
}

/// Receives data; 0 bytes at end of file.
///
/// # Errors
/// EAGAIN: there is no data. ECONNRESET.
pub fn receive(connection: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    recv(connection.as_fd().as_raw_fd(), buffer, NO_WAIT)
}

/// Sends as much as fits into the socket's buffer. Never causes SIGPIPE.
///
/// # Errors
/// EAGAIN: the buffer is full. EPIPE, ECONNRESET: the peer has closed.
pub fn send(connection: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    nix::sys::socket::send(connection.as_fd().as_raw_fd(), bytes, NO_WAIT)
}

/// Shuts down the sending side. shutdown(2) `SHUT_WR`
pub fn shutdown_write(connection: impl AsFd) {
    // Fails if the peer has already closed the connection.
    shutdown(connection.as_fd().as_raw_fd(), Shutdown::Write).ok();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_unix_socket_has_mode_0600_and_knows_the_user_of_its_peer() {
        let path = std::env::temp_dir().join(format!("keepalive-socket-{}", std::process::id()));
        let bind = |listener: &OwnedFd| nix::sys::socket::bind(listener.as_raw_fd(), &address(&path)?);
        let listener = listen_unix(bind).unwrap().0;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen_unix(bind).err(), Some(Errno::EADDRINUSE));
        assert_eq!(accept(&listener).err(), Some(Errno::EAGAIN));
        let client = connect_unix(&path).unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(peer_uid(&server), Some(nix::unistd::geteuid().as_raw()));
        let mut buffer = [0; 8];
        assert_eq!(receive(&server, &mut buffer), Err(Errno::EAGAIN));
        assert_eq!(send(&client, b"hello"), Ok(5));
        assert_eq!(receive(&server, &mut buffer), Ok(5));
        shutdown_write(&client);
        assert_eq!(receive(&server, &mut buffer), Ok(0));
        drop(client);
        assert_eq!(send(&server, b"x"), Err(Errno::EPIPE), "without SIGPIPE");
        drop(listener);
        assert_eq!(connect_unix(&path).err(), Some(Errno::ECONNREFUSED));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(connect_unix(&path).err(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_path_that_cannot_be_a_socket_is_an_error() {
        let timeout = Duration::from_millis(20);
        let long = "/".repeat(108);
        for (path, errno) in
            [("", Errno::ENOENT), (&*long, Errno::ENAMETOOLONG), ("/nowhere/at/all.sock", Errno::ENOENT)]
        {
            let path = Path::new(path);
            assert_eq!(connect_with_timeout(path, timeout).map(drop), Err(errno), "{path:?}");
            assert_eq!(connect_unix(path).map(drop), Err(errno), "{path:?}");
        }
    }
}
