//! Pipes, pipe(7).

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe for the output of another process: the read end is non-blocking, the write end is blocking; both close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

/// A pipe of which both ends are non-blocking and close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn non_blocking() -> Result<(OwnedFd, OwnedFd), Errno> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
}

/// Sets the capacity of a pipe, if that is permitted. fcntl(2) `F_SETPIPE_SZ`
pub fn set_capacity(pipe: impl AsFd, bytes: c_int) {
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)).ok();
}

/// Gives a pipe to a user, who can then open it under /proc, if that is permitted. fchown(2)
pub fn set_owner(pipe: impl AsFd, uid: u32, gid: u32) {
    nix::unistd::fchown(pipe, Some(uid.into()), Some(gid.into())).ok();
}

/// How many bytes can be read without waiting. ioctl(2) `FIONREAD`
#[must_use]
pub fn readable_bytes(pipe: impl AsFd) -> u64 {
    let mut bytes: c_int = 0;
    // SAFETY: `bytes` is writable.
    let result = unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 { 0 } else { u64::from(bytes.unsigned_abs()) }
}

/// Waits until a read would not wait, `timeout` at most. Returns whether that is so. poll(2)
#[must_use]
pub fn wait_for_input(read_end: impl AsFd, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(read_end.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}

/// Whether there is something to read. This waits for no writer, unlike read(2) and ioctl(2). poll(2)
#[must_use]
pub fn is_readable(read_end: impl AsFd) -> bool {
    wait_for_input(read_end, Duration::ZERO)
}

/// Whether a read would return end of file: the pipe is empty and has no writer. poll(2)
#[must_use]
pub fn is_eof(read_end: impl AsFd) -> bool {
    let mut polled = [PollFd::new(read_end.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok() && polled.iter().all(|fd| fd.revents() == Some(PollFlags::POLLHUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_bytes_counts_what_was_written() {
        let (read_end, write_end) = pipe().unwrap();
        assert_eq!(readable_bytes(&read_end), 0);
        assert_eq!(nix::unistd::read(&read_end, &mut [0; 9]), Err(Errno::EAGAIN));
        nix::unistd::write(&write_end, b"12345").unwrap();
        assert_eq!(readable_bytes(&read_end), 5);
    }

    #[test]
    fn a_pipe_is_at_end_of_file_when_it_is_empty_and_has_no_writer() {
        let (read_end, write_end) = pipe().unwrap();
        assert!(!is_eof(&read_end));
        nix::unistd::write(&write_end, b"1").unwrap();
        drop(write_end);
        assert!(!is_eof(&read_end));
        nix::unistd::read(&read_end, &mut [0; 9]).unwrap();
        assert!(is_eof(&read_end));
    }
}
