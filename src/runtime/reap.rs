//! What becomes of processes that have ended or were stopped.

use super::children::Child;
use super::{DEATHS_PER_TURN, Runtime, foreground};
use crate::model::plan::{Input, KillMode};
use crate::model::{ExitStatus, Pid, Signal};
use crate::supervisor::{Event, Exit, Left};
use crate::sys::{Found, kill, wait};

impl Runtime {
    pub(super) fn reap(&mut self) {
        if let Some(pid) = self.search.take_named() {
            match wait::peek_at(pid, self.stops) {
                Ok(Found::Dead(pid)) => self.on_dead(pid),
                Ok(Found::Stopped(pid, signal)) => self.on_stopped(pid, signal),
                Ok(Found::Nothing | Found::NoChildren) | Err(_) => {}
            }
        }
        if !self.search.is_due(self.children.count(), self.now) {
            return;
        }
        for _ in 0..DEATHS_PER_TURN {
            match wait::peek(self.stops) {
                Ok(Found::Dead(pid)) => {
                    self.search.found();
                    self.on_dead(pid);
                }
                Ok(Found::Stopped(pid, signal)) => self.on_stopped(pid, signal),
                Ok(Found::NoChildren) => {
                    self.search.done(self.now);
                    self.look_at_uncleared();
                    return self.happened(Event::Childless);
                }
                Ok(Found::Nothing) | Err(_) => {
                    self.search.done(self.now);
                    self.sweep_again();
                    return self.look_at_uncleared();
                }
            }
        }
    }

    /// Not reaped yet: until it is, its id and the group that it led cannot become another's.
    fn on_dead(&mut self, pid: Pid) {
        let Some(child) = self.children.get(pid).cloned() else {
            if self.on_helper_dead(pid) {
                return;
            }
            self.counts.orphans += 1;
            log::debug!("reaped pid {pid}, {} so far that no service had started", self.counts.orphans);
            wait::reap(pid).ok();
            return;
        };
        self.look_at_start(pid);
        self.forget_start(pid);
        if child.definition.stop.kill_mode == KillMode::Mixed {
            kill::signal_group(pid.led_group(), Signal::KILL).ok();
        }
        let Ok(ended) = wait::reap(pid) else { return };
        self.children.remove(pid);
        self.probes.forget(pid, &self.poller);
        self.channels.on_ended(pid, &self.poller);
        self.sockets.release(&self.plan, || self.children.living());
        self.logging.on_ended(child.instance);
        if child.definition.process.input == Input::Terminal {
            foreground::on_ended(pid);
        }
        let left = self.what_is_left(pid, &child);
        let killed = ended.status == ExitStatus::Signal(Signal::KILL);
        let exit = Exit { status: ended.status, oom_killed: killed && self.oom.has_risen() };
        self.happened(Event::Exited { pid, exit, left });
    }

    fn what_is_left(&mut self, pid: Pid, child: &Child) -> Left {
        if child.definition.stop.kill_mode == KillMode::Process || !self.probe.is_in_use(pid) {
            return Left::Nothing;
        }
        self.uncleared.push(pid);
        Left::Processes
    }

    fn look_at_uncleared(&mut self) {
        let probe = &self.probe;
        for pid in self.uncleared.extract_if(.., |pid| !probe.is_in_use(*pid)).collect::<Vec<_>>() {
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
