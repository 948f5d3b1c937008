//! The log lines: one line for each event of the supervisor.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use nix::errno::Errno;

use super::run_wording::{RunText, write_decision, write_fault, write_gave_up, write_run};
use super::text::{Counted, Listed, Span};
use crate::config::names_port;
use crate::model::plan::{Hook, SignalAction, Strategy};
use crate::model::{InstanceId, Plan, ProbeFailure, ServiceIndex, Signal, errno};
use crate::supervisor::{
    Cause, Changes, Fault, JournalEvent, Outcome, Reason, ReloadFailure, Requester, RolloutError, SkipReason, StateName,
};

const DAEMON_HINT: &str = ": it puts itself into the background; let it run in the foreground, for example with `-F`, \
                           `--foreground`, `--nodaemon` or `daemon off`";

/// For a new process that has failed while the old one was there, if it binds a port.
pub(super) const BESIDE_OLD_HINT: &str = "the old process was still there: if both need one port, set \
                                          `reload = \"restart\"` or pass the socket with `listen`";

const UNKILLABLE: &str = "not permitted to kill it, or stuck in the kernel";
const ALL_ENDED: &str = "all services have ended";
/// What is logged when a configuration could not be loaded; the reason follows.
pub(super) const CONFIG_UNCHANGED: &str = "reload failed, keeping the current configuration";

/// `web.2`.
#[derive(Clone, Copy)]
pub(super) struct Name<'a>(pub(super) &'a Plan, pub(super) InstanceId);

impl Display for Name<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", service_name(self.0, self.1.service), self.1.slot().number)
    }
}

pub(super) fn service_name(plan: &Plan, service: ServiceIndex) -> &str {
    plan.services.get(service.position()).map_or("?", |service| &service.name)
}

/// `web.2: 3 similar events suppressed`.
pub(super) struct SuppressedLine<'a> {
    pub(super) plan: &'a Plan,
    /// `None`: events of keepalive itself.
    pub(super) instance: Option<InstanceId>,
    pub(super) count: u64,
}

impl Display for SuppressedLine<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if let Some(instance) = self.instance {
            write!(formatter, "{}: ", Name(self.plan, instance))?;
        }
        write!(formatter, "{} suppressed", Counted(self.count, "similar event", "similar events"))
    }
}

/// An event as one line of text.
pub(super) struct Line<'a> {
    pub(super) plan: &'a Plan,
    pub(super) event: &'a JournalEvent,
}

impl Display for Line<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        match self.event {
            JournalEvent::Transition { instance, from, to, pid, reason } => {
                let (name, second) = (Name(plan, *instance), if instance.is_surge() { " second process" } else { "" });
                write!(formatter, "{name}{second} ")?;
                // A second process has not been stopped before.
                if from != to && !(instance.is_surge() && *from == StateName::Stopped) {
                    write!(formatter, "{} → ", from.as_str())?;
                }
                formatter.write_str(to.as_str())?;
                let why = Why::of_transition(plan, *instance, (*from, *to), reason);
                match (reason, pid) {
                    (Reason::Ready, Some(pid)) => write!(formatter, " (pid {pid})"),
                    _ if why.is_silent() => Ok(()),
                    _ => write!(formatter, " ({why})"),
                }
            }
            JournalEvent::StopTimedOut { instance, pid, after } => {
                let (name, after) = (Name(plan, *instance), Span(*after));
                write!(formatter, "{name} did not stop within {after}, sending SIGKILL (pid {pid})")
            }
            JournalEvent::LeftoverProcessesFound { instance, pid, is_daemon } => {
                let name = Name(plan, *instance);
                let hint = if *is_daemon { DAEMON_HINT } else { "" };
                write!(formatter, "{name} left processes behind, stopping them (pid {pid} has exited){hint}")
            }
            JournalEvent::HookFailed { instance, run, definition } => {
                write!(formatter, "{}: {}", Name(plan, *instance), RunText(definition, *instance, run))
            }
            JournalEvent::Unkillable { instance, pid } => {
                write!(formatter, "{} is still alive after SIGKILL (pid {pid}): {UNKILLABLE}", Name(plan, *instance))
            }
            JournalEvent::Unhealthy { instance, failure } => {
                write_unhealthy(formatter, plan, *instance, failure.as_ref())
            }
            JournalEvent::Healthy { instance } => write!(formatter, "{} is healthy again", Name(plan, *instance)),
            JournalEvent::Scaled { service, from, to } => {
                write!(formatter, "{} scaled from {from} to {to} instances", service_name(plan, *service))
            }
            JournalEvent::RunSkipped { service, why } => {
                write!(formatter, "{} due by its schedule, skipped: {}", service_name(plan, *service), Skipped(*why))
            }
            JournalEvent::ServiceFailed { service } => write!(formatter, "{} has failed", service_name(plan, *service)),
            JournalEvent::DependencyAwaited { service, dependency, state, lasts } => {
                let names = [service, dependency].map(|service| service_name(plan, *service));
                write_awaited(formatter, names, *state, *lasts)
            }
            JournalEvent::SignalForwarded { signal, receivers } => write_forwarded(formatter, *signal, *receivers),
            JournalEvent::SignalIgnored { signal } => write!(formatter, "{signal} ignored, as configured"),
            JournalEvent::ConfigReloadRequested { signal } => {
                write!(formatter, "received {signal}: reloading the configuration")
            }
            JournalEvent::ConfigReloadFailed { .. } => formatter.write_str(CONFIG_UNCHANGED),
            JournalEvent::ConfigReloaded(_)
            | JournalEvent::ConfigReloadDeferred { .. }
            | JournalEvent::ReloadStarted { .. }
            | JournalEvent::InstanceReplaced { .. }
            | JournalEvent::ReloadRolledBack { .. }
            | JournalEvent::ReloadFinished { .. } => write_reload(formatter, plan, self.event),
            JournalEvent::ShutdownStarted { cause } => {
                write_brief_cause(formatter, plan, cause)?;
                formatter.write_str(": shutting down")
            }
            JournalEvent::ShutdownForced { signal } => write_forced(formatter, plan, *signal),
            JournalEvent::LeftoverProcessesKilled => {
                formatter.write_str("leftover processes did not stop: killing them")
            }
            JournalEvent::ProcessesAbandoned => {
                formatter.write_str("some processes are still alive after SIGKILL: exiting without them")
            }
        }
    }
}

