//! The state of a hook that runs beside or after the main process.

use crate::model::plan::Hook;
use crate::model::{Mono, RunId, StartFailure};

/// A `pre_stop` or `post_stop` that is about to run, or whose processes are not all gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct SideRun {
    pub(super) run: RunId,
    pub(super) hook: Hook,
    pub(super) since: Mono,
    /// It has been created.
    pub(super) has_process: bool,
    pub(super) has_exited: bool,
    /// Nothing that it does is a failure any more.
    pub(super) is_killed: bool,
    /// Why it could not execute its program.
    pub(super) failure: Option<StartFailure>,
}
