//! `max_memory`: a process whose tree uses too much is replaced, as by a reload, one instance of a service after the other.

use std::time::Duration;

use super::core::Supervisor;
use super::event::Action;
use super::measuring::{Measuring, MemoryState};
use super::state::{Running, State};
use crate::model::{InstanceId, MemoryUse, Mono, RunId};

/// The shortest time between two measurements: for a process that is new, or close to its limit.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two measurements of a process that uses nothing. In between it is proportional to what is left.
const MAX_INTERVAL: Duration = Duration::from_secs(30);
/// The time until the next measurement if something could not be measured.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After a replacement that has failed, the time until the next attempt.
const NEXT_ATTEMPT: Duration = Duration::from_secs(60);

impl Supervisor {
    /// When to measure.
    pub(super) const fn measuring_due(&self) -> Option<Mono> {
        if let Measuring::At(at) = self.measuring { Some(at) } else { None }
    }

    /// The process runs, or its definition has changed.
    pub(super) fn measure_memory_of(&mut self, id: InstanceId) {
        if self.services[id].definition.max_memory.is_some() {
            let soon = self.now + MIN_INTERVAL;
            match &mut self.measuring {
                Measuring::InProgress => {}
                Measuring::At(at) => *at = soon.min(*at),
                Measuring::Off => self.measuring = Measuring::At(soon),
            }
        }
    }

    /// Time has passed.
    pub(super) fn measure_memory_if_due(&mut self) {
        if self.measuring_due().is_some_and(|due| due <= self.now) && !self.is_draining() {
            self.measuring = Measuring::InProgress;
            self.act(Action::MeasureMemory);
        }
    }

    /// What the process trees of these runs use.
    pub(super) fn on_memory_measured(&mut self, mut used: Vec<(RunId, MemoryUse)>) {
        used.sort_unstable_by_key(|(run, _)| *run);
        self.measuring = Measuring::Off;
        if self.is_draining() {
            return;
        }
        let mut next = None;
        for id in self.services.ids_with_surges() {
            let State::Running(running) = self.services[id].state else { continue };
            let Some(limit) = self.services[id].definition.max_memory else { continue };
            let position = used.binary_search_by_key(&running.process.run, |(run, _)| *run).ok();
            let used = position.and_then(|position| used.get(position)).map(|(_, used)| *used);
            let later = used.map_or(RETRY_INTERVAL, |used| self.interval(id, running, used.bytes, limit));
            next = next.into_iter().chain([later]).min();
            if let Some(memory) = used.and_then(|used| self.judge(id, running, used, limit)) {
                self.update_running(id, |running| running.memory = memory);
            }
        }
        if let Some(next) = next {
            self.measuring = Measuring::At(self.now + next);
        }
    }

    /// The time until the next measurement: the less is left, the shorter. Above the limit: until it can be replaced.
    fn interval(&self, id: InstanceId, running: Running, used: u64, limit: u64) -> Duration {
        let left = limit.saturating_sub(used) as f64 / limit.max(1) as f64;
        let waits = if used > limit {
            self.may_replace_at(id, running).since(self.now).min(MAX_INTERVAL)
        } else {
            Duration::ZERO
        };
        MAX_INTERVAL.mul_f64(left).max(MIN_INTERVAL).max(waits)
    }

    /// A process that has just been started, or was to be replaced a moment ago, cannot be replaced yet.
    fn may_replace_at(&self, id: InstanceId, running: Running) -> Mono {
        let proven_at = running.process.since + self.services[id].definition.restart.min_uptime;
        match running.memory {
            MemoryState::TriedUntil(until) => until.max(proven_at),
            MemoryState::Below | MemoryState::Above(_) => proven_at,
        }
    }

    /// The new state, if it differs.
    fn judge(&self, id: InstanceId, running: Running, used: MemoryUse, limit: u64) -> Option<MemoryState> {
        match running.memory {
            _ if used.bytes > limit => {
                (self.may_replace_at(id, running) <= self.now).then_some(MemoryState::Above(used))
            }
            MemoryState::TriedUntil(until) if until > self.now => None,
            MemoryState::Below => None,
            MemoryState::Above(_) | MemoryState::TriedUntil(_) => Some(MemoryState::Below),
        }
    }

    /// The time of the next attempt to replace a process that uses too much.
    pub(super) fn next_memory_attempt(&self) -> MemoryState {
        MemoryState::TriedUntil(self.now + NEXT_ATTEMPT)
    }
}
