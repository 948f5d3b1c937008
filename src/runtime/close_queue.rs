//! Closes sockets in which descriptors of services may wait, and pipes that services have too. close(2) can block, so that
//! helper processes do it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::logging::Logging;
use super::rate_limited_log::{self, MessageKind};
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::{ExitStatus, Mono, Pid, ServiceIndex, Signal, errno};
use crate::supervisor::Event;
use crate::sys::deferred_close::{self, CloseWorker, Owner};
use crate::sys::{Poller, fork, kill, process, wait};

/// At this number of queued descriptors that are no service's, keepalive accepts no more connections with descriptors, or none
/// where the kernel cannot tell them.
const MAX_QUEUED: u64 = 1024;
/// The same limit as a fraction of the descriptor limit of keepalive: one eighth.
const MAX_QUEUED_FRACTION: u64 = 8;
/// A service with so many queued descriptors is not started.
const MAX_QUEUED_OF_SERVICE: u64 = 256;
/// The same limit as a fraction of the descriptor limit of keepalive.
const MAX_FRACTION_OF_SERVICE: u64 = 16;
/// The number of workers at a time, without those that hang.
const MAX_WORKERS: usize = 8;
/// The number of workers that hang, perhaps for ever: in the request of a file system, or in a pipe.
const MAX_HANGING: usize = 128;
/// The number of workers for one service. If all of them hang, it is not started again before one of them has ended.
const MAX_OF_SERVICE: usize = 4;
/// The number of workers for what the clients of a user have sent, and for descriptors whose owner is not known.
const MAX_OF_USER: usize = 16;
/// The number of descriptors that one worker closes.
const MAX_DESCRIPTORS_PER_WORKER: usize = 64;
/// A worker or remover that takes longer hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that workers wait for children that have copies: one that hangs does not stop them.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The time until the next attempt to create a worker or remover.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct CloseQueue {
    workers: Vec<(CloseWorker, Stage)>,
    /// Set if a worker could not be created.
    retry_at: Option<Mono>,
    /// A process that shares keepalive's descriptors, and what reports its end, if the system can do that.
    holder: Option<(Pid, Option<OwnedFd>)>,
    /// The holder may have been killed, as a process of keepalive's user can do.
    is_looking: bool,
    /// A worker has ended.
    has_closed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The remover has this time, or it must be started then.
    Removing {
        until: Mono,
    },
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
    type Needs<'a> = &'a mut Logging;

    fn due(&self) -> Option<Mono> {
        let due = |(worker, stage): &(CloseWorker, Stage)| match *stage {
            Stage::Waiting { until } if worker.copies.are_in_children() => Some(until),
            Stage::Waiting { until } => Some(until.min(worker.copies.forks_over_at())),
            Stage::Removing { until } | Stage::Closing { until } => Some(until),
            Stage::Hanging => None,
        };
        let next = (self.may_start() && deferred_close::are_waiting(|owner| self.may_have_another(owner)))
            .then(|| self.retry_at.unwrap_or_default());
        self.workers.iter().filter_map(due).chain(next).min()
    }

    /// The holder has exited.
    fn on_ready(&mut self, token: Token) {
        self.is_looking |= token == Token::Holder;
    }

    /// Starts workers and lets them begin.
    fn turn(&mut self, context: &mut Context<'_>, logging: &mut Logging) -> Vec<Event> {
        if std::mem::take(&mut self.has_closed) {
            logging.close_drained_soon(context.now);
        }
        self.start_workers(context.now);
        self.advance(context);
        self.hold(context.poller);
        Vec::new()
    }
}

impl CloseQueue {
    /// Without a holder, a keepalive that is killed could hang: see [`fork::fork_holder`].
    fn hold(&mut self, poller: &Poller) {
        if std::mem::take(&mut self.is_looking)
            && let Some((_, pidfd)) = self.holder.take_if(|(pid, _)| wait::reap_without_sigchld(*pid) != Ok(None))
        {
            pidfd.map(|pidfd| poller.remove(pidfd));
        }
        if self.holder.is_none()
            && deferred_close::needs_holder()
            && let Ok(pid) = fork::fork_holder()
        {
            let pidfd = kill::pidfd_open(pid).ok();
            self.holder = Some((pid, pidfd.filter(|pidfd| poller.add(pidfd, Token::Holder).is_ok())));
        }
    }

    /// The process that shares keepalive's descriptors.
    pub(super) fn holder(&self) -> Option<Pid> {
        self.holder.as_ref().map(|(pid, _)| *pid)
    }

