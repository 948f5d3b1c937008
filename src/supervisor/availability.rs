//! Whether what depends on a service can start.

use super::core::Supervisor;
use super::instance::Instance;
use super::operator::Refusal;
use super::service_table::ServiceOutcome;
use super::state::AfterStop;
use crate::model::{InstanceId, ServiceIndex};

/// Whether services that depend on a service can start, and if not, whether they ever will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// They can start.
    Ready,
    /// It runs, or will, and may become ready.
    Coming,
    /// Somebody must start it.
    Stopped,
    /// It has failed, or completed without being ready, and does not run again on its own.
    Failed,
}

impl Supervisor {
    pub(super) fn availability(&self, service: ServiceIndex) -> Availability {
        let status = self.services[service].status();
        match status.outcome {
            _ if status.is_ready => Availability::Ready,
            ServiceOutcome::Active => Availability::Coming,
            ServiceOutcome::Inactive => Availability::Stopped,
            ServiceOutcome::Completed | ServiceOutcome::Failed | ServiceOutcome::Mixed => Availability::Failed,
        }
    }

    /// Whether services that depend on it can start, and it is not about to be stopped.
    pub(super) fn is_available(&self, service: ServiceIndex) -> bool {
        self.availability(service) == Availability::Ready && !self.is_stop_queued(service)
    }

    pub(super) fn dependencies_are_ready(&self, service: ServiceIndex) -> bool {
        let definition = &self.services[service].definition;
        definition.depends_on.iter().all(|dependency| self.is_available(*dependency))
    }

    /// The first dependency of `service` with this availability.
    pub(super) fn dependency_that_is(&self, availability: Availability, service: ServiceIndex) -> Option<ServiceIndex> {
        let mut dependencies = self.services[service].definition.depends_on.iter().copied();
        dependencies.find(|dependency| self.availability(*dependency) == availability)
    }

    /// A dependency without which a target cannot start, and which nobody starts.
    pub(super) fn unavailable_dependency(&self, targets: &[InstanceId]) -> Option<Refusal> {
        let will_run = |instance: &Instance| {
            let stays_stopped = matches!(instance.queued_stop, Some(AfterStop::StayStopped(_)));
            !instance.state.is_inactive() && !instance.state.will_stay_stopped() && !stays_stopped
        };
        let is_unavailable =
            |dependency| !self.is_available(dependency) && !self.services[dependency].instances().iter().any(will_run);
        let refusals = targets.iter().filter_map(|target| {
            Some((target.service, self.other_dependency(target.service, targets, is_unavailable)?))
        });
        // The first ones of the configuration.
        refusals.min().map(|(service, dependency)| Refusal::DependencyUnavailable(service, dependency))
    }

    /// A service that the restart of `targets` waits for: what runs depends on it, and it is not ready.
    pub(super) fn awaited_by_restart(&self, targets: &[InstanceId]) -> Option<ServiceIndex> {
        let mut running = targets.iter().filter(|id| self.services.find(**id).is_some_and(|it| it.state.has_process()));
        running.find_map(|id| self.other_dependency(id.service, targets, |dependency| !self.is_available(dependency)))
    }

    /// The first of the dependencies of `service` that is no target, and is like this.
    fn other_dependency(
        &self,
        service: ServiceIndex,
        targets: &[InstanceId],
        is_like: impl Fn(ServiceIndex) -> bool,
    ) -> Option<ServiceIndex> {
        let is_other = |dependency: &ServiceIndex| targets.iter().all(|target| target.service != *dependency);
        let mut dependencies = self.services[service].definition.depends_on.iter().copied();
        dependencies.find(|dependency| is_like(*dependency) && is_other(dependency))
    }
}
