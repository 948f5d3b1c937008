//! Job control: the child and we are one job to the shell that started us, but two process groups to the terminal.
//!
//! ```text
//! child stopped (Ctrl-Z) ─► take the terminal back ─► stop ourselves ─► the shell goes on
//! `fg`: SIGCONT ─► hand the terminal to the child ─► SIGCONT to its group
//! ```
//! With stdin elsewhere (`echo x | keepalive -- less`) the child has the terminal only from when it asks for it: the rest
//! of a pipeline, which is in our group, may be reading from it.
//!
//! As PID 1, or where no shell is left to continue us, the kernel does not let Ctrl-Z stop us; the child is continued
//! at once then, so that Ctrl-Z does what it does without an init: nothing.

use super::notice::{self, Notice};
use super::{Compat, Init, JobState, Options, Place, Placement};
use crate::model::Signal;
use crate::sys::signals::SignalSet;
use crate::sys::terminal::{self, TerminalLookup};
use crate::sys::{process, signals};

/// Lets go of the terminal if the command is to have it for its own. The signals that come from that to ourselves.
pub(super) fn let_go_of_terminal(options: &Options) -> SignalSet {
    let mut coming = SignalSet::EMPTY;
    if options.placement != Placement::OwnSession {
        return coming;
    }
    match terminal::detach() {
        Ok(()) => {
            let leader = process::is_session_leader();
            if leader {
                coming.insert(Signal::HUP);
                coming.insert(Signal::CONT);
            }
            notice::tell(options, Notice::Detached { leader });
        }
        Err(errno) => notice::tell(options, Notice::CannotDetach(errno)),
    }
    coming
}

/// Which terminal the command is to have from the beginning.
pub(super) const fn first_terminal_lookup(compat: Compat) -> TerminalLookup {
    match compat {
        Compat::Catatonit => TerminalLookup::StdinOrSession,
        Compat::Native | Compat::Tini | Compat::DumbInit => TerminalLookup::Stdin,
    }
}

impl Init<'_> {
    /// Whether what is typed is told to the child by the kernel.
    pub(super) fn child_has_terminal(&self) -> bool {
        terminal::foreground_group(self.terminal_lookup) == Some(self.child.led_group())
    }

    /// The child has been stopped.
    pub(super) fn on_stopped(&mut self, signal: Signal) {
        if self.options.placement != Placement::Foreground {
            return;
        }
        log::debug!("pid {} stopped by {signal}", self.child);
        // It must hear it. Once: a stop that comes later is meant.
        if std::mem::take(&mut self.asked_to_end) {
            self.resume_child();
            return;
        }
        self.course = JobState::Stopped;
        // Elsewhere a stop that somebody has sent through the init is meant.
        if std::mem::take(&mut self.asked_to_stop) && self.options.compat != Compat::Native {
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
        if self.place == Place::Init {
            if signal == Signal::TSTP {
                self.resume_child();
            }
            return;
        }
        // Ctrl-Z comes to us, and through us to the child, where it does not have the terminal that it was typed on. Any
        // other stop without a terminal is somebody's who will continue the child himself.
        if foreground.is_none() && signal != Signal::TSTP {
            return;
        }
        if let Some(ours) = ours {
            terminal::transfer_foreground(self.terminal_lookup, self.child.led_group(), ours);
        }
        if signals::suspend_self() {
            self.course = JobState::Suspended;
        } else if signal == Signal::TSTP {
            // No shell to go back to. A SIGSTOP is somebody's who will continue the child himself.
            self.resume_child();
        }
    }

    /// We have received SIGCONT. Whether it was for the job and the child has been continued; otherwise it is a signal
    /// as any other.
    pub(super) fn on_continued(&mut self) -> bool {
        let was_suspended = self.course == JobState::Suspended;
        if was_suspended {
            self.resume_child();
        }
        was_suspended
    }

    /// The child has ended. What comes after us on the terminal, in a script for instance, finds itself in its foreground
    /// as it would without us; and what is typed while we linger comes to us.
    pub(super) fn reclaim_terminal(&self) {
        if let Some(ours) = process::group() {
            terminal::transfer_foreground(self.terminal_lookup, self.child.led_group(), ours);
        }
    }

    /// Hands the terminal on if it is ours, and continues the child's group.
    fn resume_child(&mut self) {
        self.course = JobState::Running;
        if let Some(ours) = process::group() {
            terminal::transfer_foreground(self.terminal_lookup, ours, self.child.led_group());
        }
        self.send_to_group(Signal::CONT).ok();
    }
}
