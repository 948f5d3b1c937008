//! One fact, one line: what the supervisor records, in words.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::model::plan::{Service, Strategy};
use crate::model::{InstanceId, Plan, ServiceIndex, StartFailure, StartStep, Template, errno};
use crate::supervisor::{
    Cause, Changes, FailureReason, Fault, JournalEvent, Outcome, Reason, ReloadFailure, RestartDecision, RolloutError,
    RunResult, StateName,
};

/// What is said when another configuration was not taken; why not follows.
pub(super) const CONFIG_UNCHANGED: &str = "the configuration stays as it is";

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

/// A fact in words.
pub(super) struct Line<'a> {
    pub(super) plan: &'a Plan,
    pub(super) fact: &'a JournalEvent,
}

impl Display for Line<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        match self.fact {
            JournalEvent::Transition { instance, from, to, pid, reason } => {
                write!(formatter, "{} {}", Name(plan, *instance), from.as_str())?;
                if from != to {
                    write!(formatter, " → {}", to.as_str())?;
                }
                let why = Why { plan, instance: *instance, to: *to, reason };
                match (reason, pid) {
                    (Reason::Ready, Some(pid)) => write!(formatter, " (pid {pid})"),
                    _ if why.is_silent() => Ok(()),
                    _ => write!(formatter, " ({why})"),
                }
            }
            JournalEvent::StopTimedOut { instance, pid, after } => {
                let name = Name(plan, *instance);
                write!(formatter, "{name} has not stopped within {}, killing it (pid {pid})", Span(*after))
            }
            JournalEvent::LeftBehind { instance, pid } => {
                write!(formatter, "{} has left processes behind, ending them (group {pid})", Name(plan, *instance))
            }
            JournalEvent::Unkillable { instance, pid } => {
                let name = Name(plan, *instance);
                write!(
                    formatter,
                    "{name} is still there after SIGKILL (pid {pid}): not permitted, or stuck in the kernel"
                )
            }
            JournalEvent::Scaled { service, from, to } => {
                write!(formatter, "{} scaled from {from} to {to} instances", service_name(plan, *service))
            }
            JournalEvent::ServiceFailed { service } => write!(formatter, "{} has failed", service_name(plan, *service)),
            JournalEvent::SignalForwarded { signal, receivers } => {
                let noun = if *receivers == 1 { "process" } else { "processes" };
                write!(formatter, "{signal} forwarded to {receivers} {noun}")
            }
            JournalEvent::SignalIgnored { signal } => write!(formatter, "{signal} ignored, as configured"),
            JournalEvent::ConfigurationWanted { signal } => {
                write!(formatter, "received {signal}: reading the configuration again")
            }
            JournalEvent::ConfigLoadFailed { .. } => formatter.write_str(CONFIG_UNCHANGED),
            JournalEvent::Reconfigured(_)
            | JournalEvent::ReconfigurationRefused { .. }
            | JournalEvent::ReloadBegun { .. }
            | JournalEvent::Replaced { .. }
            | JournalEvent::RolledBack { .. }
            | JournalEvent::ReloadEnded { .. } => write_reload(formatter, plan, self.fact),
            JournalEvent::Draining { cause } => {
                write_cause(formatter, plan, cause)?;
                formatter.write_str(": stopping everything")
            }
            JournalEvent::Forced { signal: Some(signal) } => {
                write!(formatter, "{signal} again: killing everything now")
            }
            JournalEvent::Forced { signal: None } => {
                write!(formatter, "not all stopped within {}: killing everything now", Span(plan.shutdown_timeout))
            }
            JournalEvent::LeftoversKilled => {
                formatter.write_str("processes that services left running do not end: killing them")
            }
            JournalEvent::Abandoned => {
                formatter.write_str("some processes are still there after SIGKILL: ending without them")
            }
        }
    }
}

