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
use super::syscall::{reading, syscall};
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
    let (how, size) = ((&raw const how) as c_long, size_of::<OpenHow>() as c_long);
    if let Ok(file) = reading(libc::SYS_openat2, [libc::AT_FDCWD.into(), path.as_ptr() as c_long, how, size]) {
        reading(libc::SYS_fchown, [file, credentials.uid.into(), credentials.gid.into()]).ok();
        reading(libc::SYS_close, [file]).ok();
    }
}

/// Opens the file, extends it to its minimum size and puts it at its descriptor number. Never shortens it.
pub(super) fn open(file: &OpenFile<'_>) -> Result<(), Errno> {
    let (path, flags) = (file.path.as_ptr() as c_long, FLAGS | libc::O_CREAT);
    let opened = reading(libc::SYS_openat, [libc::AT_FDCWD.into(), path, flags.into(), MODE.into()])?;
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `status` has room for a `stat`, which is the kernel's on 64-bit architectures.
    unsafe { syscall(libc::SYS_fstat, [opened, status.as_mut_ptr() as c_long]) }?;
    // SAFETY: a structure of numbers, valid for any bytes.
    let status = unsafe { status.assume_init() };
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let size = i64::try_from(file.size).unwrap_or(i64::MAX);
    if status.st_size < size {
        reading(libc::SYS_ftruncate, [opened, size, 0])?;
    }
    reading(libc::SYS_fcntl, [opened, libc::F_SETFL.into(), 0])?;
    let number = c_long::from(file.number);
    if opened == number {
        return reading(libc::SYS_fcntl, [opened, libc::F_SETFD.into(), 0]).map(drop);
    }
    reading(libc::SYS_dup3, [opened, number, 0]).map(drop)
}