fn write_forwarded(formatter: &mut Formatter<'_>, signal: Signal, receivers: u32) -> fmt::Result {
    write!(formatter, "{signal} forwarded to {}", Counted(u64::from(receivers), "process", "processes"))
}

/// `received SIGINT again: killing all processes now`.
fn write_forced(formatter: &mut Formatter<'_>, plan: &Plan, signal: Option<Signal>) -> fmt::Result {
    let Some(signal) = signal else {
        let timeout = Span(plan.shutdown_timeout);
        return write!(formatter, "shutdown not finished within {timeout}: killing all processes now");
    };
    let again = if plan.signals.of(signal) == SignalAction::Kill { "" } else { " again" };
    write!(formatter, "received {signal}{again}: killing all processes now")
}

/// `web waits for migrate, which has been running for 30s`.
fn write_awaited(
    formatter: &mut Formatter<'_>,
    [service, dependency]: [&str; 2],
    state: StateName,
    lasts: Option<Duration>,
) -> fmt::Result {
    write!(formatter, "{service} waits for {dependency}, which ")?;
    match lasts {
        Some(lasts) => write!(formatter, "has been {} for {}", state.as_str(), Span(lasts)),
        None if state == StateName::Backoff => formatter.write_str("is backing off"),
        None => write!(formatter, "is {}", state.as_str()),
    }
}

