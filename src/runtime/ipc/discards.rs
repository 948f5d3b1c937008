//! Descriptors that workers send over their channels, such as Node's `process.send(message, socket)`. keepalive does not
//! accept them, and a helper process receives and closes them, which can block. Until it is done nothing is received from the
//! channel. If it takes too long, the helper is killed and the channel is closed.

use std::time::Duration;

use crate::model::{ExitStatus, Mono, Pid, RunId, Signal};
use crate::sys::{PeerStream, kill, wait};

/// The number of helpers at a time. On some file systems even a killed one hangs for ever.
const MAX_HELPERS: usize = 8;
/// The time limit for the descriptors of one message, including the time until there is a helper.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The time until the next attempt to create a helper.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The channels whose next data carries descriptors.
#[derive(Debug, Default)]
pub(super) struct Discards {
    discards: Vec<Discard>,
    /// Set if a helper could not be created.
    retry_at: Option<Mono>,
}

#[derive(Debug)]
struct Discard {
    run: RunId,
    /// The data that carries the descriptors.
    data: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waits for a helper, until then.
    Waiting(Mono),
    /// The helper has been started, and may take until then.
    Running(Pid, Mono),
    /// The helper has been killed, and the channel closed.
    Killed(Pid),
}

impl State {
    const fn helper(self) -> Option<Pid> {
        match self {
            Self::Waiting(_) => None,
            Self::Running(pid, _) | Self::Killed(pid) => Some(pid),
        }
    }

    const fn deadline(self) -> Option<Mono> {
        match self {
            Self::Waiting(until) | Self::Running(_, until) => Some(until),
            Self::Killed(_) => None,
        }
    }
}

/// A helper that has exited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Discarded {
    pub(super) run: RunId,
    /// The data that carried the descriptors; `None` if it was not received.
    pub(super) data: Option<Vec<u8>>,
}

impl Discards {
    /// The next data of this channel carries descriptors.
    pub(super) fn add(&mut self, run: RunId, data: Vec<u8>, now: Mono) {
        self.discards.push(Discard { run, data, state: State::Waiting(now + DISCARD_TIMEOUT) });
    }

    pub(super) fn due(&self) -> Option<Mono> {
        self.discards.iter().filter_map(|discard| discard.state.deadline()).chain(self.retry_at).min()
    }

    /// Starts helpers. `channel` returns the channel of a run, if there still is one.
    pub(super) fn start_helpers<'c>(&mut self, now: Mono, channel: impl Fn(RunId) -> Option<&'c PeerStream>) {
        if self.retry_at.is_some_and(|retry_at| retry_at > now) {
            return;
        }
        self.retry_at = None;
        self.discards.retain(|discard| discard.state.helper().is_some() || channel(discard.run).is_some());
        let mut free = MAX_HELPERS.saturating_sub(self.discards.iter().filter_map(|it| it.state.helper()).count());
        for discard in &mut self.discards {
            let State::Waiting(until) = discard.state else { continue };
            let Some(stream) = channel(discard.run).filter(|_| free > 0) else { continue };
            match stream.discard(discard.data.len()) {
                Ok(pid) => discard.state = State::Running(pid, until),
                Err(_) => {
                    self.retry_at = Some(now + RETRY_INTERVAL);
                    return;
                }
            }
            free -= 1;
        }
    }

    /// Kills the helpers that take too long. Returns the runs whose channels must be closed.
    pub(super) fn take_overdue(&mut self, now: Mono) -> Vec<RunId> {
        let mut overdue = Vec::new();
        for discard in &mut self.discards {
            if discard.state.deadline().is_none_or(|until| until > now) {
                continue;
            }
            overdue.push(discard.run);
            if let State::Running(pid, _) = discard.state {
                // It has not been reaped, so its pid is valid.
                kill::signal_process(pid, Signal::KILL).ok();
                discard.state = State::Killed(pid);
            }
        }
        self.discards.retain(|discard| discard.state.helper().is_some() || !overdue.contains(&discard.run));
        overdue
    }

    /// Reaps `pid` if it was a helper.
    pub(super) fn on_dead(&mut self, pid: Pid) -> Option<Discarded> {
        let position = self.discards.iter().position(|discard| discard.state.helper() == Some(pid))?;
        let Discard { run, data, .. } = self.discards.swap_remove(position);
        let is_done = wait::reap(pid).is_ok_and(|ended| ended.status == ExitStatus::Code(0));
        Some(Discarded { run, data: is_done.then_some(data) })
    }
}
