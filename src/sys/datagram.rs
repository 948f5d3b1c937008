//! Datagrams with their sender and the descriptors that they carry: unix(7) `SOCK_DGRAM`, `SCM_CREDENTIALS`,
//! `SCM_RIGHTS`.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt};

use crate::model::Pid;

/// How many descriptors a datagram can carry: the kernel's limit, `SCM_MAX_FD`.
pub const MAX_FDS_PER_DATAGRAM: usize = 253;
/// Room for two control messages with their headers: the maximum number of descriptors, and the sender.
const CONTROL_WORDS: usize = 160;
const CONTROL_BYTES: u16 = 1280;
const _: () = assert!(CONTROL_WORDS * size_of::<u64>() == CONTROL_BYTES as usize);
const _: () = assert!(MAX_FDS_PER_DATAGRAM * size_of::<c_int>() + 128 <= CONTROL_BYTES as usize);

/// A datagram that was received.
#[derive(Debug)]
pub struct Datagram {
    /// How many bytes of the buffer it fills.
    pub length: usize,
    /// Whether it was longer than the buffer; the rest is lost. `MSG_TRUNC`
    pub is_truncated: bool,
    /// The process that sent it; `None`: one outside of keepalive's PID namespace.
    pub sender: Option<Pid>,
    /// The descriptors that it carries, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// Whether it carried more descriptors than keepalive could take; the kernel has closed the rest. `MSG_CTRUNC`
    pub descriptors_truncated: bool,
}

/// Binds a socket to the abstract address `name`; close-on-exec and non-blocking.
///
/// # Errors
/// EADDRINUSE; EMFILE, ENFILE, ENOMEM.
pub fn bind_abstract(name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // Before the bind: an earlier datagram would arrive without its sender.
    setsockopt(&socket, sockopt::PassCred, &true)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    Ok(socket)
}

/// Receives the next datagram.
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
    // SAFETY: the message points to one part and to room for control messages, both writable and alive.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
    let mut datagram = Datagram {
        length: length.min(buffer.len()),
        is_truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        sender: None,
        descriptors: Vec::new(),
        descriptors_truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
    };
    take_control(&message, &mut datagram);
    Ok(datagram)
}

/// Takes everything from the control messages. A descriptor that is left there would stay open for ever.
fn take_control(message: &libc::msghdr, datagram: &mut Datagram) {
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
                    datagram.descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if size >= size_of::<libc::ucred>() => {
                // SAFETY: `size` bytes follow the header, enough for a ucred.
                let credentials = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                datagram.sender = Pid::new(credentials.pid);
            }
            _ => {}
        }
        // SAFETY: `header` is a header of `message`, which the kernel has filled in.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
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
        let mut control = vec![0_u64; CONTROL_WORDS];
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

    #[test]
    fn a_datagram_has_its_sender_and_all_its_descriptors() {
        let name = format!("keepalive-test/{:x}", random_u64());
        let socket = bind_abstract(name.as_bytes()).unwrap();
        assert_eq!(bind_abstract(name.as_bytes()).err(), Some(Errno::EADDRINUSE));
        let mut buffer = [0; 8];
        assert_eq!(receive(&socket, &mut buffer).err(), Some(Errno::EAGAIN));
        let (end, _other) = nix::unistd::pipe().unwrap();
        send(name.as_bytes(), b"READY=1", &[]);
        send(name.as_bytes(), b"too long for it", &[end.as_raw_fd(); MAX_FDS_PER_DATAGRAM]);
        let first = receive(&socket, &mut buffer).unwrap();
        assert_eq!((&buffer[..first.length], first.is_truncated), (&b"READY=1"[..], false));
        assert_eq!(first.sender, Some(super::super::process::id()));
        let second = receive(&socket, &mut buffer).unwrap();
        assert_eq!((&buffer[..second.length], second.is_truncated), (&b"too long"[..], true));
        assert_eq!((second.descriptors.len(), second.descriptors_truncated), (MAX_FDS_PER_DATAGRAM, false));
        for descriptor in &second.descriptors {
            let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        send(name.as_bytes(), b"", &[]);
        assert_eq!(receive(&socket, &mut buffer).unwrap().length, 0);
        assert!(is_open(end.as_raw_fd()));
    }
}
