//! The data of schedules.

use std::rc::Rc;

use crate::model::Schedule;

/// The wall clock, and what is due on it.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    /// The last reading, in seconds since 1970.
    pub(super) read_at: Option<i64>,
    /// When the next run or restart is due. A time that has passed: the clock must be read.
    pub(super) due: Option<i64>,
}

/// The schedule of a service.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// The schedule, and its next time in seconds since 1970.
    pub(super) due: Option<(Rc<Schedule>, i64)>,
    pub(super) runs: Runs,
}

impl Planned {
    pub(super) fn next(&self) -> Option<i64> {
        self.due.as_ref().map(|(_, at)| *at)
    }
}

/// The numbers of runs of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs that have succeeded.
    pub succeeded: u64,
    /// Runs that have failed, after all their restarts.
    pub failed: u64,
    /// Runs, or restarts of a service, that were due and have not begun.
    pub skipped: u64,
}

/// Why a run that was due has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The run before it is not over.
    StillRunning,
    /// The service is being reloaded, restarted or stopped already.
    Reloading,
    /// The clock was set forward, or keepalive was suspended, by this many seconds.
    TooLate(i64),
}
