//! Sockets that keepalive listens on for its services.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::as_written::AsWritten;

/// An entry of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The name in `LISTEN_FDNAMES` and `{fd.NAME}`.
    pub name: Box<str>,
    /// The address to listen on.
    pub address: AsWritten<Address>,
    /// Whether the socket is non-blocking, in all processes that have it. fcntl(2) `O_NONBLOCK`
    pub nonblocking: bool,
}

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// `tcp://`
    Tcp(SocketAddr),
    /// `udp://`
    Udp(SocketAddr),
    /// `unix://`, a stream socket.
    Unix {
        /// The absolute path, or an abstract name that starts with `@`.
        path: PathBuf,
        /// The permissions of the file.
        mode: u32,
        /// The owner of the file, uid and gid; `None`: keepalive's own.
        owner: Option<(u32, u32)>,
    },
}

impl Address {
    /// Whether one address is the same as the other or includes it, so that they cannot both be bound.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) | (Self::Udp(one), Self::Udp(other)) => {
                let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
                let is_same = a == b && scope(one).is_none_or(|one| scope(other).is_none_or(|other| one == other));
                one.port() == other.port() && (is_same || includes(a, b) || includes(b, a))
            }
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            (Self::Tcp(_) | Self::Udp(_) | Self::Unix { .. }, _) => false,
        }
    }
}

/// The interface of a link-local address; `None` for other addresses, which are the same on every interface. ipv6(7)
fn scope(address: &SocketAddr) -> Option<u32> {
    match address {
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() => {
            Some(address.scope_id()).filter(|id| *id > 0)
        }
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    }
}

/// Whether `all` is a wildcard address that includes `one`. `[::]` includes the IPv4 addresses.
fn includes(all: IpAddr, one: IpAddr) -> bool {
    all.is_unspecified() && (all.is_ipv6() || one.is_ipv4())
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Udp(address) => write!(formatter, "udp://{address}"),
            Self::Unix { path, .. } => write!(formatter, "unix://{}", path.display()),
        }
    }
}

/// `listen_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenMode {
    /// All instances share one socket.
    Shared,
    /// Each instance has a socket of its own with `SO_REUSEPORT`: the kernel distributes the connections.
    Reuseport,
}

#[cfg(test)]
mod tests {
    use super::*;

    // ip(7), ipv6(7)
    #[test]
    fn an_address_overlaps_with_itself_and_with_one_that_includes_it() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for (one, other, expect) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:1", "[::]:1", true),
            ("[::1]:1", "[::]:1", true),
            ("127.0.0.1:1", "[::ffff:127.0.0.1]:1", true),
            ("[fe80::1%1]:1", "[fe80::1%1]:1", true),
            ("[fe80::1%1]:1", "[fe80::1%2]:1", false),
            ("[fe80::1%1]:1", "[fe80::2%1]:1", false),
            ("[fe80::1%1]:1", "[fe80::1]:1", true),
            ("[fe80::1%1]:1", "[::]:1", true),
            ("[2001:db8::1%1]:1", "[2001:db8::1%2]:1", true),
        ] {
            assert_eq!(tcp(one).overlaps(&tcp(other)), expect, "{one} {other}");
            assert_eq!(tcp(other).overlaps(&tcp(one)), expect, "{other} {one}");
        }
        assert!(!tcp("0.0.0.0:1").overlaps(&Address::Udp("0.0.0.0:1".parse().unwrap())));
    }
}
