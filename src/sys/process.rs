//! keepalive's own process: getpid(2), getrlimit(2), prctl(2), chdir(2), close_range(2), environ(7).

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::resource::Resource;

use super::strings::StringList;
use crate::model::{Pgid, Pid, Signal};

/// The descriptors that keepalive was started with, from 3 on. `/dev/fd/3` can be the configuration file.
static INHERITED_FDS: OnceLock<Vec<RawFd>> = OnceLock::new();

/// The process id. getpid(2)
#[must_use]
pub fn id() -> Pid {
    let id = nix::unistd::getpid().as_raw();
    // A sandbox that refuses getpid is reported by `needed::check`, before anything depends on the id.
    Pid::new(id).or(Pid::new(1)).unwrap_or_else(|| unreachable!("1 is above zero"))
}

/// Whether keepalive is PID 1, the init of its PID namespace.
#[must_use]
pub fn is_init() -> bool {
    id().get() == 1
}

/// The parent process; `None` if it is in another PID namespace. getppid(2)
#[must_use]
pub fn parent() -> Option<Pid> {
    Pid::new(nix::unistd::getppid().as_raw())
}

/// The process group; `None` if it was created outside of the PID namespace. getpgrp(2)
#[must_use]
pub fn group() -> Option<Pgid> {
    Pgid::new(nix::unistd::getpgrp().as_raw())
}

/// Whether keepalive is a session leader. getsid(2)
#[must_use]
pub fn is_session_leader() -> bool {
    nix::unistd::getsid(None) == Ok(nix::unistd::getpid())
}

/// The process group of a child that has not been reaped. getpgid(2)
#[must_use]
pub fn group_of(child: Pid) -> Option<Pgid> {
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(child.get()))).ok()?;
    Pgid::new(group.as_raw())
}

/// Makes a child the leader of a process group. Returns whether it is one, which is unknown once it has executed a program.
/// setpgid(2)
#[must_use]
pub fn lead_group(child: Pid) -> bool {
    let child = nix::unistd::Pid::from_raw(child.get());
    nix::unistd::setpgid(child, child).is_ok()
}

/// The effective user id. geteuid(2)
#[must_use]
pub fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The effective group id. getegid(2)
#[must_use]
pub fn effective_group() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// The number that `user` has in the parent user namespace; the same one without such a namespace. user_namespaces(7)
#[must_use]
pub fn outer_user(user: u32) -> u32 {
    outside(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default(), user).unwrap_or(user)
}

/// Each line of `map` has the first number of a range, its first number outside, and its length.
fn outside(map: &str, user: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (first, outside, length) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = user.checked_sub(first).filter(|offset| *offset < length)?;
        outside.checked_add(offset)
    })
}

/// The supplementary groups. getgroups(2)
#[must_use]
pub fn groups() -> Vec<u32> {
    nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect()
}

/// keepalive's own hard limit of a resource, by its `RLIMIT_` number; `None`: unlimited, or no such resource. getrlimit(2)
#[must_use]
pub fn hard_limit(resource: u32) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let resource = c_int::try_from(resource).ok()?;
    // SAFETY: `limit` is a valid, writable rlimit.
    let answer = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (answer == 0 && limit.rlim_max != libc::RLIM_INFINITY).then_some(limit.rlim_max)
}

/// The number of the limit on open descriptors. getrlimit(2)
pub const RLIMIT_NOFILE: u32 = libc::RLIMIT_NOFILE.cast_unsigned();

/// keepalive's own soft and hard limit on open descriptors. getrlimit(2)
#[must_use]
pub fn descriptor_limits() -> (u64, u64) {
    nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX))
}

/// Whether at least `reserve` descriptors can still be opened after `newest`, the one that was opened last. The kernel gave
/// it the lowest free number.
#[must_use]
pub fn has_free_descriptors(newest: impl AsFd, reserve: u64) -> bool {
    let (limit, _) = descriptor_limits();
    u64::from(newest.as_fd().as_raw_fd().unsigned_abs()).saturating_add(reserve) < limit
}

/// Sets the soft limit on open descriptors, to the hard limit at most. setrlimit(2)
///
/// # Errors
/// None that the manual page lists.
pub fn set_descriptor_limit(soft: u64) -> Result<(), Errno> {
    let (_, hard) = descriptor_limits();
    nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)
}

/// Makes keepalive the new parent of descendants whose parent exits. prctl(2) `PR_SET_CHILD_SUBREAPER`
///
/// # Errors
/// EINVAL: the kernel does not support it.
pub fn become_subreaper() -> Result<(), Errno> {
    // SAFETY: all arguments are plain numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1_usize, 0_usize, 0_usize, 0_usize) }).map(drop)
}

/// Whether keepalive is a child subreaper. The bit survives execve(2), so the program before it may have set it. prctl(2)
/// `PR_GET_CHILD_SUBREAPER`
#[must_use]
pub fn is_subreaper() -> bool {
    let mut bit: c_int = 0;
    // SAFETY: the kernel writes one int to `bit`, which is alive and writable.
    let result = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut bit) };
    result == 0 && bit != 0
}

/// Requests `signal` for when the parent dies. It is sent at once if the parent dies during this call. prctl(2)
/// `PR_SET_PDEATHSIG`
///
/// # Errors
/// EINVAL: no valid signal, which the type `Signal` excludes.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    set_death_signal_of(parent(), signal)
}

