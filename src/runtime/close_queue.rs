//! Closes descriptors that services have sent, and pipes that they have too. close(2) can block, so that helper processes do
//! it, which are killed if it takes too long.

use std::time::Duration;

use super::rate_limited_log::{self, MessageKind};
use super::subsystem::{Context, Subsystem};
use crate::model::{Mono, Pid, Signal, errno};
use crate::supervisor::Event;
use crate::sys::deferred_close::{self, CloseWorker};
use crate::sys::{kill, process, wait};

/// At this number of queued descriptors keepalive stops receiving descriptors.
const MAX_QUEUED: u64 = 1024;
/// The same limit as a fraction of the descriptor limit of keepalive: one eighth.
const MAX_QUEUED_FRACTION: u64 = 8;
/// The number of workers at a time, without those that hang.
const MAX_WORKERS: usize = 8;
/// The number of workers that hang for ever, although they have been killed: in the request of a file system, or in a pipe.
const MAX_HANGING: usize = 64;
/// The number of descriptors that one worker closes.
const MAX_DESCRIPTORS_PER_WORKER: usize = 64;
/// A worker that takes longer is killed. The next one continues with the descriptor after the one that blocked.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// When a killed worker must have noticed that: it hangs if it is still there.
const HANGS_AFTER: Duration = Duration::from_millis(200);
/// The time until the next attempt to create a worker.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct CloseQueue {
    workers: Vec<(CloseWorker, Stage)>,
    /// Set if a worker could not be created, or has closed nothing.
    retry_at: Option<Mono>,
    /// A worker has ended before it has closed anything: something kills them.
    has_failed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It has this time.
    Closing {
        until: Mono,
    },
    /// It has been killed. If it is there at this time, others close what it did not get to.
    Killed {
        until: Mono,
    },
    Hanging,
}

impl Stage {
    const fn until(self) -> Option<Mono> {
        match self {
            Self::Closing { until } | Self::Killed { until } => Some(until),
            Self::Hanging => None,
        }
    }
}

impl Subsystem for CloseQueue {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.workers.iter().filter_map(|(_, stage)| stage.until()).chain(self.retry_at).min()
    }

    /// Kills overdue workers and starts new ones.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        self.kill_overdue(context.now);
        self.start_workers(context.now);
        Vec::new()
    }
}

impl CloseQueue {
    fn kill_overdue(&mut self, now: Mono) {
        for (worker, stage) in &mut self.workers {
            match *stage {
                Stage::Closing { until } if until <= now => {
                    kill::signal_process(worker.pid(), Signal::KILL).ok();
                    *stage = Stage::Killed { until: now + HANGS_AFTER };
                }
                Stage::Killed { until } if until <= now => {
                    worker.release_rest();
                    *stage = Stage::Hanging;
                }
                Stage::Closing { .. } | Stage::Killed { .. } | Stage::Hanging => {}
            }
        }
    }

    fn start_workers(&mut self, now: Mono) {
        if self.retry_at.is_some_and(|retry_at| retry_at > now) {
            return;
        }
        self.retry_at = std::mem::take(&mut self.has_failed).then(|| now + RETRY_INTERVAL);
        while self.retry_at.is_none() && self.may_start() {
            match CloseWorker::start(MAX_DESCRIPTORS_PER_WORKER) {
                Ok(None) => return,
                Ok(Some(worker)) => self.workers.push((worker, Stage::Closing { until: now + CLOSE_TIMEOUT })),
                Err(errno) => {
                    let reason = errno::words(errno);
                    rate_limited_log::warn(
                        MessageKind::HelperShortage,
                        None,
                        format_args!("cannot create a process that closes descriptors of services: {reason}; retrying"),
                    );
                    self.retry_at = Some(now + RETRY_INTERVAL);
                    return;
                }
            }
        }
    }

    fn may_start(&self) -> bool {
        let hanging = self.workers.iter().filter(|(_, stage)| matches!(stage, Stage::Hanging)).count();
        self.workers.len() - hanging < MAX_WORKERS && hanging < MAX_HANGING
    }

    /// Reaps `pid` if it was a worker. Returns whether it was.
    pub(super) fn on_dead(&mut self, pid: Pid) -> bool {
        let Some(position) = self.workers.iter().position(|(worker, _)| worker.pid() == pid) else { return false };
        wait::reap(pid).ok();
        self.has_failed |= !self.workers.swap_remove(position).0.finish();
        true
    }

    /// Whether more descriptors can be received from services.
    pub(super) fn has_room() -> bool {
        match deferred_close::queued() {
            0 => true,
            waiting => (waiting as u64) < MAX_QUEUED.min(process::descriptor_limits().0 / MAX_QUEUED_FRACTION),
        }
    }
}
