//! The runs, from the creation of the main process until its leftover processes are gone.
//!
//! All other code names a run by its [`RunId`]. Only this file maps pids to runs, so that `MAINPID` and the reuse of pids do
//! not concern other code.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::token::Token;
use crate::model::map::Map;
use crate::model::plan::{Hook, Service};
use crate::model::{ExitStatus, InstanceId, Numbers, Pid, RunId, Signal, Template};
use crate::sys::{self, PendingExec, PidLiveness, Poller, kill, pidfd, process};

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Map<RunId, Run>,
    /// The run of each main process, current or former, while its pid is in use.
    by_pid: Map<Pid, RunId>,
}

/// What a run is started from.
#[derive(Clone, Debug)]
pub(super) struct RunSpec {
    pub(super) instance: InstanceId,
    /// It is this hook.
    pub(super) hook: Option<Hook>,
    /// How the main process has exited; for `post_stop`.
    pub(super) ended: Option<ExitStatus>,
    /// `KEEPALIVE_RESTARTS`: the number of restarts so far.
    pub(super) restarts: u32,
    /// `KEEPALIVE_INSTANCES`: how many instances the service should have.
    pub(super) instances: u32,
    /// When it was started, on the clock of files, see [`sys::file_time`].
    pub(super) started_at: Duration,
    pub(super) definition: Rc<Service>,
}

impl RunSpec {
    /// That of a run which is started now.
    pub(super) fn new(
        (instance, hook, ended): (InstanceId, Option<Hook>, Option<ExitStatus>),
        restarts: u32,
        instances: u32,
        definition: Rc<Service>,
    ) -> Self {
        Self { instance, hook, ended, restarts, instances, started_at: sys::file_time(), definition }
    }

    /// Program and arguments.
    pub(super) fn command(&self) -> &[Template] {
        command_of(&self.definition, self.hook)
    }

    pub(super) const fn numbers(&self) -> Numbers {
        Numbers { instance: self.instance.number, instances: self.instances }
    }
}

/// The command of a hook, or of the main process.
pub(super) fn command_of(service: &Service, hook: Option<Hook>) -> &[Template] {
    hook.map_or(&service.process.command, |hook| service.hooks.command(hook))
}

/// The run that a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Run(RunId),
    /// It belongs to no run, or is too far below a main process.
    None,
    /// It has left the session of its run, and its parents have exited, or it has exited itself, or the kernel does not tell.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) spec: RunSpec,
    /// The main process.
    pub(super) pid: Pid,
    identity: Identity,
    /// keepalive has sent SIGKILL to the main process.
    pub(super) is_killed: bool,
    /// The main process has been reaped, and leftover processes remain.
    is_lingering: bool,
    /// Former main processes, while their groups or sessions are in use.
    superseded: Vec<Superseded>,
    /// Children of keepalive that the run has left outside of its sessions and groups.
    strays: Vec<Pid>,
    /// How many more searches may follow because a child had exited meanwhile.
    retries: u8,
    /// How many searches for strays are under way: until there is an answer, there may be some.
    searches: usize,
    /// There were processes in its sessions and groups when it was searched, which may have left since: another search
    /// follows when they are gone.
    may_have_left: bool,
    /// The last signal to its leftover processes.
    pub(super) sent: Option<Signal>,
    /// The exit status of a later main process, after a former one has become the main process again; see
    /// [`Superseded::may_be_adopted`].
    status: Option<ExitStatus>,
    /// The execve of the main process, until it has succeeded or the process has been reaped.
    pub(super) exec: Option<PendingExec>,
}

/// A former main process.
#[derive(Debug)]
struct Superseded {
    pid: Pid,
    identity: Identity,
    /// It has exited, was not a child of keepalive, and its former main process is the main process again. If its parent exits
    /// without waiting for it, it becomes a child of keepalive.
    may_be_adopted: bool,
}

/// How to notice that the pid of a main process belongs to another process now. While the process group or session that it
/// has led has members, the pid is not reused.
#[derive(Debug)]
enum Identity {
    /// It is a child that has not been reaped: its pid cannot be reused.
    Child,
    /// It may not be a child: its parent can reap it at any time. Its pidfd, if the kernel has them.
    Reported(Option<OwnedFd>),
    /// It has been reaped: another process that has its pid is a new one.
    Reaped,
    /// Its pid has been reused.
    Reused,
}

