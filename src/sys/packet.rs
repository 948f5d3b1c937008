//! Packets with descriptors between keepalive and a process that it forked: unix(7) `SOCK_SEQPACKET`, `SCM_RIGHTS`.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::needed;

/// Room for a control message with one descriptor, aligned for a `cmsghdr`.
type Control = [u64; 4];
const CONTROL_BYTES: u8 = 32;
const _: () = assert!(size_of::<Control>() == CONTROL_BYTES as usize);

/// A pair of connected sockets that preserve packet boundaries; both non-blocking and close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM; ENOSYS, EPERM: packets cannot be sent or received.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    needed::check(&[needed::SENDMSG, needed::RECVMSG]).map_err(|refused| refused.errno)?;
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `ends` has room for the two descriptors.
    Errno::result(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    let [first, second] = ends;
    // SAFETY: the descriptor is new, so nothing else owns it.
    let first = unsafe { OwnedFd::from_raw_fd(first) };
    // SAFETY: as above.
    Ok((first, unsafe { OwnedFd::from_raw_fd(second) }))
}

/// Sends one packet, completely or not at all.
///
/// # Errors
/// EAGAIN: the socket's buffer is full. ETOOMANYREFS: too many descriptors are in flight. EPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_with(socket, bytes, descriptor, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
}

/// As [`send`], with the flags of sendmsg(2).
pub(super) fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    flags: c_int,
) -> Result<(), Errno> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control: Control = [0; 4];
    let mut message = empty_message(&mut part);
    if let Some(descriptor) = descriptor {
        message.msg_control = control.as_mut_ptr().cast();
        attach(&mut message, descriptor.as_raw_fd());
    }
    // SAFETY: the message points to one part and, if a descriptor is sent, to a complete control message, both alive.
    Errno::result(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) }).map(drop)
}

/// Receives one packet: its length, and the descriptor that it carries. A length of 0 means that the peer has closed.
///
/// # Errors
/// EAGAIN: there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control: Control = [0; 4];
    let mut message = empty_message(&mut part);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES.into();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to one part and to room for control messages, both writable and alive.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
    Ok((length, detach(&message)))
}

/// A message with one part, and no room for control messages.
pub(super) fn empty_message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr: no name, no parts, no control message.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

const DESCRIPTOR_SIZE: u32 = 4;
const _: () = assert!(size_of::<c_int>() == 4);

/// Adds a descriptor to the message, whose `msg_control` must point to a zeroed [`Control`].
fn attach(message: &mut libc::msghdr, descriptor: c_int) {
    // SAFETY: arithmetic on numbers.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(DESCRIPTOR_SIZE) } as _;
    // SAFETY: the control buffer is large enough for a header, so this returns its start.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: arithmetic on numbers.
    let length = unsafe { libc::CMSG_LEN(DESCRIPTOR_SIZE) };
    // SAFETY: the header is in the control buffer, which is aligned for it and zeroed.
    let fields = unsafe { &mut *header };
    fields.cmsg_level = libc::SOL_SOCKET;
    fields.cmsg_type = libc::SCM_RIGHTS;
    fields.cmsg_len = length as _;
    // SAFETY: the header is valid.
    let data: *mut c_void = unsafe { libc::CMSG_DATA(header) }.cast();
    // SAFETY: the buffer has room for one descriptor after the header.
    unsafe { data.cast::<c_int>().write_unaligned(descriptor) };
}

fn detach(message: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel has filled in the message, and its control buffer is still alive.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return None;
    }
    // SAFETY: not null, so it points to the first header in the control buffer.
    let fields = unsafe { &*header };
    if (fields.cmsg_level, fields.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return None;
    }
    // SAFETY: the header is valid.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: an SCM_RIGHTS message holds at least one descriptor. `send` never sends more.
    let descriptor = unsafe { data.cast::<c_int>().read_unaligned() };
    // SAFETY: the kernel has just opened it for this message, so nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_boundaries_and_carry_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        send(&ours, b"one", None).unwrap();
        send(&ours, b"two", Some(write_end.as_fd())).unwrap();
        drop(write_end);
        let mut buffer = [0; 16];
        let (length, descriptor) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptor.is_some()), (&b"one"[..], false));
        let (length, descriptor) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"two");
        nix::unistd::write(descriptor.as_ref().unwrap(), b"!").unwrap();
        assert_eq!(nix::unistd::read(&read_end, &mut buffer), Ok(1));
        assert_eq!(receive(&theirs, &mut buffer).map(|(length, _)| length), Err(Errno::EAGAIN));
        drop(ours);
        assert_eq!(receive(&theirs, &mut buffer).map(|(length, _)| length), Ok(0));
    }
}
