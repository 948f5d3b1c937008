//! Information about other processes, proc(5).
//!
//! It may be out of date as soon as it has been read. To signal a process that was found here, use
//! [`super::signal_exactly`].

use std::ffi::CStr;
use std::fs::ReadDir;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd;

use super::memory::page_size;
use super::process;
use crate::model::Pid;

/// The fields of /proc/PID/stat, proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process id.
    pub pid: Pid,
    /// The id of the parent, 0 if it is in another PID namespace.
    pub ppid: i32,
    /// The process group, 0 if it was created in another PID namespace.
    pub pgrp: i32,
    /// The session, 0 if it was created in another PID namespace.
    pub session: i32,
    /// `R` running, `S` sleeping, `D` in uninterruptible sleep, `T` stopped, `Z` zombie, `X` dead.
    pub state: u8,
    /// The number of threads.
    pub threads: i32,
    /// The start time in clock ticks since boot. Together with the id it identifies a process uniquely.
    pub start: u64,
    /// The CPU time of the process and the children that it has waited for, in clock ticks.
    pub ticks: u64,
    /// The resident memory in pages.
    pub pages: u64,
}

impl Stat {
    /// Whether the process has exited and waits to be reaped. A process of which only the first thread has exited is also
    /// shown as a zombie, but has more than one thread.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }

    /// Whether the process is alive in the session that `leader` led, but outside of its process group.
    #[must_use]
    pub const fn is_outside_group_of(&self, leader: Pid) -> bool {
        self.session == leader.get() && self.pgrp != leader.get() && !self.is_dead()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        // The name between the parentheses may contain spaces and parentheses.
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let pid = number(text.get(..open)?.trim_ascii())?;
        let mut fields =
            text.get(close + 1..)?.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
        let state = *fields.next()?.first()?;
        let mut next = || number(fields.next()?);
        let (ppid, pgrp, session) = (next()?, next()?, next()?);
        // Fields 14 to 17, 20, 22 and 24 in the numbering of the manual page; the session is field 6.
        let mut ticks: u64 = count(fields.nth(7)?)?;
        for _ in 0..3 {
            ticks = ticks.saturating_add(count(fields.next()?)?);
        }
        let threads = number(fields.nth(2)?)?;
        let start = count(fields.nth(1)?)?;
        let pages = count(fields.nth(1)?)?;
        Some(Self { pid: Pid::new(pid)?, ppid, pgrp, session, state, threads, start, ticks, pages })
    }
}

fn number(text: &[u8]) -> Option<i32> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Parses a counter. The times of children can be negative for a moment while the kernel adds them up.
fn count(text: &[u8]) -> Option<u64> {
    if text.starts_with(b"-") { Some(0) } else { str::from_utf8(text).ok()?.parse().ok() }
}

/// Whether /proc shows the PID namespace of keepalive. If not, it is missing, or its process ids are those of another
/// namespace, and the functions here find no process.
#[must_use]
pub fn is_own() -> bool {
    const UNKNOWN: u8 = 0;
    const OWN: u8 = 1;
    const FOREIGN: u8 = 2;
    static VIEW: AtomicU8 = AtomicU8::new(UNKNOWN);
    if VIEW.load(Ordering::Relaxed) == UNKNOWN
        // Needs no descriptor.
        && let Ok(pid) = nix::fcntl::readlink("/proc/self")
    {
        let is_own = pid.as_encoded_bytes() == process::id().to_string().as_bytes();
        VIEW.store(if is_own { OWN } else { FOREIGN }, Ordering::Relaxed);
    }
    VIEW.load(Ordering::Relaxed) == OWN
}

/// Reads the state of a process; `None` if it does not exist or /proc cannot be read.
#[must_use]
pub fn stat(pid: Pid) -> Option<Stat> {
    if !is_own() {
        return None;
    }
    stat_at(AT_FDCWD, format_args!("/proc/{pid}/stat\0"))
}

/// `path` must end with a NUL. Does not use `File`, which makes two system calls to open a file under musl: there can be
/// thousands to read.
fn stat_at(directory: BorrowedFd<'_>, path: std::fmt::Arguments<'_>) -> Option<Stat> {
    // A longer line is truncated after the fields that are used.
    Stat::parse(read_at(directory, path, &mut [0; 1024])?)
}

fn read_at<'a>(directory: BorrowedFd<'_>, path: std::fmt::Arguments<'_>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = unistd::read(open_at(directory, path)?, buffer).ok()?;
    buffer.get(..length)
}

