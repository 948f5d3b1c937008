//! The loop of init mode: wait for a signal, forward it, reap.

use std::time::Duration;

use nix::errno::Errno;

use super::event::Event;
use super::forward::{self, GracePeriod, TerminalOwner};
use super::linger;
use super::messages;
use super::options::Options;
use super::reap::MAX_REAPS_PER_SIGNAL;
use super::role::Role;
use crate::model::{ExitStatus, Pid, Signal};
use crate::sys::signals::{self, Origin, Received, SignalSet};
use crate::sys::terminal::TerminalLookup;
use crate::sys::wait::{self, ChildEvent, Ended, Reaped, WaitOptions};
use crate::sys::{self, PendingExec, memory, process};

/// A command that has been started.
pub(super) struct Started {
    pub(super) child: Pid,
    pub(super) exec: PendingExec,
    /// The name of the command.
    pub(super) program: String,
    /// The signals that were pending at that time. The child did not have the terminal before, so the terminal did not send
    /// them to the child.
    pub(super) received_before_start: SignalSet,
}

/// The result of reaping.
enum ReapResult {
    /// The command has exited.
    ChildExited(ExitStatus),
    /// No more children are dead.
    NoneDead,
    /// There may be more dead children.
    MaybeMore,
}

/// The state of the child for job control, as far as keepalive knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobState {
    /// The child is running.
    Running,
    /// The child has been stopped, and keepalive has not continued it.
    Stopped,
    /// The child has been stopped, and keepalive has stopped itself and not been continued yet.
    Suspended,
}

/// The state of init mode.
pub(super) struct Init<'a> {
    pub(super) options: &'a Options,
    pub(super) role: Role,
    pub(super) child: Pid,
    grace_period: GracePeriod,
    pub(super) job_state: JobState,
    /// How to find the terminal that is shared with the child.
    pub(super) terminal_lookup: TerminalLookup,
    /// keepalive has forwarded a stop signal that was not typed on the terminal.
    pub(super) stop_forwarded: bool,
    /// keepalive has forwarded a termination signal, and the child has not been stopped since.
    pub(super) termination_forwarded: bool,
    /// Says, when the child has exited, whether it could not execute the command.
    exec: PendingExec,
    /// The name of the command.
    program: String,
    /// The next signal of each of these results from detaching from the terminal.
    hand_off_signals: SignalSet,
    /// The next signal of each of these was received before the child had the terminal.
    received_before_start: SignalSet,
}

impl<'a> Init<'a> {
    pub(super) fn new(options: &'a Options, role: Role, started: Started, hand_off_signals: SignalSet) -> Self {
        let Started { child, exec, program, received_before_start } = started;
        Self {
            options,
            role,
            child,
            grace_period: GracePeriod::new(options.grace),
            job_state: JobState::Running,
            terminal_lookup: options.compat.terminal_lookup(),
            stop_forwarded: false,
            termination_forwarded: false,
            exec,
            program,
            hand_off_signals,
            received_before_start,
        }
    }
}

