//! Datagrams with their sender, and the descriptors that they carry: unix(7) `SOCK_DGRAM`, `SCM_CREDENTIALS`,
//! `SCM_RIGHTS`.
//!
//! Whoever holds the last reference to a descriptor's file closes it, and that can take any time: a socket with `SO_LINGER`
//! waits until its data has been sent, some files wait for a server or for a lock that another process holds. So keepalive
//! first looks at a datagram without taking it from the queue ([`peek`]); one that carries descriptors is left to another
//! process ([`receive_descriptors`]).

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, bind, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

use super::deferred_close::{Owner, deferred_close};
use super::needed;
use crate::model::Pid;

/// How many descriptors a datagram can carry: the kernel's limit, `SCM_MAX_FD`.
pub const MAX_FDS_PER_DATAGRAM: usize = 253;
/// Room for a control message with the sender, and no other.
const SENDER_BYTES: u16 = 32;
const SENDER_WORDS: usize = 4;
/// Room for two control messages with their headers: the maximum number of descriptors, and the sender.
const ALL_BYTES: u16 = 1280;
const ALL_WORDS: usize = 160;
const _: () = assert!(SENDER_WORDS * 8 == SENDER_BYTES as usize && ALL_WORDS * 8 == ALL_BYTES as usize);
const _: () = assert!(MAX_FDS_PER_DATAGRAM * size_of::<c_int>() + 128 <= ALL_BYTES as usize);
/// The number of datagrams that are looked at when a socket is closed.
const MAX_CLOSED_HERE: usize = 64;

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes of the buffer it fills.
    pub length: usize,
    /// Whether it was longer than the buffer. `MSG_TRUNC`
    pub is_truncated: bool,
    /// The process that sent it.
    pub sender: Sender,
    /// Whether it carries descriptors that were not received. `MSG_CTRUNC`
    pub has_descriptors: bool,
}

/// The sender of a datagram, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// `None`: a process outside of keepalive's PID namespace.
    pub pid: Option<Pid>,
    /// The user id that it has used; `u32::MAX`: unknown.
    pub uid: u32,
}

/// Binds a socket to the abstract address `name`; close-on-exec and non-blocking.
///
/// # Errors
/// EADDRINUSE; EMFILE, ENFILE, ENOMEM; ENOSYS, EPERM: datagrams cannot be received.
pub fn bind_abstract(name: &[u8]) -> Result<OwnedFd, Errno> {
    bind_to(&UnixAddr::new_abstract(name)?)
}

/// As [`bind_abstract`], for a path, which must not exist. Until its mode is changed only the own user can send to it.
///
/// # Errors
/// EADDRINUSE: the path exists. ENAMETOOLONG: it is longer than 107 bytes. Those of creating a file.
pub fn bind_path(path: &Path) -> Result<OwnedFd, Errno> {
    bind_to(&UnixAddr::new(path.as_os_str().as_bytes())?)
}

fn bind_to(address: &UnixAddr) -> Result<OwnedFd, Errno> {
    needed::check(&[needed::RECVMSG]).map_err(|refused| refused.errno)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // Before the bind: an earlier datagram would arrive without its sender.
    setsockopt(&socket, sockopt::PassCred, &true)?;
    // bind(2) gives a file the mode of the socket, minus the umask.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).ok();
    bind(socket.as_raw_fd(), address)?;
    Ok(socket)
}

/// Looks at the next datagram, which stays in the queue. Its descriptors are not received.
///
/// # Errors
/// EAGAIN: there is none.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    receive_with(socket, buffer, libc::MSG_PEEK, (&mut [0; SENDER_WORDS], SENDER_BYTES)).map(|(datagram, _)| datagram)
}

/// Takes the next datagram from the queue. If it carried descriptors, the kernel would close them now: [`peek`] first.
///
/// # Errors
/// EAGAIN: there is none.
pub fn discard(socket: impl AsFd) -> Result<(), Errno> {
    receive_with(socket, &mut [], 0, (&mut [0; SENDER_WORDS], SENDER_BYTES)).map(drop)
}

/// Takes the next datagram from the queue, with its descriptors, close-on-exec.
///
/// # Errors
/// EAGAIN: there is none.
pub fn receive_descriptors(socket: impl AsFd, buffer: &mut [u8]) -> Result<(Datagram, Vec<OwnedFd>), Errno> {
    receive_with(socket, buffer, libc::MSG_CMSG_CLOEXEC, (&mut [0; ALL_WORDS], ALL_BYTES))
}

