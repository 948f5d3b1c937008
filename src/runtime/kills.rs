//! Signals to the processes of a run, to whoever of them still exists, and to everything below keepalive.

use nix::errno::Errno;

use super::processes::Processes;
use super::runs::Run;
use crate::model::{Pid, RunId, Signal, errno};
use crate::supervisor::Scope;
use crate::sys::wait::{self, WaitOptions};
use crate::sys::{self, ChildEvent, PidLiveness, kill, procfs};

impl Processes {
    pub(super) fn signal(&mut self, run: RunId, scope: Scope, signal: Signal) {
        // A main process that has been reaped is not signalled: its number may be another's.
        let run = match scope {
            Scope::Main | Scope::Group => self.runs.get(run),
            Scope::Leftovers => self.runs.lingering(run),
        };
        let Some(run) = run else { return };
        let result = match scope {
            Scope::Main => kill::signal_process(run.pid, signal),
            Scope::Group => signal_groups(run, signal),
            Scope::Leftovers => match signal_leftovers(run, signal, &self.liveness) {
                Some(result) => result,
                None => {
                    // The next scan finds out that nothing is left.
                    self.schedule.want(None);
                    return;
                }
            },
        };
        match result {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) if signal == Signal::CONT => {
                log::debug!("cannot send {signal} to pid {}: {}", run.pid, errno::words(errno))
            }
            Err(errno) => log::warn!("cannot send {signal} to pid {}: {}", run.pid, errno::words(errno)),
        }
    }

    /// Whether there was anything to be signalled.
    pub(super) fn signal_all(&mut self, signal: Signal, logger: Option<Pid>) -> bool {
        if matches!(wait::peek(WaitOptions::ExitsOnly), Ok(ChildEvent::NoChildren)) {
            return false;
        }
        self.sweeping = Some(signal);
        self.sweep(signal, logger);
        true
    }

    /// While everything is being killed, what has been forked in the meantime is killed as well.
    pub(super) fn sweep_again(&self, logger: Option<Pid>) {
        if self.sweeping == Some(Signal::KILL) {
            self.sweep(Signal::KILL, logger);
        }
    }

    /// As PID 1 the logger is signalled too; elsewhere it is spared.
    fn sweep(&self, signal: Signal, logger: Option<Pid>) {
        if sys::process::is_init() {
            kill::signal_everyone(signal).ok();
            return;
        }
        for run in self.runs.living() {
            kill::signal_group(run.pid.led_group(), signal).ok();
        }
        let own = sys::process::id();
        for pid in procfs::descendants(own).into_iter().filter(|pid| Some(*pid) != logger) {
            kill::signal_exactly(pid, signal, |pid| procfs::is_descendant(pid, own)).ok();
        }
    }
}

/// Kills the groups of a run whose main process is dead and not reaped yet.
pub(super) fn kill_groups_of_dead(run: &Run) {
    kill::signal_group(run.pid.led_group(), Signal::KILL).ok();
    for before in run.superseded() {
        kill::signal_group(before.led_group(), Signal::KILL).ok();
    }
}

/// The group of the main process, and those of former ones.
fn signal_groups(run: &Run, signal: Signal) -> Result<(), Errno> {
    let result = kill::signal_group(run.pid.led_group(), signal);
    let is_leader = result != Err(Errno::ESRCH);
    let group = if is_leader { None } else { sys::process::group_of(run.pid) };
    let mut is_reached = is_leader;
    for before in run.superseded().map(Pid::led_group) {
        kill::signal_group(before, signal).ok();
        is_reached |= Some(before) == group;
    }
    // Between fork and setsid the group does not exist yet.
    if is_reached { result } else { kill::signal_process(run.pid, signal) }
}

/// What the main processes of a run have left; `None`: nothing of the last one.
fn signal_leftovers(run: &Run, signal: Signal, liveness: &PidLiveness) -> Option<Result<(), Errno>> {
    let result = signal_left_by(run.pid, signal, liveness);
    let former = run.superseded().filter_map(|before| signal_left_by(before, signal, liveness));
    former.chain(result).reduce(Result::and)
}

/// What is left in the group or session that `leader` led. It has been reaped, but as long as something is left its number
/// cannot become another's. `None`: nothing is left.
fn signal_left_by(leader: Pid, signal: Signal, liveness: &PidLiveness) -> Option<Result<(), Errno>> {
    if !liveness.is_in_use(leader) {
        return None;
    }
    // The number is in use: if by a group, then by the one that the reaped process led.
    let mut result = match kill::signal_group(leader.led_group(), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    };
    // /proc shows those that have left the group but not the session.
    for pid in procfs::session_members_outside_group(leader) {
        let is_stray = |pid| procfs::stat(pid).is_some_and(|stat| stat.is_outside_group_of(leader));
        let sent = kill::signal_exactly(pid, signal, is_stray);
        if sent != Err(Errno::ESRCH) {
            result = result.and(sent);
        }
    }
    Some(result)
}
