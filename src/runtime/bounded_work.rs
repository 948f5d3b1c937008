//! Work for which keepalive waits a limited time, also if it hangs again and again: see [`bounded`].

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::ended_helpers::EndedHelpers;
use crate::model::{Mono, Pid};
use crate::sys::bounded::{self, Report};

/// How long keepalive waits for slow helpers in all, for example during a reload.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// After so many times the time that it has waited, this is forgotten.
const RECOVERY: u32 = 10;
/// A helper that takes longer is slow. Each one has this time, which is not counted.
const MIN_WAIT: Duration = Duration::from_millis(5);
/// The number of helpers that hang, perhaps for ever.
const MAX_HANGING: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BoundedWork {
    /// No process has been started that could hold up anything: the work is done without a helper.
    pub(super) is_direct: bool,
    helpers: EndedHelpers,
    /// The helpers that keepalive does not wait for any more, and what they hang in.
    hanging: Vec<(Pid, PathBuf)>,
    budget: Budget,
}

/// How long keepalive may wait.
#[derive(Debug, Default)]
struct Budget {
    /// How long slow helpers have taken.
    waited: Duration,
    waited_at: Mono,
}

impl Budget {
    /// For a helper that is started now.
    fn timeout(&mut self, now: Mono) -> Duration {
        self.waited = self.waited.saturating_sub(now.since(self.waited_at) / RECOVERY);
        self.waited_at = now;
        MAX_WAIT.saturating_sub(self.waited).max(MIN_WAIT)
    }

    /// Keepalive has waited since [`Self::timeout`].
    fn spend(&mut self, now: Mono) {
        self.waited += now.since(self.waited_at).saturating_sub(MIN_WAIT);
        self.waited_at = now;
    }
}

impl BoundedWork {
    /// Does `work` with the descriptors `kept`. `place`: what can be locked; a helper that hangs there is not followed by
    /// another one. `undo`: what is done with the report of a helper that is late.
    ///
    /// # Errors
    /// Those of the work. ETIMEDOUT: it takes too long, or would. Those of [`bounded::run`].
    pub(super) fn run(
        &mut self,
        place: &Path,
        kept: &[BorrowedFd<'_>],
        work: &dyn Fn() -> Result<Report, Errno>,
        undo: &dyn Fn(Report),
    ) -> Result<Report, Errno> {
        if self.is_direct() {
            return work();
        }
        self.reap(Mono::default());
        if self.hanging.len() >= MAX_HANGING || self.hanging.iter().any(|(_, hangs_in)| hangs_in == place) {
            return Err(Errno::ETIMEDOUT);
        }
        let timeout = self.budget.timeout(crate::sys::now());
        let started = bounded::run(kept, timeout, work, undo);
        self.budget.spend(crate::sys::now());
        let (pid, outcome) = started?;
        // It is due at once.
        self.helpers.push(pid, Mono::default());
        outcome.unwrap_or_else(|| {
            self.hanging.push((pid, place.to_owned()));
            Err(Errno::ETIMEDOUT)
        })
    }

    /// Whether no process can hold up anything. In a process with several threads, a child cannot allocate.
    pub(super) const fn is_direct(&self) -> bool {
        self.is_direct || cfg!(test)
    }

    /// When [`Self::reap`] must be called.
    pub(super) const fn due(&self) -> Option<Mono> {
        self.helpers.due()
    }

    /// Reaps helpers that have exited.
    pub(super) fn reap(&mut self, now: Mono) {
        self.helpers.reap(now);
        self.hanging.retain(|(pid, _)| self.helpers.pids().contains(pid));
    }

    pub(super) fn pids(&self) -> &[Pid] {
        self.helpers.pids()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long keepalive waits for so many helpers one after the other.
    fn waited(count: u32, each: Duration) -> Duration {
        let mut budget = Budget::default();
        let start = Mono::default() + Duration::from_secs(3600);
        let next = |now, _| {
            let ended = now + budget.timeout(now).min(each);
            budget.spend(ended);
            ended
        };
        (0..count).fold(start, next).since(start)
    }

    #[test]
    fn keepalive_waits_for_helpers_a_second_in_all_and_5_ms_for_each() {
        for each in [20, 49, 50, 300, 10_000] {
            let waited = waited(100, Duration::from_millis(each));
            assert!((1_000..=1_500).contains(&waited.as_millis()), "{each} ms each: {waited:?}");
        }
        assert_eq!(waited(1_000, MIN_WAIT), MIN_WAIT * 1_000, "these are not slow");
    }
}
