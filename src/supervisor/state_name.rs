//! The states that users see.

/// The states that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// For what it depends on.
    Waiting,
    /// It has been started and is not ready yet.
    Starting,
    /// It is ready.
    Running,
    /// It has been told to end, or what it left is being ended.
    Stopping,
    /// It does not run and will not by itself.
    Stopped,
    /// A restart is due.
    Backoff,
    /// It has succeeded and will not run again.
    Completed,
    /// It has failed for good, or what it depends on has.
    Failed,
}

impl StateName {
    /// Whether it has no process, and gets none by itself.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed)
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}