/// A limit for searches for strays during which children exit, which other services can cause.
const MAX_RETRIES: u8 = 10;

/// A limit for the search through parents, which the sender of a message can make long.
const MAX_TREE_DEPTH: usize = 16;

impl Runs {
    /// Adds a run whose main process has been created. Returns a lingering run that has ended, because its pid was reused.
    pub(super) fn insert(&mut self, id: RunId, spec: RunSpec, pid: Pid, liveness: &PidLiveness) -> Option<RunId> {
        let ended = self.by_pid.get(&pid).copied().filter(|before| self.forget_pid(*before, pid, liveness));
        if let Some(ended) = ended {
            self.remove(ended);
        }
        self.by_pid.insert(pid, id);
        let run = Run {
            id,
            spec,
            pid,
            identity: Identity::Child,
            is_killed: false,
            is_lingering: false,
            superseded: Vec::new(),
            strays: Vec::new(),
            retries: MAX_RETRIES,
            searches: 0,
            may_have_left: false,
            sent: None,
            status: None,
            exec: None,
        };
        self.runs.insert(id, run);
        ended
    }

    /// The pid has been reused. Returns whether that ends `run`.
    fn forget_pid(&mut self, run: RunId, pid: Pid, liveness: &PidLiveness) -> bool {
        let Some(run) = self.runs.get_mut(&run) else { return false };
        run.superseded.retain(|superseded| superseded.pid != pid);
        if run.pid == pid {
            run.identity = Identity::Reused;
        }
        run.prune(liveness, &mut self.by_pid);
        run.is_lingering && !run.is_in_use(liveness)
    }

    /// Removes a run that has ended.
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

