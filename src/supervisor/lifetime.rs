//! `max_lifetime`: a process that is old is replaced, as by a reload, one instance of a service after the other.

use std::time::Duration;

use super::core::Supervisor;
use super::measuring::MemoryState;
use super::readiness::Lifetime;
use super::record::Requester;
use super::state::State;
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

    /// Begins to replace the first process that is too old or uses too much memory, unless the service is being reloaded.
    pub(super) fn replace_due(&mut self, service: ServiceIndex) {
        if self.is_draining()
            || self.services[service].is_retiring()
            || self.rollouts.contains_key(&service)
            || self.is_stop_queued(service)
        {
            return;
        }
        let cause = |state: State| {
            let State::Running(running) = state else { return None };
            match (running.lifetime, running.memory) {
                (Lifetime::Over, _) => Some(Requester::Lifetime),
                (_, MemoryState::Above(used)) => Some(Requester::Memory(used)),
                (_, MemoryState::Below | MemoryState::TriedUntil(_)) => None,
            }
        };
        let limit = self.services[service].definition.max_lifetime;
        if limit.is_none() && self.services[service].definition.max_memory.is_none() {
            return;
        }
        let due = self.services.ids_of(service).filter(|id| self.services.has(*id));
        let Some((id, by)) = due.into_iter().find_map(|id| Some((id, cause(self.services[id].state)?))) else { return };
        let (after, memory) = (limit.unwrap_or_default() / ATTEMPTS_PER_LIFETIME, self.next_memory_attempt());
        let next_attempt = Lifetime::Until(self.now + after);
        self.update_running(id, |running| {
            if by == Requester::Lifetime {
                running.lifetime = next_attempt;
            } else {
                running.memory = memory;
            }
        });
        self.start_rollout(service, vec![id.number], None, None, by);
    }
}
