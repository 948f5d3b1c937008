//! What the logger knows.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use log::Level;

use super::client::Client;
use super::hold_up::HoldUpTimer;
use super::names::Names;
use super::outputs::Outputs;
use super::source::Pipe;
use crate::logs::protocol::LastLinesQuery;
use crate::logs::timestamp::Timestamp;
use crate::model::map::Map;
use crate::model::{AwakeClock, Mono};
use crate::sys::Poller;
use crate::sys::counters::SharedCounters;

/// The first token of the poller for pipes: that of the pipe with the key 0.
pub(super) const FIRST_PIPE: u64 = 64;

/// The logger: all that it reads from and writes to.
pub(super) struct Logger {
    pub(super) poller: Poller,
    pub(super) socket: OwnedFd,
    /// Closed when the process exits.
    pub(super) _liveness_fd: OwnedFd,
    pub(super) pipes: Map<u64, Pipe>,
    /// The key of the next pipe that is replaced.
    pub(super) next_retired: u64,
    /// By the key of a replaced pipe: the pipe that is read once that has been read far enough.
    pub(super) successors: Map<u64, NextPipe>,
    /// The serial number of the newest pipe, read or not.
    pub(super) newest_serial: Option<u64>,
    pub(super) names: Names,
    pub(super) outputs: Outputs,
    pub(super) clients: Vec<Client>,
    pub(super) pending: VecDeque<Pending>,
    /// Since when the first of `pending` has waited for the output of a run that has ended.
    pub(super) blocked_since: Option<Mono>,
    /// When to exit at the latest, once the logger has been told to stop.
    pub(super) stop_at: Option<Mono>,
    /// PID 1 has died: services that hear of it may still write.
    pub(super) is_orphan: bool,
    pub(super) counters: &'static SharedCounters,
    pub(super) hold_up_timer: HoldUpTimer,
    pub(super) colours: [bool; 2],
    pub(super) buffer: Vec<u8>,
    pub(super) clock: AwakeClock,
    /// The time on `clock`.
    pub(super) now: Mono,
    pub(super) stamp: Timestamp,
    /// Since when nothing has happened; `None`: the memory that an idle logger does not need has been released.
    pub(super) idle_since: Option<Mono>,
}

/// A pipe that is read once the pipe before it has been read up to the byte `until`.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextPipe {
    pub(super) key: u64,
    pub(super) until: u64,
}

/// What is processed in the order in which PID 1 has sent it.
#[derive(Debug)]
pub(super) enum Pending {
    /// A message of keepalive itself.
    Message { level: Level, milliseconds: u64, text: String, last_lines: Option<LastLinesQuery> },
    /// The last lines of a run are sent to PID 1.
    LastLines(LastLinesQuery),
    /// The end of a run: what the pipe `key` held then, up to the byte `until`, is written first.
    RunEnded { key: u64, until: u64 },
}
