//! Main processes that have taken the place of others: `MAINPID` of sd_notify(3).
//!
//! What an instance has left of itself is found by the numbers of the main processes that it had: their groups and sessions
//! live on in what they have started.

use std::os::fd::OwnedFd;

use super::token::Token;
use crate::model::map::Map;
use crate::model::{ExitStatus, Pid};
use crate::sys::{PidLiveness, Poller, kill};

/// Who has followed whom.
#[derive(Debug, Default)]
pub(super) struct Successions {
    /// A main process that was, of which the number is in use: the one that is, or was the last one.
    heirs: Map<Pid, Pid>,
    /// Who has ended without being our child, and who has its place again: that may be about to end without having waited
    /// for it, and then it becomes our child.
    returned: Map<Pid, Pid>,
    /// How those have ended that did; by who has their place.
    ends: Map<Pid, ExitStatus>,
    /// Stand for main processes that may not be our children.
    watched: Map<Pid, OwnedFd>,
}

impl Successions {
    /// The main process in place of `pid`, which was one.
    pub(super) fn of(&self, pid: Pid) -> Option<Pid> {
        self.heirs.get(&pid).copied()
    }

    /// Those whose place `main` has taken, as far as anything is left of them.
    pub(super) fn before(&self, main: Pid) -> impl Iterator<Item = Pid> + '_ {
        self.heirs.iter().filter(move |(_, heir)| **heir == main).map(|(before, _)| *before)
    }

    /// `successor` takes the place of `main`, and is watched if that can be.
    pub(super) fn add(&mut self, main: Pid, successor: Pid, probe: &PidLiveness, poller: &Poller) {
        self.heirs.values_mut().filter(|heir| **heir == main).for_each(|heir| *heir = successor);
        self.heirs.insert(main, successor);
        self.heirs.remove(&successor);
        self.prune(probe);
        if let Ok(holder) = kill::pidfd_open(successor)
            && poller.add(&holder, Token::MainPidExited(successor)).is_ok()
        {
            self.watched.insert(successor, holder);
        }
    }

    /// `before` has the place of `main` again, which has ended.
    pub(super) fn give_back(&mut self, main: Pid, before: Pid) {
        self.returned.insert(main, before);
    }

    /// Those who may still become our children, of whom `main` has the place.
    pub(super) fn unknown_ends(&self, main: Pid) -> impl Iterator<Item = Pid> + '_ {
        self.returned.iter().filter(move |(_, heir)| **heir == main).map(|(ended, _)| *ended)
    }

    /// `pid`, no main process any more, has ended like this: so its end is known after all, if it was not.
    pub(super) fn on_reaped(&mut self, pid: Pid, status: ExitStatus) {
        if let Some(main) = self.returned.remove(&pid) {
            self.ends.insert(main, status);
        }
    }

    /// How the one has ended that `main` had given its place to, if it is `main` that did not wait for it.
    pub(super) fn take_end(&mut self, main: Pid) -> Option<ExitStatus> {
        self.returned.retain(|_, heir| *heir != main);
        self.ends.remove(&main)
    }

    /// The number is another's now, whoever had it.
    pub(super) fn on_started(&mut self, pid: Pid) {
        self.heirs.remove(&pid);
        self.returned.remove(&pid);
    }

    pub(super) fn stop_watching(&mut self, main: Pid, poller: &Poller) {
        if let Some(holder) = self.watched.remove(&main) {
            poller.remove(&holder).ok();
        }
    }

    /// Forgets those of whom nothing is left.
    pub(super) fn prune(&mut self, probe: &PidLiveness) {
        self.heirs.retain(|before, _| probe.is_in_use(*before));
    }

    /// Nothing is left of `main` and of all before it.
    pub(super) fn forget(&mut self, main: Pid) {
        self.heirs.retain(|_, heir| *heir != main);
    }
}
