//! Comparing descriptors, kcmp(2).

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::process;

/// Whether both descriptors refer to the same open file description. kcmp(2) `KCMP_FILE`
///
/// Where kcmp(2) is not permitted, compares what fstat(2) says of them.
#[must_use]
pub fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    const KCMP_FILE: c_int = 0;
    let own = process::id().get();
    let (one, other) = (one.as_fd(), other.as_fd());
    // SAFETY: all arguments are plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) };
    if let Ok(order) = Errno::result(result) {
        return order == 0;
    }
    let (Ok(one), Ok(other)) = (fstat(one), fstat(other)) else { return false };
    // Eventfds, timerfds and the like all share one inode without a file type.
    let has_type = one.st_mode & libc::S_IFMT != 0;
    has_type && (one.st_dev, one.st_ino, one.st_rdev) == (other.st_dev, other.st_ino, other.st_rdev)
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;

    #[test]
    fn a_duplicate_is_the_same_file_and_another_anonymous_inode_is_not() {
        let (one, other) = nix::unistd::pipe().unwrap();
        assert!(is_same_file(&one, one.try_clone().unwrap()));
        assert!(!is_same_file(&one, &other));
        // SAFETY: all arguments are plain numbers.
        let [first, second] = [(); 2].map(|()| unsafe { libc::eventfd(0, 0) });
        // SAFETY: both stay open until they are closed at the end of this test.
        let [first, second] = [first, second].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        assert!(!is_same_file(first, second));
        assert!(is_same_file(first, first));
        for fd in [first, second] {
            nix::unistd::close(fd.as_raw_fd()).unwrap();
        }
    }
}
