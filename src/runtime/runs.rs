//! The runs: what is known of each from the moment that it has a process until nothing of it is left.
//!
//! Everything else in this room names a run by its [`RunId`]. Here alone a pid leads to a run, so that neither `MAINPID`
//! nor a pid that is used again concerns anybody else.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::token::Token;
use crate::model::map::Map;
use crate::model::plan::Service;
use crate::model::{ExitStatus, InstanceId, Pid, RunId};
use crate::sys::{PidLiveness, Poller, kill, procfs};

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Map<RunId, Run>,
    /// The run of each main process, also of those that were superseded or have been reaped, while their number is in use.
    by_pid: Map<Pid, RunId>,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct RunSpec {
    pub(super) instance: InstanceId,
    /// How often the instance had been started again before: `KEEPALIVE_RESTARTS`.
    pub(super) restarts: u32,
    pub(super) definition: Rc<Service>,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) spec: RunSpec,
    /// The main process.
    pub(super) pid: Pid,
    /// The main process has been reaped; processes of its group or session are left.
    is_lingering: bool,
    /// Main processes before this one, while their groups or sessions are in use.
    superseded: Vec<Superseded>,
    /// How the main process has ended that gave its place back to this one.
    status: Option<ExitStatus>,
    /// The pidfd of a main process that may not be our child.
    pidfd: Option<OwnedFd>,
    /// The pipe by which the process reports whether it could execute its program, until it has.
    pub(super) exec_result: Option<OwnedFd>,
}

/// A former main process.
#[derive(Clone, Copy, Debug)]
struct Superseded {
    pid: Pid,
    /// It has ended without being our child and has given its place back. If its parent ends without having waited for it,
    /// it becomes our child.
    may_be_adopted: bool,
}

/// Deeper process trees do not occur; a circle, from ids that are reused meanwhile, ends here.
const MAX_TREE_DEPTH: usize = 64;

impl Runs {
    /// A process has been made for `id`. Gives back the run of which this proves that nothing is left: the number was
    /// given out again.
    pub(super) fn insert(&mut self, id: RunId, spec: RunSpec, pid: Pid) -> Option<RunId> {
        let ended = self.by_pid.get(&pid).copied().filter(|before| self.forget_pid(*before, pid));
        if let Some(ended) = ended {
            self.remove(ended);
        }
        self.by_pid.insert(pid, id);
        let run = Run {
            id,
            spec,
            pid,
            is_lingering: false,
            superseded: Vec::new(),
            status: None,
            pidfd: None,
            exec_result: None,
        };
        self.runs.insert(id, run);
        ended
    }

    /// The number is not this run's any more. Whether the run is over by that.
    fn forget_pid(&mut self, run: RunId, pid: Pid) -> bool {
        let Some(run) = self.runs.get_mut(&run) else { return false };
        run.superseded.retain(|superseded| superseded.pid != pid);
        run.is_lingering && run.pid == pid
    }

    /// Nothing of it is left.
    pub(super) fn remove(&mut self, run: RunId) {
        let Some(run) = self.runs.remove(&run) else { return };
        let pids = run.superseded.iter().map(|superseded| superseded.pid).chain([run.pid]);
        for pid in pids {
            if self.by_pid.get(&pid) == Some(&run.id) {
                self.by_pid.remove(&pid);
            }
        }
    }

