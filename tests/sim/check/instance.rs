//! What there is to know about one instance.

use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::Service;
use keepalive::model::{InstanceId, Mono, Pid, RunId, StartFailure};
use keepalive::supervisor::{Exit, Fault, StateName};

use super::restarts::Expected;
use super::{Verdict, rule};

/// Whether it is stopping because it has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnStop {
    No,
    /// Nobody else wants it to.
    Alone,
    /// Somebody wants it to, and it has not got its stop signal.
    Unasked,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub(crate) struct Instance {
    /// What its present or last run is made of.
    pub(crate) definition: Rc<Service>,
    pub(crate) state: StateName,
    /// An operator has stopped it.
    pub(crate) stopped_by_operator: bool,
    /// It is being stopped, and an operator wants it to run again.
    pub(crate) wanted: bool,
    /// Its run, for which a process has been asked.
    pub(crate) spawning: Option<RunId>,
    /// Its run, whose main process has not been reaped.
    pub(crate) main: Option<RunId>,
    /// That main process.
    pub(crate) pid: Option<Pid>,
    /// Its run, whose main process has been reaped and whose leftovers are being ended.
    pub(crate) lingering: Option<RunId>,
    /// Since when they are being ended.
    pub(super) lingering_since: Mono,
    /// They do not end, and are not waited for any more.
    pub(super) has_given_up: bool,
    pub(crate) since: Mono,
    pub(crate) failure: Option<StartFailure>,
    pub(crate) unstable: u32,
    pub(crate) refusals: u32,
    /// Runs so far, those not counted that the system was too short for.
    pub(crate) runs: u32,
    pub(crate) last_exit: Option<Exit>,
    /// What has to be said next.
    pub(crate) expected: Option<Expected>,
    /// When it is to go on from `backoff`.
    pub(crate) due: Option<Mono>,
    /// How far its run has come.
    pub(super) progress: Progress,
    /// When it is to be ready.
    pub(crate) ready_at: Option<Mono>,
    /// When it has to be ready.
    pub(crate) ready_by: Option<Mono>,
    /// When a new process that has gone away again has to be ready, however often it goes.
    pub(super) back_by: Option<Mono>,
    /// How often it has to show that it is alive, and when the next time.
    pub(crate) watch: Option<(Duration, Mono)>,
    /// What its process has said of that.
    pub(crate) watch_told: Option<Duration>,
    /// It is being stopped because it is broken.
    pub(crate) fault: Option<Fault>,
    pub(crate) own_stop: OwnStop,
    /// Its process has said that it stops, whatever it did then.
    pub(crate) has_announced_stop: bool,
    /// Its stop signal comes then.
    pub(crate) delayed_until: Option<Mono>,
    /// As the new process of a rolling reload: it has to stay up until then.
    pub(crate) min_ready_until: Option<Mono>,
    /// How long it has after its stop signal.
    pub(crate) kill_at: Option<Mono>,
    pub(crate) kills: u32,
    /// Which failure for good it was, if it has failed: the how manieth.
    pub(crate) failed: Option<u32>,
    /// Something that it depends on has failed before it could start.
    pub(crate) blocked: bool,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Made,
    /// Its program runs, as far as we have been told.
    Executed,
    Ready,
    /// It was ready, and has said that it is not there at the moment.
    NotReady,
}

/// What is still left so long after the first of five SIGKILLs no longer holds anything up.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_millis(200 + 400 + 800 + 1_600 + 3_200);

impl Instance {
    pub(super) fn new(definition: &Rc<Service>) -> Self {
        Self {
            definition: Rc::clone(definition),
            progress: Progress::Made,
            ready_by: None,
            back_by: None,
            watch: None,
            watch_told: None,
            fault: None,
            own_stop: OwnStop::No,
            has_announced_stop: false,
            delayed_until: None,
            min_ready_until: None,
            state: StateName::Stopped,
            stopped_by_operator: false,
            wanted: false,
            spawning: None,
            main: None,
            pid: None,
            lingering: None,
            lingering_since: Mono::default(),
            has_given_up: false,
            since: Mono::from_nanos(0),
            failure: None,
            unstable: 0,
            refusals: 0,
            runs: 0,
            last_exit: None,
            expected: None,
            due: None,
            ready_at: None,
            kill_at: None,
            kills: 0,
            failed: None,
            blocked: false,
        }
    }

    pub(crate) fn has_been_ready(&self) -> bool {
        matches!(self.progress, Progress::Ready | Progress::NotReady)
    }

    pub(super) fn is_not_ready(&self) -> bool {
        self.progress == Progress::NotReady
    }

    /// It has its stop signal, or as long as if it had.
    pub(super) fn is_asked(&mut self, now: Mono) {
        self.kill_at = Some(now + self.definition.stop.timeout);
        (self.delayed_until, self.kills) = (None, 0);
    }

    /// Whether it is stopping and its stop signal may still come.
    pub(super) fn may_be_asked_late(&self, now: Mono) -> bool {
        self.delayed_until.is_some_and(|until| until <= now) || self.own_stop != OwnStop::No
    }

    /// It is said to be unkillable, or what it has left.
    pub(super) fn cannot_be_killed(&mut self, id: InstanceId, now: Mono) -> Verdict {
        rule!(self.state == StateName::Stopping, "{id:?} cannot be killed while {:?}", self.state);
        if self.lingering.is_some() {
            let is_early = now < self.lingering_since + LEFTOVERS_TIMEOUT;
            rule!(!is_early, "what {id:?} has left is given up at once: {self:?}");
            self.has_given_up = true;
        }
        Ok(())
    }

    /// A failure never looks like a success.
    pub(crate) fn failure_code(&self) -> u8 {
        self.last_exit.map_or(1, |exit| exit.status.code()).max(1)
    }
}
