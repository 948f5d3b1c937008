//! Closing what others have handed to us, close(2), without having to wait for it.
//!
//! Whoever closes a socket with `SO_LINGER` last waits until everything in it has been sent, whether it blocks or not; and
//! with a unix socket is closed what is under way in it, which may be such a socket. Only a process that exits waits for
//! neither. So a copy of us has them until we have closed ours, and is then killed. socket(7), unix(7)

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::fork::{self, Side};
use super::{kill, wait};
use crate::model::Signal;

/// Closes `descriptors`, whatever they are.
pub fn discard(descriptors: Vec<OwnedFd>) {
    let (slow, _): (Vec<OwnedFd>, Vec<OwnedFd>) = descriptors.into_iter().partition(may_take_time);
    if slow.is_empty() {
        return;
    }
    match fork::fork_quietly() {
        Ok(Side::Child) => fork::sleep_until_killed(),
        Ok(Side::Parent(copy)) => {
            drop(slow);
            kill::signal_process(copy, Signal::KILL).ok();
            wait::await_quiet(copy).ok();
        }
        Err(_) => {
            let at_once = libc::linger { l_onoff: 0, l_linger: 0 };
            for socket in &slow {
                setsockopt(socket, sockopt::Linger, &at_once).ok();
            }
        }
    }
}

fn may_take_time(descriptor: &OwnedFd) -> bool {
    let lingers = |linger: libc::linger| linger.l_onoff != 0 && linger.l_linger > 0;
    getsockopt(descriptor, sockopt::Linger).is_ok_and(lingers) || domain(descriptor) == Ok(libc::AF_UNIX)
}

/// `SO_DOMAIN`
fn domain(socket: &OwnedFd) -> Result<c_int, Errno> {
    const SIZE: libc::socklen_t = 4;
    let (mut domain, mut size) = (0_i32, SIZE);
    // SAFETY: there is room for a number of four bytes, and its size is said.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut size)
    };
    Errno::result(result).map(|_| domain)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::sys::packet;

    /// A connection that its owner cannot close before the other side has read it, and the other side, which does not.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut full = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.write(&[0; 1 << 16]).is_ok() {}
        setsockopt(&full, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 60 }).unwrap();
        (full.into(), other)
    }

    #[test]
    fn what_could_take_a_minute_to_be_closed_is_closed_at_once() {
        let (bare, _first) = lingering();
        let (wrapped, _second) = lingering();
        let flags = SockFlag::SOCK_CLOEXEC;
        let (envelope, sender) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        packet::send(&sender, b"x", Some(std::os::fd::AsFd::as_fd(&wrapped))).unwrap();
        drop((wrapped, sender));
        let (read_end, pipe) = nix::unistd::pipe().unwrap();
        let begun = crate::sys::now();
        discard(vec![bare, envelope, pipe]);
        assert!(crate::sys::now().since(begun) < Duration::from_secs(30), "it has waited for what is not read");
        assert_eq!(nix::unistd::read(&read_end, &mut [0; 1]), Ok(0), "the pipe is closed");
    }
}
