//! Closes what services have handed over: by a few processes at a time, which are killed if that takes too long.

use std::time::Duration;

use super::subsystem::{Context, Subsystem};
use crate::model::{Mono, Pid, Signal};
use crate::supervisor::Event;
use crate::sys::deferred_close::{self, CloseWorker};
use crate::sys::{kill, process, wait};

/// From this many on nothing more is taken from services.
const MAX_WAITING: u64 = 1024;
/// And from this part of all that we may have.
const PART_WAITING: u64 = 8;
/// So many processes at once. Some file systems let even one that is killed wait for ever.
const MAX_WORKERS: usize = 8;
const DESCRIPTORS_EACH: usize = 64;
/// A worker is killed after this long, whatever it waits for; another one goes on with what is behind that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct CloseQueue {
    /// Until when; `None`: it has been killed.
    at_work: Vec<(CloseWorker, Option<Mono>)>,
    /// No process could be made.
    again: Option<Mono>,
}

impl Subsystem for CloseQueue {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.at_work.iter().filter_map(|(_, until)| *until).chain(self.again).min()
    }

    /// Has what waits closed, as far as there are workers for it.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        self.kill_overdue(context.now);
        self.start_workers(context.now);
        Vec::new()
    }
}

impl CloseQueue {
    fn kill_overdue(&mut self, now: Mono) {
        for (worker, until) in &mut self.at_work {
            if until.is_some_and(|until| until <= now) {
                *until = None;
                kill::signal_process(worker.pid(), Signal::KILL).ok();
            }
        }
    }

    fn start_workers(&mut self, now: Mono) {
        if self.again.is_some_and(|again| again > now) {
            return;
        }
        self.again = None;
        while self.at_work.len() < MAX_WORKERS {
            match CloseWorker::start(DESCRIPTORS_EACH) {
                Ok(None) => return,
                Ok(Some(worker)) => self.at_work.push((worker, Some(now + CLOSE_TIMEOUT))),
                Err(_) => {
                    self.again = Some(now + BETWEEN_TRIES);
                    return;
                }
            }
        }
    }

    /// Whether this process, which is dead and not reaped yet, was one of them. If so, it is reaped.
    pub(super) fn on_dead(&mut self, pid: Pid) -> bool {
        let Some(position) = self.at_work.iter().position(|(worker, _)| worker.pid() == pid) else { return false };
        wait::reap(pid).ok();
        self.at_work.swap_remove(position).0.finish();
        true
    }

    /// Whether services may hand over more.
    pub(super) fn have_room() -> bool {
        match deferred_close::queued() {
            0 => true,
            waiting => (waiting as u64) < MAX_WAITING.min(process::descriptor_limits().0 / PART_WAITING),
        }
    }
}
