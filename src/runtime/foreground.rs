//! Job control for the one service that has the terminal.

use crate::model::{Pid, Signal};
use crate::sys::{kill, process, signals, terminal};

/// The terminal, or the process itself, has stopped the main process that has the terminal.
///
/// Under a shell keepalive stops as well, so that the shell gets its terminal back, and goes on together with the
/// process. As PID 1 there is nobody to go back to: Ctrl-Z then does what it does to a PID 1 without an init, nothing.
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
    if let Some(own) = process::group() {
        terminal::set_foreground_group(own);
    }
    let suspended = signals::suspend_self();
    if suspended {
        terminal::set_foreground_group(group);
        kill::signal_group(group, Signal::CONT).ok();
    }
    suspended
}
