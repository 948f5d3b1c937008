//! A rolling reload of one service: how far it is, and why it has failed.

use std::collections::VecDeque;
use std::rc::Rc;

use super::run_result::RunResult;
use crate::model::plan::{Service, Strategy};
use crate::model::{InstanceId, ServiceIndex};

/// What there is to do for one service.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) strategy: Strategy,
    /// Numbers of instances, in order.
    pub(super) todo: VecDeque<u32>,
    pub(super) underway: Vec<Slot>,
    /// What to go back to; `None`: nothing has changed, or it goes back already.
    pub(super) before: Option<Rc<Service>>,
    /// How many instances there are to be afterwards, if that changes.
    pub(super) resize: Option<u32>,
    /// Whether it has been begun with; until then it waits for what the service depends on.
    pub(super) has_begun: bool,
    /// The first thing that went wrong.
    pub(super) failure: Option<ReloadFailure>,
    /// What follows from that has been done.
    pub(super) is_failure_handled: bool,
}

/// An instance whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) stage: RolloutStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RolloutStage {
    /// The surge is the new process.
    Surging,
    /// The surge is the old one.
    Retiring,
    /// It is restarted where it is.
    InPlace,
    /// It has got its signal, and may say what comes of it.
    ReloadSignalled,
}

/// Why a reload has ended before its end.
#[derive(Clone, Debug, PartialEq)]
pub struct ReloadFailure {
    /// Whose new process it was, or was to be.
    pub instance: InstanceId,
    /// What it was to be made of.
    pub definition: Rc<Service>,
    /// What was wrong.
    pub error: RolloutError,
}

/// What has kept an instance from getting another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutError {
    /// The process has ended like this.
    Ended(RunResult),
    /// The process has said that it ends, and has.
    StoppedItself(RunResult),
    /// It is the same process, has begun to reload, and was not done in time.
    Late,
    /// The system had no process to give.
    NoProcess,
    /// What the service depends on has come to its end, and not well.
    Dependency(ServiceIndex),
    /// Another configuration came before it began.
    Overtaken,
}
