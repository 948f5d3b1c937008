//! Sockets that services listen on: socket(2), socket(7), ip(7), ipv6(7), unix(7), bind(2), listen(2).
//!
//! All are close-on-exec and, unless `nonblocking` is set, blocking, as those of systemd.socket(5) are.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen, setsockopt,
    shutdown, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

use super::deferred_close;
use super::socket_file::SocketFile;
use super::syscall::reading;
use crate::model::plan::{Address, ListenMode};

/// `BPF_RET | BPF_K` of linux/filter.h: return a constant.
const BPF_RET_K: u16 = 0x06;

/// Opens a socket that listens on `address`, unless that is a path: then [`bind_file`] must follow. Nobody can hold this up.
/// The backlog is the system's maximum (`net.core.somaxconn`).
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EACCES (a port below 1024), EMFILE, ENFILE, ENOMEM.
pub fn open(address: &Address, mode: ListenMode) -> Result<OwnedFd, Errno> {
    match address {
        Address::Tcp(address) => {
            let listener = bind_inet(*address, SockType::Stream, mode)?;
            listen(&listener, Backlog::MAXALLOWABLE)?;
            Ok(listener)
        }
        Address::Udp(address) => bind_inet(*address, SockType::Datagram, mode),
        Address::Unix { path, mode, .. } => {
            // Connections that nobody accepts can hold descriptors.
            deferred_close::require_holder();
            let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            if let Some(name) = abstract_name(path) {
                bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
                listen(&socket, Backlog::MAXALLOWABLE)?;
            } else {
                // bind(2) gives the file the mode of the socket, minus the umask.
                fchmod(&socket, Mode::from_bits_truncate(*mode))?;
            }
            Ok(socket)
        }
    }
}

/// The path of the file of a unix socket.
#[must_use]
pub fn file_of(address: &Address) -> Option<&Path> {
    match address {
        Address::Unix { path, .. } if abstract_name(path).is_none() => Some(path),
        Address::Unix { .. } | Address::Tcp(_) | Address::Udp(_) => None,
    }
}

fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

fn bind_inet(address: SocketAddr, kind: SockType, mode: ListenMode) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        // Connections in TIME_WAIT must not block the address. For datagram sockets this option would allow several to
        // have the same address.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        // `[::]` includes the IPv4 addresses, whatever the system's default is.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    if mode == ListenMode::Reuseport {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// Lets a socket of [`open`] listen on a path, and returns the identity of its file, see [`SocketFile::new`]. A stale unix
/// socket, on which no process listens, is replaced.
///
/// # Errors
/// EADDRINUSE: the address is in use, or another kind of file has this path. ELOOP: a symbolic link on the path is not
/// followed, see [`super::directory`]. EMLINK: another file has taken its place. ENOENT, EACCES, EROFS, ENAMETOOLONG, EPERM
/// (cannot set the owner), ENOMEM.
pub fn bind_file(socket: impl AsFd, path: &Path, owner: Option<(u32, u32)>) -> Result<[u64; 2], Errno> {
    let socket = socket.as_fd();
    // That of libc cannot fail, but a sandbox can refuse the call.
    let before = reading(libc::SYS_umask, [0])?;
    let bound = SocketFile::bind(socket, path);
    reading(libc::SYS_umask, [before]).ok();
    let file = bound?;
    owner
        .map_or(Ok(()), |owner| file.set_owner_and_mode(owner, None))
        .and_then(|()| listen(&socket, Backlog::MAXALLOWABLE))
        .inspect_err(|_| file.remove())?;
    Ok(file.identity())
}

