//! A process of the world, and what signals do to it.

use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::Service;
use keepalive::model::{ExitStatus, Pid, Signal};

use crate::puppet::{Habits, Stops};

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) habits: Habits,
    /// Of a main process: what it is made of.
    pub(crate) definition: Option<Rc<Service>>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Main { pid: Pid },
    Member { leader: Pid },
    Stray,
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
