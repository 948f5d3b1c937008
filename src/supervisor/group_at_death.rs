//! What happens to the process group of a main process that has exited.

use crate::model::plan::KillMode;

/// What happens to the process group of a main process that has exited, by `kill_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAtDeath {
    /// It is sent SIGKILL before the main process is reaped, while its id cannot be reused. The next run waits until it is
    /// gone.
    Killed,
    /// It is sent the stop signal, then SIGKILL, as leftover processes are. The next run waits until it is gone.
    Kept,
    /// It is left alone.
    LeftAlone,
}

impl GroupAtDeath {
    /// The rule of `kill_mode`.
    #[must_use]
    pub const fn of(kill_mode: KillMode) -> Self {
        match kill_mode {
            KillMode::Mixed => Self::Killed,
            KillMode::Group => Self::Kept,
            KillMode::Process => Self::LeftAlone,
        }
    }
}
