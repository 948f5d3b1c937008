//! Connecting to a unix socket, unix(7).

use std::ffi::c_int;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

/// Connects to the stream socket at `path`. Neither this nor any later write takes longer than `patience`: a server
/// whose queue is full would keep us for as long as it likes. connect(2), socket(7) `SO_SNDTIMEO`
///
/// # Errors
/// ENOENT, ECONNREFUSED: nobody listens there. EACCES. ENAMETOOLONG. EAGAIN: not in time.
pub fn connect(path: &Path, patience: Duration) -> Result<UnixStream, Errno> {
    let mut address = libc::sockaddr_un { sun_family: FAMILY, sun_path: [0; 108] };
    let bytes = path.as_os_str().as_bytes();
    // The last one is the NUL.
    if bytes.len() >= address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (slot, byte) in address.sun_path.iter_mut().zip(bytes) {
        *slot = byte.cast_signed();
    }
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the descriptor is new and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    limit_writes(&socket, patience)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap_or(0);
    // SAFETY: `address` is a whole sockaddr_un, as `length` says, with a NUL-terminated path.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(UnixStream::from(socket))
}

#[expect(clippy::cast_possible_truncation, reason = "AF_UNIX is 1")]
const FAMILY: libc::sa_family_t = libc::AF_UNIX as libc::sa_family_t;

fn limit_writes(socket: &OwnedFd, patience: Duration) -> Result<(), Errno> {
    // All zero would be no limit at all.
    let patience = patience.max(Duration::from_millis(1));
    let limit = libc::timeval {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(patience.subsec_micros()),
    };
    let length = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);
    let option: c_int = libc::SO_SNDTIMEO;
    // SAFETY: the kernel reads a timeval, as `length` says.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const limit).cast(), length) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let path = "/".repeat(108);
        assert_eq!(connect(Path::new(&path), PATIENCE).map(drop), Err(Errno::ENAMETOOLONG));
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert_eq!(connect(Path::new("/nowhere/at/all.sock"), PATIENCE).map(drop), Err(Errno::ENOENT));
    }
}