    /// A run whose main process has been reaped, with leftover processes.
    pub(super) fn lingering(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run).filter(|run| run.is_lingering)
    }

    /// As [`Self::lingering`], when a signal is about to be sent to its leftover processes.
    pub(super) fn on_leftovers_signalled(&mut self, run: RunId, signal: Signal) -> Option<&Run> {
        let run = self.runs.get_mut(&run).filter(|run| run.is_lingering)?;
        run.sent = Some(signal);
        Some(run)
    }

    /// All runs whose main process has not been reaped.
    pub(super) fn living(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(|run| !run.is_lingering)
    }

    /// All runs whose main process has been reaped.
    pub(super) fn all_lingering(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(|run| run.is_lingering)
    }

    /// The number of runs.
    pub(super) const fn len(&self) -> usize {
        self.runs.len()
    }

    /// The run of which `pid` is, or was, a main process.
    pub(super) fn of_pid(&self, pid: Pid) -> Option<&Run> {
        self.runs.get(self.by_pid.get(&pid)?).filter(|run| run.is_holder_of(pid))
    }

    /// The run of which `pid` is the main process, not reaped yet.
    pub(super) fn of_main(&self, pid: Pid) -> Option<&Run> {
        self.of_pid(pid).filter(|run| run.pid == pid && !run.is_lingering)
    }

    /// The runs, living or lingering, of which `pid` is a main process, or is in the session or the process group of one.
    pub(super) fn of_session(&self, pid: Pid) -> impl Iterator<Item = &Run> {
        let leaders = pidfd::session_and_group_of(pid).into_iter().flatten();
        std::iter::once(pid).chain(leaders).filter_map(|pid| self.of_pid(pid))
    }

    /// The run that `pid` belongs to, as a main process, by its session or process group, or as a descendant.
    pub(super) fn membership(&self, pid: Pid) -> Membership {
        let keepalive = process::id();
        let mut next = pid;
        for _ in 0..MAX_TREE_DEPTH {
            if let Some(run) = self.of_session(next).find(|run| !run.is_lingering) {
                return Membership::Run(run.id);
            }
            next = match pidfd::parent_of(next) {
                Ok(Some(parent)) if parent == keepalive => return Membership::Unknown,
                Ok(Some(parent)) => parent,
                Ok(None) => return Membership::None,
                Err(_) => return Membership::Unknown,
            };
        }
        Membership::None
    }

    /// A run, living or lingering.
    pub(super) fn of_id(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run)
    }

    /// The main process has been reaped: the run lingers while there are leftover processes, or may be strays.
    pub(super) fn linger(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.is_lingering = true;
        }
    }

    /// Strays of a run are searched for; [`Self::set_strays`] follows.
    pub(super) fn on_search(&mut self, run: RunId, liveness: &PidLiveness) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.prune(liveness, &mut self.by_pid);
            run.searches += 1;
            run.may_have_left |= run.has_members(liveness);
        }
    }

    /// Whether another search may follow one during which a child has exited.
    pub(super) fn may_search_again(&mut self, run: RunId) -> bool {
        let retries = self.runs.get_mut(&run).map(|run| &mut run.retries);
        retries.is_some_and(|retries| {
            let may = *retries > 0;
            *retries = retries.saturating_sub(1);
            may
        })
    }

    /// A search has found these strays of a lingering run.
    pub(super) fn set_strays(&mut self, run: RunId, strays: Vec<Pid>, liveness: &PidLiveness) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.prune(liveness, &mut self.by_pid);
            run.searches = run.searches.saturating_sub(1);
            run.strays = strays;
            run.may_have_left |= run.has_members(liveness);
        }
    }

    /// A child that was no main process has been reaped. Returns its run if it was the last known stray: it may have had
    /// children.
    pub(super) fn on_stray_reaped(&mut self, pid: Pid) -> Option<RunId> {
        let run = self.runs.values_mut().find(|run| run.strays.contains(&pid))?;
        run.strays.retain(|stray| *stray != pid);
        run.strays.is_empty().then_some(run.id)
    }

    /// Removes a lingering run if it has no leftover processes. Returns whether it is gone.
    pub(super) fn remove_if_ended(&mut self, run: RunId, liveness: &PidLiveness) -> bool {
        let is_in_use = self.runs.get_mut(&run).is_some_and(|run| {
            run.prune(liveness, &mut self.by_pid);
            run.is_in_use(liveness)
        });
        if !is_in_use {
            self.remove(run);
        }
        !is_in_use
    }

    /// The lingering runs whose last process in their sessions and groups is gone: it may have left them.
    pub(super) fn take_left(&mut self, liveness: &PidLiveness) -> Vec<RunId> {
        let mut left = Vec::new();
        for run in self.runs.values_mut().filter(|run| run.is_lingering && run.may_have_left) {
            run.prune(liveness, &mut self.by_pid);
            if !run.has_members(liveness) {
                run.may_have_left = false;
                left.push(run.id);
            }
        }
        left
    }

    /// Removes the lingering runs that have no leftover processes any more, and returns them.
    pub(super) fn take_ended(&mut self, liveness: &PidLiveness) -> Vec<RunId> {
        let mut lingering: Vec<RunId> = self.all_lingering().map(|run| run.id).collect();
        lingering.retain(|run| self.remove_if_ended(*run, liveness));
        lingering
    }

    /// A former main process of `run` has been reaped, which may be lingering.
    pub(super) fn on_superseded_reaped(&mut self, run: RunId, pid: Pid, status: ExitStatus) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.on_superseded_reaped(pid, status);
        }
    }

    /// Makes `pid` the main process of `run`, and watches it by its pidfd if there is one.
    pub(super) fn change_main_pid(
        &mut self,
        run: RunId,
        pid: Pid,
        pidfd: Option<OwnedFd>,
        liveness: &PidLiveness,
        poller: &Poller,
    ) {
        let Some(run) = self.runs.get_mut(&run) else { return };
        run.unwatch(poller);
        let known = run.superseded.iter().position(|superseded| superseded.pid == pid && !superseded.is_reused());
        let known = known.map(|position| run.superseded.remove(position).identity);
        let identity = match known {
            Some(identity @ (Identity::Child | Identity::Reaped | Identity::Reused)) => identity,
            Some(Identity::Reported(_)) | None => Identity::Reported(pidfd),
        };
        let identity = std::mem::replace(&mut run.identity, identity);
        run.superseded.retain(|superseded| superseded.pid != pid);
        run.superseded.push(Superseded { pid: run.pid, identity, may_be_adopted: false });
        run.pid = pid;
        self.by_pid.insert(pid, run.id);
        run.prune(liveness, &mut self.by_pid);
        if let Identity::Reported(Some(pidfd)) = &run.identity {
            poller.add(pidfd, Token::MainPidExited(run.id)).ok();
        }
    }
}

