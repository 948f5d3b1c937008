//! What has happened lately, for whoever asks or follows: the last thousand events, numbered.
//!
//! An event is kept as what it is and put into words when somebody reads it: most are never read.

use std::collections::VecDeque;
use std::time::Duration;

use crate::logs::stamp::Stamp;
use crate::model::{ExitStatus, Mono, Plan};
use crate::runtime::control::json::Object;
use crate::runtime::text::{Line, Name, Why, service_name};
use crate::supervisor::{Cause, Exit, JournalEvent, Reason};

/// So many are kept.
const KEPT: usize = 1_000;
/// Between two events of what is told together.
const BETWEEN: Duration = Duration::from_secs(1);

/// The ring of events.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Events {
    ring: VecDeque<Event>,
    /// How many there have been.
    count: u64,
}

/// What may happen very often is told of together, no more often than once a second.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Coalescer {
    told: u64,
    at: Mono,
}

impl Coalescer {
    /// When it is time to tell, if it has happened `total` times.
    pub(in crate::runtime) fn due(&self, total: u64) -> Option<Mono> {
        (self.told < total).then_some(self.at + BETWEEN)
    }

    /// How often it has happened that has not been told yet, if it is time to.
    pub(in crate::runtime) fn take(&mut self, total: u64, now: Mono) -> Option<u64> {
        self.due(total).filter(|due| *due <= now)?;
        let count = total - self.told;
        (self.told, self.at) = (total, now);
        Some(count)
    }
}

/// One event.
#[derive(Debug)]
pub(in crate::runtime) struct Event {
    /// From 1 on, without a gap.
    number: u64,
    /// Since 1970.
    at: Duration,
    what: What,
}

/// What has happened.
#[derive(Debug)]
pub(in crate::runtime) enum What {
    /// Something that the supervisor has recorded.
    JournalEvent(JournalEvent),
    /// Dead processes have been reaped that no service had started.
    Orphans { count: u64, total: u64 },
    /// The logger has ended, and another one has taken its place or will.
    LoggerRestarted,
    /// Clients were turned away, the last one for this reason.
    RefusedClients { count: u64, reason: String },
}

impl Events {
    pub(in crate::runtime) fn push(&mut self, at: Duration, what: What) {
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.count += 1;
        self.ring.push_back(Event { number: self.count, at, what });
    }

    /// The number of the latest event, 0 if there is none.
    pub(in crate::runtime) const fn latest(&self) -> u64 {
        self.count
    }

    /// The first event after number `after` that is still there.
    pub(in crate::runtime) fn next(&self, after: u64) -> Option<&Event> {
        let oldest = self.ring.front()?.number;
        let position = (after + 1).saturating_sub(oldest);
        self.ring.get(usize::try_from(position).ok()?)
    }
}

impl Event {
    pub(in crate::runtime) const fn number(&self) -> u64 {
        self.number
    }

    /// Writes it as one line of JSON.
    pub(in crate::runtime) fn write_to(&self, plan: &Plan, out: &mut Vec<u8>) {
        let mut object = Object::new(out);
        object.plain("seq", self.number);
        object.text("time", Stamp::of(self.at).as_str());
        match &self.what {
            What::JournalEvent(fact) => write_fact(plan, fact, &mut object),
            What::Orphans { count, total } => {
                object.text("event", "orphans");
                object.plain("count", count);
                object.plain("total", total);
                object.shown("message", format_args!("reaped {count} that no service had started, {total} so far"));
            }
            What::LoggerRestarted => {
                object.text("event", "logger_restarted");
                object.text("message", "the logger has ended and is started again");
            }
            What::RefusedClients { count, reason } => {
                object.text("event", "refused_client");
                object.plain("count", count);
                object.text("reason", reason);
                let noun = if *count == 1 { "client" } else { "clients" };
                object.shown("message", format_args!("{count} {noun} refused: {reason}"));
            }
        }
        object.end();
        out.push(b'\n');
    }
}

/// Says that `count` events are not there any more.
pub(in crate::runtime) fn write_lost(count: u64, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    object.text("event", "lost");
    object.plain("count", count);
    object.end();
    out.push(b'\n');
}

