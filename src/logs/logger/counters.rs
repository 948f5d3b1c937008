//! The positions of the counters that the logger shares with PID 1.

/// The position of the counters of slot 0.
pub const FIRST_SLOT_COUNTER: usize = 8;
/// Lines and bytes of stdout, lines and bytes of stderr.
pub const COUNTERS_PER_SLOT: usize = 4;
/// The position of the counter of messages that the logger has dropped.
pub const DROPPED_MESSAGES: usize = 0;
/// The position of the counter of clients that the logger has rejected.
pub const REJECTED_CLIENTS: usize = 1;
/// The position of the pipe that is being read, a [`super::ReadMark`].
pub const READ_MARK: usize = 4;

/// The position of the marks that a sink leaves for the next logger, stdout's and stderr's.
pub(super) const PARTIAL_LINE_MARKS: usize = 2;
