//! Reads the signals that keepalive receives.

use super::reap_scheduler::ReapScheduler;
use crate::model::Signal;
use crate::supervisor::Event;
use crate::sys::{self, Origin, Received, SignalQueue, signals};

/// The number of signals read in one turn.
const MAX_SIGNALS_PER_TURN: usize = 16;

/// The signal queue.
#[derive(Debug)]
pub(super) struct SignalSource {
    queue: SignalQueue,
    on_hangup: OnHangup,
    /// keepalive has been suspended and continued. The SIGCONT is still in the queue.
    is_continued: bool,
    /// The queue has signals.
    is_readable: bool,
}

/// What keepalive does when its terminal is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnHangup {
    /// keepalive was started with SIGHUP ignored, by nohup(1).
    Ignore,
    /// keepalive shuts down.
    Stop,
}

impl SignalSource {
    pub(super) const fn new(queue: SignalQueue, on_hangup: OnHangup) -> Self {
        Self { queue, on_hangup, is_continued: false, is_readable: false }
    }

    pub(super) const fn on_ready(&mut self) {
        self.is_readable = true;
    }

    /// keepalive has been suspended together with a service, and continued.
    pub(super) const fn on_continued(&mut self) {
        self.is_continued = true;
    }

    /// The poller reports the queue again if it still has signals.
    pub(super) const fn begin_turn(&mut self) {
        self.is_readable = false;
    }

    /// Reads signals. SIGCHLD goes to `schedule`, the others become events.
    pub(super) fn read(&mut self, schedule: &mut ReapScheduler) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.is_readable {
            return events;
        }
        let nothing = Received { signal: Signal::CHLD, origin: Origin::Kernel };
        let mut received = [nothing; MAX_SIGNALS_PER_TURN];
        let count = self.queue.read(&mut received).unwrap_or(0);
        for Received { signal, origin } in received.into_iter().take(count) {
            match (signal, origin) {
                (Signal::CHLD, Origin::Child(pid)) => schedule.request(Some(pid)),
                (Signal::CHLD, _) => schedule.request(None),
                (Signal::CONT, _) if std::mem::take(&mut self.is_continued) => {}
                // From the terminal, and meant for its foreground process group: services are in sessions of their own.
                (Signal::WINCH | Signal::TTIN | Signal::TTOU | Signal::CONT, Origin::Kernel) => {}
                (Signal::TSTP, Origin::Kernel) => self.suspend(),
                (Signal::HUP, Origin::Kernel) if self.on_hangup == OnHangup::Ignore => {}
                (Signal::HUP, Origin::Kernel) => events.push(Event::TerminalClosed),
                _ => events.push(Event::Signal(signal)),
            }
        }
        events
    }

    /// Ctrl-Z: suspends keepalive, so that the shell gets the terminal.
    fn suspend(&mut self) {
        self.is_continued = !sys::process::is_init() && signals::suspend_self();
    }
}
