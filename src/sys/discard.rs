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