fn write_fact(plan: &Plan, fact: &JournalEvent, object: &mut Object<'_>) {
    object.text("event", name(fact));
    match fact {
        JournalEvent::Transition { instance, from, to, pid, reason } => {
            object.text("service", service_name(plan, instance.service));
            object.shown("instance", Name(plan, *instance));
            object.text("from", from.as_str());
            object.text("to", to.as_str());
            object.optional("pid", *pid);
            if instance.is_surge() {
                object.plain("surge", true);
            }
            let why = Why { plan, instance: *instance, to: *to, reason };
            if *reason == Reason::Ready {
                object.text("reason", "ready")
            } else {
                object.shown("reason", why)
            }
            if let Reason::Ended { run, .. } = reason {
                write_exit(Some(run.exit), object);
                object.plain("uptime_ms", run.uptime.as_millis());
            }
        }
        JournalEvent::StopTimedOut { instance, pid, .. }
        | JournalEvent::LeftBehind { instance, pid }
        | JournalEvent::Unkillable { instance, pid } => {
            object.text("service", service_name(plan, instance.service));
            object.shown("instance", Name(plan, *instance));
            object.plain("pid", pid);
        }
        JournalEvent::Scaled { service, from, to } => {
            object.text("service", service_name(plan, *service));
            object.plain("from", from);
            object.plain("to", to);
        }
        JournalEvent::ServiceFailed { service }
        | JournalEvent::ReloadBegun { service }
        | JournalEvent::ReconfigurationRefused { service }
        | JournalEvent::RolledBack { service, .. } => object.text("service", service_name(plan, *service)),
        JournalEvent::SignalForwarded { signal, .. }
        | JournalEvent::SignalIgnored { signal }
        | JournalEvent::ConfigurationWanted { signal }
        | JournalEvent::Forced { signal: Some(signal) } => object.shown("signal", signal),
        JournalEvent::Replaced { .. } | JournalEvent::ReloadEnded { .. } | JournalEvent::Reconfigured(_) => {
            write_reload(plan, fact, object)
        }
        JournalEvent::ConfigLoadFailed { reason } => object.text("reason", reason),
        JournalEvent::Draining { cause } => {
            object.text(
                "cause",
                match cause {
                    Cause::Signal(_) => "signal",
                    Cause::Requested => "requested",
                    Cause::Failed { .. } => "failed",
                    Cause::Completed { .. } => "completed",
                    Cause::NothingLeft { .. } => "nothing_left",
                },
            );
        }
        JournalEvent::Forced { signal: None } | JournalEvent::LeftoversKilled | JournalEvent::Abandoned => {}
    }
    object.shown("message", Line { plan, fact });
}

/// What is particular to a reload; of any other fact nothing.
fn write_reload(plan: &Plan, fact: &JournalEvent, object: &mut Object<'_>) {
    if let JournalEvent::Replaced { instance, old, new } = fact {
        object.text("service", service_name(plan, instance.service));
        object.shown("instance", Name(plan, *instance));
        object.optional("old_pid", *old);
        object.optional("pid", *new);
    }
    if let JournalEvent::ReloadEnded { service, failure } = fact {
        object.text("service", service_name(plan, *service));
        object.text("result", if failure.is_none() { "done" } else { "failed" });
    }
    if let JournalEvent::Reconfigured(changes) = fact {
        object.plain("added", changes.added);
        object.plain("removed", changes.removed);
        object.plain("reloaded", changes.reloaded);
        object.plain("adjusted", changes.adjusted);
        object.plain("unchanged", changes.unchanged);
    }
}

const fn name(fact: &JournalEvent) -> &'static str {
    match fact {
        JournalEvent::Transition { .. } => "transition",
        JournalEvent::StopTimedOut { .. } => "stop_timed_out",
        JournalEvent::LeftBehind { .. } => "left_behind",
        JournalEvent::Unkillable { .. } => "unkillable",
        JournalEvent::Scaled { .. } => "scaled",
        JournalEvent::ServiceFailed { .. } => "service_failed",
        JournalEvent::SignalForwarded { .. } => "signal_forwarded",
        JournalEvent::SignalIgnored { .. } => "signal_ignored",
        JournalEvent::ConfigurationWanted { .. } => "configuration_wanted",
        JournalEvent::ConfigLoadFailed { .. } => "configuration_invalid",
        JournalEvent::Reconfigured(_) => "reconfigured",
        JournalEvent::ReconfigurationRefused { .. } => "reconfiguration_refused",
        JournalEvent::ReloadBegun { .. } => "reload_begun",
        JournalEvent::Replaced { .. } => "replaced",
        JournalEvent::RolledBack { .. } => "rolled_back",
        JournalEvent::ReloadEnded { .. } => "reload_ended",
        JournalEvent::Draining { .. } => "shutdown",
        JournalEvent::Forced { .. } => "shutdown_forced",
        JournalEvent::LeftoversKilled => "leftovers_killed",
        JournalEvent::Abandoned => "abandoned",
    }
}

/// `"exit": {"code": 1}`, `{"signal": "SIGKILL"}` or null, and `oom_killed`.
pub(in crate::runtime) fn write_exit(exit: Option<Exit>, object: &mut Object<'_>) {
    let Some(exit) = exit else {
        object.plain("exit", "null");
        return object.plain("oom_killed", false);
    };
    let mut inner = Object::new(object.value("exit"));
    match exit.status {
        ExitStatus::Code(code) => inner.plain("code", code),
        ExitStatus::Signal(signal) => inner.shown("signal", signal),
    }
    inner.end();
    object.plain("oom_killed", exit.oom_killed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_once_a_second() {
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut digest = Coalescer::default();
        assert_eq!((digest.due(0), digest.take(0, at(5))), (None, None));
        assert_eq!(digest.take(3, at(5)), Some(3));
        assert_eq!((digest.take(7, at(5)), digest.due(7)), (None, Some(at(6))));
        assert_eq!((digest.take(9, at(6)), digest.due(9)), (Some(6), None));
    }

    #[test]
    fn the_last_thousand_are_kept_and_numbered() {
        let mut events = Events::default();
        assert!(events.next(0).is_none());
        for total in 1..=1_500 {
            events.push(Duration::ZERO, What::Orphans { count: 1, total });
        }
        let numbers = |after| events.next(after).map(Event::number);
        assert_eq!(events.latest(), 1_500);
        assert_eq!((numbers(0), numbers(500), numbers(501)), (Some(501), Some(501), Some(502)));
        assert_eq!((numbers(1_499), numbers(1_500)), (Some(1_500), None));
    }
}