/// What is particular to a reload; of any other fact nothing.
fn write_reload(formatter: &mut Formatter<'_>, plan: &Plan, fact: &JournalEvent) -> fmt::Result {
    match fact {
        JournalEvent::Reconfigured(changes) => Changed(changes, "to be reloaded").fmt(formatter),
        JournalEvent::ReconfigurationRefused { service } => {
            let name = service_name(plan, *service);
            write!(formatter, "the configuration was not taken: {name} is being reloaded, try again after that")
        }
        JournalEvent::ReloadBegun { service } => {
            write!(formatter, "{} is being reloaded", service_name(plan, *service))
        }
        JournalEvent::Replaced { instance, old, new } => {
            write!(formatter, "{} is replaced", Name(plan, *instance))?;
            match (old, new) {
                (Some(old), Some(new)) => write!(formatter, " (pid {new} for {old})"),
                (None, Some(new)) => write!(formatter, " (pid {new})"),
                (_, None) => Ok(()),
            }
        }
        JournalEvent::RolledBack { service, failure } => {
            let name = service_name(plan, *service);
            write!(formatter, "{}; {name} goes back to its former configuration", Reloaded(plan, failure))
        }
        JournalEvent::ReloadEnded { service, failure: None } => {
            write!(formatter, "{} has been reloaded", service_name(plan, *service))
        }
        JournalEvent::ReloadEnded { service, failure: Some(failure) } => {
            let name = service_name(plan, *service);
            write!(formatter, "the reload of {name} has failed: {}", Reloaded(plan, failure))
        }
        JournalEvent::ConfigurationWanted { .. }
        | JournalEvent::ConfigLoadFailed { .. }
        | JournalEvent::Transition { .. }
        | JournalEvent::StopTimedOut { .. }
        | JournalEvent::LeftBehind { .. }
        | JournalEvent::Unkillable { .. }
        | JournalEvent::Scaled { .. }
        | JournalEvent::ServiceFailed { .. }
        | JournalEvent::SignalForwarded { .. }
        | JournalEvent::SignalIgnored { .. }
        | JournalEvent::Draining { .. }
        | JournalEvent::Forced { .. }
        | JournalEvent::LeftoversKilled
        | JournalEvent::Abandoned => Ok(()),
    }
}

/// What has changed with another configuration, and what is said of what needs other processes.
pub(super) struct Changed<'a>(pub(super) &'a Changes, pub(super) &'static str);

impl Display for Changed<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(&Changes { added, removed, reloaded, adjusted, unchanged }, of_reloaded) = *self;
        formatter.write_str("the configuration has been read again: ")?;
        let counts = [
            (added, "new"),
            (removed, "removed"),
            (reloaded, of_reloaded),
            (adjusted, "adjusted"),
            (unchanged, "unchanged"),
        ];
        for (position, (count, what)) in counts.into_iter().filter(|(count, _)| *count > 0).enumerate() {
            write!(formatter, "{}{count} {what}", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Why a reload has failed: `the new process of web.1 was not ready within 30s`.
pub(super) struct Reloaded<'a>(pub(super) &'a Plan, pub(super) &'a ReloadFailure);

impl Display for Reloaded<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(plan, ReloadFailure { instance, definition, error }) = self;
        let name = Name(plan, *instance);
        match error {
            RolloutError::Ended(run) | RolloutError::StoppedItself(run) => {
                let new = if matches!(definition.reload.strategy, Strategy::Signal(_)) { "" } else { "new " };
                write!(formatter, "the {new}process of {name} failed: ")?;
                if let RolloutError::StoppedItself(_) = error {
                    formatter.write_str("it says that it stops; ")?;
                }
                write_run(formatter, definition, *instance, run)
            }
            RolloutError::Late => {
                let time = Span(definition.ready_timeout);
                write!(formatter, "{name} reloads, and has not said READY=1 within {time}")
            }
            RolloutError::NoProcess => {
                write!(formatter, "{name} got no new process: the system is short of processes or memory")
            }
            RolloutError::Dependency(dependency) => {
                let dependency = service_name(plan, *dependency);
                write!(formatter, "{name} got no new process: {dependency}, which it depends on, has ended")
            }
            RolloutError::Overtaken => {
                write!(formatter, "{name} got no new process: another configuration came before that")
            }
        }
    }
}

/// Why an instance is in its state: `exit 1 after 20ms, retry in 100ms, 1 of 16`.
pub(super) struct Why<'a> {
    pub(super) plan: &'a Plan,
    pub(super) instance: InstanceId,
    /// The state.
    pub(super) to: StateName,
    pub(super) reason: &'a Reason,
}