impl Run {
    /// Former main processes whose pids have not been reused.
    pub(super) fn superseded(&self) -> impl Iterator<Item = Pid> + '_ {
        let superseded = self.superseded.iter().filter(|superseded| !superseded.is_reused());
        superseded.map(|superseded| superseded.pid)
    }

    /// The main process, which has been reaped, and former ones: the leaders of the groups and sessions of leftover
    /// processes.
    pub(super) fn leaders(&self) -> impl Iterator<Item = Pid> + '_ {
        let main = Some(self.pid).filter(|_| !self.is_main_pid_reused());
        self.superseded().chain(main)
    }

    /// Children of keepalive that the run has left outside of its sessions and groups.
    pub(super) fn strays(&self) -> impl Iterator<Item = Pid> {
        self.strays.iter().copied()
    }

    /// Former main processes that may have become children of keepalive after their exit.
    pub(super) fn adoptable(&self) -> Vec<Pid> {
        let adoptable =
            self.superseded.iter().filter(|superseded| superseded.may_be_adopted && !superseded.is_reused());
        adoptable.map(|superseded| superseded.pid).collect()
    }

    /// The former main process `pid` has exited and may become a child of keepalive.
    pub(super) fn expect_adoption(&mut self, pid: Pid) {
        for superseded in self.superseded.iter_mut().filter(|superseded| superseded.pid == pid) {
            superseded.may_be_adopted = true;
        }
    }

    /// The main process has been reaped.
    pub(super) fn on_main_reaped(&mut self) {
        self.identity = Identity::Reaped;
    }

    /// A former main process has been reaped. Its status may be that of the run.
    fn on_superseded_reaped(&mut self, pid: Pid, status: ExitStatus) {
        for superseded in self.superseded.iter_mut().filter(|superseded| superseded.pid == pid) {
            superseded.identity = Identity::Reaped;
            if std::mem::take(&mut superseded.may_be_adopted) {
                self.status = Some(status);
            }
        }
    }

    /// The exit status of the run, whose main process has exited with `status`.
    pub(super) fn exit_status(&self, status: ExitStatus) -> ExitStatus {
        self.status.unwrap_or(status)
    }

    /// Stops watching the main process.
    pub(super) fn unwatch(&mut self, poller: &Poller) {
        if let Identity::Reported(Some(pidfd)) = &self.identity {
            poller.remove(pidfd).ok();
        }
    }

    /// Whether `pid`, which is or was a main process of this run, has not been reused.
    fn is_holder_of(&self, pid: Pid) -> bool {
        match self.superseded.iter().find(|superseded| superseded.pid == pid) {
            Some(superseded) => !superseded.is_reused(),
            None => !self.is_main_pid_reused(),
        }
    }

    fn is_main_pid_reused(&self) -> bool {
        self.identity.is_reused(self.pid)
    }

    /// Removes former main processes whose pids are not in use, or have been reused.
    fn prune(&mut self, liveness: &PidLiveness, by_pid: &mut Map<Pid, RunId>) {
        let id = self.id;
        self.superseded.retain(|superseded| {
            let is_in_use = liveness.is_in_use(superseded.pid) && !superseded.is_reused();
            if !is_in_use && by_pid.get(&superseded.pid) == Some(&id) {
                by_pid.remove(&superseded.pid);
            }
            is_in_use
        });
    }

    /// Whether there are leftover processes. Call [`Self::prune`] first.
    fn is_in_use(&self, liveness: &PidLiveness) -> bool {
        self.searches > 0 || self.may_have_left || !self.strays.is_empty() || self.has_members(liveness)
    }

    /// Whether there are processes in its sessions and groups. Call [`Self::prune`] first.
    fn has_members(&self, liveness: &PidLiveness) -> bool {
        !self.superseded.is_empty() || (liveness.is_in_use(self.pid) && !self.is_main_pid_reused())
    }
}

impl Superseded {
    fn is_reused(&self) -> bool {
        self.identity.is_reused(self.pid)
    }
}

impl Identity {
    fn is_reused(&self, pid: Pid) -> bool {
        match self {
            Self::Child | Self::Reported(None) => false,
            // While it is a zombie, its pid is not reused.
            Self::Reported(Some(pidfd)) => kill::is_reaped(pidfd) && kill::exists(pid),
            Self::Reaped => kill::exists(pid),
            Self::Reused => true,
        }
    }
}
