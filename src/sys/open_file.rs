//! The file that a new process finds open, in the child's half of a start (`spawn_child.rs`, whose rules hold here too):
//! open(2), openat2(2), fchown(2), ftruncate(2).
//!
//! The directory may be the service's own, where it can put a link to a file of somebody else: so what is there already is
//! opened with the service's rights alone, and what is made with ours is new and not behind any link.

use std::ffi::{CStr, c_int, c_long};
use std::mem::MaybeUninit;

use nix::errno::Errno;

use super::spawn::OpenFile;
use super::spawn_child::call;
use crate::model::plan::Credentials;

const MODE: u32 = 0o600;
/// Not to wait for the other end of a FIFO.
const FLAGS: c_int = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

/// openat2(2) `struct open_how`
#[repr(C)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Makes the file while we still may, if it is not there. If that cannot be, [`open`] tries and says why not.
pub(super) fn make_for(credentials: &Credentials, path: &CStr) {
    const RESOLVE_NO_MAGICLINKS: u64 = 2;
    const RESOLVE_NO_SYMLINKS: u64 = 4;
    let how = How {
        flags: (FLAGS | libc::O_CREAT | libc::O_EXCL).unsigned_abs().into(),
        mode: MODE.into(),
        resolve: RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    let (how, size) = (&raw const how, size_of::<How>());
    // SAFETY: a NUL-terminated path and a structure of the size that is said.
    let made = unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how, size) };
    if let Ok(file) = Errno::result(made) {
        call(libc::SYS_fchown, [file, credentials.uid.into(), credentials.gid.into()]).ok();
        call(libc::SYS_close, [file, 0, 0]).ok();
    }
}

/// Opens it and puts it where it belongs. Never makes it shorter.
pub(super) fn open(file: &OpenFile<'_>) -> Result<(), Errno> {
    let flags = FLAGS | libc::O_CREAT;
    // SAFETY: a NUL-terminated path.
    let opened = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, file.path.as_ptr(), flags, MODE) };
    let opened = Errno::result(opened)?;
    let mut about = MaybeUninit::<libc::stat>::zeroed();
    let fd = c_int::try_from(opened).unwrap_or(-1);
    // SAFETY: there is room for a `stat`. libc's function is the system call and nothing else.
    Errno::result(unsafe { libc::fstat(fd, about.as_mut_ptr()) })?;
    // SAFETY: a structure of numbers, for which any bytes will do.
    let about = unsafe { about.assume_init() };
    if about.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let size = i64::try_from(file.size).unwrap_or(i64::MAX);
    if about.st_size < size {
        call(libc::SYS_ftruncate, [opened, size, 0])?;
    }
    call(libc::SYS_fcntl, [opened, libc::F_SETFL.into(), 0])?;
    let number = c_long::from(file.number);
    if opened == number {
        return call(libc::SYS_fcntl, [opened, libc::F_SETFD.into(), 0]).map(drop);
    }
    call(libc::SYS_dup3, [opened, number, 0]).map(drop)
}
