//! The hooks of a service: commands that run before and after the main process of an instance.

use std::time::Duration;

use super::template::Template;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// `pre_start`: before each start.
    PreStart,
    /// `pre_stop`: before the stop signal of an ordered stop.
    PreStop,
    /// `post_stop`: after each end of the main process.
    PostStop,
}

/// The hooks of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// The command of each [`Hook`], program and arguments; empty: there is none.
    pub commands: [Box<[Template]>; Hook::ALL.len()],
    /// `hook_timeout`: how long `pre_start` and `post_stop` may take.
    pub timeout: Duration,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Self; 3] = [Self::PreStart, Self::PreStop, Self::PostStop];

    /// The key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreStart => "pre_start",
            Self::PreStop => "pre_stop",
            Self::PostStop => "post_stop",
        }
    }
}

impl Hooks {
    /// The command of `hook`; empty if there is none.
    #[must_use]
    pub fn command(&self, hook: Hook) -> &[Template] {
        self.commands.get(hook as usize).map_or(&[], |command| command)
    }

    /// `hook`, if there is such a command.
    #[must_use]
    pub fn find(&self, hook: Hook) -> Option<Hook> {
        (!self.command(hook).is_empty()).then_some(hook)
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self { commands: Default::default(), timeout: Duration::from_secs(30) }
    }
}
