//! One instance, and the table of states and events.
//!
//! The table shows the next state, for a service that is restarted, is ready by `READY=1`, has a watchdog and depends on
//! another service. `·` means that the state does not change, or that the event cannot occur. A test checks every field.
//!
//! | event             | Waiting    | Spawning   | Executing  | Starting   | Running    | Stopping   | CleaningUp | BackingOff | Stopped    |
//! |-------------------|------------|------------|------------|------------|------------|------------|------------|------------|------------|
//! | spawned           | ·          | Executing  | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | spawn failed      | ·          | BackingOff | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | bind failed       | ·          | Stopped    | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | bind timed out    | ·          | BackingOff | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | executed          | ·          | ·          | Starting   | ·          | ·          | ·          | ·          | ·          | ·          |
//! | ready             | ·          | ·          | Running    | Running    | ·          | ·          | ·          | ·          | ·          |
//! | main pid changed  | ·          | ·          | Starting   | ·          | ·          | ·          | ·          | ·          | ·          |
//! | stopping reported | ·          | ·          | ·          | ·          | Stopping   | ·          | ·          | ·          | ·          |
//! | watchdog trigger  | ·          | ·          | Stopping   | Stopping   | Stopping   | ·          | ·          | ·          | ·          |
//! | other reports     | ·          | ·          | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | exited            | ·          | ·          | BackingOff | BackingOff | BackingOff | Stopped    | ·          | ·          | ·          |
//! | exited, leftovers | ·          | ·          | CleaningUp | CleaningUp | CleaningUp | CleaningUp | ·          | ·          | ·          |
//! | leftovers gone    | ·          | ·          | ·          | ·          | ·          | ·          | Stopped    | ·          | ·          |
//! | deadline          | ·          | ·          | ·          | Stopping   | Stopping   | ·          | ·          | Spawning   | ·          |
//! | dependency ready  | Spawning   | ·          | ·          | ·          | ·          | ·          | ·          | ·          | ·          |
//! | operator starts   | ·          | ·          | ·          | ·          | ·          | ·          | ·          | Spawning   | Spawning   |
//! | operator stops    | Stopped    | Stopped    | Stopping   | Stopping   | Stopping   | ·          | ·          | Stopped    | ·          |
//! | operator restarts | ·          | ·          | Stopping   | Stopping   | Stopping   | ·          | ·          | Spawning   | Spawning   |
//! | shutdown          | Stopped    | Stopped    | Stopping   | Stopping   | Stopping   | ·          | ·          | Stopped    | ·          |
//!
//! In the columns Stopping, CleaningUp and Stopped an operator has stopped the instance. All runs were unstable: after a
//! stable run the restart follows at once, with Spawning in place of BackingOff. The deadline of a running instance is that
//! of its watchdog; in Stopping and CleaningUp it is that of the next signal. Other reports update the data of the instance.
//! A oneshot with a schedule is Scheduled between its runs: it starts as if it was Stopped, and is stopped as in BackingOff.
//! Hooks add no state: `pre_start` goes through Spawning, Executing and Starting before the main process does, Stopping
//! begins with `pre_stop`, and CleaningUp ends with `post_stop`.
//! When a new process of a reload backs off because it has exited beside the old one, it starts when the old one is gone.

use std::rc::Rc;
use std::time::Duration;

use super::record::{Reason, Requester};
use super::run_result::{RestartCause, Restarts, RunResult};
use super::side_run::SideRun;
use super::state::{AfterStop, State, Stopped};
use crate::model::plan::Service;
use crate::model::{InstanceId, Mono, ProbeFailure, StartFailure};

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    /// The definition of the current or last run.
    pub(super) definition: Rc<Service>,
    pub(super) state: State,
    /// It is stopped when its dependents have stopped.
    pub(super) queued_stop: Option<AfterStop>,
    /// The number of restarts, by cause.
    pub(super) restarts: Restarts,
    /// Why the last run has ended. There has been none if it is `None`; otherwise the next start is a restart.
    pub(super) ended_by: Option<RestartCause>,
    /// It has executed its program in some run.
    pub(super) has_executed: bool,
    /// Its failure can end keepalive: it was started at boot, or has been ready since a request has started it.
    pub(super) is_established: bool,
    /// The current run has been ready.
    pub(super) has_been_ready: bool,
    /// The current run has reported `STOPPING=1`.
    pub(super) has_reported_stopping: bool,
    /// For the new process of a reload that is not ready any more: the final deadline to be ready again. More
    /// `RELOADING=1` do not move it, `EXTEND_TIMEOUT_USEC` does.
    pub(super) ready_again_by: Option<Mono>,
    /// The interval of `WATCHDOG=1`, once it is ready.
    pub(super) watchdog: Option<Duration>,
    /// The number of consecutive unstable runs.
    pub(super) unstable: u32,
    /// The number of runs that have ended on their own beside the process that it has replaced, since that one is being
    /// stopped. They do not count as unstable.
    pub(super) ends_beside_old: u32,
    /// The number of consecutive failures to create a process.
    pub(super) spawn_failures: u32,
    /// Why the current run could not execute its program.
    pub(super) start_failure: Option<StartFailure>,
    /// How the last attempt of the readiness probe of the current run has failed.
    pub(super) probe_failure: Option<ProbeFailure>,
    /// How the last failed health check of the current or last run has failed.
    pub(super) check_failure: Option<ProbeFailure>,
    /// The number of failed health checks.
    pub(super) failed_checks: u64,
    /// Its `pre_stop` or `post_stop`.
    pub(super) side_run: Option<SideRun>,
    pub(super) last_run: Option<Rc<RunResult>>,
    /// Why it is in its state.
    pub(super) reason: Option<Reason>,
}

impl Instance {
    pub(super) const fn new(id: InstanceId, definition: Rc<Service>) -> Self {
        Self {
            id,
            definition,
            state: State::Stopped { why: Stopped::NotStarted },
            queued_stop: None,
            restarts: Restarts::NONE,
            ended_by: None,
            has_executed: false,
            is_established: false,
            has_been_ready: false,
            has_reported_stopping: false,
            ready_again_by: None,
            watchdog: None,
            unstable: 0,
            ends_beside_old: 0,
            spawn_failures: 0,
            start_failure: None,
            probe_failure: None,
            check_failure: None,
            failed_checks: 0,
            side_run: None,
            last_run: None,
            reason: None,
        }
    }

    /// Creates its surge instance, which is not started and takes over the number of restarts and the last result.
    pub(super) fn surge(&self) -> Self {
        let (restarts, last_run, failed_checks) = (self.restarts, self.last_run.clone(), self.failed_checks);
        Self {
            restarts,
            last_run,
            failed_checks,
            ended_by: Some(RestartCause::Reload),
            ..Self::new(self.id.surge(), Rc::clone(&self.definition))
        }
    }

    /// Its start is requested while it is stopped: that is no restart on its own.
    pub(super) fn on_start_requested(&mut self, by: Requester) {
        self.reset_failures();
        self.is_established = false;
        self.ended_by =
            self.ended_by.map(|_| if by == Requester::Watch { RestartCause::Watch } else { RestartCause::Operator });
    }

    /// Forgets the failures.
    pub(super) const fn reset_failures(&mut self) {
        (self.unstable, self.spawn_failures) = (0, 0);
    }
}
