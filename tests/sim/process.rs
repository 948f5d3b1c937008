//! A simulated process and its reactions to signals.

use std::time::Duration;

use keepalive::model::{ExitStatus, Pid, RunId, Signal};

use crate::puppet::{Habits, StopExit};

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// `None` if it has left its group and session.
    pub(crate) run: Option<RunId>,
    pub(crate) habits: Habits,
    /// A stop signal that arrived while it was stopped.
    pub(crate) pending_stop_signal: Option<Signal>,
    pub(crate) stopped: bool,
    /// The exit status if it is dead and not reaped. Only a main process becomes a zombie.
    pub(crate) zombie: Option<ExitStatus>,
}

/// The effect of a signal on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEffect {
    Kill,
    Stop,
    Continue,
    /// A stop signal.
    End,
    Other,
}

impl Process {
    /// The delay and the status with which the signal ends it, if it does.
    pub(crate) fn receive(&mut self, signal: Signal, effect: SignalEffect) -> Option<(Duration, ExitStatus)> {
        if self.zombie.is_some() {
            return None;
        }
        match effect {
            SignalEffect::Kill => self.habits.on_kill.map(|delay| (delay, ExitStatus::Signal(signal))),
            SignalEffect::Stop => {
                self.stopped = true;
                None
            }
            SignalEffect::Continue => {
                self.stopped = false;
                self.pending_stop_signal.take().and_then(|signal| self.exit_after_stop_signal(signal))
            }
            SignalEffect::End if self.stopped => {
                self.pending_stop_signal = Some(signal);
                None
            }
            SignalEffect::End => self.exit_after_stop_signal(signal),
            SignalEffect::Other if self.stopped => None,
            SignalEffect::Other => self.habits.fragile.then_some((Duration::ZERO, ExitStatus::Signal(signal))),
        }
    }

    fn exit_after_stop_signal(&self, signal: Signal) -> Option<(Duration, ExitStatus)> {
        let (delay, how) = self.habits.on_stop?;
        let status = match how {
            StopExit::BySignal => ExitStatus::Signal(signal),
            StopExit::With(status) => status,
        };
        Some((delay, status))
    }
}
