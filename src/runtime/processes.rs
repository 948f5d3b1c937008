//! The processes of services, from their creation until they have been reaped.
//!
//! [`Runs`] knows which process belongs to which run, [`ProcessFactory`] creates processes. `kills` sends signals, `deaths`
//! handles exits.

use nix::errno::Errno;

use super::oom::OomCounter;
use super::order::Order;
use super::process_factory::ProcessFactory;
use super::reap_scheduler::ReapScheduler;
use super::runs::{RunSpec, Runs};
use super::strays::Strays;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::{InstanceId, Mono, Pid, RunId, Signal};
use crate::supervisor::Event;
use crate::sys::wait::{self, WaitOptions};
use crate::sys::{ChildEvent, ExecResult, PendingExec, PidLiveness, Poller};

/// The processes of all services.
pub(super) struct Processes {
    pub(super) runs: Runs,
    pub(super) factory: ProcessFactory,
    pub(super) liveness: PidLiveness,
    pub(super) schedule: ReapScheduler,
    pub(super) oom: OomCounter,
    /// The start of the turn.
    pub(super) now: Mono,
    wait_options: WaitOptions,
    /// The signal that was sent to all processes. SIGKILL is repeated for processes that are forked later.
    pub(super) sweeping: Option<Signal>,
    /// Signals that an inspector sends.
    pub(super) orders: Vec<Order>,
    pub(super) strays: Strays,
    /// The tokens that are ready in this turn.
    ready: Vec<Token>,
}

impl Subsystem for Processes {
    type Needs<'a> = ();

    /// When the next scan of all children is due, or the OOM counter must be watched again.
    fn due(&self) -> Option<Mono> {
        [self.schedule.due(self.runs.len()), self.oom.due(), self.strays.due()].into_iter().flatten().min()
    }

    fn on_ready(&mut self, token: Token) {
        self.ready.push(token);
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        let mut events = Vec::new();
        self.now = context.now;
        for token in std::mem::take(&mut self.ready) {
            if let Token::ExecResult(run) = token {
                events.extend(self.poll_exec_result(run, context.poller));
            } else if token == Token::HelperExecResult {
                self.factory.poll_helpers(context.poller);
            } else if let Token::MainPidExited(run) = token {
                events.extend(self.on_main_pid_exited(run, context.poller));
            } else if token == Token::OomCounter {
                self.oom.on_changed(context.now, context.poller);
            }
        }
        self.oom.watch(context.now, context.poller);
        events
    }
}

impl Processes {
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(super) fn new(factory: ProcessFactory, wait_options: WaitOptions) -> Result<Self, Errno> {
        Ok(Self {
            runs: Runs::default(),
            factory,
            liveness: PidLiveness::new()?,
            schedule: ReapScheduler::new(),
            oom: OomCounter::new(),
            now: Mono::default(),
            wait_options,
            sweeping: None,
            orders: Vec::new(),
            strays: Strays::default(),
            ready: Vec::new(),
        })
    }

    /// A process has been created.
    pub(super) fn on_made(&mut self, run: RunId, spec: RunSpec, pid: Pid) -> Option<Event> {
        let ended = self.runs.insert(run, spec, pid, &self.liveness);
        ended.map(|run| Event::LeftoversGone { run })
    }

    /// Waits for the result of the execve of a run.
    pub(super) fn watch_exec(&mut self, run: RunId, pending: PendingExec, poller: &Poller) -> Option<Event> {
        let is_watched = pending.pipe().is_some_and(|pipe| poller.add(pipe, Token::ExecResult(run)).is_ok());
        self.runs.get_mut(run)?.exec = Some(pending);
        // Without a watch the result is never reported. If the execve fails, the process exits anyway.
        (!is_watched).then_some(Event::Executed { run })
    }

