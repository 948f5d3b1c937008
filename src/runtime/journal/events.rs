//! The event log: the last thousand events, numbered, for clients that read or follow them. docs/events.md describes
//! every event.
//!
//! An event is stored as data and formatted when a client reads it: most events are never read.

use std::collections::VecDeque;
use std::time::Duration;

use crate::logs::timestamp::Timestamp;
use crate::model::json::Object;
use crate::model::plan::{Hook, Service};
use crate::model::{ExitStatus, InstanceId, Mono, Plan, ProbeFailure, milliseconds};
use crate::runtime::run_wording::RunText;
use crate::runtime::text::Counted;
use crate::runtime::wording::{Line, Name, Skipped, SuppressedLine, Why, service_name};
use crate::supervisor::{Cause, Changes, Exit, Fault, JournalEvent, Reason, RunResult, StateName};

/// The number of events that are kept.
const MAX_EVENTS: usize = 1_000;
/// The minimum time between two events of a [`Coalescer`].
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The ring of events.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Events {
    ring: VecDeque<Event>,
    /// Number of events since the start.
    count: u64,
}

/// Combines frequent occurrences into at most one event a second.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Coalescer {
    reported: u64,
    at: Mono,
}

impl Coalescer {
    /// When the next event is due after `total` occurrences; `None`: all of them are reported.
    pub(in crate::runtime) fn due(&self, total: u64) -> Option<Mono> {
        (self.reported < total).then_some(self.at + MIN_INTERVAL)
    }

    /// The number of occurrences that are not reported yet, if an event is due.
    pub(in crate::runtime) fn take(&mut self, total: u64, now: Mono) -> Option<u64> {
        self.due(total).filter(|due| *due <= now)?;
        let count = total - self.reported;
        (self.reported, self.at) = (total, now);
        Some(count)
    }
}

/// One event.
#[derive(Debug)]
pub(in crate::runtime) struct Event {
    /// From 1, without gaps.
    number: u64,
    /// Unix time.
    at: Duration,
    kind: EventKind,
}

/// What an event reports.
#[derive(Debug)]
pub(in crate::runtime) enum EventKind {
    /// An event of the supervisor.
    JournalEvent(JournalEvent),
    /// Orphans were reaped: dead processes that no service had started.
    OrphansReaped { count: u64, total: u64 },
    /// The logger has exited, and is replaced at once or after a delay.
    LoggerRestarted,
    /// Too many similar events have happened. The latest of them follows.
    EventsSuppressed { instance: Option<InstanceId>, count: u64 },
    /// Clients were rejected, the last one for this reason.
    ClientRejected { count: u64, reason: String },
}

/// Defines [`EventName`], so that no event is missing in `ALL`.
macro_rules! event_names {
    ($($variant:ident = $name:literal,)*) => {
        /// The member `event`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum EventName {
            $($variant,)*
        }

        impl EventName {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant,)*];

            const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

event_names! {
    Transition = "transition",
    StopTimedOut = "stop_timed_out",
    HookFailed = "hook_failed",
    LeftoverProcessesFound = "leftover_processes_found",
    Unkillable = "unkillable",
    Unhealthy = "unhealthy",
    Healthy = "healthy",
    Scaled = "scaled",
    RunSkipped = "run_skipped",
    ServiceFailed = "service_failed",
    DependencyAwaited = "dependency_awaited",
    SignalForwarded = "signal_forwarded",
    SignalIgnored = "signal_ignored",
    ConfigReloadRequested = "config_reload_requested",
    ConfigReloaded = "config_reloaded",
    ConfigReloadFailed = "config_reload_failed",
    ConfigReloadDeferred = "config_reload_deferred",
    ReloadStarted = "reload_started",
    InstanceReplaced = "instance_replaced",
    ReloadRolledBack = "reload_rolled_back",
    ReloadFinished = "reload_finished",
    ShutdownStarted = "shutdown_started",
    ShutdownForced = "shutdown_forced",
    LeftoverProcessesKilled = "leftover_processes_killed",
    ProcessesAbandoned = "processes_abandoned",
    OrphansReaped = "orphans_reaped",
    LoggerRestarted = "logger_restarted",
    ClientRejected = "client_rejected",
    EventsSuppressed = "events_suppressed",
    EventsDropped = "events_dropped",
}

impl Events {
    pub(in crate::runtime) fn push(&mut self, at: Duration, kind: EventKind) {
        if self.ring.len() == MAX_EVENTS {
            self.ring.pop_front();
        }
        self.count += 1;
        self.ring.push_back(Event { number: self.count, at, kind });
    }