impl Init<'_> {
    /// Waits, forwards and reaps until the command has exited and, with `--linger`, its leftover processes, too.
    pub(super) fn run(mut self) -> Result<ExitStatus, Errno> {
        // Reap at the start: a program that ran in this process before may have left zombies, and no SIGCHLD will come for
        // them.
        let mut reaped = ReapResult::MaybeMore;
        let mut has_released_code = false;
        loop {
            let timeout = match reaped {
                ReapResult::ChildExited(status) => {
                    self.reclaim_terminal();
                    if let Some(limit) = self.options.linger {
                        linger::linger(self.options, self.role, limit)?;
                    }
                    return Ok(status);
                }
                ReapResult::MaybeMore => Some(Duration::ZERO),
                ReapResult::NoneDead => {
                    if !std::mem::replace(&mut has_released_code, true) {
                        memory::release_code_pages();
                    }
                    self.grace_period.deadline().map(|deadline| deadline.since(sys::now()))
                }
            };
            let mut must_reap = matches!(reaped, ReapResult::MaybeMore);
            // The child is not reaped before the signal is forwarded, so its id is not reused even if it is dead.
            if let Some(received) = signals::wait_for(timeout)? {
                must_reap |= received.signal == Signal::CHLD;
                self.on_signal(received);
            }
            if self.grace_period.deadline().is_some() && self.grace_period.take_expired(sys::now()) {
                log::warn!("pid {} did not stop in time: sending SIGKILL", self.child);
                self.send(Signal::KILL);
            }
            reaped = if must_reap { self.reap()? } else { ReapResult::NoneDead };
        }
    }

    fn reap(&mut self) -> Result<ReapResult, Errno> {
        for _ in 0..MAX_REAPS_PER_SIGNAL {
            match self.reap_next()? {
                Reaped::Ended(Ended { pid, status }) if pid == self.child => {
                    let status = self.exit_status(status);
                    self.on_exited(Ended { pid, status });
                    return Ok(ReapResult::ChildExited(status));
                }
                Reaped::Ended(ended) => messages::report(self.options, Event::OrphanReaped(ended)),
                Reaped::Stopped(pid, signal) if pid == self.child => self.on_stopped(signal),
                Reaped::Stopped(..) => {}
                Reaped::Nothing => return Ok(ReapResult::NoneDead),
                // The child has been reaped by something else, so there is nothing to wait for.
                Reaped::NoChildren => return Err(Errno::ECHILD),
            }
        }
        Ok(ReapResult::MaybeMore)
    }

    /// Reaps a dead child. Before the command itself is reaped, its process group gets the final signal: until then the id of
    /// the group is not reused.
    fn reap_next(&self) -> Result<Reaped, Errno> {
        if self.options.final_signal.is_none() {
            return wait::reap_any();
        }
        Ok(match wait::peek(WaitOptions::ExitsOnly)? {
            ChildEvent::Dead(pid) => {
                if pid == self.child && self.options.group {
                    self.send_final_signal();
                }
                Reaped::Ended(wait::reap(pid)?)
            }
            ChildEvent::Nothing | ChildEvent::Stopped(..) => Reaped::Nothing,
            ChildEvent::NoChildren => Reaped::NoChildren,
        })
    }

    /// The child has exited with `status`. Reports why it could not execute the command.
    fn exit_status(&mut self, status: ExitStatus) -> ExitStatus {
        let Some(failure) = self.exec.on_reaped() else { return status };
        messages::report(self.options, Event::CannotExecute(&self.program, self.child, failure));
        self.options.compat.exec_failure_status(failure.errno, status)
    }

    fn send_final_signal(&self) {
        if let Some(signal) =
            self.options.final_signal.and_then(|final_signal| forward::rewritten(self.options, final_signal))
        {
            sys::signal_group(self.child.led_group(), signal).ok();
        }
    }

    fn on_exited(&self, ended: Ended) {
        messages::report(self.options, Event::ChildExited(ended));
        if messages::reports_no_children(self.options)
            && wait::peek(WaitOptions::ExitsOnly) == Ok(ChildEvent::NoChildren)
        {
            messages::report(self.options, Event::NoChildren);
        }
        if let Some(final_signal) = self.options.final_signal {
            self.report_forwarding(final_signal, forward::rewritten(self.options, final_signal));
        }
    }

    fn report_forwarding(&self, received: Signal, sent: Option<Signal>) {
        if self.options.rewrite.iter().any(|(from, _)| *from == received) {
            messages::report(self.options, Event::Rewritten(received, sent));
        }
        let event = sent.map_or(Event::Dropped, |sent| Event::Forwarded(received, sent, self.child));
        messages::report(self.options, event);
    }

    fn on_signal(&mut self, received: Received) {
        messages::report(self.options, Event::Received(received.signal));
        if self.hand_off_signals.remove(received.signal) {
            return messages::report(self.options, Event::HandOffIgnored(received.signal));
        }
        if received.signal == Signal::CHLD || (received.signal == Signal::CONT && self.on_continued()) {
            return;
        }
        self.forward(received);
        if self.options.suspends && forward::is_suspend_signal(received.signal) {
            messages::report(self.options, Event::Suspending);
            process::raise(Signal::STOP);
        }
    }

    fn forward(&mut self, received: Received) {
        let before_start = self.received_before_start.remove(received.signal);
        let terminal_owner =
            || if !before_start && self.child_has_terminal() { TerminalOwner::Child } else { TerminalOwner::Other };
        let Some(signal) = forward::route(self.options, received, terminal_owner) else {
            return self.report_forwarding(received.signal, None);
        };
        self.report_forwarding(received.signal, Some(signal));
        self.stop_forwarded |= forward::is_suspend_signal(signal) && received.origin != Origin::Kernel;
        let is_termination = forward::is_termination_signal(received.signal) || forward::is_termination_signal(signal);
        if is_termination {
            self.grace_period.start(sys::now);
            self.termination_forwarded |= forward::overrides_later_stop(received.origin);
        }
        self.send(signal);
        match self.job_state {
            JobState::Stopped if signal == Signal::CONT => self.job_state = JobState::Running,
            // A stopped process does not handle the signal until it is continued.
            JobState::Stopped if is_termination => {
                self.job_state = JobState::Running;
                self.send(Signal::CONT);
            }
            // keepalive itself is still to be continued.
            JobState::Suspended if is_termination => self.send(Signal::CONT),
            JobState::Running | JobState::Stopped | JobState::Suspended => {}
        }
    }

    /// Sends `signal` to the child, or with `-g` to its group. A failure is only reported: keepalive may lack the permission
    /// to signal a child that runs as another user.
    fn send(&self, signal: Signal) {
        let result = if self.options.group { self.send_to_group(signal) } else { self.send_to_child(signal) };
        if let Err(errno) = result {
            messages::report(self.options, Event::CannotSend(signal, self.child, errno));
        }
    }

    fn send_to_child(&self, signal: Signal) -> Result<(), Errno> {
        sys::signal_process(self.child, signal)
    }

    /// Signals the child's group, and the child itself if it has joined another group.
    pub(super) fn send_to_group(&self, signal: Signal) -> Result<(), Errno> {
        let group = self.child.led_group();
        let has_left = process::group_of(self.child) != Some(group);
        match sys::signal_group(group, signal) {
            Ok(()) | Err(Errno::ESRCH) if has_left => self.send_to_child(signal),
            other => other,
        }
    }
}