    /// Reads the result of the execve of a run, if it is pending.
    pub(super) fn poll_exec_result(&mut self, run: RunId, poller: &Poller) -> Option<Event> {
        let pending = self.runs.get_mut(run)?.exec.as_mut()?;
        match pending.poll()? {
            ExecResult::Executed => {
                self.end_exec(run, poller);
                Some(Event::Executed { run })
            }
            ExecResult::Failed(failure) => {
                // The child needs its memory until it has exited.
                pending.pipe().map(|pipe| poller.remove(pipe));
                Some(Event::ExecFailed { run, failure })
            }
        }
    }

    /// A main process of a run, or a former one, has been reaped.
    pub(super) fn on_reaped(&mut self, run: RunId, pid: Pid, poller: &Poller) {
        if let Some(pending) = self.runs.get_mut(run).and_then(|run| run.exec.as_mut())
            && pending.pid() == pid
        {
            pending.on_reaped();
            self.end_exec(run, poller);
        }
    }

    /// Whether `sender` may change the main process of a run: not before the first one has executed its program, which is
    /// the case if it is the sender.
    pub(super) fn has_executed(&mut self, run: RunId, sender: Option<Pid>, poller: &Poller) -> bool {
        let Some(pending) = self.runs.get_mut(run).and_then(|run| run.exec.as_mut()) else { return true };
        if sender != Some(pending.pid()) {
            return false;
        }
        pending.on_executed();
        self.end_exec(run, poller);
        true
    }

    fn end_exec(&mut self, run: RunId, poller: &Poller) {
        if let Some(pending) = self.runs.get_mut(run).and_then(|run| run.exec.take()) {
            // If a child has it open, closing it would not remove it from the epoll set.
            pending.pipe().map(|pipe| poller.remove(pipe));
            self.factory.reclaim(pending);
        }
    }

    /// Whether processes may exist that belong to this instance. Leftover processes of any instance count.
    pub(super) fn has_processes_of(&self, instance: InstanceId) -> bool {
        self.runs.all_lingering().next().is_some() || self.runs.living().any(|run| run.spec.instance == instance)
    }

    /// Looks at the child that SIGCHLD has named, without reaping it.
    pub(super) fn peek_named(&mut self) -> Option<ChildEvent> {
        let pid = self.schedule.take_named()?;
        wait::peek_at(pid, self.wait_options).ok()
    }

    /// Whether the next scan of all children is due now.
    pub(super) fn is_scan_due(&self, now: Mono) -> bool {
        self.schedule.is_due(self.runs.len(), now)
    }

    /// Looks for a child that has exited or has been stopped, without reaping it. [`ChildEvent::Nothing`] and
    /// [`ChildEvent::NoChildren`] end the scan.
    pub(super) fn peek(&mut self, now: Mono) -> ChildEvent {
        let event = wait::peek(self.wait_options).unwrap_or(ChildEvent::Nothing);
        match event {
            ChildEvent::Dead(_) => self.schedule.on_found(),
            ChildEvent::Nothing | ChildEvent::NoChildren => self.schedule.on_scan_done(now),
            ChildEvent::Stopped(..) => {}
        }
        event
    }

    /// Whether a process has not executed its program yet.
    pub(super) fn is_starting(&self) -> bool {
        self.runs.living().any(|run| run.exec.is_some())
    }

    /// Whether an inspector is to send signals.
    pub(super) const fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Whether an inspector is to look for strays, or it is not known yet whether that is necessary. `has_messages` as in
    /// [`Self::settle_exits`].
    pub(super) fn has_unsettled_exits(&self, has_messages: impl Fn(RunId) -> bool) -> bool {
        !self.strays.wanted.is_empty() || !self.strays.delayed.iter().all(|(run, _)| has_messages(*run))
    }

    /// Removes the runs whose leftover processes are gone.
    pub(super) fn take_ended(&mut self) -> Vec<Event> {
        for run in self.runs.take_left(&self.liveness) {
            self.search(run);
        }
        self.runs.take_ended(&self.liveness).into_iter().map(|run| Event::LeftoversGone { run }).collect()
    }
}
