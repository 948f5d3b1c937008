//! Other processes as /proc shows them, proc(5).
//!
//! What is read may be out of date as soon as it has been read; where it decides about a signal, use
//! [`super::signal_exactly`].

use std::ffi::CStr;
use std::fs::ReadDir;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd;

use crate::model::Pid;

/// What /proc/PID/stat says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub pid: Pid,
    /// The id of its parent, 0 if that is in another PID namespace.
    pub ppid: i32,
    /// Its process group, 0 if made in another PID namespace.
    pub pgrp: i32,
    /// Its session, 0 if made in another PID namespace.
    pub session: i32,
    /// `R` running, `S` sleeping, `D` waiting for a device, `T` stopped, `Z` zombie, `X` dead.
    pub state: u8,
    /// How many threads it has.
    pub threads: i32,
    /// When it was started, in clock ticks since boot: with the id, this names one process for ever.
    pub start: u64,
    /// Processor time, its own and that of the children it has waited for, in clock ticks.
    pub ticks: u64,
    /// Resident memory, in pages.
    pub pages: u64,
}

impl Stat {
    /// Whether it has ended and only waits to be reaped. A process whose first thread alone has ended looks the same but
    /// for the number of its threads.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }

    /// Whether it lives in the session that `leader` led, but not in its process group.
    #[must_use]
    pub const fn is_stray_of(&self, leader: Pid) -> bool {
        self.session == leader.get() && self.pgrp != leader.get() && !self.is_dead()
    }

    /// Reads the text of /proc/PID/stat.
    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        // The name between the parentheses may have blanks and parentheses in it.
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let pid = number(text.get(..open)?.trim_ascii())?;
        let mut fields =
            text.get(close + 1..)?.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
        let state = *fields.next()?.first()?;
        let mut next = || number(fields.next()?);
        let (ppid, pgrp, session) = (next()?, next()?, next()?);
        // Fields 14 to 17, 20, 22 and 24 of the manual's count; the session was number 6.
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

/// The children's times can be negative for a moment, while they are being added up.
fn count(text: &[u8]) -> Option<u64> {
    if text.starts_with(b"-") { Some(0) } else { str::from_utf8(text).ok()?.parse().ok() }
}

/// One process; `None` if it has gone or /proc cannot be read.
#[must_use]
pub fn stat(pid: Pid) -> Option<Stat> {
    stat_below(AT_FDCWD, format_args!("/proc/{pid}/stat\0"))
}

/// `path` ends with a NUL. Not by `File`, whose open is two system calls under musl: there can be thousands to read.
fn stat_below(folder: BorrowedFd<'_>, path: std::fmt::Arguments<'_>) -> Option<Stat> {
    // The longest possible name and 52 numbers fit; longer lines are cut behind what is looked at.
    Stat::parse(read_below(folder, path, &mut [0; 1024])?)
}

fn read_below<'a>(folder: BorrowedFd<'_>, path: std::fmt::Arguments<'_>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut room = [0; 32];
    (&mut room[..]).write_fmt(path).ok()?;
    let path = CStr::from_bytes_until_nul(&room).ok()?;
    let file = openat(folder, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let length = unistd::read(file, buffer).ok()?;
    buffer.get(..length)
}

/// The process that this descriptor stands for, pidfd_open(2); `None`: it stands for none, for one that has been reaped or
/// is not in our PID namespace, or /proc cannot be read.
#[must_use]
pub fn held(holder: impl AsFd) -> Option<Pid> {
    let descriptor = holder.as_fd().as_raw_fd();
    let mut buffer = [0; 1024];
    let text = read_below(AT_FDCWD, format_args!("/proc/self/fdinfo/{descriptor}\0"), &mut buffer)?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:"))?;
    Pid::new(number(line.trim_ascii())?)
}

/// Every process that /proc shows, zombies too, each read when it is asked for. Nothing at all if it cannot be read.
#[derive(Debug)]
pub struct Processes(Option<(OwnedFd, ReadDir)>);

/// Begins to look through all processes.
#[must_use]
pub fn processes() -> Processes {
    let folder = open(c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    Processes(folder.ok().zip(std::fs::read_dir("/proc").ok()))
}

impl Iterator for Processes {
    type Item = Stat;

    fn next(&mut self) -> Option<Stat> {
        let (folder, entries) = self.0.as_mut()?;
        loop {
            // An error repeated for ever would be asked for for ever.
            let entry = entries.next()?.ok()?;
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::new);
            let stat = |pid| stat_below(folder.as_fd(), format_args!("{pid}/stat\0"));
            if let Some(stat) = pid.and_then(stat) {
                return Some(stat);
            }
        }
    }
}

/// Clock ticks of [`Stat`] in milliseconds. The kernel counts a hundred a second for everyone, whatever its own are.
#[must_use]
pub const fn ticks_to_milliseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(10)
}

/// Pages of [`Stat`] in bytes.
#[must_use]
pub fn pages_to_bytes(pages: u64) -> u64 {
    let size = unistd::sysconf(unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    pages.saturating_mul(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096))
}

/// All processes below `of`, the nearest first; zombies are left out, what is below one that has not been reaped yet
/// is not.
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
    // A process whose entry was read before its parent's id was reused could close a circle: so many steps are enough.
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

/// Whether `pid` is alive below `of` right now.
#[must_use]
pub fn is_descendant(pid: Pid, of: Pid) -> bool {
    /// Deeper trees do not occur; a circle, from ids reused while we read, ends here.
    const DEEPEST: usize = 1024;
    let parent = |pid: &Pid| stat(*pid).filter(|stat| !stat.is_dead()).and_then(|stat| Pid::new(stat.ppid));
    std::iter::successors(Some(pid), parent).take(DEEPEST).skip(1).any(|ancestor| ancestor == of)
}

/// All processes of the session that `leader` led which have left its process group, without zombies.
#[must_use]
pub fn strays(leader: Pid) -> Vec<Pid> {
    processes().filter(|stat| stat.is_stray_of(leader)).map(|stat| stat.pid).collect()
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
    fn a_name_may_contain_blanks_and_parentheses() {
        let text = b"42 (a) S (b c) T 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 31337 1000 10\n";
        let pid = Pid::new(42).unwrap();
        let expect =
            Stat { pid, ppid: 1, pgrp: 40, session: 39, state: b'T', threads: 3, start: 31337, ticks: 26, pages: 10 };
        assert_eq!(Stat::parse(text), Some(expect));
    }

    // pthreads(7): the first thread may end before the others; proc_pid_stat(5) then shows the process as a zombie.
    #[test]
    fn a_process_lives_until_its_last_thread_has_ended() {
        assert!(process(5, 1, b'Z').is_dead());
        assert!(!Stat { threads: 2, ..process(5, 1, b'Z') }.is_dead());
    }

    #[test]
    fn what_is_cut_short_is_no_process() {
        assert_eq!(Stat::parse(b"42 (a) S 1 40"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn we_are_among_the_processes() {
        let own = super::super::process::id();
        assert_eq!(processes().filter(|stat| stat.pid == own).count(), 1);
        assert_eq!(stat(own).map(|stat| stat.pid), Some(own));
    }

    #[test]
    fn descendants_are_found_through_zombies_which_are_left_out() {
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
    fn a_circle_ends() {
        let all = vec![process(5, 6, b'S'), process(6, 5, b'S')];
        let found = below(Pid::new(5).unwrap(), all);
        assert!(found.iter().all(|pid| pid.get() == 6) && !found.is_empty());
    }
}