/// The lines of reloads; nothing for any other event.
fn write_reload(formatter: &mut Formatter<'_>, plan: &Plan, event: &JournalEvent) -> fmt::Result {
    match event {
        JournalEvent::ConfigReloaded(changes) => Changed(plan, changes, "to reload").fmt(formatter),
        JournalEvent::ConfigReloadDeferred { service } => {
            let name = service_name(plan, *service);
            write!(formatter, "configuration reload deferred until the reload of {name} has ended")
        }
        JournalEvent::ReloadStarted { service, by } => {
            let name = service_name(plan, *service);
            if !matches!(by, Requester::Schedule | Requester::Lifetime | Requester::Memory(_) | Requester::Watch) {
                return write!(formatter, "{name} reload started");
            }
            write!(formatter, "{name} restart ")?;
            write_requested(formatter, plan, "started", *by)
        }
        JournalEvent::InstanceReplaced { instance, old, new } => {
            write!(formatter, "{} replaced", Name(plan, *instance))?;
            match (old, new) {
                (Some(old), Some(new)) => write!(formatter, " (old pid {old}, new pid {new})"),
                (None, Some(new)) => write!(formatter, " (new pid {new})"),
                (_, None) => Ok(()),
            }
        }
        JournalEvent::ReloadRolledBack { service, failure } => {
            let name = service_name(plan, *service);
            write!(formatter, "{name} rolled back to its previous configuration: {}", WhyReloadFailed(plan, failure))
        }
        JournalEvent::ReloadFinished { service, failure: None } => {
            write!(formatter, "{} reload finished", service_name(plan, *service))
        }
        JournalEvent::ReloadFinished { service, failure: Some(failure) } => {
            let name = service_name(plan, *service);
            write!(formatter, "{name} reload failed: {}", WhyReloadFailed(plan, failure))
        }
        JournalEvent::ConfigReloadRequested { .. }
        | JournalEvent::ConfigReloadFailed { .. }
        | JournalEvent::Transition { .. }
        | JournalEvent::StopTimedOut { .. }
        | JournalEvent::HookFailed { .. }
        | JournalEvent::LeftoverProcessesFound { .. }
        | JournalEvent::Unkillable { .. }
        | JournalEvent::Unhealthy { .. }
        | JournalEvent::Healthy { .. }
        | JournalEvent::Scaled { .. }
        | JournalEvent::RunSkipped { .. }
        | JournalEvent::ServiceFailed { .. }
        | JournalEvent::DependencyAwaited { .. }
        | JournalEvent::SignalForwarded { .. }
        | JournalEvent::SignalIgnored { .. }
        | JournalEvent::ShutdownStarted { .. }
        | JournalEvent::ShutdownForced { .. }
        | JournalEvent::LeftoverProcessesKilled
        | JournalEvent::ProcessesAbandoned => Ok(()),
    }
}

/// The changes that a new configuration makes, and the word for services that need new processes.
pub(super) struct Changed<'a>(pub(super) &'a Plan, pub(super) &'a Changes, pub(super) &'static str);

impl Display for Changed<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(plan, Changes { added, removed, reloaded, adjusted, unchanged, not_running, awaited: _ }, of_reloaded) =
            self;
        formatter.write_str("configuration reloaded: ")?;
        let counts = [
            (added, "added"),
            (removed, "removed"),
            (reloaded, of_reloaded),
            (adjusted, "updated"),
            (unchanged, "unchanged"),
        ];
        let mut separator = "";
        for (count, what) in counts.into_iter().filter(|(count, _)| **count > 0) {
            write!(formatter, "{separator}{count} {what}")?;
            separator = ", ";
        }
        if not_running.is_empty() {
            return Ok(());
        }
        formatter.write_str(if separator.is_empty() { "not running: " } else { "; not running: " })?;
        let names: Vec<_> = not_running.iter().map(|service| service_name(plan, *service)).collect();
        write!(formatter, "{} (new definition used at the next start)", Listed(&names))
    }
}

/// Why a reload failed: `the new process of web.1 was not ready within 30s`.
pub(super) struct WhyReloadFailed<'a>(pub(super) &'a Plan, pub(super) &'a ReloadFailure);

impl Display for WhyReloadFailed<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(plan, ReloadFailure { instance, definition, error }) = self;
        let name = Name(plan, *instance);
        match error {
            RolloutError::Exited(run) | RolloutError::ExitedBesideOld(run) | RolloutError::ExitedAfterStopping(run) => {
                let new = if matches!(definition.reload.strategy, Strategy::Signal(_)) { "" } else { "new " };
                write!(formatter, "the {new}process of {name} failed: ")?;
                if let RolloutError::ExitedAfterStopping(_) = error {
                    formatter.write_str("it sent STOPPING=1; ")?;
                }
                write_run(formatter, definition, *instance, run)?;
                let is_crash = run.failure.is_none() && run.fault.is_none();
                let is_beside_old = matches!(error, RolloutError::ExitedBesideOld(_));
                let process = &definition.process;
                if is_beside_old && is_crash && process.listen.is_empty() && names_port(process) {
                    write!(formatter, "; {BESIDE_OLD_HINT}")?;
                }
                Ok(())
            }
            RolloutError::ReloadTimedOut => {
                let time = Span(definition.start_timeout());
                write!(formatter, "{name} did not send READY=1 within {time}")
            }
            RolloutError::SpawnFailed => {
                write!(formatter, "no new process for {name}: not enough processes or memory")
            }
            RolloutError::DependencyFailed(dependency) => {
                write_blocked(formatter, plan, name, *dependency, "has failed")
            }
            RolloutError::DependencyCompleted(dependency) => {
                write_blocked(formatter, plan, name, *dependency, "has completed")
            }
            RolloutError::DependencyStopped(dependency) => {
                write_blocked(formatter, plan, name, *dependency, "is stopped")
            }
            RolloutError::Stopped => write!(formatter, "superseded by another request for {name}"),
            RolloutError::Superseded => {
                write!(formatter, "no new process for {name}: superseded by a newer configuration")
            }
        }
    }
}

