//! The states that users see.

/// The states that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// It waits for its dependencies.
    Waiting,
    /// It has been started. It is not ready yet.
    Starting,
    /// It is ready.
    Running,
    /// It is being stopped, or its leftover processes are.
    Stopping,
    /// It does not run until it is started.
    Stopped,
    /// It waits for its restart.
    Backoff,
    /// It waits for the next run of its schedule.
    Scheduled,
    /// It has succeeded and is not restarted.
    Completed,
    /// It has failed and is not restarted, or a dependency has failed.
    Failed,
}

impl StateName {
    /// Whether it has no process and does not start on its own.
    #[must_use]
    pub const fn is_inactive(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed)
    }

    /// The name, as status, events and metrics show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Scheduled => "scheduled",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}
