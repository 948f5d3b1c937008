//! `--linger`: what the command has left behind is asked to end, waited for, and killed when the time is over.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::errno::Errno;

use super::forward::{self, Terminal};
use super::notice::{self, Notice};
use super::{Options, Place, REAP_BATCH};
use crate::model::{Mono, Pid, Signal};
use crate::sys::wait::{self, Reaped};
use crate::sys::{self, process, procfs, signals};

/// How long the killed may take to be gone. A process that waits for a dead disk does not even hear SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked for what was started while the others were being killed.
const KILL_INTERVAL: Duration = Duration::from_millis(50);

/// Comes back when nobody is left, after `limit` at the latest (and then the moment that killing takes).
pub(super) fn linger(options: &Options, place: Place, limit: Duration) -> Result<(), Errno> {
    let mut leftovers = Leftovers { options, place, told: BTreeSet::new() };
    if leftovers.reap()? {
        return Ok(());
    }
    log::debug!("waiting for leftover processes");
    leftovers.ask_to_end();
    let deadline = sys::now() + limit;
    while !leftovers.reap()? {
        leftovers.ask_newcomers();
        if !leftovers.wait(deadline)? {
            log::warn!("leftover processes did not stop in time: sending SIGKILL");
            return leftovers.kill();
        }
    }
    Ok(())
}

/// Everything below us.
struct Leftovers<'a> {
    options: &'a Options,
    place: Place,
    /// Who has been asked to end; of use only where they have to be found one by one.
    told: BTreeSet<Pid>,
}

impl Leftovers<'_> {
    /// Whether nobody is left.
    fn reap(&self) -> Result<bool, Errno> {
        for _ in 0..REAP_BATCH {
            match wait::reap_any()? {
                Reaped::Ended(ended) => notice::tell(self.options, Notice::OrphanEnded(ended)),
                Reaped::Stopped(..) => {}
                Reaped::Nothing => return Ok(false),
                Reaped::NoChildren => return Ok(true),
            }
        }
        // There may be more: a signal of our own makes the next wait a short one.
        process::raise(Signal::CHLD);
        Ok(false)
    }

    /// SIGTERM, and SIGCONT so that who is stopped hears it.
    fn ask_to_end(&mut self) {
        match self.place {
            Place::Init => {
                self.send(Signal::TERM);
                self.send(Signal::CONT);
            }
            Place::Subreaper => self.ask_newcomers(),
        }
    }

    /// As PID 1 everyone has been told in one call; elsewhere somebody may have been started while we read /proc.
    fn ask_newcomers(&mut self) {
        if self.place == Place::Init {
            return;
        }
        for pid in procfs::descendants(process::id()) {
            if self.told.insert(pid) {
                send_one(pid, Signal::TERM);
                send_one(pid, Signal::CONT);
            }
        }
    }

    /// Waits for the next signal and hands it on. False: it is time to stop waiting.
    fn wait(&self, deadline: Mono) -> Result<bool, Errno> {
        let now = sys::now();
        if now >= deadline {
            return Ok(false);
        }
        if let Some(received) = signals::wait_for(Some(deadline.since(now)))?
            && let Some(signal) = forward::route(self.options, received, || Terminal::NotChilds)
        {
            self.send(signal);
        }
        Ok(true)
    }

    fn send(&self, signal: Signal) {
        match self.place {
            Place::Init => {
                sys::signal_everyone(signal).ok();
            }
            Place::Subreaper => procfs::descendants(process::id()).into_iter().for_each(|pid| send_one(pid, signal)),
        }
    }

    /// As PID 1 the kernel sees to the rest when we end. Elsewhere the killed must be reaped, and so must those that
    /// they have started meanwhile.
    fn kill(&self) -> Result<(), Errno> {
        self.send(Signal::KILL);
        if self.place == Place::Init {
            return Ok(());
        }
        let deadline = sys::now() + KILL_PATIENCE;
        while !self.reap()? {
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

/// A process that is not our child may have gone, and its id may have become another's, since it was found.
fn send_one(pid: Pid, signal: Signal) {
    sys::signal_exactly(pid, signal, |pid| procfs::is_descendant(pid, process::id())).ok();
}