fn receive_with(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: c_int,
    (control, control_bytes): (&mut [u64], u16),
) -> Result<(Datagram, Vec<OwnedFd>), Errno> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr: no name, no parts, no control message.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control_bytes.into();
    // SAFETY: the message points to one part and to room for control messages, both writable and alive.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags | libc::MSG_DONTWAIT) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
    let mut datagram = Datagram {
        length: length.min(buffer.len()),
        is_truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        sender: Sender { pid: None, uid: u32::MAX },
        has_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0,
    };
    let descriptors = take_control(&message, &mut datagram);
    Ok((datagram, descriptors))
}

/// Takes everything from the control messages. A descriptor that is left there would stay open for ever.
fn take_control(message: &libc::msghdr, datagram: &mut Datagram) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled in the message, and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a header in the control buffer.
        let fields = unsafe { &*header };
        // SAFETY: the header is valid.
        let data: *const c_void = unsafe { libc::CMSG_DATA(header) }.cast();
        // SAFETY: arithmetic on numbers.
        let header_size = unsafe { libc::CMSG_LEN(0) } as usize;
        let size = (fields.cmsg_len as usize).saturating_sub(header_size);
        match (fields.cmsg_level, fields.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for position in 0..size / size_of::<c_int>() {
                    // SAFETY: `size` bytes follow the header, and `position` is within them.
                    let element = unsafe { data.cast::<c_int>().add(position) };
                    // SAFETY: as above. An unaligned read needs no alignment.
                    let descriptor = unsafe { element.read_unaligned() };
                    // SAFETY: the kernel has just opened it for this message, so nothing else owns it.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if size >= size_of::<libc::ucred>() => {
                // SAFETY: `size` bytes follow the header, enough for a ucred.
                let credentials = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                datagram.sender = Sender { pid: Pid::new(credentials.pid), uid: credentials.uid };
            }
            _ => {}
        }
        // SAFETY: `header` is a header of `message`, which the kernel has filled in.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}

/// Sends descriptors over a socket, with one byte.
///
/// # Errors
/// EAGAIN: the socket's buffer is full. ETOOMANYREFS: too many descriptors are in flight. EINVAL: more than
/// [`MAX_FDS_PER_DATAGRAM`]. EPIPE.
pub fn send_descriptors(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all-zero bytes are a valid msghdr: no name, no parts, no control message.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let size = u32::try_from(size_of::<c_int>() * descriptors.len()).map_err(|_| Errno::EINVAL)?;
    let mut control = [0_u64; ALL_WORDS];
    // SAFETY: arithmetic on numbers.
    let space = unsafe { libc::CMSG_SPACE(size) };
    if descriptors.len() > MAX_FDS_PER_DATAGRAM {
        return Err(Errno::EINVAL);
    }
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: the control buffer is large enough for a header, so this returns its start.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: the header is in the control buffer, which is aligned for it and zeroed.
    let fields = unsafe { &mut *header };
    fields.cmsg_level = libc::SOL_SOCKET;
    fields.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: arithmetic on numbers.
    fields.cmsg_len = unsafe { libc::CMSG_LEN(size) } as _;
    // SAFETY: the header is valid.
    let data: *mut c_int = unsafe { libc::CMSG_DATA(header) }.cast();
    for (position, descriptor) in descriptors.iter().enumerate() {
        // SAFETY: the buffer has room for all of them after the header.
        let element = unsafe { data.add(position) };
        // SAFETY: as above. An unaligned write needs no alignment.
        unsafe { element.write_unaligned(descriptor.as_raw_fd()) };
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message points to one part and to a complete control message, both alive.
    Errno::result(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) }).map(drop)
}