fn write_blocked(
    formatter: &mut Formatter<'_>,
    plan: &Plan,
    name: Name<'_>,
    dependency: ServiceIndex,
    is: &str,
) -> fmt::Result {
    write!(formatter, "no new process for {name}: its dependency {} {is}", service_name(plan, dependency))
}

/// Why an instance is in its state: `exited with code 1, ran 20ms; restart 1 of 16 in 100ms`.
pub(super) struct Why<'a> {
    pub(super) plan: &'a Plan,
    pub(super) instance: InstanceId,
    /// The state that it is in.
    pub(super) to: StateName,
    pub(super) reason: &'a Reason,
    /// The time until its restart, or until its stop signal; `None`: that of the decision, or none.
    pub(super) remaining: Option<Duration>,
}

impl<'a> Why<'a> {
    /// Why an instance has changed its state.
    pub(super) fn of_transition(
        plan: &'a Plan,
        instance: InstanceId,
        (from, to): (StateName, StateName),
        reason: &'a Reason,
    ) -> Self {
        let stop = plan.services.get(instance.service.position()).map(|service| service.stop);
        let is_delayed = from == StateName::Running && to == StateName::Stopping;
        let remaining = stop.map(|stop| stop.delay).filter(|delay| is_delayed && !delay.is_zero());
        Self { plan, instance, to, reason, remaining }
    }

    /// Whether the state says everything.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.reason, Reason::DependenciesReady | Reason::BackoffElapsed | Reason::Ready | Reason::Shutdown)
    }
}

impl Display for Why<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Why { plan, instance, to, reason, remaining } = self;
        match reason {
            Reason::DependenciesReady | Reason::BackoffElapsed | Reason::Ready => Ok(()),
            Reason::Shutdown => formatter.write_str("shutdown"),
            Reason::StartRequested(_) if instance.is_surge() => formatter.write_str("replacement process"),
            Reason::StartRequested(by) => write_requested(formatter, plan, "started", *by),
            Reason::StopRequested(by) => write_requested(formatter, plan, "stopped", *by),
            Reason::RestartRequested(by) => write_requested(formatter, plan, "restarted", *by),
            Reason::ReloadingReported => formatter.write_str("it sent RELOADING=1"),
            Reason::StoppingReported => formatter.write_str("it sent STOPPING=1"),
            Reason::Fault(fault, failure) => match plan.services.get(instance.service.position()) {
                Some(service) => write_fault(formatter, service, *instance, (*fault, failure.as_ref())),
                None => Ok(()),
            },
            Reason::Replaced => formatter.write_str("replaced"),
            Reason::SpawnFailed { errno, retry_in, .. } => {
                if *errno == Errno::EBUSY {
                    formatter.write_str("the pipes and sockets of its earlier processes are not closed yet")?;
                } else if *errno == Errno::ETIMEDOUT {
                    formatter.write_str("a socket of its `listen` cannot be bound in time")?;
                } else {
                    write!(formatter, "cannot create a process: {}", errno::words(*errno))?;
                }
                write!(formatter, "; retry in {}", Span(remaining.unwrap_or(*retry_in)))
            }
            Reason::DependencyCompleted { dependency } => {
                write!(formatter, "cannot start: its dependency {} has completed", service_name(plan, *dependency))
            }
            Reason::DependencyFailed { dependency } => {
                write!(formatter, "cannot start: its dependency {} has failed", service_name(plan, *dependency))
            }
            Reason::Exited { run, decision, definition } | Reason::CleanedUp { run, decision, definition } => {
                write_run(formatter, definition, *instance, run)?;
                match to {
                    StateName::Stopping if definition.hooks.find(Hook::PostStop).is_some() => {
                        formatter.write_str("; post_stop follows")
                    }
                    StateName::Stopping => formatter.write_str("; stopping leftover processes"),
                    StateName::Waiting => formatter.write_str("; restart when its dependencies are ready"),
                    StateName::Starting
                    | StateName::Running
                    | StateName::Stopped
                    | StateName::Backoff
                    | StateName::Scheduled
                    | StateName::Completed
                    | StateName::Failed => write_decision(formatter, decision, *remaining),
                }
            }
        }?;
        let is_stop = matches!(reason, Reason::StopRequested(_) | Reason::RestartRequested(_) | Reason::Replaced);
        match remaining.filter(|_| is_stop) {
            Some(remaining) => write!(formatter, "; stop signal in {}", Span(remaining)),
            None => Ok(()),
        }
    }
}

