//! What happens to the process group of a main process that has exited.

use crate::model::plan::KillMode;

/// What happens to the process group of a main process that has exited, by `kill_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAtDeath {
    /// It is sent SIGKILL before the main process is reaped, while its id cannot be reused. The next run waits until it is
    /// gone.
    Killed,
    /// It is stopped after the main process has been reaped, with the stop signal, then SIGKILL, as other leftover processes are. The next run waits until it is gone.
    Stopped,
    /// It is left alone.
    LeftAlone,
}

impl GroupAtDeath {
    /// The rule of `kill_mode`.
    #[must_use]
    pub const fn of(kill_mode: KillMode) -> Self {
        match kill_mode {
            KillMode::Mixed => Self::Killed,
            KillMode::Group => Self::Stopped,
            KillMode::Process => Self::LeftAlone,
        }
    }
}