    /// A run whose main process has not been reaped.
    pub(super) fn get(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run).filter(|run| !run.is_lingering)
    }

    /// As [`Self::get`].
    pub(super) fn get_mut(&mut self, run: RunId) -> Option<&mut Run> {
        self.runs.get_mut(&run).filter(|run| !run.is_lingering)
    }

    /// A run whose main process has been reaped and has left processes behind.
    pub(super) fn lingering(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run).filter(|run| run.is_lingering)
    }

    /// All whose main process has not been reaped.
    pub(super) fn living(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(|run| !run.is_lingering)
    }

    /// All whose main process has been reaped.
    pub(super) fn all_lingering(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(|run| run.is_lingering)
    }

    /// How many there are, at most.
    pub(super) const fn len(&self) -> usize {
        self.runs.len()
    }

    /// The run of which `pid` is, or was, a main process.
    pub(super) fn of_pid(&self, pid: Pid) -> Option<&Run> {
        self.runs.get(self.by_pid.get(&pid)?)
    }

    /// The run of which `pid` is the main process, not reaped yet.
    pub(super) fn of_main(&self, pid: Pid) -> Option<&Run> {
        self.of_pid(pid).filter(|run| run.pid == pid && !run.is_lingering)
    }

    /// The run that `pid` belongs to: it is a main process of it, is in the session of one, or descends from one.
    pub(super) fn owner_of(&self, pid: Pid) -> Option<&Run> {
        let living = |pid: Pid| self.of_pid(pid).filter(|run| !run.is_lingering);
        let mut next = pid;
        for _ in 0..MAX_TREE_DEPTH {
            if let Some(run) = living(next) {
                return Some(run);
            }
            let stat = procfs::stat(next)?;
            if let Some(run) = Pid::new(stat.session).and_then(living) {
                return Some(run);
            }
            next = Pid::new(stat.ppid)?;
        }
        None
    }

    /// The main process has been reaped. Whether processes are left of its group or session, or of one before it: then
    /// the run lingers, else it is removed.
    pub(super) fn linger_or_remove(&mut self, run: RunId, liveness: &PidLiveness) -> bool {
        let is_in_use = self.runs.get_mut(&run).is_some_and(|run| {
            run.is_lingering = true;
            run.prune(liveness, &mut self.by_pid);
            run.is_in_use(liveness)
        });
        if !is_in_use {
            self.remove(run);
        }
        is_in_use
    }

    /// Removes the runs of which nothing is left any more, and gives them back.
    pub(super) fn take_ended(&mut self, liveness: &PidLiveness) -> Vec<RunId> {
        let mut ended = Vec::new();
        for run in self.runs.values_mut().filter(|run| run.is_lingering) {
            run.prune(liveness, &mut self.by_pid);
            if !run.is_in_use(liveness) {
                ended.push(run.id);
            }
        }
        for run in &ended {
            self.remove(*run);
        }
        ended
    }

    /// `pid` is the main process of `run` from now on, and is watched if that is possible.
    pub(super) fn change_main_pid(&mut self, run: RunId, pid: Pid, liveness: &PidLiveness, poller: &Poller) {
        let Some(run) = self.runs.get_mut(&run) else { return };
        run.unwatch(poller);
        run.superseded.push(Superseded { pid: run.pid, may_be_adopted: false });
        run.superseded.retain(|superseded| superseded.pid != pid);
        run.pid = pid;
        self.by_pid.insert(pid, run.id);
        run.prune(liveness, &mut self.by_pid);
        if let Ok(pidfd) = kill::pidfd_open(pid)
            && poller.add(&pidfd, Token::MainPidExited(run.id)).is_ok()
        {
            run.pidfd = Some(pidfd);
        }
    }
}

impl Run {
    /// Former main processes, while their groups or sessions are in use.
    pub(super) fn superseded(&self) -> impl Iterator<Item = Pid> + '_ {
        self.superseded.iter().map(|superseded| superseded.pid)
    }

    /// Former main processes that may become our children when they have ended already.
    pub(super) fn adoptable(&self) -> Vec<Pid> {
        let adoptable = self.superseded.iter().filter(|superseded| superseded.may_be_adopted);
        adoptable.map(|superseded| superseded.pid).collect()
    }

    /// `pid`, which was superseded, has ended and its parent knows how.
    pub(super) fn expect_adoption(&mut self, pid: Pid) {
        for superseded in self.superseded.iter_mut().filter(|superseded| superseded.pid == pid) {
            superseded.may_be_adopted = true;
        }
    }

    /// A former main process has been reaped. If it had given its place back, this is how the run ends.
    pub(super) fn on_superseded_reaped(&mut self, pid: Pid, status: ExitStatus) {
        for superseded in self.superseded.iter_mut().filter(|superseded| superseded.pid == pid) {
            if std::mem::take(&mut superseded.may_be_adopted) {
                self.status = Some(status);
            }
        }
    }

    /// How the run has ended whose main process has ended with `status`.
    pub(super) fn exit_status(&self, status: ExitStatus) -> ExitStatus {
        self.status.unwrap_or(status)
    }

    /// Does not wait for the end of the main process any more.
    pub(super) fn unwatch(&mut self, poller: &Poller) {
        if let Some(pidfd) = self.pidfd.take() {
            poller.remove(&pidfd).ok();
        }
    }

    /// Forgets former main processes whose numbers are not in use.
    fn prune(&mut self, liveness: &PidLiveness, by_pid: &mut Map<Pid, RunId>) {
        let id = self.id;
        self.superseded.retain(|superseded| {
            let is_in_use = liveness.is_in_use(superseded.pid);
            if !is_in_use && by_pid.get(&superseded.pid) == Some(&id) {
                by_pid.remove(&superseded.pid);
            }
            is_in_use
        });
    }

    /// Whether anything is left of its main processes. Former ones have been pruned just before.
    fn is_in_use(&self, liveness: &PidLiveness) -> bool {
        !self.superseded.is_empty() || liveness.is_in_use(self.pid)
    }
}
