//! A limit for events that a process can cause at any rate, so that they do not push those of other services out of the
//! ring: signals to keepalive, and a process that reports again and again that it reloads, or is unhealthy and healthy in
//! turns.
//!
//! What exceeds the budget is counted, and the latest is kept: it is written when the interval ends, or before another
//! event of the same instance.

use crate::model::map::Map;
use crate::model::{InstanceId, Mono};
use crate::runtime::rate_limited_log::Budget;
use crate::supervisor::{JournalEvent, Reason};

/// Events of one subject share a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Reloads that the process reports itself, and changes of its health.
    Instance(InstanceId),
    /// Signals that are forwarded or ignored.
    Signals,
    /// Loading the configuration again, which a signal can request.
    Config,
}

impl Subject {
    fn of(event: &JournalEvent) -> Option<Self> {
        match event {
            JournalEvent::Transition { instance, reason: Reason::ReloadingReported, .. } => {
                Some(Self::Instance(*instance))
            }
            JournalEvent::Unhealthy { instance, .. } | JournalEvent::Healthy { instance } => {
                Some(Self::Instance(*instance))
            }
            JournalEvent::SignalForwarded { .. } | JournalEvent::SignalIgnored { .. } => Some(Self::Signals),
            JournalEvent::ConfigReloadRequested { .. }
            | JournalEvent::ConfigReloaded(_)
            | JournalEvent::ConfigReloadFailed { .. }
            | JournalEvent::ConfigReloadDeferred { .. } => Some(Self::Config),
            JournalEvent::Transition { .. }
            | JournalEvent::StopTimedOut { .. }
            | JournalEvent::HookFailed { .. }
            | JournalEvent::LeftoverProcessesFound { .. }
            | JournalEvent::Unkillable { .. }
            | JournalEvent::Scaled { .. }
            | JournalEvent::RunSkipped { .. }
            | JournalEvent::ServiceFailed { .. }
            | JournalEvent::DependencyAwaited { .. }
            | JournalEvent::ReloadStarted { .. }
            | JournalEvent::InstanceReplaced { .. }
            | JournalEvent::ReloadRolledBack { .. }
            | JournalEvent::ReloadFinished { .. }
            | JournalEvent::ShutdownStarted { .. }
            | JournalEvent::ShutdownForced { .. }
            | JournalEvent::LeftoverProcessesKilled
            | JournalEvent::ProcessesAbandoned => None,
        }
    }
}

/// The events that were not written, except the latest of them.
#[derive(Debug, PartialEq)]
pub(super) struct Suppressed {
    /// Whose events they were; `None`: keepalive's own.
    pub(super) instance: Option<InstanceId>,
    pub(super) count: u64,
    pub(super) latest: JournalEvent,
}

#[derive(Debug, Default)]
struct Limited {
    budget: Budget,
    latest: Option<JournalEvent>,
}

/// The budgets in use.
#[derive(Debug, Default)]
pub(super) struct EventLimits(Map<Subject, Limited>);

impl EventLimits {
    /// Returns what is written now: events that were suppressed before, and `event` itself unless it is suppressed.
    pub(super) fn admit(&mut self, event: JournalEvent, now: Mono) -> (Option<Suppressed>, Option<JournalEvent>) {
        if let Some(subject) = Subject::of(&event) {
            let limited = self.0.entry(subject);
            if limited.budget.take(now) {
                return (None, Some(event));
            }
            limited.latest = Some(event);
            return (None, None);
        }
        let JournalEvent::Transition { instance, reason, .. } = &event else { return (None, Some(event)) };
        let subject = Subject::Instance(*instance);
        let Some(limited) = self.0.get_mut(&subject).filter(|limited| limited.latest.is_some()) else {
            return (None, Some(event));
        };
        // It is ready again after a reload that was suppressed.
        if *reason == Reason::Ready {
            limited.budget.suppress();
            limited.latest = Some(event);
            return (None, None);
        }
        (limited.take_suppressed(subject, now), Some(event))
    }

