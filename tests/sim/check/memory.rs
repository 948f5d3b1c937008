//! The rules for `max_memory`: measured at most once a second and only if something has a limit, and a process is replaced only
//! if it was too large, one of a service at a time.

use std::collections::HashMap;
use std::time::Duration;

use keepalive::model::{MemoryUse, Mono, RunId, ServiceIndex};
use keepalive::supervisor::StateName;

use super::{Checker, Verdict, rule};

/// What has been measured.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The time of the last request, while it is not answered.
    asked_at: Option<Mono>,
    measured_at: Option<Mono>,
    used: HashMap<RunId, MemoryUse>,
}

impl Memory {
    pub(super) fn on_measured(&mut self, used: &[(RunId, MemoryUse)]) {
        self.measured_at = self.asked_at.take();
        self.used.extend(used.iter().copied());
    }
}

impl Checker {
    pub(super) fn check_measuring(&mut self) -> Verdict {
        rule!(!self.shutdown.has_begun(), "memory is measured during the shutdown");
        rule!(self.memory.asked_at.is_none(), "memory is measured twice at once");
        let is_early = self.memory.measured_at.is_some_and(|at| self.now.since(at) < Duration::from_secs(1));
        rule!(!is_early, "memory is measured more than once a second");
        self.memory.asked_at = Some(self.now);
        Ok(())
    }

    /// One process of a service is replaced at a time.
    pub(super) fn check_too_large(&self, service: ServiceIndex, used: MemoryUse) -> Verdict {
        rule!(!self.model.is_reloading(service), "{service:?} is being reloaded already");
        let limit = self.plan.services[service.position()].max_memory;
        rule!(limit.is_some(), "{service:?} has no `max_memory`");
        let was_measured = self.memory.used.values().any(|one| *one == used);
        rule!(was_measured, "{used:?} was not measured");
        let runs = self.model.of(service).iter().any(|one| one.state == StateName::Running);
        rule!(runs, "no process of {service:?} runs");
        Ok(())
    }
}
