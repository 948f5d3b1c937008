//! Closes sockets in which descriptors of services may wait, and pipes that services have too. close(2) can block, so that
//! helper processes do it.

use std::time::Duration;

use super::rate_limited_log::{self, MessageKind};
use super::subsystem::{Context, Subsystem};
use crate::model::{Mono, Pid, ServiceIndex, errno};
use crate::supervisor::Event;
use crate::sys::deferred_close::{self, CloseWorker, Owner};
use crate::sys::{fork, process, wait};

/// At this number of queued descriptors whose service is not known, keepalive stops accepting connections.
const MAX_QUEUED: u64 = 1024;
/// The same limit as a fraction of the descriptor limit of keepalive: one eighth.
const MAX_QUEUED_FRACTION: u64 = 8;
/// The number of workers at a time, without those that hang.
const MAX_WORKERS: usize = 8;
/// The number of workers that hang, perhaps for ever: in the request of a file system, or in a pipe.
const MAX_HANGING: usize = 128;
/// The number of workers for one service. If all of them hang, it is not started again before one of them has ended.
const MAX_OF_SERVICE: usize = 4;
/// The number of workers for descriptors whose service is not known.
const MAX_OF_OTHERS: usize = 32;
/// The number of descriptors that one worker closes.
const MAX_DESCRIPTORS_PER_WORKER: usize = 64;
/// A worker that takes longer hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that workers wait for children that have copies: one that hangs does not stop them.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The time until the next attempt to create a worker.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct CloseQueue {
    workers: Vec<(CloseWorker, Stage)>,
    /// Set if a worker could not be created.
    retry_at: Option<Mono>,
    /// A process that shares keepalive's descriptors.
    holder: Option<Pid>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It waits until this time for children that may have copies.
    Waiting {
        until: Mono,
    },
    /// It has this time.
    Closing {
        until: Mono,
    },
    Hanging,
}

impl Stage {
    const fn hangs(self) -> bool {
        matches!(self, Self::Hanging)
    }
}

impl Subsystem for CloseQueue {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        let due = |(worker, stage): &(CloseWorker, Stage)| match *stage {
            Stage::Waiting { until } if worker.copies.are_in_children() => Some(until),
            Stage::Waiting { until } => Some(until.min(worker.copies.forks_over_at())),
            Stage::Closing { until } => Some(until),
            Stage::Hanging => None,
        };
        self.workers.iter().filter_map(due).chain(self.retry_at).min()
    }

    /// Starts workers and lets them begin.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        self.start_workers(context.now);
        self.advance(context.now);
        self.hold();
        Vec::new()
    }
}

impl CloseQueue {
    /// Without a holder, a keepalive that is killed could hang: see [`fork::fork_sharing_fds`].
    fn hold(&mut self) {
        if self.holder.is_none() && deferred_close::needs_holder() {
            self.holder = fork::fork_sharing_fds().ok();
        }
    }

    /// The process that shares keepalive's descriptors.
    pub(super) const fn holder(&self) -> Option<Pid> {
        self.holder
    }

    fn count(&self, is_counted: impl Fn(Owner, &Stage) -> bool) -> usize {
        self.workers.iter().filter(|(worker, stage)| is_counted(worker.owner(), stage)).count()
    }

    /// Whether so many workers hang in descriptors of the service that it must not get more.
    pub(super) fn is_hanging(&self, service: ServiceIndex) -> bool {
        self.count(|owner, stage| owner == Some(service) && stage.hangs()) >= MAX_OF_SERVICE
    }

    fn may_have_another(&self, owner: Owner) -> bool {
        self.count(|of, _| of == owner) < if owner.is_some() { MAX_OF_SERVICE } else { MAX_OF_OTHERS }
    }

    fn advance(&mut self, now: Mono) {
        for (worker, stage) in &mut self.workers {
            match *stage {
                Stage::Waiting { until }
                    if until <= now || (worker.copies.forks_over_at() <= now && !worker.copies.are_in_children()) =>
                {
                    worker.begin();
                    *stage = Stage::Closing { until: now + CLOSE_TIMEOUT };
                }
                Stage::Closing { until } if until <= now => *stage = Stage::Hanging,
                Stage::Waiting { .. } | Stage::Closing { .. } | Stage::Hanging => {}
            }
        }
    }

    fn start_workers(&mut self, now: Mono) {
        if self.retry_at.is_some_and(|retry_at| retry_at > now) {
            return;
        }
        self.retry_at = None;
        while self.may_start() {
            match CloseWorker::start(MAX_DESCRIPTORS_PER_WORKER, |owner| self.may_have_another(owner)) {
                Ok(None) => return,
                Ok(Some(worker)) => {
                    self.workers.push((worker, Stage::Waiting { until: now + MAX_WAIT }));
                    // A process of keepalive's user can have killed it.
                    self.holder.take_if(|holder| wait::reap_without_sigchld(*holder) != Ok(None));
                }
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
        let hanging = self.count(|_, stage| stage.hangs());
        self.workers.len() - hanging < MAX_WORKERS && hanging < MAX_HANGING
    }

    /// Reaps `pid` if it was a worker. Returns whether it was.
    pub(super) fn on_dead(&mut self, pid: Pid) -> bool {
        let Some(position) = self.workers.iter().position(|(worker, _)| worker.pid() == pid) else { return false };
        wait::reap(pid).ok();
        self.workers.swap_remove(position);
        true
    }

    /// Whether more connections can be accepted in which descriptors can wait.
    pub(super) fn has_room() -> bool {
        match deferred_close::queued_of_others() {
            0 => true,
            waiting => (waiting as u64) < MAX_QUEUED.min(process::descriptor_limits().0 / MAX_QUEUED_FRACTION),
        }
    }
}
