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
/// A helper that takes longer is slow. Each one has this time.
const MIN_WAIT: Duration = Duration::from_millis(50);
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
    /// How long slow helpers have taken.
    waited: Duration,
    waited_at: Mono,
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
        let start = crate::sys::now();
        let waited = self.waited.saturating_sub(start.since(self.waited_at) / RECOVERY);
        let (pid, outcome) = bounded::run(kept, MAX_WAIT.saturating_sub(waited).max(MIN_WAIT), work, undo)?;
        self.waited_at = crate::sys::now();
        self.waited = waited + self.waited_at.since(start).saturating_sub(MIN_WAIT);
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
