//! Pipes, pipe(7), and what stands in them.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe for what others write: the end to read from does not block, the end to write to does; both close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

/// Makes room for `bytes` in a pipe, where that is permitted. fcntl(2) `F_SETPIPE_SZ`
pub fn widen(pipe: impl AsFd, bytes: c_int) {
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)).ok();
}

/// How many bytes can be read at once. ioctl(2) `FIONREAD`
#[must_use]
pub fn waiting(pipe: impl AsFd) -> u64 {
    let mut bytes: c_int = 0;
    // SAFETY: `bytes` is writable.
    let result = unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 { 0 } else { u64::from(bytes.unsigned_abs()) }
}

/// Whether a pipe has been read to its end: nothing stands in it, and nobody can write to it any more. poll(2)
#[must_use]
pub fn is_over(read_end: impl AsFd) -> bool {
    let mut polled = [PollFd::new(read_end.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok() && polled.iter().all(|fd| fd.revents() == Some(PollFlags::POLLHUP))
}

/// The position of the first `byte` in `text`. memchr(3), which is faster than a loop of ours
#[must_use]
pub fn find(byte: u8, text: &[u8]) -> Option<usize> {
    // SAFETY: `text.len()` bytes may be read.
    let found = unsafe { libc::memchr(text.as_ptr().cast(), c_int::from(byte), text.len()) };
    (!found.is_null()).then(|| found.addr() - text.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_pipe_is_counted_and_can_be_read_at_once() {
        let (read_end, write_end) = pipe().unwrap();
        assert_eq!(waiting(&read_end), 0);
        assert_eq!(nix::unistd::read(&read_end, &mut [0; 9]), Err(Errno::EAGAIN));
        nix::unistd::write(&write_end, b"12345").unwrap();
        assert_eq!(waiting(&read_end), 5);
    }

    #[test]
    fn a_pipe_is_over_when_it_is_read_and_nobody_can_write() {
        let (read_end, write_end) = pipe().unwrap();
        assert!(!is_over(&read_end));
        nix::unistd::write(&write_end, b"1").unwrap();
        drop(write_end);
        assert!(!is_over(&read_end));
        nix::unistd::read(&read_end, &mut [0; 9]).unwrap();
        assert!(is_over(&read_end));
    }

    #[test]
    fn the_first_of_many_is_found() {
        assert_eq!(find(b'\n', b"ab\ncd\n"), Some(2));
        assert_eq!(find(b'\n', b"abcd"), None);
        assert_eq!(find(b'\n', b""), None);
    }
}
