//! `max_lifetime`: a process that is old is replaced, as by a reload, one instance of a service after the other.

use std::time::Duration;

use super::core::Supervisor;
use super::readiness::Lifetime;
use super::record::Requester;
use super::state::{Running, State};
use crate::model::{Mono, ServiceIndex};

/// A lifetime is up to this fraction shorter, so that instances that have started together are not replaced together.
const JITTER: f64 = 0.1;
/// After a replacement that has failed, the next attempt follows after this part of the lifetime.
const ATTEMPTS_PER_LIFETIME: u32 = 10;

impl Supervisor {
    /// The lifetime of a process that was started at `since`.
    pub(super) fn lifetime_from(&mut self, since: Mono, limit: Option<Duration>) -> Lifetime {
        limit.map_or(Lifetime::Unlimited, |limit| {
            let shorter = JITTER * self.random.signed_unit().abs();
            Lifetime::Until(
                since
                    + limit
                        .saturating_sub(Duration::try_from_secs_f64(limit.as_secs_f64() * shorter).unwrap_or_default()),
            )
        })
    }

    /// Begins to replace the first process that is too old, unless the service is being reloaded.
    pub(super) fn replace_expired(&mut self, service: ServiceIndex) {
        let Some(limit) = self.services[service].definition.max_lifetime else { return };
        if self.is_draining() || self.services[service].is_retiring() || self.rollouts.contains_key(&service) {
            return;
        }
        let is_over = |state: State| matches!(state, State::Running(Running { lifetime: Lifetime::Over, .. }));
        let expired =
            self.services.ids_of(service).find(|id| self.services.has(*id) && is_over(self.services[*id].state));
        if let Some(id) = expired {
            let next_attempt = Lifetime::Until(self.now + limit / ATTEMPTS_PER_LIFETIME);
            self.update_running(id, |running| running.lifetime = next_attempt);
            self.start_rollout(service, vec![id.number], None, None, Requester::Lifetime);
        }
    }
}