/// Makes the socket non-blocking, for every process that has it: accept(2) does not wait for a connection that another
/// process has accepted. fcntl(2) `O_NONBLOCK`
///
/// # Errors
/// None on Linux.
pub fn set_nonblocking(socket: impl AsFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
    fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// Directs all new connections and datagrams to one of the sockets that are bound to the address of `socket`: the one at
/// `position` in the order in which they were bound. `None`: the kernel distributes them. socket(7)
/// `SO_ATTACH_REUSEPORT_CBPF`
pub fn select_reuseport_socket(socket: impl AsFd, position: Option<u32>) {
    // The kernel chooses a socket itself if the program returns a position without a socket.
    let k = position.unwrap_or(u32::MAX);
    let mut filter = libc::sock_filter { code: BPF_RET_K, jt: 0, jf: 0, k };
    let program = libc::sock_fprog { len: 1, filter: &raw mut filter };
    // Fails for unix sockets and on kernels without the option. Then the kernel distributes the connections.
    setsockopt(&socket.as_fd(), sockopt::AttachReusePortCbpf, &program).ok();
}

/// Allows other sockets of the same user that have this option to listen on the same address. socket(7) `SO_REUSEPORT`
pub fn enable_reuseport(socket: impl AsFd) {
    // Fails only for unix sockets, which do not support it.
    setsockopt(&socket.as_fd(), sockopt::ReusePort, &true).ok();
}

/// The socket gets no more connections, and those that wait are reset. shutdown(2)
pub fn stop(socket: impl AsFd) {
    shutdown(socket.as_fd().as_raw_fd(), Shutdown::Read).ok();
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

    use nix::sys::socket::getsockopt;

    use super::*;

    fn open(address: &Address, mode: ListenMode) -> Result<(OwnedFd, Option<SocketFile>), Errno> {
        let socket = super::open(address, mode)?;
        let file = match address {
            Address::Unix { owner, .. } => file_of(address).map(|path| (path, bind_file(&socket, path, *owner))),
            Address::Tcp(_) | Address::Udp(_) => None,
        };
        let file = file.map(|(path, bound)| bound.map(|identity| SocketFile::new(path, identity))).transpose()?;
        Ok((socket, file))
    }

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 0)
    }

    fn named(path: PathBuf, mode: u32) -> Address {
        Address::Unix { path, mode, owner: None }
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("keepalive-{name}-{}", std::process::id()))
    }

    // systemd.socket(5): the sockets are blocking; sd_listen_fds(3) leaves the rest to the service.
    #[test]
    fn a_listener_is_blocking_and_close_on_exec() {
        let (socket, _) = open(&Address::Tcp(at("127.0.0.1")), ListenMode::Shared).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        assert_eq!(fcntl(&socket, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
        assert_eq!(getsockopt(&socket, sockopt::ReusePort), Ok(false));
        assert_eq!(getsockopt(&socket, sockopt::AcceptConn), Ok(true));
    }

    // listen(2): a backlog greater than somaxconn is silently capped to it. tcp(7): `tcpi_sacked` of a listener is its backlog.
    #[test]
    fn the_backlog_is_the_maximum_of_the_system() {
        let (socket, _) = open(&Address::Tcp(at("127.0.0.1")), ListenMode::Shared).unwrap();
        let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let (mut info, mut length) = ([0_u32; 26], 104);
        let room = info.as_mut_ptr().cast();
        // SAFETY: `info` has room for `length` bytes.
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, room, &raw mut length) };
        assert_eq!(info[7].to_string(), limit.trim());
    }

    #[test]
    fn the_ipv6_wildcard_address_accepts_ipv4_connections() {
        let (socket, _) = open(&Address::Tcp(at("::")), ListenMode::Shared).unwrap();
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::1"] {
            let mut client = TcpStream::connect((ip, port)).unwrap();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"x");
        }
    }

    #[test]
    fn an_address_in_use_is_an_error() {
        let (first, _) = open(&Address::Tcp(at("127.0.0.1")), ListenMode::Shared).unwrap();
        let taken = TcpListener::from(first);
        let address = Address::Tcp(taken.local_addr().unwrap());
        assert_eq!(open(&address, ListenMode::Shared).err(), Some(Errno::EADDRINUSE));
        let (first, _) = open(&Address::Udp(at("127.0.0.1")), ListenMode::Shared).unwrap();
        let taken = UdpSocket::from(first);
        let address = Address::Udp(taken.local_addr().unwrap());
        assert_eq!(open(&address, ListenMode::Shared).err(), Some(Errno::EADDRINUSE));
    }

    // socket(7) SO_REUSEPORT
    #[test]
    fn sockets_can_share_a_port_if_all_of_them_use_reuseport() {
        let (first, _) = open(&Address::Tcp(at("127.0.0.1")), ListenMode::Reuseport).unwrap();
        let first = TcpListener::from(first);
        let address = Address::Tcp(first.local_addr().unwrap());
        open(&address, ListenMode::Reuseport).unwrap();
        assert_eq!(open(&address, ListenMode::Shared).err(), Some(Errno::EADDRINUSE));
    }

    #[test]
    fn reuseport_can_be_enabled_later() {
        for make in [Address::Tcp, Address::Udp] {
            let (socket, _) = open(&make(at("127.0.0.1")), ListenMode::Shared).unwrap();
            let port =
                nix::sys::socket::getsockname::<nix::sys::socket::SockaddrIn>(socket.as_raw_fd()).unwrap().port();
            let address = make(SocketAddr::new("127.0.0.1".parse().unwrap(), port));
            assert_eq!(open(&address, ListenMode::Reuseport).err(), Some(Errno::EADDRINUSE));
            enable_reuseport(&socket);
            open(&address, ListenMode::Reuseport).unwrap();
        }
    }

    #[test]
    fn a_socket_file_has_its_mode_whatever_the_umask_and_can_be_removed() {
        for mode in [0o600, 0o666, 0o777] {
            let path = temporary("listen-mode");
            let (socket, file) = open(&named(path.clone(), mode), ListenMode::Shared).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            UnixStream::connect(&path).unwrap();
            drop(socket);
            file.unwrap().remove();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let path = temporary("listen-stale");
        let address = named(path.clone(), 0o600);
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(open(&address, ListenMode::Shared).err(), Some(Errno::EADDRINUSE));
        drop(live);
        let (_socket, file) = open(&address, ListenMode::Shared).unwrap();
        UnixStream::connect(&path).unwrap();
        file.unwrap().remove();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(open(&address, ListenMode::Shared).err(), Some(Errno::EADDRINUSE));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        let nowhere = named("/nowhere/at/all".into(), 0o600);
        assert_eq!(open(&nowhere, ListenMode::Shared).err(), Some(Errno::ENOENT));
    }

    // unix(7): an abstract name starts with a NUL byte, which configurations write as `@`.
    #[test]
    fn a_name_that_starts_with_an_at_sign_is_abstract() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("keepalive-listen-{}", std::process::id());
        let address = named(format!("@{name}").into(), 0o600);
        let (_socket, file) = open(&address, ListenMode::Shared).unwrap();
        assert!(file.is_none());
        let abstract_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        UnixStream::connect_addr(&abstract_name).unwrap();
        assert_eq!(open(&address, ListenMode::Shared).err(), Some(Errno::EADDRINUSE));
    }
}
