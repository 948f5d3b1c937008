//! Job control for the one service that has the terminal.

use crate::model::{Pgid, Pid, Signal};
use crate::sys::terminal::{self, TerminalLookup};
use crate::sys::{kill, process, signals};

/// The main process that has the terminal was stopped by the terminal or by a signal.
///
/// Under a shell keepalive suspends itself too, so that the shell gets its terminal back, and continues together with the
/// process. As PID 1 there is no shell: Ctrl-Z has no effect. Without a terminal the sender of the signal must continue the
/// process.
///
/// Returns whether keepalive was suspended and continued.
pub(super) fn on_stopped(pid: Pid, signal: Signal) -> bool {
    let group = pid.led_group();
    if process::is_init() {
        if signal == Signal::TSTP {
            kill::signal_group(group, Signal::CONT).ok();
        }
        return false;
    }
    let (Some(own), Some(foreground)) = (process::group(), terminal::foreground_group(TerminalLookup::Stdin)) else {
        return false;
    };
    let wants_terminal = signal == Signal::TTIN || signal == Signal::TTOU;
    if wants_terminal && foreground == own {
        resume(own, group);
        return false;
    }
    terminal::transfer_foreground(TerminalLookup::Stdin, group, own);
    let suspended = signals::suspend_self();
    // Without a shell keepalive was not suspended: Ctrl-Z has no effect. The sender of a SIGSTOP must continue the process.
    if suspended || signal == Signal::TSTP {
        resume(own, group);
    }
    suspended
}

/// The main process that had the terminal has exited: keepalive takes the foreground back, for itself and the next run.
pub(super) fn on_ended(pid: Pid) {
    if let Some(own) = process::group() {
        terminal::transfer_foreground(TerminalLookup::Stdin, pid.led_group(), own);
    }
}

/// Gives the terminal to the process and continues it. Has no effect in the background, where the shell has the terminal.
fn resume(own: Pgid, group: Pgid) {
    terminal::transfer_foreground(TerminalLookup::Stdin, own, group);
    kill::signal_group(group, Signal::CONT).ok();
}
