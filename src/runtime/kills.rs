//! Sends signals to the processes of a run, and to all processes below keepalive.

use nix::errno::Errno;

use super::exits::MAX_CHILDREN;
use super::order::Order;
use super::processes::Processes;
use super::runs::Run;
use crate::model::{Pid, RunId, Signal, errno};
use crate::supervisor::Scope;
use crate::sys::wait::{self, WaitOptions};
use crate::sys::{self, ChildEvent, PidLiveness, kill, procfs};

impl Processes {
    pub(super) fn signal(&mut self, run: RunId, scope: Scope, signal: Signal) {
        if signal == Signal::KILL && scope != Scope::Leftovers {
            self.release_from_tracer(run);
        }
        // A main process that has been reaped is not signalled: its pid may have been reused.
        let run = match scope {
            Scope::Main | Scope::Group => self.runs.get(run),
            Scope::Leftovers => self.runs.on_leftovers_signalled(run, signal),
        };
        let Some(run) = run else { return };
        let result = match scope {
            Scope::Main => kill::signal_process(run.pid, signal),
            Scope::Group => {
                self.orders.push(Order::Below { root: run.pid, signal });
                signal_groups(run, signal)
            }
            Scope::Leftovers => match signal_leftovers(run, signal, &self.liveness, &mut self.orders) {
                Some(result) => result,
                None => {
                    // The next scan reports that they are gone.
                    self.schedule.request(None);
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

    /// Strays that were found after the other leftover processes had been signalled get the same signal.
    pub(super) fn signal_found_strays(&mut self, run: RunId) {
        if let Some(run) = self.runs.lingering(run)
            && let Some(signal) = run.sent
        {
            signal_strays(run, signal, &mut self.orders);
        }
    }

    /// A main process is to be killed: if it has been sent SIGKILL before, a process that traces it may hold it up.
    fn release_from_tracer(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(run)
            && std::mem::replace(&mut run.is_killed, true)
        {
            self.orders.push(Order::Tracer { killed: run.pid });
        }
    }

    /// Sends a signal to all processes. Returns whether there were any.
    ///
    /// `helpers`: processes of keepalive that are left out, except as PID 1.
    pub(super) fn signal_all(&mut self, signal: Signal, helpers: &[Pid]) -> bool {
        if matches!(wait::peek(WaitOptions::ExitsOnly), Ok(ChildEvent::NoChildren)) {
            return false;
        }
        self.sweeping = Some(signal);
        self.sweep(signal, helpers);
        true
    }

    /// Kills processes that have been forked since everything was killed.
    pub(super) fn sweep_again(&mut self, helpers: &[Pid]) {
        if self.sweeping == Some(Signal::KILL) {
            self.sweep(Signal::KILL, helpers);
        }
    }

    fn sweep(&mut self, signal: Signal, helpers: &[Pid]) {
        if sys::process::is_init() {
            kill::signal_everyone(signal).ok();
            return;
        }
        for run in self.runs.living() {
            kill::signal_group(run.pid.led_group(), signal).ok();
        }
        if signal == Signal::KILL {
            // Not even if no inspector can be started do processes outlive keepalive: the children of those that are
            // killed here are children of keepalive next.
            let children = procfs::children(sys::process::id()).into_iter().flatten().flatten();
            for child in children.take(MAX_CHILDREN).filter(|child| !helpers.contains(child)) {
                kill::signal_process(child, signal).ok();
            }
        }
        self.orders.push(Order::Descendants { signal, spared: helpers.to_vec() });
    }
}

/// Signals the process groups of the main process and of former ones.
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

/// Signals the leftover processes of a run; `None` if there are none.
fn signal_leftovers(
    run: &Run,
    signal: Signal,
    liveness: &PidLiveness,
    orders: &mut Vec<Order>,
) -> Option<Result<(), Errno>> {
    let mut results = signal_strays(run, signal, orders);
    for leader in run.leaders() {
        results.extend(signal_left_by(leader, signal, liveness, orders));
    }
    results.into_iter().reduce(Result::and)
}

fn signal_strays(run: &Run, signal: Signal, orders: &mut Vec<Order>) -> Vec<Result<(), Errno>> {
    let signal_one = |stray| {
        orders.push(Order::Below { root: stray, signal });
        kill::signal_group_or_process(stray, signal)
    };
    run.strays().map(signal_one).collect()
}

/// Signals the processes in the group and session of `leader`, which has been reaped. Its id cannot be reused while there are
/// any. `None` if there are none.
fn signal_left_by(
    leader: Pid,
    signal: Signal,
    liveness: &PidLiveness,
    orders: &mut Vec<Order>,
) -> Option<Result<(), Errno>> {
    if !liveness.is_in_use(leader) {
        return None;
    }
    // The id is in use: if by a group, it is the group of the reaped process.
    let result = match kill::signal_group(leader.led_group(), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    };
    // Some processes may have left the group but not the session.
    orders.push(Order::Session { leader, signal });
    Some(result)
}
