//! Sockets that keepalive listens on for its services.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its name in `LISTEN_FDNAMES` and `{fd.NAME}`.
    pub name: Box<str>,
    /// Where.
    pub address: Address,
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
