//! The effects of reports of processes and of probes.

use std::time::Duration;

use keepalive::model::plan::Ready;
use keepalive::model::{Mono, Pid, RunId};
use keepalive::supervisor::{ReadySource, StateName};

use super::instance::{Instance, Progress};
use super::model::Model;

impl Model {
    /// The instance that has this run with a main process.
    fn main(&mut self, run: RunId) -> Option<&mut Instance> {
        let id = self.with_main(run)?;
        Some(self.get_mut(id))
    }

    /// The program runs. Returns whether a probe must start.
    pub(crate) fn on_executed(&mut self, run: RunId, now: Mono) -> bool {
        let Some(instance) = self.main(run) else { return false };
        if instance.state != StateName::Starting || instance.progress != Progress::Made {
            return false;
        }
        instance.since = now;
        instance.progress = Progress::Executed;
        if instance.hook.is_some() {
            instance.ready_by = Some(now + instance.definition.hooks.timeout);
            return false;
        }
        instance.refusals = 0;
        match instance.definition.ready {
            Ready::Exec => instance.ready_at = Some(now),
            Ready::Delay(delay) => instance.ready_at = Some(now + delay),
            Ready::Notify | Ready::Ipc | Ready::Fd(_) | Ready::Probe(_) => {
                instance.ready_by = Some(now + instance.definition.start_timeout());
            }
        }
        matches!(instance.definition.ready, Ready::Probe(_))
    }

    /// Whether a ready report implies that the program runs.
    pub(crate) fn implies_executed(&mut self, run: RunId, source: ReadySource) -> bool {
        self.main(run).is_some_and(|instance| !instance.has_announced_stop && instance.is_ready_by(source))
    }

    pub(crate) fn on_ready(&mut self, run: RunId, source: ReadySource, now: Mono) {
        let Some(instance) = self.main(run).filter(|instance| !instance.has_announced_stop) else { return };
        // `READY=1` also ends a reload that `RELOADING=1` has begun.
        let counts = instance.is_ready_by(source);
        let ends_reload = source == ReadySource::Notify;
        match instance.state {
            StateName::Starting if counts || (ends_reload && instance.ready_again_by.is_some()) => {
                instance.ready_at = instance.ready_by.take().map(|_| now).or(instance.ready_at);
            }
            StateName::Running if counts || ends_reload => instance.progress = Progress::Ready,
            _ => {}
        }
    }

    pub(crate) fn on_reloading(&mut self, run: RunId) {
        let Some(instance) = self.main(run) else { return };
        if instance.state == StateName::Running && !instance.has_announced_stop {
            instance.progress = Progress::NotReady;
        }
    }

    pub(crate) fn on_stopping_reported(&mut self, run: RunId) {
        if let Some(instance) = self.main(run) {
            instance.has_announced_stop = true;
        }
    }

    pub(crate) fn on_reset_failures(&mut self, run: RunId) {
        let Some(id) = self.of_run(run) else { return };
        let instance = self.get_mut(id);
        (instance.unstable, instance.refusals) = (0, 0);
    }

    /// A ping, or a new interval `every`.
    pub(crate) fn on_watchdog(&mut self, run: RunId, every: Option<Duration>, now: Mono) {
        let Some(instance) = self.main(run) else { return };
        instance.reported_watchdog = every.or(instance.reported_watchdog);
        if instance.state != StateName::Running {
            return;
        }
        let every = every.or(instance.watchdog.map(|(every, _)| every)).filter(|every| !every.is_zero());
        instance.watchdog = every.map(|every| (every, now + every));
    }

    /// Extends the deadline for readiness or for the stop.
    pub(crate) fn on_timeout_extended(&mut self, run: RunId, by: Duration, now: Mono) {
        let Some(instance) = self.main(run) else { return };
        let later = |at: Mono, least: Mono| at.max(least);
        match instance.state {
            StateName::Starting if instance.ready_by.is_some() => {
                let soak = instance.definition.reload.soak;
                instance.ready_by = instance.ready_by.map(|at| later(at, now + by));
                instance.ready_again_by = instance.ready_again_by.map(|at| later(at, now + by + soak));
            }
            StateName::Stopping if instance.kills == 0 && instance.delayed_until.is_none() => {
                instance.kill_at = instance.kill_at.map(|at| later(at, now + by));
            }
            _ => {}
        }
    }

    pub(crate) fn on_main_pid_changed(&mut self, run: RunId, pid: Pid) {
        if let Some(instance) = self.main(run) {
            instance.pid = Some(pid);
        }
    }
}

impl Instance {
    /// Whether `source` is the configured source of readiness.
    fn is_ready_by(&self, source: ReadySource) -> bool {
        let expected = match self.definition.ready {
            Ready::Exec | Ready::Delay(_) => None,
            Ready::Notify => Some(ReadySource::Notify),
            Ready::Ipc => Some(ReadySource::Ipc),
            Ready::Fd(_) => Some(ReadySource::Fd),
            Ready::Probe(_) => Some(ReadySource::Probe),
        };
        expected == Some(source)
    }
}
