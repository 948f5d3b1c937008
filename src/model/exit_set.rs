//! The values of `success_exit_codes` and `no_restart_exit_codes`.

use super::process::ExitStatus;
use super::signal::Signal;

/// A set of exit codes and signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitSet {
    codes: [u64; 4],
    signals: u64,
}

impl ExitSet {
    /// Adds `status`.
    pub fn insert(&mut self, status: ExitStatus) {
        match status {
            ExitStatus::Code(code) => {
                if let Some(word) = self.codes.get_mut(usize::from(code / 64)) {
                    *word |= 1 << (code % 64);
                }
            }
            ExitStatus::Signal(signal) => self.signals |= signal.bit(),
        }
    }

    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(&self, status: ExitStatus) -> bool {
        match status {
            ExitStatus::Code(code) => {
                self.codes.get(usize::from(code / 64)).is_some_and(|word| word & (1 << (code % 64)) != 0)
            }
            ExitStatus::Signal(signal) => self.signals & signal.bit() != 0,
        }
    }

    /// The codes in ascending order, then the signals in ascending order.
    #[must_use]
    pub fn list(&self) -> Vec<ExitStatus> {
        let mut all: Vec<_> = (0..=u8::MAX).map(ExitStatus::Code).collect();
        all.extend(Signal::all().map(ExitStatus::Signal));
        all.retain(|status| self.contains(*status));
        all
    }
}

impl FromIterator<ExitStatus> for ExitSet {
    fn from_iter<I: IntoIterator<Item = ExitStatus>>(statuses: I) -> Self {
        let mut set = Self::default();
        for status in statuses {
            set.insert(status);
        }
        set
    }
}
