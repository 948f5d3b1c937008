//! Children that have ended or stopped: waitid(2), wait4(2).

use std::ffi::c_int;
use std::mem::MaybeUninit;

use nix::errno::Errno;

use crate::model::{ExitStatus, Pid, Signal};

/// A child that was reaped: from here on its id may be another process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub pid: Pid,
    /// How.
    pub status: ExitStatus,
}

/// What there is to be reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// There are children; none of them is dead.
    Nothing,
    /// There is no child at all.
    NoChildren,
    /// This one is dead and not reaped yet: its id and, while it is not, the group that it led are still its own.
    Dead(Pid),
    /// This one has been stopped.
    Stopped(Pid, Signal),
}

/// What reaping gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// There are children; none of them is dead.
    Nothing,
    /// There is no child at all.
    NoChildren,
    /// This one was.
    Ended(Ended),
    /// This one has been stopped, and is not reported again for that.
    Stopped(Pid, Signal),
}

/// Whether children that have stopped are of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOptions {
    /// They are not.
    ExitsOnly,
    /// They are.
    WithStops,
}

/// Looks for a dead child without reaping it. waitid(2) `WNOWAIT`
///
/// The kernel goes through all children for it. With [`WaitOptions::WithStops`] the same stopped child is found again and
/// again, until [`consume_stop`].
///
/// # Errors
/// None that the manual knows of.
pub fn peek(stops: WaitOptions) -> Result<ChildEvent, Errno> {
    look(libc::P_ALL, 0, stops)
}

/// As [`peek`], at this child alone, whose number nobody else makes dearer.
///
/// # Errors
/// None that the manual knows of.
pub fn peek_at(child: Pid, stops: WaitOptions) -> Result<ChildEvent, Errno> {
    look(libc::P_PID, child.get().unsigned_abs(), stops)
}

fn look(kind: libc::idtype_t, id: libc::id_t, stops: WaitOptions) -> Result<ChildEvent, Errno> {
    let stopped = if stops == WaitOptions::WithStops { libc::WSTOPPED } else { 0 };
    match wait_id(kind, id, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | stopped) {
        Err(Errno::ECHILD) => Ok(ChildEvent::NoChildren),
        Err(errno) => Err(errno),
        Ok(None) => Ok(ChildEvent::Nothing),
        Ok(Some(Change { pid, what: What::Ended(_) })) => Ok(ChildEvent::Dead(pid)),
        Ok(Some(Change { pid, what: What::Stopped(signal) })) => Ok(ChildEvent::Stopped(pid, signal)),
    }
}

/// Reaps `pid`, a child that [`peek`] has found dead.
///
/// # Errors
/// ECHILD: it is no child of ours. EAGAIN: it is not dead.
pub fn reap(pid: Pid) -> Result<Ended, Errno> {
    match wait_id(libc::P_PID, pid.get().unsigned_abs(), libc::WEXITED | libc::WNOHANG)? {
        Some(Change { pid, what: What::Ended(status) }) => Ok(Ended { pid, status }),
        Some(Change { what: What::Stopped(_), .. }) | None => Err(Errno::EAGAIN),
    }
}

/// Reaps `child`, which was made by [`super::fork::fork_without_sigchld`] and which nothing else here sees; `None`: it is not dead.
/// waitid(2) `__WALL`
///
/// # Errors
/// ECHILD: it is no child of ours.
pub fn reap_quiet(child: Pid) -> Result<Option<ExitStatus>, Errno> {
    let change = wait_id(libc::P_PID, child.get().unsigned_abs(), libc::WEXITED | libc::WNOHANG | libc::__WALL)?;
    Ok(change.and_then(|change| match change.what {
        What::Ended(status) => Some(status),
        What::Stopped(_) => None,
    }))
}

/// Takes note of the stop of `pid`, so that [`peek`] does not find it for that again.
pub fn consume_stop(pid: Pid) {
    wait_id(libc::P_PID, pid.get().unsigned_abs(), libc::WSTOPPED | libc::WNOHANG).ok();
}

struct Change {
    pid: Pid,
    what: What,
}

enum What {
    Ended(ExitStatus),
    Stopped(Signal),
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: c_int) -> Result<Option<Change>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a writable siginfo.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid siginfo, and the kernel wrote over them only with another.
    let info = unsafe { info.assume_init() };
    // SAFETY: initialised; zero when no child has changed.
    let Some(pid) = Pid::new(unsafe { info.si_pid() }) else { return Ok(None) };
    // SAFETY: initialised, and meaningful for every SIGCHLD.
    let status = unsafe { info.si_status() };
    let what = match info.si_code {
        libc::CLD_EXITED => What::Ended(ExitStatus::Code(low_byte(status))),
        libc::CLD_KILLED | libc::CLD_DUMPED => What::Ended(ExitStatus::Signal(signal(status))),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => What::Stopped(signal(status)),
        _ => return Ok(None),
    };
    Ok(Some(Change { pid, what }))
}

/// Reaps one child, if one is dead, or else tells of one that has stopped. wait4(2)
///
/// # Errors
/// None that the manual knows of.
pub fn reap_any() -> Result<Reaped, Errno> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
    let pid = match Errno::result(pid) {
        Err(Errno::ECHILD) => return Ok(Reaped::NoChildren),
        other => other?,
    };
    let Some(pid) = Pid::new(pid) else { return Ok(Reaped::Nothing) };
    if libc::WIFSTOPPED(status) {
        return Ok(Reaped::Stopped(pid, signal(libc::WSTOPSIG(status))));
    }
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(signal(libc::WTERMSIG(status)))
    } else {
        ExitStatus::Code(low_byte(libc::WEXITSTATUS(status)))
    };
    Ok(Reaped::Ended(Ended { pid, status }))
}

/// The low bits are the signal; a tracer's event may stand above them.
fn signal(status: c_int) -> Signal {
    Signal::new(low_byte(status & 0x7f)).unwrap_or(Signal::KILL)
}

const fn low_byte(number: c_int) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}