fn open_at(directory: BorrowedFd<'_>, path: std::fmt::Arguments<'_>) -> Option<OwnedFd> {
    let mut room = [0; 48];
    (&mut room[..]).write_fmt(path).ok()?;
    let path = CStr::from_bytes_until_nul(&room).ok()?;
    openat(directory, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()
}

/// The process that a pidfd refers to, pidfd_open(2). `None`: the descriptor is not a pidfd, the process has been reaped or
/// is in another PID namespace, or /proc cannot be read.
#[must_use]
pub fn pid_of_pidfd(pidfd: impl AsFd) -> Option<Pid> {
    if !is_own() {
        return None;
    }
    let descriptor = pidfd.as_fd().as_raw_fd();
    let mut buffer = [0; 1024];
    let text = read_at(AT_FDCWD, format_args!("/proc/self/fdinfo/{descriptor}\0"), &mut buffer)?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:"))?;
    Pid::new(number(line.trim_ascii())?)
}

/// An iterator over the children of a process, including zombies, in the order in which they have become its children.
#[derive(Debug)]
pub struct Children {
    file: OwnedFd,
    buffer: [u8; 4096],
    /// What is left of the buffer.
    rest: Range<usize>,
}

/// Iterates over the children of a process. `None` if they cannot be read. proc_tid_children(5)
///
/// For a process that keeps none of its threads but the first.
#[must_use]
pub fn children(pid: Pid) -> Option<Children> {
    let file = is_own().then(|| open_at(AT_FDCWD, format_args!("/proc/{pid}/task/{pid}/children\0")))??;
    Some(Children { file, buffer: [0; 4096], rest: 0..0 })
}

impl Children {
    /// `None` at the end of the file.
    fn next_byte(&mut self) -> Result<Option<u8>, Errno> {
        if self.rest.is_empty() {
            self.rest = 0..unistd::read(&self.file, &mut self.buffer)?;
        }
        Ok(self.rest.next().and_then(|position| self.buffer.get(position).copied()))
    }
}

impl Iterator for Children {
    type Item = Result<Pid, Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut number: i32 = 0;
        loop {
            match self.next_byte() {
                Ok(Some(digit @ b'0'..=b'9')) => number = number.wrapping_mul(10).wrapping_add((digit - b'0').into()),
                Ok(other) => match (Pid::new(number), other) {
                    (Some(pid), _) => return Some(Ok(pid)),
                    (None, Some(_)) => {}
                    (None, None) => return None,
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Two hard limits of a process, `RLIMIT_LOCKS` and, in microseconds, `RLIMIT_RTTIME`; the inner `None`: unlimited. `None`: it
/// does not exist any more, or /proc cannot be read. proc_pid_limits(5), getrlimit(2)
#[must_use]
pub fn unused_limits(pid: Pid) -> Option<[Option<u64>; 2]> {
    let mut buffer = [0; 2048];
    let text = str::from_utf8(read_at(AT_FDCWD, format_args!("/proc/{pid}/limits\0"), &mut buffer)?).ok()?;
    let hard =
        |name| text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().nth(1)?.parse().ok());
    Some(["Max file locks ", "Max realtime timeout "].map(hard))
}

/// The memory of a process in bytes, in which pages that n processes share count 1/n: PSS. `None`: it is gone, or nobody may read
/// that, as root in a container without `CAP_SYS_PTRACE`, or the kernel is older than 4.14. proc_pid_smaps(5)
#[must_use]
pub fn proportional_memory(pid: Pid) -> Option<u64> {
    let mut buffer = [0; 2048];
    let text = read_at(AT_FDCWD, format_args!("/proc/{pid}/smaps_rollup\0"), &mut buffer)?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Pss:"))?;
    count(line.strip_suffix(b"kB")?.trim_ascii())?.checked_mul(1024)
}

/// The process that traces `pid`, ptrace(2). proc_pid_status(5), `TracerPid`
#[must_use]
pub fn tracer_of(pid: Pid) -> Option<Pid> {
    let mut buffer = [0; 1024];
    let text = read_at(AT_FDCWD, format_args!("/proc/{pid}/status\0"), &mut buffer)?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:"))?;
    Pid::new(number(line.trim_ascii())?)
}

/// An iterator over all processes, including zombies. Empty if /proc cannot be read.
#[derive(Debug)]
pub struct Processes(Option<(OwnedFd, ReadDir)>);

/// Iterates over all processes. Each is read when the iterator reaches it.
#[must_use]
pub fn processes() -> Processes {
    let directory = open(c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    Processes(directory.ok().zip(std::fs::read_dir("/proc").ok()).filter(|_| is_own()))
}

impl Iterator for Processes {
    type Item = Stat;

    fn next(&mut self) -> Option<Stat> {
        let (directory, entries) = self.0.as_mut()?;
        loop {
            // An error ends the iteration: if it persisted, this loop would never end.
            let entry = entries.next()?.ok()?;
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::new);
            let stat = |pid| stat_at(directory.as_fd(), format_args!("{pid}/stat\0"));
            if let Some(stat) = pid.and_then(stat) {
                return Some(stat);
            }
        }
    }
}

/// Converts clock ticks of [`Stat`] to milliseconds. `USER_HZ` is 100 on every supported architecture.
#[must_use]
pub const fn ticks_to_milliseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(10)
}

/// Converts pages of [`Stat`] to bytes.
#[must_use]
pub fn pages_to_bytes(pages: u64) -> u64 {
    pages.saturating_mul(page_size() as u64)
}

/// All descendants of `of`, the nearest first. Zombies are omitted, but not their descendants.
#[must_use]
pub fn descendants(of: Pid) -> Vec<Pid> {
    below(of, processes().collect())
}

fn below(of: Pid, mut all: Vec<Stat>) -> Vec<Pid> {
    all.sort_unstable_by_key(|stat| (stat.ppid, stat.pid));
    let children = |parent: i32| {
        let first = all.partition_point(|stat| stat.ppid < parent);
        all.iter().skip(first).take_while(move |stat| stat.ppid == parent)
    };
    let mut found: Vec<&Stat> = children(of.get()).collect();
    let mut next = 0;
    // Ids that are reused during the search can form a cycle, so the number of steps is limited.
    while let Some(stat) = found.get(next)
        && next < all.len()
    {
        let parent = stat.pid.get();
        found.extend(children(parent));
        next += 1;
    }
    found.retain(|stat| !stat.is_dead() && stat.pid != of);
    found.iter().map(|stat| stat.pid).collect()
}

/// Whether `pid` is alive and a descendant of `of`.
#[must_use]
pub fn is_descendant(pid: Pid, of: Pid) -> bool {
    /// How many ancestors are looked at. Deeper trees do not occur; ids that are reused during the search can form a cycle.
    const MAX_DEPTH: usize = 1024;
    let parent = |pid: &Pid| stat(*pid).filter(|stat| !stat.is_dead()).and_then(|stat| Pid::new(stat.ppid));
    std::iter::successors(Some(pid), parent).take(MAX_DEPTH).skip(1).any(|ancestor| ancestor == of)
}

/// All live processes of the session that `leader` led that are outside of its process group.
#[must_use]
pub fn session_members_outside_group(leader: Pid) -> Vec<Pid> {
    processes().filter(|stat| stat.is_outside_group_of(leader)).map(|stat| stat.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, ppid: i32, state: u8) -> Stat {
        Stat {
            pid: Pid::new(pid).unwrap(),
            ppid,
            pgrp: pid,
            session: pid,
            state,
            threads: 1,
            start: 0,
            ticks: 0,
            pages: 0,
        }
    }

    #[test]
    fn a_name_may_contain_spaces_and_parentheses() {
        let text = b"42 (a) S (b c) T 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 31337 1000 10\n";
        let pid = Pid::new(42).unwrap();
        let expect =
            Stat { pid, ppid: 1, pgrp: 40, session: 39, state: b'T', threads: 3, start: 31337, ticks: 26, pages: 10 };
        assert_eq!(Stat::parse(text), Some(expect));
    }

    // pthreads(7): the first thread may end before the others; proc_pid_stat(5) then shows the process as a zombie.
    #[test]
    fn a_process_is_alive_until_its_last_thread_exits() {
        assert!(process(5, 1, b'Z').is_dead());
        assert!(!Stat { threads: 2, ..process(5, 1, b'Z') }.is_dead());
    }

    #[test]
    fn a_truncated_line_is_not_a_process() {
        assert_eq!(Stat::parse(b"42 (a) S 1 40"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn keepalive_is_among_the_processes() {
        let own = process::id();
        assert_eq!(processes().filter(|stat| stat.pid == own).count(), 1);
        assert_eq!(stat(own).map(|stat| stat.pid), Some(own));
    }

    #[test]
    fn children_are_read_in_pieces() {
        let (reader, writer) = unistd::pipe().unwrap();
        let text: String = (1..=2000).map(|pid| format!("{pid} ")).collect();
        assert_eq!(unistd::write(&writer, text.as_bytes()), Ok(text.len()));
        drop(writer);
        let children = Children { file: reader, buffer: [0; 4096], rest: 0..0 };
        assert!(children.map(|pid| pid.unwrap().get()).eq(1..=2000));
    }

    #[test]
    fn descendants_include_those_of_zombies_but_not_zombies() {
        let all = vec![
            process(1, 0, b'S'),
            process(5, 1, b'S'),
            process(9, 5, b'Z'),
            process(12, 9, b'S'),
            process(7, 5, b'S'),
            process(6, 1, b'S'),
        ];
        let pids: Vec<_> = below(Pid::new(5).unwrap(), all).iter().map(|pid| pid.get()).collect();
        assert_eq!(pids, [7, 12]);
    }

    #[test]
    fn a_search_for_descendants_ends_despite_a_cycle() {
        let all = vec![process(5, 6, b'S'), process(6, 5, b'S')];
        let found = below(Pid::new(5).unwrap(), all);
        assert!(found.iter().all(|pid| pid.get() == 6) && !found.is_empty());
    }
}
