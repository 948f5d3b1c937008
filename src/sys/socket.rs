//! Listening sockets and what comes in by them: socket(2), unix(7), accept(2), send(2).
//!
//! All sockets are close-on-exec. Nothing here waits, and all are non-blocking, but for a client's: [`connect_within`].

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt,
    listen, recv, send, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;

/// So many connections may wait to be accepted.
const BACKLOG: i32 = 128;

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);
const AT_ONCE: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// Makes a stream socket at `path`, for its owner alone (0600).
///
/// # Errors
/// EADDRINUSE: something is there already; what bind(2) says of the directory: ENOENT, EACCES, EROFS; ENAMETOOLONG;
/// EMFILE.
pub fn listen_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let listener = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    // The file that bind makes has the mode of the socket: at no moment may others connect.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(listener.as_raw_fd(), &address(path)?)?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// Connects to the stream socket at `path`.
///
/// # Errors
/// ECONNREFUSED: nobody listens there any more; ENOENT, EACCES, ENAMETOOLONG; EAGAIN: too many wait already.
pub fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let client = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    connect(client.as_raw_fd(), &address(path)?)?;
    Ok(client)
}

/// Connects to the stream socket at `path`. Neither this nor any later write takes longer than `patience`: a server
/// whose queue is full would keep us for as long as it likes. socket(7) `SO_SNDTIMEO`
///
/// # Errors
/// As [`connect_unix`]; EAGAIN: not in time.
pub fn connect_within(path: &Path, patience: Duration) -> Result<UnixStream, Errno> {
    let client = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // All zero would be no limit at all.
    let patience = patience.max(Duration::from_millis(1));
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&client, sockopt::SendTimeout, &TimeVal::new(seconds, i64::from(patience.subsec_micros())))?;
    connect(client.as_raw_fd(), &address(path)?)?;
    Ok(UnixStream::from(client))
}

/// ENOENT: the empty path is that of no file, and unix(7) would take it for an abstract address or none.
fn address(path: &Path) -> Result<UnixAddr, Errno> {
    if path.as_os_str().is_empty() {
        return Err(Errno::ENOENT);
    }
    UnixAddr::new(path)
}

/// Listens on a TCP port.
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL, EACCES (a port below 1024), EMFILE.
pub fn listen_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    let listener = TcpListener::bind(address).map_err(errno)?;
    listener.set_nonblocking(true).map_err(errno)?;
    // Connections inherit it: who has vanished without a word is found out within some two minutes.
    setsockopt(&listener, sockopt::KeepAlive, &true)?;
    setsockopt(&listener, sockopt::TcpKeepIdle, &60)?;
    setsockopt(&listener, sockopt::TcpKeepInterval, &15)?;
    setsockopt(&listener, sockopt::TcpKeepCount, &4)?;
    Ok(listener.into())
}

/// Takes the next connection.
///
/// # Errors
/// EAGAIN: there is none; ECONNABORTED and what else accept(2) says of a connection that has gone; EMFILE, ENFILE, ENOMEM:
/// it cannot be taken now and stays where it is.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = accept4(listener.as_fd().as_raw_fd(), FLAGS)?;
    // SAFETY: just made by accept4, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The effective user of whoever connected to a unix socket, `SO_PEERCRED`. `None`: the kernel does not say.
#[must_use]
pub fn peer_uid(connection: impl AsFd) -> Option<u32> {
    getsockopt(&connection.as_fd(), sockopt::PeerCredentials).ok().map(|credentials| credentials.uid())
}

/// What has come in, 0 bytes at its end.
///
/// # Errors
/// EAGAIN: nothing yet; ECONNRESET.
pub fn receive(connection: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    recv(connection.as_fd().as_raw_fd(), buffer, AT_ONCE)
}

/// Sends as much as there is room for.
///
/// # Errors
/// EAGAIN: there is no room; EPIPE, ECONNRESET: nobody reads it any more. No SIGPIPE.
pub fn transmit(connection: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    send(connection.as_fd().as_raw_fd(), bytes, AT_ONCE)
}

/// Says that nothing more will be sent.
pub fn finish(connection: impl AsFd) {
    // It may have gone already.
    shutdown(connection.as_fd().as_raw_fd(), Shutdown::Write).ok();
}

/// Takes nothing more than what is here already.
pub fn stop_receiving(connection: impl AsFd) {
    shutdown(connection.as_fd().as_raw_fd(), Shutdown::Read).ok();
}

/// Whether there is something to be received.
#[must_use]
pub fn has_input(connection: impl AsFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(connection.as_fd().as_raw_fd(), &mut [0], flags).is_ok_and(|length| length > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_alone_and_knows_who_connects() {
        let path = std::env::temp_dir().join(format!("keepalive-socket-{}", std::process::id()));
        let listener = listen_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen_unix(&path).err(), Some(Errno::EADDRINUSE));
        assert_eq!(accept(&listener).err(), Some(Errno::EAGAIN));
        let client = connect_unix(&path).unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(peer_uid(&server), Some(nix::unistd::geteuid().as_raw()));
        let mut buffer = [0; 8];
        assert_eq!(receive(&server, &mut buffer), Err(Errno::EAGAIN));
        assert_eq!(transmit(&client, b"hello"), Ok(5));
        assert_eq!(receive(&server, &mut buffer), Ok(5));
        finish(&client);
        assert_eq!(receive(&server, &mut buffer), Ok(0));
        drop(client);
        assert_eq!(transmit(&server, b"x"), Err(Errno::EPIPE), "and no signal");
        drop(listener);
        assert_eq!(connect_unix(&path).err(), Some(Errno::ECONNREFUSED));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(connect_unix(&path).err(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_path_at_which_there_can_be_nothing_is_an_error() {
        let patience = Duration::from_millis(20);
        let long = "/".repeat(108);
        for (path, errno) in
            [("", Errno::ENOENT), (&*long, Errno::ENAMETOOLONG), ("/nowhere/at/all.sock", Errno::ENOENT)]
        {
            let path = Path::new(path);
            assert_eq!(connect_within(path, patience).map(drop), Err(errno), "{path:?}");
            assert_eq!(connect_unix(path).map(drop), Err(errno), "{path:?}");
            assert_eq!(listen_unix(path).map(drop), Err(errno), "{path:?}");
        }
    }
}
