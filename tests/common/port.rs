//! Ports that a test gives to the programs it starts.
//!
//! A port that is bound to find a free one, and let go so that a program can bind it, may be somebody else's by then. The
//! test keeps it instead: with a socket that is bound and never listens. socket(7), `SO_REUSEADDR`: "a socket may bind,
//! except when there is an active listening socket bound to the address"; both sockets must have the option. Rust,
//! keepalive and all the servers of these tests set it.
//!
//! It is set here after bind(2). Before, whoever has the port already would be joined instead of refused. The kernel
//! gives a port that is bound so to nobody who asks for any port, neither by bind(2) nor by connect(2), ip(7).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn6, bind, getsockname, setsockopt, socket, sockopt,
};

/// A TCP port of all addresses of this machine that stays free for the programs of one test until this is dropped.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    number: u16,
    _socket: OwnedFd,
}

impl ReservedPort {
    /// One that the kernel chooses.
    pub(crate) fn any() -> Self {
        Self::reserve(0).unwrap()
    }

    /// ip(7): "The port numbers below 1024 are called privileged ports".
    pub(crate) fn privileged() -> Self {
        (81..1024).find_map(|number| Self::reserve(number).ok()).unwrap()
    }

    /// Two, whose numbers have the last digits 0 and 1 and all others in common.
    pub(crate) fn pair() -> [Self; 2] {
        let pair = |tens: u16| Some([Self::reserve(tens * 10).ok()?, Self::reserve(tens * 10 + 1).ok()?]);
        (1100..3200).find_map(pair).unwrap()
    }

    fn reserve(number: u16) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // ipv6(7): then `[::]` is all addresses of IPv4 too.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
        let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, number, 0, 0);
        bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        let number = getsockname::<SockaddrIn6>(socket.as_raw_fd())?.port();
        Ok(Self { number, _socket: socket })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn loopback(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// The address on the loopback device, `127.0.0.1:PORT`.
impl fmt::Display for ReservedPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loopback().fmt(formatter)
    }
}
