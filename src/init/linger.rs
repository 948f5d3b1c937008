//! `--linger`: terminates the leftover processes of the command, waits for them, and kills them after the time limit.

use std::time::Duration;

use nix::errno::Errno;

use super::forward::{self, TerminalOwner};
use super::options::Options;
use super::reap::reap_orphans;
use super::role::Role;
use crate::model::map::Map;
use crate::model::{Mono, Pid, Signal};
use crate::sys::{self, process, procfs, signals};

/// How long to wait for processes to exit after SIGKILL. A process in uninterruptible sleep does not exit.
const EXIT_AFTER_SIGKILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look for processes that were started while the others were being killed.
const KILL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns when no processes are left, or after `limit` and the time that killing them takes.
pub(super) fn linger(options: &Options, role: Role, limit: Duration) -> Result<(), Errno> {
    let mut leftovers = Leftovers { options, role, terminated: Map::new() };
    if reap_orphans(options)? {
        return Ok(());
    }
    if role == Role::Subreaper && !procfs::is_own() {
        log::warn!("/proc is missing or foreign: leftover processes cannot be found");
    }
    log::debug!("waiting for leftover processes");
    leftovers.terminate();
    let deadline = sys::now() + limit;
    while !reap_orphans(options)? {
        leftovers.terminate_new_processes();
        if !leftovers.wait(deadline)? {
            log::warn!("leftover processes did not stop in time: sending SIGKILL");
            return leftovers.kill();
        }
    }
    Ok(())
}

/// All remaining descendants.
struct Leftovers<'a> {
    options: &'a Options,
    role: Role,
    /// The processes that have been sent SIGTERM. Only used for [`Role::Subreaper`].
    terminated: Map<Pid, ()>,
}

impl Leftovers<'_> {
    /// Sends SIGTERM, and SIGCONT so that stopped processes handle it.
    fn terminate(&mut self) {
        match self.role {
            Role::Init => {
                self.send(Signal::TERM);
                self.send(Signal::CONT);
            }
            Role::Subreaper => self.terminate_new_processes(),
        }
    }

    /// Terminates processes that were started while /proc was being read. Not needed as PID 1, where one call signals all
    /// processes.
    fn terminate_new_processes(&mut self) {
        if self.role == Role::Init {
            return;
        }
        for pid in procfs::descendants(process::id()) {
            if self.terminated.insert(pid, ()).is_none() {
                send_to_descendant(pid, Signal::TERM);
                send_to_descendant(pid, Signal::CONT);
            }
        }
    }

    /// Waits for a signal and forwards it. Returns false after the deadline.
    fn wait(&self, deadline: Mono) -> Result<bool, Errno> {
        let now = sys::now();
        if now >= deadline {
            return Ok(false);
        }
        if let Some(received) = signals::wait_for(Some(deadline.since(now)))?
            && let Some(signal) = forward::route(self.options, received, || TerminalOwner::Other)
        {
            self.send(signal);
        }
        Ok(true)
    }

    fn send(&self, signal: Signal) {
        match self.role {
            Role::Init => {
                sys::signal_everyone(signal).ok();
            }
            Role::Subreaper => {
                procfs::descendants(process::id()).into_iter().for_each(|pid| send_to_descendant(pid, signal));
            }
        }
    }

    /// Kills all processes. As PID 1 that is all, because the kernel does the rest when keepalive exits. Otherwise reaps
    /// them, and kills processes that were started in the meantime.
    fn kill(&self) -> Result<(), Errno> {
        self.send(Signal::KILL);
        if self.role == Role::Init {
            return Ok(());
        }
        let deadline = sys::now() + EXIT_AFTER_SIGKILL_TIMEOUT;
        while !reap_orphans(self.options)? {
            if sys::now() >= deadline {
                log::warn!("some processes are still alive after SIGKILL");
                return Ok(());
            }
            signals::wait_for(Some(KILL_INTERVAL))?;
            self.send(Signal::KILL);
        }
        Ok(())
    }
}

/// Signals `pid` if it is still a descendant: a process that is not a child may have exited since it was found, and its id may
/// have been reused.
fn send_to_descendant(pid: Pid, signal: Signal) {
    sys::signal_exactly(pid, signal, |pid| procfs::is_descendant(pid, process::id())).ok();
}