impl Why<'_> {
    /// There is nothing to say that the state does not say.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.reason, Reason::Unblocked | Reason::Due | Reason::Ready | Reason::Cleared | Reason::Shutdown)
    }
}

impl Display for Why<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Why { plan, instance, to, reason } = self;
        match reason {
            Reason::Unblocked | Reason::Due | Reason::Ready | Reason::Cleared | Reason::Shutdown => Ok(()),
            Reason::Requested if instance.is_surge() => formatter.write_str("to replace its process"),
            Reason::Requested => formatter.write_str("start requested"),
            Reason::StopRequested => formatter.write_str("stop requested"),
            Reason::RestartRequested => formatter.write_str("restart requested"),
            Reason::Leaves => formatter.write_str("it says that it stops"),
            Reason::Fault(fault) => write_fault(formatter, *fault),
            Reason::Replaced => formatter.write_str("replaced"),
            Reason::Refused { errno, retry_in, .. } => {
                write!(formatter, "cannot start a process: {}, retry in {}", errno::words(*errno), Span(*retry_in))
            }
            Reason::DependencyCompleted { dependency } => {
                write!(formatter, "{} has completed, so this will never start", service_name(plan, *dependency))
            }
            Reason::DependencyFailed { dependency } => {
                write!(formatter, "{} has failed, so this will never start", service_name(plan, *dependency))
            }
            Reason::Ended { run, decision, definition } => {
                write_run(formatter, definition, *instance, run)?;
                match to {
                    StateName::Stopping => formatter.write_str(", ending what it left behind"),
                    StateName::Waiting => formatter.write_str(", restart when what it depends on is ready"),
                    StateName::Starting
                    | StateName::Running
                    | StateName::Stopped
                    | StateName::Backoff
                    | StateName::Completed
                    | StateName::Failed => write_outlook(formatter, decision),
                }
            }
        }
    }
}

/// `service`: what the instance was to be made of.
fn write_run(formatter: &mut Formatter<'_>, service: &Service, instance: InstanceId, run: &RunResult) -> fmt::Result {
    match run.failure {
        Some(failure) => Failure(service, instance, failure).fmt(formatter),
        None => {
            if let Some(fault) = run.fault {
                write_fault(formatter, fault)?;
                formatter.write_str("; ")?;
            }
            write!(formatter, "{} after {}", run.exit.status, Span(run.uptime))?;
            if run.exit.oom_killed { formatter.write_str(", out of memory") } else { Ok(()) }
        }
    }
}

fn write_fault(formatter: &mut Formatter<'_>, fault: Fault) -> fmt::Result {
    match fault {
        Fault::NotReady(after) => write!(formatter, "not ready within {}", Span(after)),
        Fault::Silent(after) => write!(formatter, "no sign of life for {}", Span(after)),
        Fault::WatchdogTriggered => formatter.write_str("it says that it is in trouble"),
    }
}

fn write_outlook(formatter: &mut Formatter<'_>, decision: &RestartDecision) -> fmt::Result {
    match decision {
        RestartDecision::Restart { delay, unstable, limit } => {
            if delay.is_zero() {
                formatter.write_str(", restart at once")?;
            } else {
                write!(formatter, ", retry in {}", Span(*delay))?;
            }
            match (unstable, limit) {
                (0, _) => Ok(()),
                (count, Some(limit)) => write!(formatter, ", {count} of {limit}"),
                (count, None) => write!(formatter, ", {count} in a row"),
            }
        }
        RestartDecision::Complete | RestartDecision::Stay => Ok(()),
        RestartDecision::Fail(failure_reason) => write_gave_up(formatter, *failure_reason),
    }
}

fn write_gave_up(formatter: &mut Formatter<'_>, failure_reason: FailureReason) -> fmt::Result {
    match failure_reason {
        FailureReason::Policy | FailureReason::Unbound => Ok(()),
        FailureReason::Prevented => formatter.write_str(", not restarted after that"),
        FailureReason::Limit(0) => formatter.write_str(", no restart allowed"),
        FailureReason::Limit(1) => formatter.write_str(", the one restart used up"),
        FailureReason::Limit(limit) => write!(formatter, ", all {limit} restarts used up"),
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
        Cause::Completed { service } => write!(formatter, "{} has completed", service_name(plan, *service)),
        Cause::NothingLeft { failure: None } => formatter.write_str("nothing is left to run"),
    }
}