/// As [`set_parent_death_signal`], for a known parent. The signal is also sent at once if that parent is already dead.
pub(super) fn set_death_signal_of(expected: Option<Pid>, signal: Signal) -> Result<(), Errno> {
    let number = libc::c_ulong::from(signal.number());
    // SAFETY: all arguments are plain numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, number, 0_usize, 0_usize, 0_usize) })?;
    // Where getppid is refused, the parent is unknown.
    let parent = nix::unistd::getppid().as_raw();
    if parent >= 0 && Pid::new(parent) != expected {
        raise(signal);
    }
    Ok(())
}

/// Exits immediately: flushes no buffers and drops no values. _exit(2)
pub fn exit_now(code: u8) -> ! {
    // SAFETY: the argument is a plain number.
    unsafe { libc::_exit(code.into()) }
}

/// Sends `signal` to keepalive itself. raise(3)
pub fn raise(signal: Signal) {
    // SAFETY: all arguments are plain numbers. A process may always signal itself, so the call cannot fail.
    unsafe { libc::kill(id().get(), c_int::from(signal.number())) };
}

/// The environment that keepalive was started with, unchanged. environ(7)
#[must_use]
pub fn environment() -> StringList {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut list = StringList::new();
    // SAFETY: the C runtime sets it before `main`; the program has one thread and never changes its environment.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: `entry` is not past the null pointer that ends the vector.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: every element before the null pointer is a NUL-terminated string.
        list.push(unsafe { CStr::from_ptr(text) }.to_bytes());
        // SAFETY: this element was not the null pointer, so there is another.
        entry = unsafe { entry.add(1) };
    }
    list
}

/// Changes the working directory to `/` and closes every descriptor from 3 on, except `kept` and the private descriptors for
/// messages. chdir(2), close_range(2)
///
/// Then keepalive keeps no mount busy, and the reader of an inherited pipe sees end of file when the last process that
/// uses it exits. Must be called while no value other than those of `kept` owns a descriptor.
pub fn leave_cwd_and_close_fds(kept: &[RawFd]) {
    // SAFETY: the path is NUL-terminated. Failures are ignored: "/" is only missing in a broken mount namespace.
    unsafe { libc::chdir(c"/".as_ptr()) };
    close_all_but(kept.iter().copied());
}

/// In a forked child, which owns no descriptors: closes every descriptor from 3 on, except `kept`, those that keepalive was
/// started with and the private descriptors for messages.
pub(super) fn close_fds_in_fork(kept: &[BorrowedFd<'_>]) {
    let inherited = INHERITED_FDS.get().into_iter().flatten().copied();
    close_all_but(inherited.chain(kept.iter().map(|kept| kept.as_raw_fd())));
}

/// Allocates nothing: in a process forked from one with several threads, another thread may have held the allocator's lock.
fn close_all_but(kept: impl Iterator<Item = RawFd> + Clone) {
    let kept = kept.chain(super::non_blocking_writer::private_descriptors());
    let mut first = 3;
    while let Some(next) = kept.clone().filter(|fd| *fd >= first).min() {
        close_range(first, next - 1);
        first = next + 1;
    }
    close_range(first, RawFd::MAX);
}

/// Sets close-on-exec on every descriptor from 3 on that keepalive was started with, so that children do not inherit them.
/// Must be called before any descriptor is opened.
pub fn set_cloexec_on_inherited_fds() {
    let inherited = INHERITED_FDS.get_or_init(|| {
        let mut inherited = open_descriptors(3, RawFd::MAX);
        // The descriptor that read the directory is closed by now.
        inherited.retain(|fd| is_open(*fd));
        inherited
    });
    // SAFETY: with CLOSE_RANGE_CLOEXEC, no descriptor is closed before an execve.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if Errno::result(result).is_ok() {
        return;
    }
    for fd in inherited {
        // SAFETY: all arguments are plain numbers; a descriptor that is closed gives EBADF.
        unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Whether children inherit only the descriptors that they are meant to have: [`set_cloexec_on_inherited_fds`] was called.
pub(super) fn has_cloexec_on_inherited_fds() -> bool {
    INHERITED_FDS.get().is_some()
}

fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    let (from, to) = (first.unsigned_abs(), last.unsigned_abs());
    // SAFETY: no live value owns a descriptor in this range, as the callers of `close_all_but` guarantee.
    let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    if Errno::result(result).is_err() {
        close_each(first, last);
    }
}

/// For kernels before 5.9 and sandboxes without close_range(2).
fn close_each(first: RawFd, last: RawFd) {
    for fd in open_descriptors(first, last) {
        // SAFETY: as in `close_range`. The descriptor that read the directory is already closed and gives EBADF.
        unsafe { libc::close(fd) };
    }
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: all arguments are plain numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn open_descriptors(first: RawFd, last: RawFd) -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.filter(|fd| (first..=last).contains(fd)).collect()
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn users_are_mapped_to_the_parent_namespace() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        let all = [0, 1, 33, 65_536, 65_537].map(|user| outside(map, user));
        assert_eq!(all, [Some(1000), Some(100_000), Some(100_032), Some(165_535), None]);
        assert_eq!((outside("0 0 4294967295", 7), outside("", 7), outside("0 x", 0)), (Some(7), None, None));
    }
}
