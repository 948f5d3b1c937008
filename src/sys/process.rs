//! About ourselves: getpid(2), prctl(2), chdir(2), close_range(2).

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::resource::Resource;

use super::StringList;
use crate::model::{Pgid, Pid, Signal};

/// The descriptors that we were started with, from 3 on: `/dev/fd/3` can be the configuration.
static GIVEN: OnceLock<Vec<RawFd>> = OnceLock::new();

/// Our own id. getpid(2)
#[must_use]
pub fn id() -> Pid {
    Pid::new(nix::unistd::getpid().as_raw()).unwrap_or_else(|| unreachable!("a process has an id above zero"))
}

/// Whether we are the init of a PID namespace.
#[must_use]
pub fn is_init() -> bool {
    id().get() == 1
}

/// Our parent; `None` if it is in another PID namespace. getppid(2)
#[must_use]
pub fn parent() -> Option<Pid> {
    Pid::new(nix::unistd::getppid().as_raw())
}

/// Our process group; `None` if it was made outside of our PID namespace. getpgrp(2)
#[must_use]
pub fn group() -> Option<Pgid> {
    Pgid::new(nix::unistd::getpgrp().as_raw())
}

/// Whether we lead our session. getsid(2)
#[must_use]
pub fn leads_session() -> bool {
    nix::unistd::getsid(None) == Ok(nix::unistd::getpid())
}

/// The process group of a child that has not been reaped. getpgid(2)
#[must_use]
pub fn group_of(child: Pid) -> Option<Pgid> {
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(child.get()))).ok()?;
    Pgid::new(group.as_raw())
}

/// The user whose rights we have. geteuid(2)
#[must_use]
pub fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The group whose rights we have. getegid(2)
#[must_use]
pub fn effective_group() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// Our own hard limit for the `RLIMIT_` number `resource`; `None`: unlimited, or no such resource. getrlimit(2)
#[must_use]
pub fn hard_limit(resource: u32) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let resource = c_int::try_from(resource).ok()?;
    // SAFETY: the kernel may write to `limit`, which is a valid rlimit.
    let answer = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (answer == 0 && limit.rlim_max != libc::RLIM_INFINITY).then_some(limit.rlim_max)
}

/// The `RLIMIT_` number of the limit of open descriptors.
pub const OPEN_DESCRIPTORS: u32 = libc::RLIMIT_NOFILE.cast_unsigned();

/// Our own soft and hard limit of open descriptors. getrlimit(2)
#[must_use]
pub fn descriptor_limits() -> (u64, u64) {
    nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX))
}

/// Whether we may have `reserve` more descriptors than there were when `newest` was made: it has the lowest number that
/// was free.
#[must_use]
pub fn leaves(newest: impl AsFd, reserve: u64) -> bool {
    let (limit, _) = descriptor_limits();
    u64::from(newest.as_fd().as_raw_fd().unsigned_abs()).saturating_add(reserve) < limit
}

/// Allows us so many descriptors, the hard limit at most. setrlimit(2)
///
/// # Errors
/// None that the manual knows of.
pub fn allow_descriptors(soft: u64) -> Result<(), Errno> {
    let (_, hard) = descriptor_limits();
    nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)
}

/// What loses its parent below us becomes our child. prctl(2) `PR_SET_CHILD_SUBREAPER`
///
/// # Errors
/// EINVAL where the kernel does not have it.
pub fn become_subreaper() -> Result<(), Errno> {
    // SAFETY: the operation takes one plain number.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1_usize, 0_usize, 0_usize, 0_usize) }).map(drop)
}

/// `signal` is sent to us when our parent dies, at once if that has happened meanwhile. prctl(2) `PR_SET_PDEATHSIG`
///
/// # Errors
/// EINVAL, for no signal that can be passed here.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    set_death_signal_of(parent(), signal)
}

