//! The file that a new process finds open: open(2), openat2(2), fchown(2), ftruncate(2).
//!
//! Runs in the child between clone(2) and execve(2), under the rules of `spawn_child.rs`.
//!
//! The directory may belong to the service, which could put a symbolic link to somebody else's file there. So an existing
//! file is opened with the service's rights only, and a file created with keepalive's rights is new and not reached
//! through any symbolic link.

use std::ffi::{CStr, c_int, c_long};
use std::mem::MaybeUninit;

use nix::errno::Errno;

use super::spawn_options::OpenFile;
use super::syscall::syscall;
use crate::model::plan::Credentials;

const MODE: u32 = 0o600;
/// `O_NONBLOCK`: opening a FIFO must not wait for its other end.
const FLAGS: c_int = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

/// openat2(2) `struct open_how`
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Creates the file for the service's user, while the child still has keepalive's rights. Failures are ignored: [`open`]
/// tries again and reports why it fails.
pub(super) fn create_for(credentials: &Credentials, path: &CStr) {
    const RESOLVE_NO_MAGICLINKS: u64 = 2;
    const RESOLVE_NO_SYMLINKS: u64 = 4;
    let how = OpenHow {
        flags: (FLAGS | libc::O_CREAT | libc::O_EXCL).unsigned_abs().into(),
        mode: MODE.into(),
        resolve: RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    let (how, size) = (&raw const how, size_of::<OpenHow>());
    // SAFETY: the path is NUL-terminated and `how` points to `size` readable bytes.
    let created = unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how, size) };
    if let Ok(file) = Errno::result(created) {
        syscall(libc::SYS_fchown, [file, credentials.uid.into(), credentials.gid.into()]).ok();
        syscall(libc::SYS_close, [file, 0, 0]).ok();
    }
}

/// Opens the file, extends it to its minimum size and puts it at its descriptor number. Never shortens it.
pub(super) fn open(file: &OpenFile<'_>) -> Result<(), Errno> {
    let flags = FLAGS | libc::O_CREAT;
    // SAFETY: the path is NUL-terminated.
    let opened = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, file.path.as_ptr(), flags, MODE) };
    let opened = Errno::result(opened)?;
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    let fd = c_int::try_from(opened).unwrap_or(-1);
    // SAFETY: `status` has room for a `stat`. libc's fstat is a plain system call.
    Errno::result(unsafe { libc::fstat(fd, status.as_mut_ptr()) })?;
    // SAFETY: a structure of numbers, valid for any bytes.
    let status = unsafe { status.assume_init() };
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let size = i64::try_from(file.size).unwrap_or(i64::MAX);
    if status.st_size < size {
        syscall(libc::SYS_ftruncate, [opened, size, 0])?;
    }
    syscall(libc::SYS_fcntl, [opened, libc::F_SETFL.into(), 0])?;
    let number = c_long::from(file.number);
    if opened == number {
        return syscall(libc::SYS_fcntl, [opened, libc::F_SETFD.into(), 0]).map(drop);
    }
    syscall(libc::SYS_dup3, [opened, number, 0]).map(drop)
}