    /// The number of the latest event, 0 if there is none.
    pub(in crate::runtime) const fn latest(&self) -> u64 {
        self.count
    }

    /// The first event after number `after` that is still in the ring.
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
        object.text("time", Timestamp::since_epoch(self.at).as_str());
        object.text("event", name(&self.kind).as_str());
        match &self.kind {
            EventKind::JournalEvent(event) => {
                write_members(plan, event, &mut object);
                object.shown("message", Line { plan, event });
            }
            EventKind::OrphansReaped { count, total } => {
                object.plain("count", count);
                object.plain("total", total);
                let orphans = Counted(*count, "orphaned process", "orphaned processes");
                object.shown("message", format_args!("reaped {orphans}, {total} in total"));
            }
            EventKind::EventsSuppressed { instance, count } => {
                if let Some(instance) = instance {
                    write_instance(plan, *instance, &mut object);
                }
                object.plain("count", count);
                object.shown("message", SuppressedLine { plan, instance: *instance, count: *count });
            }
            EventKind::LoggerRestarted => object.text("message", "the logger exited and is restarted"),
            EventKind::ClientRejected { count, reason } => {
                object.plain("count", count);
                object.text("reason", reason);
                let clients = Counted(*count, "client", "clients");
                object.shown("message", format_args!("{clients} rejected: {reason}"));
            }
        }
        object.end();
        out.push(b'\n');
    }
}

/// Reports that `count` events are no longer in the ring.
pub(in crate::runtime) fn write_dropped(count: u64, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    object.text("event", EventName::EventsDropped.as_str());
    object.plain("count", count);
    object.end();
    out.push(b'\n');
}

/// Everything but `seq`, `time`, `event` and `message`.
fn write_members(plan: &Plan, event: &JournalEvent, object: &mut Object<'_>) {
    match event {
        JournalEvent::Transition { instance, from, to, pid, reason } => {
            write_instance(plan, *instance, object);
            object.text("from", from.as_str());
            object.text("to", to.as_str());
            object.optional("pid", *pid);
            if instance.is_surge() {
                object.plain("surge", true);
            }
            if *reason == Reason::Ready {
                object.text("reason", "ready");
            } else {
                object.shown("reason", Why::of_transition(plan, *instance, (*from, *to), reason));
            }
            if let Reason::Exited { run, .. } | Reason::CleanedUp { run, .. } = reason {
                write_exit(Some(run.exit), object);
                object.plain("uptime_ms", milliseconds(run.uptime));
            }
        }
        JournalEvent::StopTimedOut { instance, pid, .. }
        | JournalEvent::LeftoverProcessesFound { instance, pid, .. }
        | JournalEvent::Unkillable { instance, pid } => {
            write_instance(plan, *instance, object);
            object.plain("pid", pid);
        }
        JournalEvent::Unhealthy { instance, failure } => write_unhealthy(plan, *instance, failure.clone(), object),
        JournalEvent::HookFailed { instance, run, definition } => {
            write_instance(plan, *instance, object);
            write_failed_hook(definition, *instance, run, object);
        }
        JournalEvent::Healthy { instance } => write_instance(plan, *instance, object),
        JournalEvent::Scaled { service, from, to } => {
            object.text("service", service_name(plan, *service));
            object.plain("from", from);
            object.plain("to", to);
        }
        JournalEvent::DependencyAwaited { service, dependency, .. } => {
            object.text("service", service_name(plan, *service));
            object.text("dependency", service_name(plan, *dependency));
        }
        JournalEvent::RunSkipped { service, why } => {
            object.text("service", service_name(plan, *service));
            object.shown("reason", Skipped(*why));
        }
        JournalEvent::ServiceFailed { service }
        | JournalEvent::ReloadStarted { service, .. }
        | JournalEvent::ConfigReloadDeferred { service }
        | JournalEvent::ReloadRolledBack { service, .. } => object.text("service", service_name(plan, *service)),
        JournalEvent::SignalForwarded { signal, .. }
        | JournalEvent::SignalIgnored { signal }
        | JournalEvent::ConfigReloadRequested { signal }
        | JournalEvent::ShutdownForced { signal: Some(signal) } => object.shown("signal", signal),
        JournalEvent::InstanceReplaced { instance, old, new } => {
            write_instance(plan, *instance, object);
            object.optional("old_pid", *old);
            object.optional("pid", *new);
        }
        JournalEvent::ReloadFinished { service, failure } => {
            object.text("service", service_name(plan, *service));
            object.text("result", if failure.is_none() { "succeeded" } else { "failed" });
        }
        JournalEvent::ConfigReloaded(changes) => write_changes(changes, object),
        JournalEvent::ConfigReloadFailed { reason } => object.text("reason", reason),
        JournalEvent::ShutdownStarted { cause } => object.text("cause", cause_name(cause)),
        JournalEvent::ShutdownForced { signal: None }
        | JournalEvent::LeftoverProcessesKilled
        | JournalEvent::ProcessesAbandoned => {}
    }
}

