//! Job control. For the shell that started keepalive, keepalive and the child are one job; for the terminal they are two
//! process groups.
//!
//! ```text
//! child stopped (Ctrl-Z) ─► take the terminal back ─► keepalive stops itself ─► the shell continues
//! `fg`: SIGCONT ─► give the terminal to the child ─► SIGCONT to its group
//! ```
//! If stdin is not the terminal (`echo x | keepalive -- less`), the child gets the terminal only when it tries to use it:
//! other processes of the pipeline, which are in keepalive's group, may be reading from it.
//!
//! As PID 1, and if there is no shell that could continue keepalive, the kernel does not stop keepalive on Ctrl-Z. Then the
//! child is continued at once, so that Ctrl-Z has no effect, as it would have none without an init.

use super::event::Event;
use super::init_loop::{Init, JobState};
use super::messages;
use super::options::{Compat, Options, Placement};
use super::role::Role;
use crate::model::{Pid, Signal};
use crate::sys::signals::SignalSet;
use crate::sys::terminal::{self, TerminalLookup};
use crate::sys::{process, signals};

/// Detaches from the terminal if the command gets a session of its own. Returns the signals that keepalive gets as a result.
pub(super) fn detach_terminal(options: &Options) -> SignalSet {
    let mut expected = SignalSet::EMPTY;
    if options.placement != Placement::NewSession {
        return expected;
    }
    match terminal::detach() {
        Ok(()) => {
            let is_session_leader = process::is_session_leader();
            if is_session_leader {
                expected.insert(Signal::HUP);
                expected.insert(Signal::CONT);
            }
            messages::report(options, Event::Detached { is_session_leader });
        }
        Err(errno) => messages::report(options, Event::CannotDetach(errno)),
    }
    expected
}

/// Puts the child into a process group of its own, and gives it the terminal if keepalive has it. setpgid(2), tcsetpgrp(3)
pub(super) fn hand_over_terminal(options: &Options, child: Pid) {
    // If it has executed its program, it has taken the terminal before, and may have passed it on.
    if let Some(ours) = process::group()
        && process::lead_group(child)
    {
        terminal::transfer_foreground(options.compat.terminal_lookup(), ours, child.led_group());
    }
}

impl Init<'_> {
    /// Whether the terminal sends signals that are typed to the child.
    pub(super) fn child_has_terminal(&self) -> bool {
        terminal::foreground_group(self.terminal_lookup) == Some(self.child.led_group())
    }

    pub(super) fn on_stopped(&mut self, signal: Signal) {
        if self.options.placement != Placement::Foreground {
            return;
        }
        log::debug!("pid {} stopped by {signal}", self.child);
        // Continue the child so that it can handle the termination signal. Only once: a later stop is intended.
        if std::mem::take(&mut self.termination_forwarded) {
            self.resume_child();
            return;
        }
        self.job_state = JobState::Stopped;
        // With the other inits, a stop signal that was sent through the init stops the child only.
        if std::mem::take(&mut self.stop_forwarded) && self.options.compat != Compat::Native {
            return;
        }
        let wants_terminal = signal == Signal::TTIN || signal == Signal::TTOU;
        if wants_terminal && self.options.compat == Compat::Native {
            self.terminal_lookup = TerminalLookup::StdinOrSession;
        }
        let foreground = terminal::foreground_group(self.terminal_lookup);
        let ours = process::group();
        if wants_terminal && foreground.is_some() && foreground == ours {
            self.resume_child();
            return;
        }
        if self.role == Role::Init {
            if signal == Signal::TSTP {
                self.resume_child();
            }
            return;
        }
        // Without a terminal: SIGTSTP may be a Ctrl-Z that keepalive has forwarded, because the child does not have the
        // terminal on which it was typed. The sender of any other stop signal will continue the child.
        if foreground.is_none() && signal != Signal::TSTP {
            return;
        }
        if let Some(ours) = ours {
            terminal::transfer_foreground(self.terminal_lookup, self.child.led_group(), ours);
        }
        if signals::suspend_self() {
            self.job_state = JobState::Suspended;
        } else if signal == Signal::TSTP {
            // There is no shell to return to. The sender of a SIGSTOP will continue the child.
            self.resume_child();
        }
    }

    /// Handles a SIGCONT to keepalive. Returns whether it was for the suspended job, so that the child has been continued.
    /// Otherwise it is to be forwarded like any other signal.
    pub(super) fn on_continued(&mut self) -> bool {
        let was_suspended = self.job_state == JobState::Suspended;
        if was_suspended {
            self.resume_child();
        }
        was_suspended
    }

    /// Takes the terminal back after the child has exited. So the next command of a script is in the foreground as it would
    /// be without keepalive, and signals that are typed during `--linger` are sent to keepalive.
    pub(super) fn reclaim_terminal(&self) {
        if let Some(ours) = process::group() {
            terminal::transfer_foreground(self.terminal_lookup, self.child.led_group(), ours);
        }
    }

    /// Gives the terminal to the child if keepalive has it, and continues the child's group.
    fn resume_child(&mut self) {
        self.job_state = JobState::Running;
        if let Some(ours) = process::group() {
            terminal::transfer_foreground(self.terminal_lookup, ours, self.child.led_group());
        }
        self.send_to_group(Signal::CONT).ok();
    }
}