/// `the last run is not over`.
pub(super) struct Skipped(pub(super) SkipReason);

impl Display for Skipped {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            SkipReason::StillRunning => "the last run is not over",
            SkipReason::Reloading => "it is being reloaded, restarted or stopped already",
            SkipReason::TooLate(late) => {
                let late = Span(Duration::from_secs(late.unsigned_abs()));
                return write!(formatter, "{late} late, because the clock was set or keepalive was suspended");
            }
        })
    }
}

/// `stopped by operator`.
fn write_requested(formatter: &mut Formatter<'_>, plan: &Plan, what: &str, requester: Requester) -> fmt::Result {
    let (what, by) = match requester {
        Requester::Autostart => (what, "autostart"),
        Requester::Operator => (what, "operator"),
        Requester::Dependent(service) => ("needed", service_name(plan, service)),
        Requester::Reload => (what, "reload"),
        Requester::Config => (what, "a new configuration"),
        Requester::Scaling => (what, "scaling"),
        Requester::Schedule => (what, "its schedule"),
        Requester::Lifetime => (what, "`max_lifetime`"),
        Requester::Watch => (what, "`watch`"),
        Requester::Memory(used) => return write!(formatter, "{what} by `max_memory`: it uses {used}"),
    };
    write!(formatter, "{what} by {by}")
}

/// `web.0 is unhealthy: http 127.0.0.1:80: HTTP status 503`.
fn write_unhealthy(
    formatter: &mut Formatter<'_>,
    plan: &Plan,
    instance: InstanceId,
    failure: Option<&ProbeFailure>,
) -> fmt::Result {
    write!(formatter, "{} is ", Name(plan, instance))?;
    match plan.services.get(instance.service.position()) {
        Some(service) => write_fault(formatter, service, instance, (Fault::Unhealthy, failure)),
        None => Ok(()),
    }
}

fn write_cause(formatter: &mut Formatter<'_>, plan: &Plan, cause: &Cause) -> fmt::Result {
    match cause {
        Cause::Signal(signal) => write!(formatter, "received {signal}"),
        Cause::Requested => formatter.write_str("shutdown requested"),
        Cause::Failed { instance, run, failure_reason }
        | Cause::NothingLeft { failure: Some((instance, run, failure_reason)) } => {
            write!(formatter, "{} failed: ", Name(plan, *instance))?;
            if let Some(service) = plan.services.get(instance.service.position()) {
                write_run(formatter, service, *instance, run)?;
            }
            write_gave_up(formatter, *failure_reason)
        }
        Cause::Unhealthy { instance, failure } => write_unhealthy(formatter, plan, *instance, failure.as_ref()),
        Cause::Completed { service } => write!(formatter, "{} has completed", service_name(plan, *service)),
        Cause::NothingLeft { failure: None } => formatter.write_str(ALL_ENDED),
    }
}

/// Without the reason of a failure, which is logged when an instance fails.
fn write_brief_cause(formatter: &mut Formatter<'_>, plan: &Plan, cause: &Cause) -> fmt::Result {
    match cause {
        Cause::Failed { instance, .. } => write!(formatter, "{} has failed", service_name(plan, instance.service)),
        Cause::NothingLeft { .. } => formatter.write_str(ALL_ENDED),
        Cause::Signal(_) | Cause::Requested | Cause::Unhealthy { .. } | Cause::Completed { .. } => {
            write_cause(formatter, plan, cause)
        }
    }
}

/// The last line: why keepalive ends, what is known of that, and its exit code.
pub(super) struct Ending<'a>(pub(super) &'a Plan, pub(super) &'a Outcome, pub(super) String);

impl Display for Ending<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Outcome { code, cause } = self.1;
        write_cause(formatter, self.0, cause)?;
        write!(formatter, "{}: exiting with code {code}", self.2)?;
        let has_exited = match cause {
            Cause::Failed { run, .. } | Cause::NothingLeft { failure: Some((_, run, _)) } => run.failure.is_none(),
            Cause::Signal(_)
            | Cause::Requested
            | Cause::Unhealthy { .. }
            | Cause::Completed { .. }
            | Cause::NothingLeft { failure: None } => false,
        };
        // keepalive has these codes itself.
        let is_ambiguous = has_exited && matches!(code, 2 | 70 | 71 | 78 | 126 | 127);
        formatter.write_str(if is_ambiguous { ", which is that of the process" } else { "" })
    }
}
