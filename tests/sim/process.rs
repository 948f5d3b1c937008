//! A simulated process: what it hears, and what it does about it.

use std::time::Duration;

use keepalive::model::{ExitStatus, Pid, RunId, Signal};

use crate::puppet::{Habits, Stops};

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// `None`: it has left its group and session.
    pub(crate) run: Option<RunId>,
    pub(crate) habits: Habits,
    /// A signal that asked it to end while it was stopped.
    pub(crate) unheard: Option<Signal>,
    pub(crate) stopped: bool,
    /// Dead and not reaped: main processes alone, all others are reaped as they die.
    pub(crate) zombie: Option<ExitStatus>,
}

/// What a signal is to whoever gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Kill,
    Stop,
    Continue,
    /// It asks to end.
    End,
    Other,
}

impl Process {
    /// Whether, when and how a signal ends it.
    pub(crate) fn hear(&mut self, signal: Signal, meaning: Meaning) -> Option<(Duration, ExitStatus)> {
        if self.zombie.is_some() {
            return None;
        }
        match meaning {
            Meaning::Kill => self.habits.on_kill.map(|delay| (delay, ExitStatus::Signal(signal))),
            Meaning::Stop => {
                self.stopped = true;
                None
            }
            Meaning::Continue => {
                self.stopped = false;
                self.unheard.take().and_then(|signal| self.obey(signal))
            }
            Meaning::End if self.stopped => {
                self.unheard = Some(signal);
                None
            }
            Meaning::End => self.obey(signal),
            Meaning::Other if self.stopped => None,
            Meaning::Other => self.habits.fragile.then_some((Duration::ZERO, ExitStatus::Signal(signal))),
        }
    }

    fn obey(&self, signal: Signal) -> Option<(Duration, ExitStatus)> {
        let (delay, how) = self.habits.on_stop?;
        let status = match how {
            Stops::OfTheSignal => ExitStatus::Signal(signal),
            Stops::With(status) => status,
        };
        Some((delay, status))
    }
}