/// The last line: why it ended and with which code.
pub(super) struct Ending<'a>(pub(super) &'a Plan, pub(super) &'a Outcome);

impl Display for Ending<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write_cause(formatter, self.0, &self.1.cause)?;
        write!(formatter, ": ended with exit code {}", self.1.code)
    }
}

/// ``cannot change to its `cwd` `/app`: No such file or directory``.
struct Failure<'a>(&'a Service, InstanceId, StartFailure);

impl Display for Failure<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(service, instance, failure) = self;
        let step = match failure.step {
            StartStep::Listen(_) => "cannot listen on",
            StartStep::Session => "cannot make its session",
            StartStep::Stdio => "cannot connect its stdin, stdout and stderr",
            StartStep::Descriptors => "cannot be given its descriptors",
            StartStep::Limit(_) => "cannot set its limit",
            StartStep::Nice => "cannot set its `nice`",
            StartStep::OomScoreAdj => "cannot set its `oom_score_adj`",
            StartStep::Groups => "cannot take on the groups of its `user`, or its `groups`",
            StartStep::Group => "cannot become its `group`",
            StartStep::User => "cannot become its `user`",
            StartStep::State => "cannot open its `state`",
            StartStep::Directory => "cannot change to its `cwd`",
            StartStep::NoNewPrivs => "cannot set `no_new_privs`",
            StartStep::Exec => "cannot execute",
        };
        formatter.write_str(step)?;
        if let Some(operand) = operand(service, *instance, failure.step) {
            write!(formatter, " `{}`", operand.escape_debug())?;
        }
        write!(formatter, ": {}", errno::words(failure.errno))
    }
}

/// What could not be executed, entered or set, if the plan has a name for it.
fn operand(service: &Service, instance: InstanceId, step: StartStep) -> Option<String> {
    let process = &service.process;
    let expanded = |template: &Template| template.expand(instance.slot().number).to_string_lossy().into_owned();
    match step {
        StartStep::Listen(position) => {
            process.listen.get(usize::from(position)).map(|listen| listen.address.to_string())
        }
        StartStep::Exec => process.command.first().map(expanded),
        StartStep::Directory => process.cwd.as_ref().map(expanded),
        StartStep::State => process.state.as_ref().and_then(|state| state.persist.as_ref()).map(expanded),
        StartStep::Limit(position) => process.limits.get(usize::from(position)).map(|limit| limit.name.to_owned()),
        StartStep::Session
        | StartStep::Stdio
        | StartStep::Descriptors
        | StartStep::Nice
        | StartStep::OomScoreAdj
        | StartStep::Groups
        | StartStep::Group
        | StartStep::User
        | StartStep::NoNewPrivs => None,
    }
}

/// A duration as a person writes it: `400ms`, `3.2s`, `1m30s`, `2h5m`, `3d4h`.
pub(super) struct Span(pub(super) Duration);

impl Display for Span {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        match seconds {
            0 => write!(formatter, "{milliseconds}ms"),
            1..60 if milliseconds < 100 => write!(formatter, "{seconds}s"),
            1..60 => write!(formatter, "{seconds}.{}s", milliseconds / 100),
            60..3600 => write_two(formatter, seconds / 60, "m", seconds % 60, "s"),
            3600..86_400 => write_two(formatter, seconds / 3600, "h", seconds % 3600 / 60, "m"),
            _ => write_two(formatter, seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        }
    }
}

fn write_two(formatter: &mut Formatter<'_>, large: u64, unit: &str, small: u64, subunit: &str) -> fmt::Result {
    write!(formatter, "{large}{unit}")?;
    if small > 0 { write!(formatter, "{small}{subunit}") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(milliseconds: u64, expect: &str) {
        assert_eq!(Span(Duration::from_millis(milliseconds)).to_string(), expect);
    }

    #[test]
    fn durations_read_as_a_person_would_write_them() {
        check(0, "0ms");
        check(400, "400ms");
        check(1000, "1s");
        check(3250, "3.2s");
        check(60_000, "1m");
        check(90_000, "1m30s");
        check(7_500_000, "2h5m");
        check(273_600_000, "3d4h");
    }
}
