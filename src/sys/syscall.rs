//! Raw system calls, syscall(2), for code that must not use functions of libc.

use std::ffi::c_long;

use nix::errno::Errno;

/// Makes a system call with up to three arguments. The kernel must only read the memory that they point to.
pub(super) fn syscall(number: c_long, [first, second, third]: [c_long; 3]) -> Result<c_long, Errno> {
    // SAFETY: the callers in this folder pass numbers and pointers to valid data that the kernel only reads.
    Errno::result(unsafe { libc::syscall(number, first, second, third) })
}
