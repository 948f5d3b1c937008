//! How a run has ended, and what follows, in words.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::runs::command_of;
use super::text::Span;
use super::unready;
use crate::model::plan::{Hook, Service};
use crate::model::{InstanceId, Numbers, ProbeFailure, StartFailure, StartStep, Template};
use crate::supervisor::{FailureReason, Fault, RestartDecision, RunResult};

/// How a run has ended, as [`write_run`] writes it.
pub(super) struct RunText<'a>(pub(super) &'a Service, pub(super) InstanceId, pub(super) &'a RunResult);

impl Display for RunText<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write_run(formatter, self.0, self.1, self.2)
    }
}

/// `service` is the definition that this run was started from.
pub(super) fn write_run(
    formatter: &mut Formatter<'_>,
    service: &Service,
    instance: InstanceId,
    run: &RunResult,
) -> fmt::Result {
    let is_named = !matches!(run.fault, Some(Fault::HookTimeout(..)));
    if let Some(hook) = run.hook.filter(|_| is_named) {
        write!(formatter, "{}{}", hook.as_str(), if run.failure.is_some() { ": " } else { " " })?;
    }
    match run.failure {
        Some(failure) => Failure(service, instance, run.hook, failure).fmt(formatter),
        None => {
            if let Some(fault) = run.fault {
                write_fault(formatter, service, instance, (fault, run.probe_failure.as_ref()))?;
                formatter.write_str("; ")?;
            }
            let oom = if run.exit.oom_killed { " (out of memory)" } else { "" };
            let daemon = if run.is_daemon { ": it puts itself into the background" } else { "" };
            write!(formatter, "{}{oom}, ran {}{daemon}", run.exit.status, Span(run.uptime))
        }
    }
}

pub(super) fn write_fault(
    formatter: &mut Formatter<'_>,
    service: &Service,
    instance: InstanceId,
    (fault, failure): (Fault, Option<&ProbeFailure>),
) -> fmt::Result {
    match fault {
        Fault::NotReady(after) => {
            write!(formatter, "not ready within {}", Span(after))?;
            unready::write_why(formatter, service, numbers(service, instance), failure)
        }
        Fault::HookTimeout(hook, after) => write!(formatter, "{} not done within {}", hook.as_str(), Span(after)),
        Fault::NotFinished(after) => write!(formatter, "not finished within {}", Span(after)),
        Fault::WatchdogTimeout(after) => write!(formatter, "no watchdog message for {}", Span(after)),
        Fault::Unhealthy => unready::write_unhealthy(formatter, service, numbers(service, instance), failure),
        Fault::WatchdogTriggered => formatter.write_str("it sent WATCHDOG=trigger"),
    }
}

pub(super) fn write_decision(
    formatter: &mut Formatter<'_>,
    decision: &RestartDecision,
    remaining: Option<Duration>,
) -> fmt::Result {
    match decision {
        RestartDecision::Restart { delay, unstable, limit } => {
            formatter.write_str("; restart")?;
            match (unstable, limit) {
                (0, _) => {}
                (count, Some(limit)) => write!(formatter, " {count} of {limit}")?,
                (count, None) => write!(formatter, " {count}")?,
            }
            let delay = remaining.unwrap_or(*delay);
            if delay.is_zero() { formatter.write_str(" now") } else { write!(formatter, " in {}", Span(delay)) }
        }
        RestartDecision::Complete | RestartDecision::StayStopped => Ok(()),
        RestartDecision::Fail(failure_reason) => write_gave_up(formatter, *failure_reason),
    }
}

pub(super) fn write_gave_up(formatter: &mut Formatter<'_>, failure_reason: FailureReason) -> fmt::Result {
    match failure_reason {
        FailureReason::Policy
        | FailureReason::DependencyFailed
        | FailureReason::BindFailed
        | FailureReason::NeverExecuted => Ok(()),
        FailureReason::Prevented => formatter.write_str("; not restarted because of `no_restart_exit_codes`"),
        FailureReason::Untried => formatter.write_str("; not restarted, because the reload has failed"),
        FailureReason::RestartLimit(0) => formatter.write_str("; `max_restarts` is 0"),
        FailureReason::RestartLimit(1) => formatter.write_str("; gave up after 1 restart"),
        FailureReason::RestartLimit(limit) => write!(formatter, "; gave up after {limit} restarts"),
    }
}

/// ``cannot change to directory `/app`: No such file or directory``.
struct Failure<'a>(&'a Service, InstanceId, Option<Hook>, StartFailure);

impl Display for Failure<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(service, instance, hook, failure) = self;
        failure.write(operand(service, *instance, *hook, failure.step).as_deref(), formatter)
    }
}

pub(super) fn numbers(service: &Service, instance: InstanceId) -> Numbers {
    Numbers { instance: instance.slot().number, instances: service.instances }
}

/// What could not be executed, entered or set, if the configuration names it.
fn operand(service: &Service, instance: InstanceId, hook: Option<Hook>, step: StartStep) -> Option<String> {
    let process = &service.process;
    let numbers = numbers(service, instance);
    let expanded = |template: &Template| template.shown(numbers);
    match step {
        StartStep::Listen(position) => {
            process.listen.get(usize::from(position)).map(|listen| listen.address.to_string())
        }
        StartStep::EnvFile(position) | StartStep::EnvLine(position, ..) => {
            process.env_files.get(usize::from(position)).map(|file| expanded(&file.path))
        }
        StartStep::Exec | StartStep::Interpreter(_) | StartStep::Architecture(_) => {
            command_of(service, hook).first().map(expanded)
        }
        StartStep::Directory => process.cwd.as_ref().map(expanded),
        StartStep::State => process.state.as_ref().and_then(|state| state.persist.as_ref()).map(expanded),
        StartStep::Limit(position) => process.limits.get(usize::from(position)).map(|limit| limit.name.to_owned()),
        StartStep::Channels
        | StartStep::StateMemory
        | StartStep::Create
        | StartStep::Session
        | StartStep::Stdio
        | StartStep::Stored
        | StartStep::Descriptors
        | StartStep::Nice
        | StartStep::OomScoreAdj
        | StartStep::Groups
        | StartStep::Group
        | StartStep::User
        | StartStep::NoNewPrivs => None,
    }
}
