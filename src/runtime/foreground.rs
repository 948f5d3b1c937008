//! Job control for the one service that has the terminal.

use crate::model::{Pid, Signal};
use crate::sys::{kill, process, signals, terminal};

/// The terminal, or somebody, has stopped the main process that has the terminal.
///
/// Under a shell keepalive stops as well, so that the shell gets its terminal back, and goes on together with the
/// process. As PID 1 there is nobody to go back to: Ctrl-Z then does what it does to a PID 1 without an init, nothing.
/// Without a terminal there is no job: who has stopped the process will continue it, and the others need keepalive.
///
/// Whether keepalive has been stopped, and continued.
pub(super) fn on_stopped(pid: Pid, signal: Signal) -> bool {
    if process::is_init() {
        if signal == Signal::TSTP {
            resume(pid);
        }
        return false;
    }
    let Some(foreground) = terminal::foreground_group() else { return false };
    let wants_terminal = signal == Signal::TTIN || signal == Signal::TTOU;
    if wants_terminal && Some(foreground) == process::group() {
        resume(pid);
        return false;
    }
    reclaim(pid);
    let suspended = signals::suspend_self();
    // Where there is no shell to go back to, nothing has happened. A SIGSTOP is somebody's who will continue it himself.
    if suspended || signal == Signal::TSTP {
        resume(pid);
    }
    suspended
}

/// The main process that had the terminal has ended: what is typed from now on comes to keepalive, and what comes
/// after it on the terminal finds itself in the foreground.
pub(super) fn on_ended(pid: Pid) {
    reclaim(pid);
}

/// Takes the terminal from the process's group, and from nobody else: in the background it is the shell's.
fn reclaim(pid: Pid) {
    if terminal::foreground_group() == Some(pid.led_group())
        && let Some(own) = process::group()
    {
        terminal::set_foreground_group(own);
    }
}

/// Hands the terminal on if it is ours, and continues the process's group.
fn resume(pid: Pid) {
    let foreground = terminal::foreground_group();
    if foreground.is_some() && foreground == process::group() {
        terminal::set_foreground_group(pid.led_group());
    }
    kill::signal_group(pid.led_group(), Signal::CONT).ok();
}
