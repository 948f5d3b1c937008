//! Whether what depends on a service can start.

use super::core::Supervisor;
use super::service_table::ServiceOutcome;
use crate::model::ServiceIndex;

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
}
