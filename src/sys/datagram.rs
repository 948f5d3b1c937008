//! Datagrams from anyone in our network namespace, with who has sent them and the descriptors that came along: unix(7)
//! `SOCK_DGRAM`, `SCM_CREDENTIALS`, `SCM_RIGHTS`.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt};

use crate::model::Pid;

/// The kernel passes no more descriptors at once: `SCM_MAX_FD`.
pub const MOST_DESCRIPTORS: usize = 253;
/// Room for the control messages with so many descriptors and with the sender, each with its head.
const CONTROL_WORDS: usize = 160;
const CONTROL_BYTES: u16 = 1280;
const _: () = assert!(CONTROL_WORDS * size_of::<u64>() == CONTROL_BYTES as usize);
const _: () = assert!(MOST_DESCRIPTORS * size_of::<c_int>() + 128 <= CONTROL_BYTES as usize);

/// One datagram.
#[derive(Debug)]
pub struct Datagram {
    /// How many of its bytes are in the buffer.
    pub length: usize,
    /// Whether there were more, which are lost.
    pub is_cut: bool,
    /// Who has sent it; `None`: somebody outside of our PID namespace.
    pub sender: Option<Pid>,
    /// What came with it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// Whether there were more descriptors, for which we had no room: they have been closed.
    pub lacks_descriptors: bool,
}

/// Opens a socket at the abstract address `name`, close-on-exec; it does not block.
///
/// # Errors
/// EADDRINUSE; EMFILE, ENFILE, ENOMEM.
pub fn open(name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // Before anybody can send: what has come earlier would not say from whom.
    setsockopt(&socket, sockopt::PassCred, &true)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    Ok(socket)
}

/// A number that nobody can know beforehand. getrandom(2)
#[must_use]
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: there is room for so many bytes.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    // Early in the life of a machine there may be none yet: the time has to do.
    if length == 8 { u64::from_ne_bytes(bytes) } else { super::now().as_nanos() }
}

/// Takes the next datagram.
///
/// # Errors
/// EAGAIN: there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: all-zero bytes are a valid msghdr: no name, no parts, no control message.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES.into();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to a part and to room for control messages, both writable.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
    let mut datagram = Datagram {
        length: length.min(buffer.len()),
        is_cut: message.msg_flags & libc::MSG_TRUNC != 0,
        sender: None,
        descriptors: Vec::new(),
        lacks_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0,
    };
    take_control(&message, &mut datagram);
    Ok(datagram)
}

/// Takes what the kernel has put into the control messages: all of it, as a descriptor left there would stay open for ever.
fn take_control(message: &libc::msghdr, datagram: &mut Datagram) {
    // SAFETY: the kernel has filled in the message.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it is a header in the control buffer.
        let fields = unsafe { &*header };
        // SAFETY: the header is valid.
        let data: *const c_void = unsafe { libc::CMSG_DATA(header) }.cast();
        // SAFETY: plain arithmetic.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let size = (fields.cmsg_len as usize).saturating_sub(head);
        match (fields.cmsg_level, fields.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for position in 0..size / size_of::<c_int>() {
                    // SAFETY: there are so many numbers after the header.
                    let place = unsafe { data.cast::<c_int>().add(position) };
                    // SAFETY: as above; they need not be aligned.
                    let descriptor = unsafe { place.read_unaligned() };
                    // SAFETY: the kernel has just made it, and nobody else knows it.
                    datagram.descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if size >= size_of::<libc::ucred>() => {
                // SAFETY: so many bytes are there.
                let credentials = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                datagram.sender = Pid::new(credentials.pid);
            }
            _ => {}
        }
        // SAFETY: both come from the kernel's answer.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

/// Whether both stand for the same open file. kcmp(2) `KCMP_FILE`; where that is refused, as far as fstat(2) can tell
#[must_use]
pub fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    const KCMP_FILE: c_int = 0;
    let own = super::process::id().get();
    let (one, other) = (one.as_fd(), other.as_fd());
    // SAFETY: takes plain numbers.
    let answer = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) };
    if answer >= 0 {
        return answer == 0;
    }
    let (Ok(one), Ok(other)) = (nix::sys::stat::fstat(one), nix::sys::stat::fstat(other)) else { return false };
    // All eventfds, timers and so on have one inode in common, which has no type.
    let has_type = one.st_mode & libc::S_IFMT != 0;
    has_type && (one.st_dev, one.st_ino, one.st_rdev) == (other.st_dev, other.st_ino, other.st_rdev)
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use nix::sys::socket::connect;

    use super::*;

    fn send(name: &[u8], text: &[u8], descriptors: &[c_int]) {
        let client = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(client.as_raw_fd(), &UnixAddr::new_abstract(name).unwrap()).unwrap();
        let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
        let size = u32::try_from(size_of_val(descriptors)).unwrap();
        // A cmsghdr: its length, level and type.
        let mut control = vec![0_u64; CONTROL_WORDS];
        // SAFETY: plain arithmetic.
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
            // SAFETY: plain arithmetic.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
        }
        // SAFETY: the message points to one part and, if at all, to a complete control message, both alive.
        Errno::result(unsafe { libc::sendmsg(client.as_raw_fd(), &raw const message, 0) }).unwrap();
    }

    fn is_open(fd: c_int) -> bool {
        // SAFETY: takes plain numbers.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    #[test]
    fn a_datagram_says_who_has_sent_it_and_brings_all_descriptors() {
        let name = format!("keepalive-test/{:x}", random());
        let socket = open(name.as_bytes()).unwrap();
        assert_eq!(open(name.as_bytes()).err(), Some(Errno::EADDRINUSE));
        let mut buffer = [0; 8];
        assert_eq!(receive(&socket, &mut buffer).err(), Some(Errno::EAGAIN));
        let (end, _other) = nix::unistd::pipe().unwrap();
        send(name.as_bytes(), b"READY=1", &[]);
        send(name.as_bytes(), b"too long for it", &[end.as_raw_fd(); MOST_DESCRIPTORS]);
        let first = receive(&socket, &mut buffer).unwrap();
        assert_eq!((&buffer[..first.length], first.is_cut), (&b"READY=1"[..], false));
        assert_eq!(first.sender, Some(super::super::process::id()));
        let second = receive(&socket, &mut buffer).unwrap();
        assert_eq!((&buffer[..second.length], second.is_cut), (&b"too long"[..], true));
        assert_eq!((second.descriptors.len(), second.lacks_descriptors), (MOST_DESCRIPTORS, false));
        for descriptor in &second.descriptors {
            let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        send(name.as_bytes(), b"", &[]);
        assert_eq!(receive(&socket, &mut buffer).unwrap().length, 0);
        assert!(is_open(end.as_raw_fd()));
    }

    #[test]
    fn duplicates_are_the_same_file_and_anonymous_ones_are_not_confused() {
        let (one, other) = nix::unistd::pipe().unwrap();
        assert!(is_same_file(&one, one.try_clone().unwrap()));
        assert!(!is_same_file(&one, &other));
        // SAFETY: takes plain numbers.
        let [first, second] = [(); 2].map(|()| unsafe { libc::eventfd(0, 0) });
        // SAFETY: both are open, as long as this test runs.
        let [first, second] = [first, second].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        assert!(!is_same_file(first, second));
        assert!(is_same_file(first, first));
        for fd in [first, second] {
            nix::unistd::close(fd.as_raw_fd()).unwrap();
        }
    }
}
