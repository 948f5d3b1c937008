//! Sockets that keepalive listens on for its services.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// One of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its name in `LISTEN_FDNAMES` and `{fd.NAME}`.
    pub name: Box<str>,
    /// Where.
    pub address: Address,
    /// Whether accept(2) fails with EAGAIN where it would wait. All who have the socket share this.
    pub nonblocking: bool,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// `tcp://`
    Tcp(SocketAddr),
    /// `udp://`
    Udp(SocketAddr),
    /// `unix://`, stream.
    Unix {
        /// Absolute, or abstract if it begins with `@`.
        path: PathBuf,
        /// The permissions of the file.
        mode: u32,
        /// Who owns the file; `None`: whom keepalive runs as.
        owner: Option<(u32, u32)>,
    },
}

impl Address {
    /// Whether the two are one address, or one is part of the other, so that they cannot both be bound.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) | (Self::Udp(one), Self::Udp(other)) => {
                let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
                let is_one = a == b && scope(one).is_none_or(|one| scope(other).is_none_or(|other| one == other));
                one.port() == other.port() && (is_one || includes(a, b) || includes(b, a))
            }
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            (Self::Tcp(_) | Self::Udp(_) | Self::Unix { .. }, _) => false,
        }
    }
}

/// The interface on which a link-local address is meant; what is no such address is the same on each: ipv6(7)
fn scope(address: &SocketAddr) -> Option<u32> {
    match address {
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() => {
            Some(address.scope_id()).filter(|id| *id > 0)
        }
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    }
}

/// `[::]` is all addresses, those of IPv4 too.
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
    /// All instances have the same socket.
    Shared,
    /// A socket for each instance, `SO_REUSEPORT`: the kernel spreads the connections.
    Reuseport,
}

#[cfg(test)]
mod tests {
    use super::*;

    // ip(7), ipv6(7)
    #[test]
    fn an_address_overlaps_with_what_it_is_part_of() {
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
