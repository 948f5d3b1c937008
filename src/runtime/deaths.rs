//! The ends of processes: found, reaped, told.

use super::children::Child;
use super::{Runtime, foreground};
use crate::model::plan::{Input, KillMode};
use crate::model::{ExitStatus, InstanceId, Pid, Signal};
use crate::supervisor::{Event, Exit, Leftovers};
use crate::sys::wait::WaitOptions;
use crate::sys::{ChildEvent, kill, procfs, wait};

/// So many dead children are reaped before everything else is looked at.
const DEATHS_PER_TURN: u32 = 256;
/// What services say stays with the kernel while more actions than this wait for each instance, even what they said last.
const LAST_WORDS_BACKLOG: usize = 64;

impl Runtime {
    pub(super) fn reap(&mut self) {
        if let Some(pid) = self.search.take_named() {
            match wait::peek_at(pid, self.stops) {
                Ok(ChildEvent::Dead(pid)) => self.on_dead(pid),
                Ok(ChildEvent::Stopped(pid, signal)) => self.on_stopped(pid, signal),
                Ok(ChildEvent::Nothing | ChildEvent::NoChildren) | Err(_) => {}
            }
        }
        if !self.search.is_due(self.children.count(), self.now) {
            return;
        }
        for _ in 0..DEATHS_PER_TURN {
            match wait::peek(self.stops) {
                Ok(ChildEvent::Dead(pid)) => {
                    self.search.found();
                    self.on_dead(pid);
                }
                Ok(ChildEvent::Stopped(pid, signal)) => self.on_stopped(pid, signal),
                Ok(ChildEvent::NoChildren) => {
                    self.search.done(self.now);
                    self.look_at_uncleared();
                    return self.happened(Event::Childless);
                }
                Ok(ChildEvent::Nothing) | Err(_) => {
                    self.search.done(self.now);
                    self.sweep_again();
                    return self.look_at_uncleared();
                }
            }
        }
    }

    /// Not reaped yet: until it is, its id and the group that it led cannot become another's.
    fn on_dead(&mut self, pid: Pid) {
        if self.has_backlog_below(LAST_WORDS_BACKLOG) {
            // By its id it is found whose last words they are.
            self.read_notifications();
        }
        let Some(child) = self.children.get(pid).cloned() else { return self.on_other_dead(pid) };
        for ended in self.children.successions().unknown_ends(pid).collect::<Vec<_>>() {
            let is_other = self.children.get(ended).is_none();
            if is_other && wait::peek_at(ended, WaitOptions::ExitsOnly) == Ok(ChildEvent::Dead(ended)) {
                self.on_other_dead(ended);
            }
        }
        self.poll_exec_result(pid);
        self.forget_start(pid);
        self.kill_groups(pid, &child);
        let Ok(ended) = wait::reap(pid) else { return };
        self.conclude(pid, &child, ended.status);
    }

    /// No main process, or none any more.
    fn on_other_dead(&mut self, pid: Pid) {
        if self.on_reader_dead(pid) || self.on_helper_dead(pid) || self.close_queue.on_dead(pid) {
            return;
        }
        let successor = self.children.successions().of(pid);
        if successor.is_none() {
            self.counts.orphans += 1;
            log::debug!("reaped orphaned process {pid}, {} in total", self.counts.orphans);
        }
        let Ok(ended) = wait::reap(pid) else { return };
        self.children.successions_mut().on_reaped(pid, ended.status);
        if let Some(successor) = successor
            && let Some(child) = self.children.get(successor).cloned()
            && procfs::stat(successor).is_none()
        {
            // It was reaped by the one whose place it had taken.
            self.conclude(successor, &child, ended.status);
        }
    }

    /// What a main process that has ended leaves in its group, and in those of the ones before it.
    fn kill_groups(&mut self, pid: Pid, child: &Child) {
        if child.definition.stop.kill_mode != KillMode::Mixed {
            return;
        }
        kill::signal_group(pid.led_group(), Signal::KILL).ok();
        for before in self.children.successions().before(pid) {
            kill::signal_group(before.led_group(), Signal::KILL).ok();
        }
    }

    /// A main process has ended and has been reaped.
    pub(super) fn conclude(&mut self, pid: Pid, child: &Child, status: ExitStatus) {
        self.children.remove(pid);
        self.probes.forget(pid, &self.poller);
        self.channels.on_ended(pid, &self.poller);
        let status = self.children.successions_mut().take_end(pid).unwrap_or(status);
        self.release();
        self.children.successions_mut().stop_watching(pid, &self.poller);
        self.logging.on_ended(child.instance);
        if child.definition.uses_notify_socket() {
            self.take_leave(pid, child.instance.slot());
        }
        if child.definition.process.input == Input::Terminal {
            foreground::on_ended(pid);
        }
        let left = self.what_is_left(pid, child);
        let killed = status == ExitStatus::Signal(Signal::KILL);
        let exit = Exit { status, oom_killed: killed && self.oom.has_risen() };
        self.happened(Event::Exited { pid, exit, left });
    }

    /// What is known of an instance goes with the last process of one that is not to be any more.
    fn take_leave(&mut self, pid: Pid, id: InstanceId) {
        self.notify.on_ended(id, pid);
        let service = self.supervisor.view().services().nth(id.service.position());
        if service.is_none_or(|service| id.number >= service.wanted) {
            self.notify.forget(id);
        }
    }

    fn what_is_left(&mut self, pid: Pid, child: &Child) -> Leftovers {
        if child.definition.stop.kill_mode == KillMode::Process {
            self.children.successions_mut().forget(pid);
            return Leftovers::None;
        }
        self.children.successions_mut().prune(&self.probe);
        if !self.is_in_use(pid) {
            return Leftovers::None;
        }
        self.uncleared.push(pid);
        Leftovers::Some
    }

    /// Whether anything is left of this main process, or of those before it.
    fn is_in_use(&self, pid: Pid) -> bool {
        self.probe.is_in_use(pid) || self.children.successions().before(pid).next().is_some()
    }

    fn look_at_uncleared(&mut self) {
        self.children.successions_mut().prune(&self.probe);
        let (left, cleared) = std::mem::take(&mut self.uncleared).into_iter().partition(|pid| self.is_in_use(*pid));
        self.uncleared = left;
        let cleared: Vec<Pid> = cleared;
        for pid in cleared {
            self.happened(Event::Cleared { pid });
        }
    }

    /// The terminal has stopped the main process of the service that has it.
    fn on_stopped(&mut self, pid: Pid, signal: Signal) {
        wait::consume_stop(pid);
        if self.children.get(pid).is_some_and(|child| child.definition.process.input == Input::Terminal) {
            self.suspended = foreground::on_stopped(pid, signal);
        }
    }
}
