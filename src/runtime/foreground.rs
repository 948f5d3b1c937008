//! Job control for the one service that has the terminal.

use crate::model::{Pgid, Pid, Signal};
use crate::sys::terminal::{self, TerminalLookup};
use crate::sys::{kill, process, signals};

/// The terminal, or somebody else, has stopped the main process that has the terminal.
///
/// Under a shell keepalive stops as well, so that the shell gets its terminal back, and goes on together with the
/// process. As PID 1 there is nobody to go back to: Ctrl-Z then does what it does to a PID 1 without an init, nothing.
/// Without a terminal whoever has stopped the process continues it himself.
///
/// Whether keepalive has been stopped, and continued.
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
    // Where there is no shell to go back to, nothing has happened. A SIGSTOP is somebody's who will continue it himself.
    if suspended || signal == Signal::TSTP {
        resume(own, group);
    }
    suspended
}

/// The main process that had the terminal has ended: what is typed from now on comes to keepalive, and what comes after
/// it on the terminal finds itself in the foreground.
pub(super) fn on_ended(pid: Pid) {
    if let Some(own) = process::group() {
        terminal::transfer_foreground(TerminalLookup::Stdin, pid.led_group(), own);
    }
}

/// In the background the terminal is the shell's, and stays so.
fn resume(own: Pgid, group: Pgid) {
    terminal::transfer_foreground(TerminalLookup::Stdin, own, group);
    kill::signal_group(group, Signal::CONT).ok();
}