    /// The same, unless keepalive's exit could close a last copy without it: it ends a moment after that.
    pub(super) fn idle_holder(&self) -> Option<Pid> {
        self.holder().filter(|_| deferred_close::queued(|_| true) == 0)
    }

    fn count(&self, is_counted: impl Fn(Owner, &Stage) -> bool) -> usize {
        self.workers.iter().filter(|(worker, stage)| is_counted(worker.owner(), stage)).count()
    }

    /// Whether the service must not get more descriptors: all its workers hang, or too many descriptors wait for them.
    pub(super) fn is_behind(&self, service: ServiceIndex) -> bool {
        let owner = Owner::Service(service);
        let all_hang = self.count(|of, stage| of == owner && stage.hangs()) >= MAX_OF_SERVICE;
        let most = max_queued(MAX_QUEUED_OF_SERVICE, MAX_FRACTION_OF_SERVICE);
        // Without processes that close, there are none that start either.
        all_hang || (self.retry_at.is_none() && deferred_close::queued(|of| of == owner) >= most)
    }

    fn may_have_another(&self, owner: Owner) -> bool {
        let most = if matches!(owner, Owner::Service(_)) { MAX_OF_SERVICE } else { MAX_OF_USER };
        self.count(|of, _| of == owner) < most
    }

    fn advance(&mut self, context: &Context<'_>) {
        let now = context.now;
        for (worker, stage) in &mut self.workers {
            match *stage {
                Stage::Removing { until } if until <= now => {
                    if let Some(remover) = worker.remover() {
                        // Ends the wait for a peer of a socket; a stopped one makes room for the next.
                        kill::signal_process(remover, Signal::KILL).ok();
                        *stage = Stage::Hanging;
                    } else {
                        let started = worker.start_remover(context.poller);
                        let time = started.map_or(RETRY_INTERVAL, |()| CLOSE_TIMEOUT);
                        *stage = Stage::Removing { until: now + time };
                    }
                }
                Stage::Waiting { until }
                    if until <= now || (worker.copies.forks_over_at() <= now && !worker.copies.are_in_children()) =>
                {
                    worker.begin();
                    *stage = Stage::Closing { until: now + CLOSE_TIMEOUT };
                }
                Stage::Closing { until } if until <= now => *stage = Stage::Hanging,
                Stage::Removing { .. } | Stage::Waiting { .. } | Stage::Closing { .. } | Stage::Hanging => {}
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
                    self.workers.push((worker, Stage::Removing { until: now }));
                    self.is_looking = true;
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

    /// Reaps `pid` if it was a worker or a remover. Returns whether it was.
    pub(super) fn on_dead(&mut self, pid: Pid, now: Mono) -> bool {
        let Some((worker, stage)) = self.workers.iter_mut().find(|(worker, _)| worker.has(pid)) else { return false };
        let was_removing = !worker.has_removed();
        let status = wait::reap(pid).map_or(ExitStatus::Code(1), |ended| ended.status);
        worker.on_reaped(pid, status);
        if worker.has_removed() && was_removing {
            *stage = Stage::Waiting { until: now + MAX_WAIT };
        } else if was_removing && worker.remover().is_none() {
            *stage = Stage::Removing { until: now + RETRY_INTERVAL };
        }
        let before = self.workers.len();
        self.workers.retain(|(worker, _)| !worker.is_over());
        self.has_closed |= self.workers.len() < before;
        true
    }

    /// keepalive is about to exit: workers have copies of what is left until it has exited, so that its exit closes no last
    /// copy.
    pub(super) fn finish(&mut self) {
        while let Ok(Some(worker)) = CloseWorker::start(usize::MAX, |_| true) {
            self.workers.push((worker, Stage::Hanging));
        }
    }

    /// Why no more connections can be accepted in which descriptors can wait; `None`: they can.
    pub(super) fn why_full() -> Option<&'static str> {
        let waiting = deferred_close::queued(|owner| !matches!(owner, Owner::Service(_)));
        let is_full = waiting > 0 && waiting >= max_queued(MAX_QUEUED, MAX_QUEUED_FRACTION);
        is_full.then_some("too many descriptors that its clients have sent are not closed yet")
    }
}

fn max_queued(most: u64, fraction: u64) -> usize {
    usize::try_from(most.min(process::descriptor_limits().0 / fraction).max(16)).unwrap_or(usize::MAX)
}
