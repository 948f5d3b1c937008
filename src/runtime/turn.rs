//! The data of one turn of the event loop.

use std::time::Duration;

use super::calendar::Calendar;
use super::rate_limited_log::{self, MessageKind};
use super::reap_scheduler::ReapScheduler;
use super::signal_source::{OnHangup, SignalSource};
use super::subsystem;
use crate::model::{AwakeClock, Mono};
use crate::supervisor::{Event, Outcome, Supervisor};
use crate::sys::{self, Poller, SignalQueue, allocator};

/// A loop that waits this long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The sources of events.
pub(super) struct Inputs {
    pub(super) poller: Poller,
    pub(super) signals: SignalSource,
    pub(super) calendar: Calendar,
}

impl Inputs {
    pub(super) fn new(poller: Poller, queue: SignalQueue, on_hangup: OnHangup) -> Self {
        Self { poller, signals: SignalSource::new(queue, on_hangup), calendar: Calendar::default() }
    }

    /// Reads signals, if the supervisor can take them, and the wall clock, if something is due on it.
    pub(super) fn read(&mut self, supervisor: &Supervisor, schedule: &mut ReapScheduler) -> Vec<Event> {
        let mut events = if subsystem::has_capacity(supervisor) { self.signals.read(schedule) } else { Vec::new() };
        events.extend(self.calendar.read(supervisor.wall_deadline()));
        events
    }

    /// Sets the timer of schedules. Returns when to read the clock, if that cannot wait for the timer.
    pub(super) fn set_calendar(&mut self, supervisor: &Supervisor, now: Mono) -> Option<Mono> {
        self.calendar.set(supervisor.wall_deadline(), &self.poller).map(|rest| now + rest)
    }
}

/// The current turn of the event loop.
#[derive(Debug)]
pub(super) struct Turn {
    /// The time on `clock`: of the last wait, or of the last start of a process.
    pub(super) now: Mono,
    pub(super) clock: AwakeClock,
    /// The number of actions that can still be performed.
    pub(super) budget: u32,
    /// The deadline of the supervisor; valid if the budget is not used up.
    pub(super) until: Option<Mono>,
    /// Set by `Action::Exit`.
    pub(super) outcome: Option<Outcome>,
    /// The loop has been idle since the start and since the last client came. What they have used has been released.
    pub(super) is_settled: bool,
    /// Whether the reserve of memory was in use at the end of the last turn.
    is_memory_short: bool,
}

impl Turn {
    pub(super) fn new(clock: AwakeClock) -> Self {
        Self {
            now: clock.now(),
            clock,
            budget: 0,
            until: None,
            outcome: None,
            is_settled: false,
            is_memory_short: false,
        }
    }

    /// The time from now until `due`.
    pub(super) fn time_until(&mut self, due: Mono) -> Duration {
        due.since(self.clock.read(sys::now()))
    }

    /// Whether the loop is idle for the first time since the start, or since a client came.
    pub(super) fn may_settle(&self, timeout: Option<Duration>) -> bool {
        !self.is_settled && timeout.is_none_or(|timeout| timeout >= IDLE_AFTER)
    }

    /// Reads the clock after the start of a process.
    pub(super) fn on_started(&mut self) {
        self.now = self.clock.read(sys::now());
    }

    /// Warns when the system begins to refuse memory.
    pub(super) fn watch_memory(&mut self) {
        let was_short = std::mem::replace(&mut self.is_memory_short, allocator::is_reserve_in_use());
        if self.is_memory_short && !was_short {
            let what = format_args!("memory is short: the system refuses keepalive more, and it uses its reserve");
            rate_limited_log::warn(MessageKind::MemoryShortage, None, what);
        }
    }

    /// Reads the clock after `poller` has waited for at most `timeout`.
    pub(super) fn on_wake(&mut self, poller: &Poller, timeout: Option<Duration>) {
        self.now = self.clock.on_wake(sys::now(), timeout, poller.woken());
    }
}

/// The subsystems that have a turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Processes,
    Notify,
    FdStore,
    Channels,
    Logging,
    Server,
    Probes,
    ConfigLoader,
    CloseQueue,
    Inspector,
    Watchers,
}