fn write_unhealthy(plan: &Plan, instance: InstanceId, failure: Option<ProbeFailure>, object: &mut Object<'_>) {
    write_instance(plan, instance, object);
    let (to, reason) = (StateName::Running, &Reason::Fault(Fault::Unhealthy, failure));
    object.shown("reason", Why { plan, instance, to, reason, remaining: None });
}

fn write_failed_hook(definition: &Service, instance: InstanceId, run: &RunResult, object: &mut Object<'_>) {
    object.optional_shown("hook", run.hook.map(Hook::as_str));
    object.shown("reason", RunText(definition, instance, run));
}

fn write_instance(plan: &Plan, instance: InstanceId, object: &mut Object<'_>) {
    object.text("service", service_name(plan, instance.service));
    object.shown("instance", Name(plan, instance));
}

fn write_changes(changes: &Changes, object: &mut Object<'_>) {
    object.plain("added", changes.added);
    object.plain("removed", changes.removed);
    object.plain("reloaded", changes.reloaded);
    object.plain("updated", changes.adjusted);
    object.plain("unchanged", changes.unchanged);
    object.plain("not_running", changes.not_running.len());
}

const fn cause_name(cause: &Cause) -> &'static str {
    match cause {
        Cause::Signal(_) => "signal",
        Cause::Requested => "requested",
        Cause::Failed { .. } => "service_failed",
        Cause::Unhealthy { .. } => "unhealthy",
        Cause::Completed { .. } => "service_completed",
        Cause::NothingLeft { .. } => "all_services_ended",
    }
}

const fn name(kind: &EventKind) -> EventName {
    match kind {
        EventKind::JournalEvent(event) => journal_event_name(event),
        EventKind::OrphansReaped { .. } => EventName::OrphansReaped,
        EventKind::LoggerRestarted => EventName::LoggerRestarted,
        EventKind::ClientRejected { .. } => EventName::ClientRejected,
        EventKind::EventsSuppressed { .. } => EventName::EventsSuppressed,
    }
}

const fn journal_event_name(event: &JournalEvent) -> EventName {
    match event {
        JournalEvent::Transition { .. } => EventName::Transition,
        JournalEvent::StopTimedOut { .. } => EventName::StopTimedOut,
        JournalEvent::HookFailed { .. } => EventName::HookFailed,
        JournalEvent::LeftoverProcessesFound { .. } => EventName::LeftoverProcessesFound,
        JournalEvent::Unkillable { .. } => EventName::Unkillable,
        JournalEvent::Unhealthy { .. } => EventName::Unhealthy,
        JournalEvent::Healthy { .. } => EventName::Healthy,
        JournalEvent::Scaled { .. } => EventName::Scaled,
        JournalEvent::RunSkipped { .. } => EventName::RunSkipped,
        JournalEvent::ServiceFailed { .. } => EventName::ServiceFailed,
        JournalEvent::DependencyAwaited { .. } => EventName::DependencyAwaited,
        JournalEvent::SignalForwarded { .. } => EventName::SignalForwarded,
        JournalEvent::SignalIgnored { .. } => EventName::SignalIgnored,
        JournalEvent::ConfigReloadRequested { .. } => EventName::ConfigReloadRequested,
        JournalEvent::ConfigReloadFailed { .. } => EventName::ConfigReloadFailed,
        JournalEvent::ConfigReloaded(_) => EventName::ConfigReloaded,
        JournalEvent::ConfigReloadDeferred { .. } => EventName::ConfigReloadDeferred,
        JournalEvent::ReloadStarted { .. } => EventName::ReloadStarted,
        JournalEvent::InstanceReplaced { .. } => EventName::InstanceReplaced,
        JournalEvent::ReloadRolledBack { .. } => EventName::ReloadRolledBack,
        JournalEvent::ReloadFinished { .. } => EventName::ReloadFinished,
        JournalEvent::ShutdownStarted { .. } => EventName::ShutdownStarted,
        JournalEvent::ShutdownForced { .. } => EventName::ShutdownForced,
        JournalEvent::LeftoverProcessesKilled => EventName::LeftoverProcessesKilled,
        JournalEvent::ProcessesAbandoned => EventName::ProcessesAbandoned,
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
#[path = "events_tests.rs"]
mod tests;
