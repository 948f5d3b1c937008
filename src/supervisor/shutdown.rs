//! The ordered end: what nobody depends on any more is stopped first, then what was left running, then keepalive ends.

use std::rc::Rc;
use std::time::Duration;

use super::core::Supervisor;
use super::event::Action;
use super::phase::{Drain, DrainStage, Phase};
use super::record::{Cause, JournalEvent, Outcome};
use super::state::{AfterStop, State, Stopped};
use crate::model::{ServiceIndex, Signal};

/// What has daemonised gets so long after SIGTERM: the default `stop_timeout`.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(5);
/// After SIGKILL to all. A process that outlasts it hangs in the kernel; waiting longer would not help.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);
/// The exit code of an end that had to be forced: what it would be had the orchestrator sent the SIGKILL.
const FORCED_CODE: u8 = 137;

impl Supervisor {
    /// Begins the ordered stop, unless it has begun.
    pub(super) fn shut_down(&mut self, outcome: Outcome) {
        if self.is_draining() {
            return;
        }
        self.record(JournalEvent::Draining { cause: outcome.cause.clone() });
        self.act(Action::CancelConfigLoad);
        let deadline = self.now + self.plan.shutdown_timeout;
        self.phase = Phase::Draining(Drain { deadline, outcome, stage: DrainStage::Services, signalled: false });
        self.refuse_requests();
        self.cancel_rollouts();
        for id in self.services.ids() {
            if let State::Waiting | State::BackingOff { .. } | State::Spawning { .. } = self.services[id].state {
                self.stop(id, AfterStop::Rest(Stopped::Shutdown));
            }
        }
        for service in self.services.service_indexes() {
            self.stop_unneeded(service);
        }
        // `propagate` goes round again even if no service had anything to stop.
        if self.services.total().live == 0 {
            self.on_all_down();
        }
    }

    pub(super) fn on_stop_signal(&mut self, signal: Signal) {
        self.shut_down(Outcome { code: 0, cause: Cause::Signal(signal) });
        if let Phase::Draining(drain) = &mut self.phase
            && std::mem::replace(&mut drain.signalled, true)
            && !drain.is_forced()
        {
            self.force(Some(signal));
        }
    }

    /// Stops a service once nothing is left of what depends on it, be it through others that are down themselves; then
    /// looks at what it depends on in turn.
    pub(super) fn stop_unneeded(&mut self, service: ServiceIndex) {
        let mut pending = vec![service];
        while let Some(index) = pending.pop() {
            if self.services[index].released || self.services[index].live_dependents > 0 {
                continue;
            }
            for id in self.services.ids_of(index) {
                if !self.services[id].state.is_resting() {
                    self.stop(id, AfterStop::Rest(Stopped::Shutdown));
                }
            }
            if self.services[index].counts.live == 0 {
                self.services[index].released = true;
                let definition = Rc::clone(&self.services[index].definition);
                for dependency in &definition.depends_on {
                    self.services[*dependency].live_dependents -= 1;
                    pending.push(*dependency);
                }
            }
        }
    }

    /// No service has a process any more. What they left running, however it has hidden, goes next.
    pub(super) fn on_all_down(&mut self) {
        let Phase::Draining(drain) = &mut self.phase else { return };
        match drain.stage {
            DrainStage::Services => {
                drain.stage = DrainStage::Leftovers { until: self.now + LEFTOVERS_TIMEOUT };
                self.act(Action::SignalAll { signal: Signal::TERM });
                self.act(Action::SignalAll { signal: Signal::CONT });
            }
            // The answer, `Event::Childless`, is on its way or its deadline is.
            DrainStage::Leftovers { .. } | DrainStage::Killed { .. } => {}
        }
    }

    pub(super) fn on_drain_deadline(&mut self) {
        let Phase::Draining(drain) = &mut self.phase else { return };
        if drain.until() > self.now {
            return;
        }
        match drain.stage {
            DrainStage::Services => self.force(None),
            DrainStage::Leftovers { .. } if drain.deadline <= self.now => self.force(None),
            DrainStage::Leftovers { .. } => {
                self.record(JournalEvent::LeftoversKilled);
                self.kill_everything();
            }
            DrainStage::Killed { .. } => {
                self.record(JournalEvent::Abandoned);
                self.end();
            }
        }
    }

    fn force(&mut self, signal: Option<Signal>) {
        self.record(JournalEvent::Forced { signal });
        if let Phase::Draining(drain) = &mut self.phase {
            drain.outcome.code = forced_code(&drain.outcome);
        }
        self.kill_everything();
        self.finish_all_cleanups();
        for id in self.services.ids_with_surges() {
            if !self.services[id].state.is_resting() {
                self.stop(id, AfterStop::Rest(Stopped::Shutdown));
            }
        }
    }

    fn kill_everything(&mut self) {
        if let Phase::Draining(drain) = &mut self.phase {
            drain.stage = DrainStage::Killed { until: self.now + KILL_TIMEOUT };
        }
        self.act(Action::SignalAll { signal: Signal::KILL });
    }

    /// keepalive has no child left.
    pub(super) fn on_no_children(&mut self) {
        let Phase::Draining(drain) = &self.phase else { return };
        match drain.stage {
            DrainStage::Services => {}
            DrainStage::Leftovers { .. } | DrainStage::Killed { .. } => {
                if self.services.total().live == 0 {
                    self.end();
                }
            }
        }
    }

    fn end(&mut self) {
        if let Phase::Draining(drain) = std::mem::replace(&mut self.phase, Phase::Over) {
            self.act(Action::Exit(drain.outcome));
        }
    }
}

/// An end that was asked for was not orderly after all; any other keeps the code of what brought it about.
const fn forced_code(outcome: &Outcome) -> u8 {
    match outcome.cause {
        Cause::Signal(_) | Cause::Requested => FORCED_CODE,
        Cause::Failed { .. } | Cause::Completed { .. } | Cause::NothingLeft { .. } => outcome.code,
    }
}
