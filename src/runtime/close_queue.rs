//! Who closes what services have handed over: a few processes at a time, which are killed if that takes too long.

use std::time::Duration;

use crate::model::{Mono, Pid, Signal};
use crate::sys::deferred_close::{self, CloseWorker};
use crate::sys::{kill, process, wait};

/// From this many on nothing more is taken from services.
const MOST_WAITING: u64 = 1024;
/// And from this part of all that we may have.
const PART_WAITING: u64 = 8;
/// So many processes at once. Some file systems let even one that is killed wait for ever.
const MOST_CLOSERS: usize = 8;
const DESCRIPTORS_EACH: usize = 64;
/// A closer is killed after this long, whatever it waits for; another one goes on behind that.
const PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct CloseQueue {
    /// Until when; `None`: it has been killed.
    at_work: Vec<(CloseWorker, Option<Mono>)>,
    /// No process could be made.
    again: Option<Mono>,
}

impl CloseQueue {
    /// When there is something to be done, if nobody ends before.
    pub(super) fn due(&self) -> Option<Mono> {
        self.at_work.iter().filter_map(|(_, until)| *until).chain(self.again).min()
    }

    /// Has closed what waits, as far as there is somebody to do it.
    pub(super) fn turn(&mut self, now: Mono) {
        for (closer, until) in &mut self.at_work {
            if until.is_some_and(|until| until <= now) {
                *until = None;
                kill::signal_process(closer.pid(), Signal::KILL).ok();
            }
        }
        if self.again.is_some_and(|again| again > now) {
            return;
        }
        self.again = None;
        while self.at_work.len() < MOST_CLOSERS {
            match CloseWorker::start(DESCRIPTORS_EACH) {
                Ok(None) => return,
                Ok(Some(closer)) => self.at_work.push((closer, Some(now + PATIENCE))),
                Err(_) => {
                    self.again = Some(now + BETWEEN_TRIES);
                    return;
                }
            }
        }
    }

    /// Whether this process, which is dead and not reaped yet, was one of them. If so, it is reaped.
    pub(super) fn on_dead(&mut self, pid: Pid) -> bool {
        let Some(position) = self.at_work.iter().position(|(closer, _)| closer.pid() == pid) else { return false };
        wait::reap(pid).ok();
        self.at_work.swap_remove(position).0.finish();
        true
    }

    /// Whether services may hand over more.
    pub(super) fn have_room() -> bool {
        match deferred_close::queued() {
            0 => true,
            waiting => (waiting as u64) < MOST_WAITING.min(process::descriptor_limits().0 / PART_WAITING),
        }
    }
}
