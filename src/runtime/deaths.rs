//! The exit of a process: it is reaped, its run ends or lingers.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::foreground;
use super::processes::Processes;
use super::rate_limited_log::{self, MessageKind};
use super::runs::Membership;
use crate::model::plan::Input;
use crate::model::{ExitStatus, Pid, RunId, Signal};
use crate::supervisor::{Event, Exit, Leftovers};
use crate::sys::datagram::Sender;
use crate::sys::wait::{self, WaitOptions};
use crate::sys::{ChildEvent, Poller, kill, pidfd, process};

/// The exit code of a main process that is not a child of keepalive: only its parent knows the real one.
const UNKNOWN_EXIT: ExitStatus = ExitStatus::Code(u8::MAX);

/// A reaped process that was no main process.
#[derive(Debug)]
pub(super) enum Reaped {
    /// A process of no run.
    Orphan,
    /// A former main process, with the event that follows for its run.
    Former(Option<Event>),
}

impl Processes {
    /// The main process of a run has exited and has not been reaped: until then its pid and process group id cannot be
    /// reused.
    pub(super) fn reap_main(&mut self, run: RunId, poller: &Poller) -> Vec<Event> {
        let executed = self.poll_exec_result(run, poller);
        let exited = self.reap_and_conclude(run, poller);
        executed.into_iter().chain(exited).collect()
    }

    fn reap_and_conclude(&mut self, run: RunId, poller: &Poller) -> Option<Event> {
        self.reap_adopted(run);
        let ended = wait::reap(self.runs.get(run)?.pid).ok()?;
        self.on_reaped(run, ended.pid, poller);
        if let Some(run) = self.runs.get_mut(run) {
            run.on_main_reaped();
        }
        self.conclude(run, ended.status, poller)
    }

    /// Reaps a process that is not a main process, or not any more.
    pub(super) fn reap_other(&mut self, pid: Pid, poller: &Poller) -> Reaped {
        let former = self.runs.of_pid(pid).map(|run| run.id);
        let reaped = wait::reap(pid);
        self.strays.on_reaped(pid);
        let Some(run) = former else {
            if let Some(run) = self.runs.on_stray_reaped(pid) {
                self.search(run);
            }
            return Reaped::Orphan;
        };
        let Ok(ended) = reaped else { return Reaped::Former(None) };
        self.on_reaped(run, pid, poller);
        self.runs.on_superseded_reaped(run, pid, ended.status);
        let Some(of) = self.runs.get(run) else { return Reaped::Former(None) };
        // A main process that does not exist has been reaped by the former one, its parent.
        let is_gone = !kill::exists(of.pid);
        Reaped::Former(is_gone.then(|| self.conclude(run, ended.status, poller)).flatten())
    }

    /// Reaps former main processes that have become children of keepalive: their status is that of the run.
    fn reap_adopted(&mut self, run: RunId) {
        let adoptable = self.runs.get(run).map(|run| run.adoptable()).unwrap_or_default();
        for pid in adoptable {
            if self.runs.of_main(pid).is_none()
                && wait::peek_at(pid, WaitOptions::ExitsOnly) == Ok(ChildEvent::Dead(pid))
                && let Ok(ended) = wait::reap(pid)
            {
                self.runs.on_superseded_reaped(run, pid, ended.status);
            }
        }
    }

    /// The main process has exited and has been reaped. Returns the event if it need not be held back.
    fn conclude(&mut self, run: RunId, status: ExitStatus, poller: &Poller) -> Option<Event> {
        let of = self.runs.get_mut(run)?;
        of.unwatch(poller);
        let is_killed = of.is_killed || self.sweeping == Some(Signal::KILL);
        let (status, definition) = (of.exit_status(status), std::rc::Rc::clone(&of.spec.definition));
        if definition.process.input == Input::Terminal {
            foreground::on_ended(of.pid);
        }
        let is_killed_by_others = status == ExitStatus::Signal(Signal::KILL) && !is_killed;
        let exit = Exit { status, oom_killed: is_killed_by_others && self.oom.attribute(self.now) };
        if self.sweeping == Some(Signal::KILL) {
            self.runs.remove(run);
            return Some(Event::Exited { run, exit, leftovers: Leftovers::None });
        }
        self.runs.linger(run);
        self.hold_back(run, exit);
        None
    }