/// As [`set_parent_death_signal`], for who knows what its parent is; at once too if that is dead already.
pub(super) fn set_death_signal_of(expected: Option<Pid>, signal: Signal) -> Result<(), Errno> {
    let number = libc::c_ulong::from(signal.number());
    // SAFETY: the operation takes one plain number.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, number, 0_usize, 0_usize, 0_usize) })?;
    if parent() != expected {
        raise(signal);
    }
    Ok(())
}

/// Ends this process here and now: nothing is flushed, nothing is dropped. _exit(2)
pub fn exit_now(code: u8) -> ! {
    // SAFETY: takes a plain number.
    unsafe { libc::_exit(code.into()) }
}

/// Sends `signal` to ourselves.
pub fn raise(signal: Signal) {
    // SAFETY: a signal to our own process; it cannot fail.
    unsafe { libc::kill(id().get(), c_int::from(signal.number())) };
}

/// The environment that we were started with, entry by entry as it is.
#[must_use]
pub fn environment() -> StringList {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut list = StringList::new();
    // SAFETY: set by the C runtime before `main`; this program has one thread and never changes its environment.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: not past the null pointer that ends the vector.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: every element before it is a NUL-terminated string.
        list.push(unsafe { CStr::from_ptr(text) }.to_bytes());
        // SAFETY: as this was not the last element, there is another.
        entry = unsafe { entry.add(1) };
    }
    list
}

/// Lets go of where we were started: the working directory and every descriptor from 3 on, but for `kept` (and the
/// private one that messages are written to).
///
/// So that we pin no mount, and that the reader of a pipe sees its end when the last process that uses it has gone.
/// Call it only while no value that owns a descriptor is alive, those of `kept` aside.
pub fn release_start(kept: &[RawFd]) {
    // SAFETY: the path is NUL-terminated. "/" can only be missing in a broken mount namespace; nothing is lost then.
    unsafe { libc::chdir(c"/".as_ptr()) };
    close_all_but(kept.iter().copied());
}

/// In a copy of ours that owns nothing: closes every descriptor from 3 on but for `kept`, those that we were started with
/// and the private one that messages are written to.
pub(super) fn release_copied(kept: Option<BorrowedFd<'_>>) {
    let given = GIVEN.get().into_iter().flatten().copied();
    close_all_but(given.chain(kept.map(|kept| kept.as_raw_fd())));
}

/// Allocates nothing: in a copy of a process with several threads, another one may have held the lock of the memory.
fn close_all_but(kept: impl Iterator<Item = RawFd> + Clone) {
    let kept = kept.chain(super::message::private_descriptor());
    let mut first = 3;
    while let Some(next) = kept.clone().filter(|fd| *fd >= first).min() {
        close_range(first, next - 1);
        first = next + 1;
    }
    close_range(first, RawFd::MAX);
}

/// Keeps every descriptor from 3 on that we were started with from those whom we start. To be called before any is opened.
pub fn hide_descriptors() {
    let given = GIVEN.get_or_init(|| {
        let mut given = open_descriptors(3, RawFd::MAX);
        // One was that of the directory.
        given.retain(|fd| is_open(*fd));
        given
    });
    // SAFETY: nothing is closed before an execve.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if Errno::result(result).is_ok() {
        return;
    }
    for fd in given {
        // SAFETY: takes plain numbers; a descriptor that is closed by now is an EBADF.
        unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    let (from, to) = (first.unsigned_abs(), last.unsigned_abs());
    // SAFETY: nothing that is alive owns a descriptor in this range, as the callers of `close_all_but` promise.
    let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    if Errno::result(result).is_err() {
        close_each(first, last);
    }
}

/// For kernels before 5.9 and sandboxes that refuse close_range(2).
fn close_each(first: RawFd, last: RawFd) {
    for fd in open_descriptors(first, last) {
        // SAFETY: as in `close_range`; that the directory's own descriptor is closed already makes this an EBADF.
        unsafe { libc::close(fd) };
    }
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: takes plain numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn open_descriptors(first: RawFd, last: RawFd) -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.filter(|fd| (first..=last).contains(fd)).collect()
}
