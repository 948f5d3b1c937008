//! The shutdown: services are stopped, dependents before their dependencies; then leftover processes; then keepalive
//! exits.

use std::rc::Rc;
use std::time::Duration;

use super::core::Supervisor;
use super::event::Action;
use super::phase::{Drain, DrainStage, Phase};
use super::record::{Cause, JournalEvent, Outcome};
use super::state::{AfterStop, State, Stopped};
use crate::model::{ServiceIndex, Signal};

/// How long leftover processes, such as daemons, have after SIGTERM: the default `stop_timeout`.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long keepalive waits after SIGKILL to all. A process that is still there hangs in the kernel, and waiting longer
/// would not help.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);
/// The time after the first SIGINT from which a second one counts. A terminal and a container engine can both pass on the
/// same Ctrl-C.
const MIN_INTERRUPT_INTERVAL: Duration = Duration::from_millis(200);
/// The exit code of a forced shutdown: the same as if the orchestrator had sent SIGKILL.
const FORCED_CODE: u8 = 137;

impl Supervisor {
    /// Begins the shutdown, unless it has begun.
    pub(super) fn begin_shutdown(&mut self, outcome: Outcome) {
        if self.is_draining() {
            return;
        }
        let failed = outcome.cause.failed_instance();
        self.record(JournalEvent::ShutdownStarted { cause: outcome.cause.clone() });
        self.act(Action::CancelConfigLoad);
        let deadline = self.now + self.plan.shutdown_timeout;
        self.phase = Phase::Draining(Drain { deadline, outcome, stage: DrainStage::Services, interrupted_at: None });
        self.refuse_requests(failed);
        self.ordered_stops.clear();
        self.cancel_rollouts();
        self.end_checks();
        for id in self.services.ids() {
            if let State::Waiting { .. } | State::BackingOff { .. } | State::Scheduled { .. } | State::Spawning { .. } =
                self.services[id].state
            {
                self.stop(id, AfterStop::StayStopped(Stopped::Shutdown));
            }
        }
        for service in self.services.service_indexes() {
            self.stop_if_unneeded(service);
        }
        // No service changes its state if none is running, and `propagate` has nothing to do.
        if self.services.total().live == 0 {
            self.on_all_stopped();
        }
    }

    pub(super) fn on_shutdown_signal(&mut self, signal: Signal) {
        self.begin_shutdown(Outcome { code: 0, cause: Cause::Signal(signal) });
        if signal == Signal::INT {
            self.on_interrupt();
        }
    }

    /// The configuration says that this signal kills all processes.
    pub(super) fn on_kill_signal(&mut self, signal: Signal) {
        self.begin_shutdown(Outcome { code: 0, cause: Cause::Signal(signal) });
        if self.is_draining() && !self.is_forced() {
            self.force_shutdown(Some(signal));
        }
    }

    /// A second SIGINT comes from a person who does not want to wait. All other signals change nothing during the shutdown:
    /// platforms send them more than once.
    fn on_interrupt(&mut self) {
        let Phase::Draining(drain) = &mut self.phase else { return };
        let first = *drain.interrupted_at.get_or_insert(self.now);
        if self.now.since(first) >= MIN_INTERRUPT_INTERVAL && !drain.is_forced() {
            self.force_shutdown(Some(Signal::INT));
        }
    }

    /// Stops a service if its direct and indirect dependents have stopped. When it has stopped, continues with its
    /// dependencies.
    pub(super) fn stop_if_unneeded(&mut self, service: ServiceIndex) {
        let mut pending = vec![service];
        while let Some(index) = pending.pop() {
            if self.services[index].is_drained || self.services[index].live_dependents > 0 {
                continue;
            }
            for id in self.services.ids_of(index) {
                if !self.services[id].state.is_inactive() {
                    self.stop(id, AfterStop::StayStopped(Stopped::Shutdown));
                }
            }
            if self.services[index].counts.live == 0 {
                self.services[index].is_drained = true;
                let definition = Rc::clone(&self.services[index].definition);
                for dependency in &definition.depends_on {
                    self.services[*dependency].live_dependents -= 1;
                    pending.push(*dependency);
                }
            }
        }
    }

    /// No service has a process any more: stops the leftover processes, wherever they are.
    pub(super) fn on_all_stopped(&mut self) {
        let Phase::Draining(drain) = &mut self.phase else { return };
        match drain.stage {
            DrainStage::Services => {
                drain.stage = DrainStage::Leftovers { until: self.now + LEFTOVERS_TIMEOUT };
                self.act(Action::SignalAll { signal: Signal::TERM });
                self.act(Action::SignalAll { signal: Signal::CONT });
            }
            // `Event::NoChildren` or the deadline follows.
            DrainStage::Leftovers { .. } | DrainStage::Killed { .. } => {}
        }
    }

    pub(super) fn on_drain_deadline(&mut self) {
        let Phase::Draining(drain) = &mut self.phase else { return };
        if drain.until() > self.now {
            return;
        }
        match drain.stage {
            DrainStage::Services => self.force_shutdown(None),
            DrainStage::Leftovers { .. } if drain.deadline <= self.now => self.force_shutdown(None),
            DrainStage::Leftovers { .. } => {
                self.kill_everything(JournalEvent::LeftoverProcessesKilled);
            }
            DrainStage::Killed { .. } => {
                self.record(JournalEvent::ProcessesAbandoned);
                self.end();
            }
        }
    }

    fn force_shutdown(&mut self, signal: Option<Signal>) {
        if let Phase::Draining(drain) = &mut self.phase {
            drain.outcome.code = forced_code(&drain.outcome);
        }
        self.kill_everything(JournalEvent::ShutdownForced { signal });
        self.finish_all_cleanups();
        for id in self.services.ids_with_surges() {
            if !self.services[id].state.is_inactive() {
                self.stop(id, AfterStop::StayStopped(Stopped::Shutdown));
            }
        }
    }

    /// `why` is recorded afterwards: the logger is killed too, with the messages that it has not written yet.
    fn kill_everything(&mut self, why: JournalEvent) {
        if let Phase::Draining(drain) = &mut self.phase {
            drain.stage = DrainStage::Killed { until: self.now + KILL_TIMEOUT };
        }
        self.act(Action::SignalAll { signal: Signal::KILL });
        self.record(why);
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
        if let Phase::Draining(drain) = std::mem::replace(&mut self.phase, Phase::Ended) {
            self.act(Action::Exit(drain.outcome));
        }
    }
}

/// A requested shutdown was not completed. After a failure the exit code of the failure remains.
const fn forced_code(outcome: &Outcome) -> u8 {
    match outcome.cause {
        Cause::Signal(_) | Cause::Requested => FORCED_CODE,
        Cause::Failed { .. } | Cause::Unhealthy { .. } | Cause::Completed { .. } | Cause::NothingLeft { .. } => {
            outcome.code
        }
    }
}