    /// The terminal has stopped a child. Returns whether keepalive was suspended with it and continued.
    pub(super) fn on_stopped(&self, pid: Pid, signal: Signal) -> bool {
        wait::consume_stop(pid);
        let run = self.runs.of_main(pid);
        let has_terminal = run.is_some_and(|run| run.spec.definition.process.input == Input::Terminal);
        has_terminal && foreground::on_stopped(pid, signal)
    }

    /// Makes `pid` the main process of the run, as `sender` says. `None` if it is not a process of the run, or is a main
    /// process of another run.
    pub(super) fn change_main_pid(
        &mut self,
        run: RunId,
        pid: Pid,
        sender: Option<Sender>,
        poller: &Poller,
    ) -> Option<Vec<Event>> {
        // EINVAL, or ENOENT in later kernels: the id is that of a thread.
        let pidfd = kill::pidfd_open(pid);
        let is_alive = match &pidfd {
            Ok(pidfd) => !pidfd::has_exited(pidfd),
            Err(Errno::EINVAL | Errno::ENOENT) => false,
            Err(_) => kill::exists(pid),
        };
        let belongs = match self.runs.membership(pid) {
            Membership::Run(owner) => owner == run,
            Membership::None => false,
            // The sender may send for the run.
            Membership::Unknown => {
                sender.is_some_and(|sender| sender.pid == Some(pid) || is_orphan_within_reach(pid, sender.uid))
            }
        };
        let is_taken = self.runs.of_pid(pid).is_some_and(|other| other.id != run);
        let sender = sender.and_then(|sender| sender.pid);
        let is_allowed = is_alive && belongs && !is_taken && self.has_executed(run, sender, poller);
        is_allowed.then(|| self.replace_main(run, pid, pidfd.ok(), poller))
    }

    /// `pidfd`: that of `pid`, to notice its exit.
    fn replace_main(&mut self, run: RunId, pid: Pid, pidfd: Option<OwnedFd>, poller: &Poller) -> Vec<Event> {
        let mut events: Vec<Event> = self.poll_exec_result(run, poller).into_iter().collect();
        if let Some(of) = self.runs.get(run) {
            let (before, service) = (of.pid, of.spec.instance.service);
            let message = format_args!("main pid changed from {before} to {pid}");
            rate_limited_log::info(MessageKind::MainPidChanged, Some(service), message);
        }
        self.runs.change_main_pid(run, pid, pidfd, &self.liveness, poller);
        events.push(Event::MainPidChanged { run, pid });
        events
    }

    /// A main process that was set by `MAINPID` has exited. If it is a child of keepalive, the reaper finds it. If not, only
    /// its parent gets its status, and the former main process becomes the main process again.
    pub(super) fn on_main_pid_exited(&mut self, run: RunId, poller: &Poller) -> Vec<Event> {
        let Some(of) = self.runs.get_mut(run) else { return Vec::new() };
        of.unwatch(poller);
        let pid = of.pid;
        let is_child = |pid: Pid| wait::peek_at(pid, WaitOptions::ExitsOnly) != Ok(ChildEvent::NoChildren);
        let is_ours = |pid: &Pid| wait::peek_at(*pid, WaitOptions::ExitsOnly) == Ok(ChildEvent::Nothing);
        // Look for the former main process first: if the parent exits in between, `pid` becomes a child of keepalive.
        let former = of.superseded().find(is_ours);
        // If the pid belongs to another run now, the process has been reaped.
        let is_unreaped = self.runs.of_main(pid).is_some_and(|main| main.id == run) && kill::exists(pid);
        if is_unreaped && is_child(pid) {
            self.schedule.request(Some(pid));
            return Vec::new();
        }
        match former {
            Some(former) => {
                let events = self.replace_main(run, former, kill::pidfd_open(former).ok(), poller);
                if is_unreaped && let Some(run) = self.runs.get_mut(run) {
                    run.expect_adoption(pid);
                }
                events
            }
            None => {
                log::warn!("pid {pid} ended with an unknown exit status: it is not a child of keepalive");
                self.conclude(run, UNKNOWN_EXIT, poller).into_iter().collect()
            }
        }
    }
}

/// Whether a process is an orphan that `user` may signal: a child of keepalive, but no helper, which has its session.
fn is_orphan_within_reach(pid: Pid, user: u32) -> bool {
    let is_child = matches!(wait::peek_at(pid, WaitOptions::ExitsOnly), Ok(child) if child != ChildEvent::NoChildren);
    let [session, _] = pidfd::session_and_group_of(pid);
    let [own_session, _] = pidfd::session_and_group_of(process::id());
    is_child && session != own_session && (user == 0 || pidfd::belongs_to(pid, user) == Ok(true))
}