    /// When [`Self::take_suppressed`] returns something.
    pub(super) fn due(&self) -> Option<Mono> {
        self.0.values().filter_map(|limited| limited.budget.due()).min()
    }

    /// The events that have been suppressed in intervals that are over.
    pub(super) fn take_suppressed(&mut self, now: Mono) -> Vec<Suppressed> {
        let mut all = Vec::new();
        self.0.retain(|subject, limited| {
            if limited.budget.due().is_some_and(|due| due <= now) {
                all.extend(limited.take_suppressed(*subject, now));
            }
            !limited.budget.is_unused(now)
        });
        all
    }
}

impl Limited {
    fn take_suppressed(&mut self, subject: Subject, now: Mono) -> Option<Suppressed> {
        let instance = match subject {
            Subject::Instance(instance) => Some(instance),
            Subject::Signals | Subject::Config => None,
        };
        let count = self.budget.take_suppressed(now).saturating_sub(1);
        Some(Suppressed { instance, count, latest: self.latest.take()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServiceIndex, Signal};
    use crate::supervisor::Requester;
    use crate::supervisor::StateName::{Running, Starting};

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn transition(number: u32, reason: Reason) -> JournalEvent {
        let (from, to) = if reason == Reason::Ready { (Starting, Running) } else { (Running, Starting) };
        let instance = InstanceId { service: ServiceIndex(0), number };
        JournalEvent::Transition { instance, from, to, pid: None, reason }
    }

    /// Records `count` reloads that the instance reports, and returns how many events of them are written.
    fn reload(limits: &mut EventLimits, number: u32, count: usize) -> usize {
        let events = (0..count).flat_map(|_| [Reason::ReloadingReported, Reason::Ready]);
        events.filter(|reason| limits.admit(transition(number, reason.clone()), at(1)).1.is_some()).count()
    }

    #[test]
    fn a_process_that_reloads_again_and_again_leaves_room_for_the_events_of_others() {
        let mut limits = EventLimits::default();
        assert_eq!((reload(&mut limits, 0, 1_000), reload(&mut limits, 1, 5)), (20, 10));
        assert_eq!((limits.due(), limits.take_suppressed(at(10))), (Some(at(11)), vec![]));
        let instance = Some(InstanceId { service: ServiceIndex(0), number: 0 });
        let suppressed = Suppressed { instance, count: 1_979, latest: transition(0, Reason::Ready) };
        assert_eq!(limits.take_suppressed(at(11)), [suppressed]);
        assert_eq!((limits.due(), limits.take_suppressed(at(21))), (None, vec![]));
        assert!(limits.0.is_empty());
    }

    #[test]
    fn the_latest_suppressed_event_comes_before_another_of_the_same_instance() {
        let mut limits = EventLimits::default();
        reload(&mut limits, 0, 11);
        assert_eq!(
            limits.admit(transition(1, Reason::StopRequested(Requester::Operator)), at(2)).0,
            None,
            "another instance"
        );
        let (suppressed, event) = limits.admit(transition(0, Reason::StopRequested(Requester::Operator)), at(2));
        let instance = Some(InstanceId { service: ServiceIndex(0), number: 0 });
        assert_eq!(suppressed, Some(Suppressed { instance, count: 1, latest: transition(0, Reason::Ready) }));
        assert_eq!(event, Some(transition(0, Reason::StopRequested(Requester::Operator))));
        assert_eq!(limits.due(), None);
    }

    #[test]
    fn signals_are_limited() {
        let mut limits = EventLimits::default();
        let signal = || JournalEvent::SignalIgnored { signal: Signal::USR1 };
        assert_eq!((0..100).filter(|_| limits.admit(signal(), at(1)).1.is_some()).count(), 10);
        let suppressed = Suppressed { instance: None, count: 89, latest: signal() };
        assert_eq!(limits.take_suppressed(at(11)), [suppressed]);
    }
}
