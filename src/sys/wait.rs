//! Waiting for children: waitid(2), waitpid(2).

use std::ffi::c_int;
use std::mem::MaybeUninit;

use nix::errno::Errno;

use crate::model::{ExitStatus, Pid, Signal};

/// A child that was reaped. Its id may be reused from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The child's process id.
    pub pid: Pid,
    /// How it exited.
    pub status: ExitStatus,
}

/// The result of looking for a child that has changed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// There are children, but none has changed state.
    Nothing,
    /// There are no children.
    NoChildren,
    /// The child is dead and not reaped yet. Until it is reaped, its id and the id of the group that it led are not reused.
    Dead(Pid),
    /// The signal has stopped the child.
    Stopped(Pid, Signal),
}

/// The result of reaping any child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// There are children, but none has changed state.
    Nothing,
    /// There are no children.
    NoChildren,
    /// The child was reaped.
    Ended(Ended),
    /// The signal has stopped the child. The stop is not reported again.
    Stopped(Pid, Signal),
}

/// Which changes of state to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOptions {
    /// Exits. `WEXITED`
    ExitsOnly,
    /// Exits and stops. `WEXITED`, `WSTOPPED`
    WithStops,
}

/// Looks for a dead child without reaping it. waitid(2) `WNOWAIT`
///
/// The kernel searches all children. With [`WaitOptions::WithStops`] it finds the same stopped child again until
/// [`consume_stop`] is called.
///
/// # Errors
/// None that the manual page lists.
pub fn peek(stops: WaitOptions) -> Result<ChildEvent, Errno> {
    peek_id(libc::P_ALL, 0, stops)
}

/// As [`peek`], for one child. The cost does not depend on the number of children.
///
/// # Errors
/// None that the manual page lists.
pub fn peek_at(child: Pid, stops: WaitOptions) -> Result<ChildEvent, Errno> {
    peek_id(libc::P_PID, child.get().unsigned_abs(), stops)
}

fn peek_id(kind: libc::idtype_t, id: libc::id_t, stops: WaitOptions) -> Result<ChildEvent, Errno> {
    let stopped = if stops == WaitOptions::WithStops { libc::WSTOPPED } else { 0 };
    match wait_id(kind, id, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | stopped) {
        Err(Errno::ECHILD) => Ok(ChildEvent::NoChildren),
        Err(errno) => Err(errno),
        Ok(None) => Ok(ChildEvent::Nothing),
        Ok(Some(Change { pid, kind: ChangeKind::Ended(_) })) => Ok(ChildEvent::Dead(pid)),
        Ok(Some(Change { pid, kind: ChangeKind::Stopped(signal) })) => Ok(ChildEvent::Stopped(pid, signal)),
    }
}

/// Reaps `pid`, a child that [`peek`] has found dead.
///
/// # Errors
/// ECHILD: `pid` is not a child. EAGAIN: it is not dead.
pub fn reap(pid: Pid) -> Result<Ended, Errno> {
    match wait_id(libc::P_PID, pid.get().unsigned_abs(), libc::WEXITED | libc::WNOHANG)? {
        Some(Change { pid, kind: ChangeKind::Ended(status) }) => Ok(Ended { pid, status }),
        Some(Change { kind: ChangeKind::Stopped(_), .. }) | None => Err(Errno::EAGAIN),
    }
}

/// Reaps `child`, which [`super::fork::fork_without_sigchld`] created; `None`: it is not dead. No other function here sees
/// such a child. waitid(2) `__WALL`
///
/// # Errors
/// ECHILD: it is not a child.
pub fn reap_without_sigchld(child: Pid) -> Result<Option<ExitStatus>, Errno> {
    let change = wait_id(libc::P_PID, child.get().unsigned_abs(), libc::WEXITED | libc::WNOHANG | libc::__WALL)?;
    Ok(change.and_then(|change| match change.kind {
        ChangeKind::Ended(status) => Some(status),
        ChangeKind::Stopped(_) => None,
    }))
}

/// Consumes the stop of `pid`, so that [`peek`] does not report it again.
pub fn consume_stop(pid: Pid) {
    wait_id(libc::P_PID, pid.get().unsigned_abs(), libc::WSTOPPED | libc::WNOHANG).ok();
}

struct Change {
    pid: Pid,
    kind: ChangeKind,
}

enum ChangeKind {
    Ended(ExitStatus),
    Stopped(Signal),
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: c_int) -> Result<Option<Change>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a writable siginfo.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid siginfo, and the kernel overwrites them only with another valid one.
    let info = unsafe { info.assume_init() };
    // SAFETY: the field is initialised; it is zero if no child has changed state.
    let Some(pid) = Pid::new(unsafe { info.si_pid() }) else { return Ok(None) };
    // SAFETY: the field is initialised, and waitid(2) always fills in the fields of SIGCHLD.
    let status = unsafe { info.si_status() };
    let kind = match info.si_code {
        libc::CLD_EXITED => ChangeKind::Ended(ExitStatus::Code(low_byte(status))),
        libc::CLD_KILLED | libc::CLD_DUMPED => ChangeKind::Ended(ExitStatus::Signal(signal(status))),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => ChangeKind::Stopped(signal(status)),
        _ => return Ok(None),
    };
    Ok(Some(Change { pid, kind }))
}

/// Reaps a dead child, or reports one that has stopped. waitpid(2)
///
/// # Errors
/// None that the manual page lists.
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

/// The signal is in the low bits; the event of a tracer may be above them.
fn signal(status: c_int) -> Signal {
    Signal::new(low_byte(status & 0x7f)).unwrap_or(Signal::KILL)
}

const fn low_byte(number: c_int) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}
