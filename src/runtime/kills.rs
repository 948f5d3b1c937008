//! Signals to processes: to whom the supervisor has decided they go, as long as they are still the same.

use nix::errno::Errno;

use super::Runtime;
use crate::model::{Pid, Signal, errno};
use crate::supervisor::{Event, Scope};
use crate::sys::wait::{self, WaitOptions};
use crate::sys::{self, ChildEvent, kill, procfs};

impl Runtime {
    pub(super) fn signal(&mut self, pid: Pid, scope: Scope, signal: Signal) {
        let is_reaped = self.children.get(pid).is_none();
        let result = match scope {
            // Its id may be another's by now. The supervisor passes over what has waited for too long; this is certain.
            Scope::Main | Scope::Group if is_reaped => return,
            Scope::Main => kill::signal_process(pid, signal),
            Scope::Group => self.signal_groups(pid, signal),
            Scope::Leftovers => self.signal_leftovers(pid, signal),
        };
        match result {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) if signal == Signal::CONT => {
                log::debug!("cannot send {signal} to pid {pid}: {}", errno::words(errno))
            }
            Err(errno) => log::warn!("cannot send {signal} to pid {pid}: {}", errno::words(errno)),
        }
    }

    /// The group of a main process, and what is left of those of the ones before it.
    fn signal_groups(&self, main: Pid, signal: Signal) -> Result<(), Errno> {
        let mut result = kill::signal_group(main.led_group(), signal);
        let leads = result != Err(Errno::ESRCH);
        let group = if leads { None } else { sys::process::group_of(main) };
        let mut is_reached = leads;
        for before in self.children.successions().before(main).map(Pid::led_group) {
            kill::signal_group(before, signal).ok();
            is_reached |= Some(before) == group;
        }
        if !is_reached {
            // In the moment between fork and setsid the group is not there yet.
            result = kill::signal_process(main, signal);
        }
        result
    }

    /// What a main process and those before it have left.
    fn signal_leftovers(&mut self, main: Pid, signal: Signal) -> Result<(), Errno> {
        let before: Vec<Pid> = self.children.successions().before(main).collect();
        before
            .into_iter()
            .fold(self.signal_left(main, signal), |result, before| result.and(self.signal_left(before, signal)))
    }

    /// What is in the group or session that `leader` led. It has been reaped, but as long as something is left the
    /// number cannot become another's.
    fn signal_left(&mut self, leader: Pid, signal: Signal) -> Result<(), Errno> {
        if !self.probe.is_in_use(leader) {
            // Its end will be found, and told, with the next round of reaping.
            self.search.want(None);
            return Ok(());
        }
        // The number is in use, so the group, if that is what has it, is still the one that the reaped process led.
        let mut result = match kill::signal_group(leader.led_group(), signal) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        };
        // Of those who left the group but not the session /proc tells.
        for pid in procfs::session_members_outside_group(leader) {
            let is_stray = |pid| procfs::stat(pid).is_some_and(|stat| stat.is_outside_group_of(leader));
            let sent = kill::signal_exactly(pid, signal, is_stray);
            if sent != Err(Errno::ESRCH) {
                result = result.and(sent);
            }
        }
        result
    }

    pub(super) fn signal_all(&mut self, signal: Signal) {
        if matches!(wait::peek(WaitOptions::ExitsOnly), Ok(ChildEvent::NoChildren)) {
            return self.tell(Event::Childless);
        }
        self.sweeping = Some(signal);
        self.sweep(signal);
    }

    /// While everything is being killed, what was forked in the meantime goes as well.
    pub(super) fn sweep_again(&mut self) {
        if self.sweeping == Some(Signal::KILL) {
            self.sweep(Signal::KILL);
        }
    }

    fn sweep(&mut self, signal: Signal) {
        if sys::process::is_init() {
            if signal == Signal::KILL {
                self.logging.on_kill_all();
            }
            kill::signal_everyone(signal).ok();
            return;
        }
        for pid in self.children.pids() {
            kill::signal_group(pid.led_group(), signal).ok();
        }
        let own = sys::process::id();
        for pid in procfs::descendants(own).into_iter().filter(|pid| !self.logging.is_logger(*pid)) {
            kill::signal_exactly(pid, signal, |pid| procfs::is_descendant(pid, own)).ok();
        }
    }
}
