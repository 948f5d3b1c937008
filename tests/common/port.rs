//! Ports for the programs that a test starts.
//!
//! If a test binds a free port and closes it again for a program, another process may bind it first. So the test keeps
//! a socket that is bound and never listens. socket(7), `SO_REUSEADDR`: "a socket may bind, except when there is an
//! active listening socket bound to the address"; both sockets must have the option. Rust, keepalive and all servers of
//! these tests set it.
//!
//! It is set here after bind(2), so that bind(2) fails if another socket has the port. The kernel does not assign such
//! a port to other sockets, neither in bind(2) nor in connect(2), ip(7).

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
    /// A port that the kernel chooses.
    pub(crate) fn any() -> Self {
        Self::reserve(0).unwrap()
    }

    /// ip(7): "The port numbers below 1024 are called privileged ports".
    pub(crate) fn privileged() -> Self {
        (81..1024).find_map(|number| Self::reserve(number).ok()).unwrap()
    }

    /// Two ports whose numbers end with 0 and 1 and are otherwise equal.
    pub(crate) fn pair() -> [Self; 2] {
        let pair = |tens: u16| Some([Self::reserve(tens * 10).ok()?, Self::reserve(tens * 10 + 1).ok()?]);
        (1100..3200).find_map(pair).unwrap()
    }

    fn reserve(number: u16) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // ipv6(7): then `[::]` includes all IPv4 addresses.
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