/// Closes a socket that others can send to. If descriptors are queued in it, another process closes it.
pub fn close(owner: Owner, socket: OwnedFd) {
    // Nothing more is queued from now on.
    shutdown(socket.as_raw_fd(), Shutdown::Read).ok();
    for _ in 0..MAX_CLOSED_HERE {
        match peek(&socket, &mut []) {
            Ok(datagram) if !datagram.has_descriptors && discard(&socket).is_ok() => {}
            Err(Errno::EAGAIN) => return,
            Ok(_) | Err(_) => break,
        }
    }
    deferred_close(owner, [socket]);
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::connect;

    use super::super::random::random_u64;
    use super::*;

    fn send(name: &[u8], text: &[u8], descriptors: &[c_int]) {
        let client = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(client.as_raw_fd(), &UnixAddr::new_abstract(name).unwrap()).unwrap();
        let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
        let size = u32::try_from(size_of_val(descriptors)).unwrap();
        // The fields of cmsghdr: length, level and type.
        let mut control = vec![0_u64; ALL_WORDS];
        // SAFETY: arithmetic on numbers.
        control[0] = unsafe { libc::CMSG_LEN(size) }.into();
        let [level, kind] = [libc::SOL_SOCKET, libc::SCM_RIGHTS].map(|number| u64::from(number.unsigned_abs()));
        control[1] = level | kind << 32;
        for (position, descriptor) in descriptors.iter().enumerate() {
            control[2 + position / 2] |= u64::from(descriptor.unsigned_abs()) << (32 * (position % 2));
        }
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !descriptors.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            // SAFETY: arithmetic on numbers.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
        }
        // SAFETY: the message points to one part and, if at all, to a complete control message, both alive.
        Errno::result(unsafe { libc::sendmsg(client.as_raw_fd(), &raw const message, 0) }).unwrap();
    }

    fn is_open(fd: c_int) -> bool {
        // SAFETY: all arguments are plain numbers.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    fn bind_random() -> (OwnedFd, String) {
        let name = format!("keepalive-test/{:x}", random_u64());
        let socket = bind_abstract(name.as_bytes()).unwrap();
        assert_eq!(bind_abstract(name.as_bytes()).err(), Some(Errno::EADDRINUSE));
        (socket, name)
    }

    #[test]
    fn the_file_of_a_socket_is_for_the_own_user() {
        let path = std::env::temp_dir().join(format!("keepalive-datagram-{:016x}", random_u64()));
        let _socket = bind_path(&path).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        // Without this it depends on the umask alone.
        assert_eq!(mode & 0o177, 0, "{mode:o}");
    }

    #[test]
    fn a_datagram_has_its_sender_and_can_be_looked_at_before() {
        let (socket, name) = bind_random();
        let mut buffer = [0; 8];
        assert_eq!(peek(&socket, &mut buffer).err(), Some(Errno::EAGAIN));
        send(name.as_bytes(), b"READY=1", &[]);
        send(name.as_bytes(), b"", &[]);
        let own = Sender { pid: Some(super::super::process::id()), uid: super::super::process::effective_user() };
        for _ in 0..2 {
            let first = peek(&socket, &mut buffer).unwrap();
            let expect = Datagram { length: 7, is_truncated: false, sender: own, has_descriptors: false };
            assert_eq!((&buffer[..first.length], first), (&b"READY=1"[..], expect));
        }
        discard(&socket).unwrap();
        assert_eq!(peek(&socket, &mut buffer).unwrap().length, 0);
        close(Owner::Unknown, socket);
    }

    // unix(7), MSG_PEEK: "the descriptors are duplicated"; without room for them they are closed again.
    #[test]
    fn descriptors_stay_in_the_queue_until_they_are_received() {
        let (socket, name) = bind_random();
        let (end, other) = nix::unistd::pipe().unwrap();
        send(name.as_bytes(), b"too long for it", &[other.as_raw_fd(); MAX_FDS_PER_DATAGRAM]);
        drop(other);
        let mut buffer = [0; 8];
        let seen = peek(&socket, &mut buffer).unwrap();
        assert_eq!((&buffer, seen.is_truncated, seen.has_descriptors), (b"too long", true, true));
        let is_closed = || nix::unistd::read(&end, &mut [0]) == Ok(0);
        nix::fcntl::fcntl(&end, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        assert!(!is_closed());
        let (datagram, descriptors) = receive_descriptors(&socket, &mut buffer).unwrap();
        assert_eq!((descriptors.len(), datagram.has_descriptors), (MAX_FDS_PER_DATAGRAM, false));
        for descriptor in &descriptors {
            let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        drop(descriptors);
        assert!(is_closed() && is_open(end.as_raw_fd()));
    }

    #[test]
    fn a_socket_with_queued_descriptors_is_left_to_another_process() {
        let (socket, name) = bind_random();
        let (_end, other) = nix::unistd::pipe().unwrap();
        let fd = socket.as_raw_fd();
        send(name.as_bytes(), b"1", &[]);
        send(name.as_bytes(), b"2", &[other.as_raw_fd()]);
        close(Owner::Unknown, socket);
        // A worker of this or another test closes it later.
        assert!(is_open(fd) || super::super::deferred_close::queued(|_| true) == 0);
    }

    #[test]
    fn all_descriptors_are_sent() {
        let (ours, theirs) = super::super::stream::pair().unwrap();
        let (end, _other) = nix::unistd::pipe().unwrap();
        let many = [end.as_fd(); MAX_FDS_PER_DATAGRAM];
        send_descriptors(&ours, &many).unwrap();
        let (_, received) = receive_descriptors(&theirs, &mut [0; 4]).unwrap();
        assert_eq!(received.len(), MAX_FDS_PER_DATAGRAM);
        assert!(received.iter().all(|received| super::super::kcmp::is_same_file(received, &end)));
    }
}
