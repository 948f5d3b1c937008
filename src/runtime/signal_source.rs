//! The signals that keepalive itself receives, from the queue of the kernel.

use super::reap_scheduler::ReapScheduler;
use crate::model::Signal;
use crate::supervisor::Event;
use crate::sys::{self, Origin, Received, SignalQueue, signals};

/// So many signals are taken from the kernel at once.
const MAX_SIGNALS_PER_TURN: usize = 16;

/// The queue, and what is known of the terminal that sends some of the signals.
#[derive(Debug)]
pub(super) struct SignalSource {
    queue: SignalQueue,
    on_hangup: OnHangup,
    /// keepalive has been suspended and continued; the SIGCONT of that is still in the queue.
    is_continued: bool,
    /// There are signals in the queue.
    is_readable: bool,
}

/// What keepalive does when its terminal is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnHangup {
    /// keepalive was started with SIGHUP ignored, by nohup(1).
    Ignore,
    /// It stops.
    Stop,
}

impl SignalSource {
    pub(super) const fn new(queue: SignalQueue, on_hangup: OnHangup) -> Self {
        Self { queue, on_hangup, is_continued: false, is_readable: false }
    }

    /// The poller has reported the queue.
    pub(super) const fn on_ready(&mut self) {
        self.is_readable = true;
    }

    /// keepalive has been suspended together with a service, and continued.
    pub(super) const fn on_continued(&mut self) {
        self.is_continued = true;
    }

    /// Forgets that there are signals: the poller reports them again.
    pub(super) const fn begin_turn(&mut self) {
        self.is_readable = false;
    }

    /// Takes signals from the queue. What SIGCHLD says goes to `schedule`.
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
                (Signal::CHLD, Origin::Child(pid)) => schedule.want(Some(pid)),
                (Signal::CHLD, _) => schedule.want(None),
                (Signal::CONT, _) if std::mem::take(&mut self.is_continued) => {}
                // A terminal sends these to its foreground process group; a service in a session of its own has no part
                // in it.
                (Signal::WINCH | Signal::TTIN | Signal::TTOU | Signal::CONT, Origin::Kernel) => {}
                (Signal::TSTP, Origin::Kernel) => self.suspend(),
                (Signal::HUP, Origin::Kernel) if self.on_hangup == OnHangup::Ignore => {}
                (Signal::HUP, Origin::Kernel) => events.push(Event::TerminalClosed),
                _ => events.push(Event::Signal(signal)),
            }
        }
        events
    }

    /// Ctrl-Z on a developer's terminal: the shell gets it back.
    fn suspend(&mut self) {
        self.is_continued = !sys::process::is_init() && signals::suspend_self();
    }
}
