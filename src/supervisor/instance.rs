//! One instance: what each event does in each state.
//!
//! The table shows the state that follows, for a service that is restarted, is ready by `READY=1`, has a watchdog and
//! depends on another service; `·` means that the instance stays in its state, or that the event cannot come. A test
//! checks every field of it.
//!
//! | event             | Waiting    | Spawning   | Executing  | Starting   | Running    | Stopping   | CleaningUp | BackingOff | Stopped    |
//! |-------------------|------------|------------|------------|------------|------------|------------|------------|------------|------------|
//! | spawned           | ·          | Executing  | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | spawn refused     | ·          | BackingOff | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | bind failed       | ·          | Stopped    | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | executed          | ·          | ·          | Starting   | ·          | ·          | ·          | ·          | ·          | ·          |
//! | ready             | ·          | ·          | Running    | Running    | ·          | ·          | ·          | ·          | ·          |
//! | main pid changed  | ·          | ·          | Starting   | ·          | ·          | ·          | ·          | ·          | ·          |
//! | stopping itself   | ·          | ·          | ·          | ·          | Stopping   | ·          | ·          | ·          | ·          |
//! | watchdog trigger  | ·          | ·          | Stopping   | Stopping   | Stopping   | ·          | ·          | ·          | ·          |
//! | other reports     | ·          | ·          | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | exited            | ·          | ·          | BackingOff | BackingOff | BackingOff | Stopped    | ·          | ·          | ·          |
//! | left processes    | ·          | ·          | CleaningUp | CleaningUp | CleaningUp | CleaningUp | ·          | ·          | ·          |
//! | leftovers gone    | ·          | ·          | ·          | ·          | ·          | ·          | Stopped    | ·          | ·          |
//! | deadline          | ·          | ·          | ·          | Stopping   | Stopping   | ·          | ·          | Spawning   | ·          |
//! | dependency ready  | Spawning   | ·          | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | operator starts   | ·          | ·          | ·          | ·          | ·          | ·          | ·          | Spawning   | Spawning   |
//! | operator stops    | Stopped    | Stopped    | Stopping   | Stopping   | Stopping   | ·          | ·          | Stopped    | ·          |
//! | operator restarts | ·          | ·          | Stopping   | Stopping   | Stopping   | ·          | ·          | Spawning   | Spawning   |
//! | shutdown          | Stopped    | Stopped    | Stopping   | Stopping   | Stopping   | ·          | ·          | Stopped    | ·          |
//!
//! What is Stopping, CleaningUp or Stopped here was stopped by an operator; what has run was not stable. After a stable run
//! the next one follows at once: Spawning in place of BackingOff. The deadline of a running instance is that of its
//! watchdog; those of an instance that is Stopping or CleaningUp bring the next signal. The other reports are those that
//! change what is known of an instance and not its state.

use std::rc::Rc;
use std::time::Duration;

use super::record::Reason;
use super::run_result::RunResult;
use super::state::{State, Stopped};
use crate::model::plan::Service;
use crate::model::{InstanceId, Mono, StartFailure};

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    /// What its present or last run is made of.
    pub(super) definition: Rc<Service>,
    pub(super) state: State,
    /// How often it has been started again, for whatever reason.
    pub(super) restarts: u32,
    /// There has been a run since the last start: the next start is a restart.
    pub(super) has_run: bool,
    /// Its present run has been ready.
    pub(super) has_been_ready: bool,
    /// Its present run has reported `STOPPING=1`.
    pub(super) has_announced_stop: bool,
    /// As the new process of a reload that is not ready any more: when it has to be ready again, however often it changes.
    pub(super) back_by: Option<Mono>,
    /// How often it has to send `WATCHDOG=1` once it is ready.
    pub(super) watchdog: Option<Duration>,
    /// Consecutive unstable runs.
    pub(super) unstable: u32,
    /// Consecutive starts that the system refused.
    pub(super) refusals: u32,
    /// Why the present run never executed its program.
    pub(super) start_failure: Option<StartFailure>,
    pub(super) last_run: Option<RunResult>,
    /// Why it is in its state.
    pub(super) reason: Option<Reason>,
}

impl Instance {
    pub(super) const fn new(id: InstanceId, definition: Rc<Service>) -> Self {
        Self {
            id,
            definition,
            state: State::Stopped { why: Stopped::NotStarted },
            restarts: 0,
            has_run: false,
            has_been_ready: false,
            has_announced_stop: false,
            back_by: None,
            watchdog: None,
            unstable: 0,
            refusals: 0,
            start_failure: None,
            last_run: None,
            reason: None,
        }
    }

    /// Its surge instance: not started, with the history of this one.
    pub(super) fn surge(&self) -> Self {
        let (restarts, last_run) = (self.restarts, self.last_run);
        Self { restarts, last_run, has_run: true, ..Self::new(self.id.surge(), Rc::clone(&self.definition)) }
    }

    /// Forgets the failures so far.
    pub(super) const fn reset_failures(&mut self) {
        (self.unstable, self.refusals) = (0, 0);
    }
}
