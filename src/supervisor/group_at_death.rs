//! What `kill_mode` means for the process group of a main process that has died.

use crate::model::plan::KillMode;

/// What the death of a main process means for the rest of its process group: a rule of `kill_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAtDeath {
    /// It is sent SIGKILL at once, while its number is still that of the main process, and its end is waited for.
    Killed,
    /// It keeps running until it is signalled as leftovers, and its end is waited for.
    Kept,
    /// It is none of keepalive's business.
    LeftAlone,
}

impl GroupAtDeath {
    /// The rule for `kill_mode`.
    #[must_use]
    pub const fn of(kill_mode: KillMode) -> Self {
        match kill_mode {
            KillMode::Mixed => Self::Killed,
            KillMode::Group => Self::Kept,
            KillMode::Process => Self::LeftAlone,
        }
    }
}
