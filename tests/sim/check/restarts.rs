//! The expected decision after the end of a run, computed only from the rules.

use std::time::Duration;

use keepalive::model::plan::{Backoff, Kind, RestartPolicy, Service};
use keepalive::model::{InstanceId, Mono, StartFailure};
use keepalive::supervisor::{Exit, FailureReason, Fault, Reason, RestartDecision, StateName};
use nix::errno::Errno;

use super::instance::{Instance, ReportedStop};
use super::shutdown::ShutdownStage;
use super::{Verdict, rule};

#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// It is retried because the system lacked a resource.
    Refusal { errno: Errno },
    /// It is restarted after a delay within these bounds.
    Restart { least: Duration, most: Duration, unstable: u32 },
    /// It succeeded or failed for good.
    Shutdown(RestartDecision),
    /// It was being stopped.
    Stopped,
    /// Another process has replaced it, or it was a surge instance.
    Replaced,
    /// The process of a surge instance could not be created.
    RefusedSurge,
    /// It ends after a fault during the shutdown.
    Anything,
    /// It was never created, because of the shutdown.
    Rest,
}

/// Tolerance for delays, which are computed in seconds.
const ROUNDING: Duration = Duration::from_micros(2);

pub(crate) fn after(service: &Service, instance: &Instance, exit: Exit, now: Mono, stage: ShutdownStage) -> Expected {
    if instance.state == StateName::Stopping {
        let on_stop_signal = instance.fault.is_none() && instance.reported_stop != ReportedStop::Only;
        if on_stop_signal {
            return Expected::Stopped;
        }
        // It is unknown whether the shutdown had already reached it.
        if stage != ShutdownStage::Up {
            return Expected::Anything;
        }
    }
    if let Some(failure) = instance.failure.filter(|failure| failure.is_shortage()) {
        return if stage != ShutdownStage::Up { Expected::Rest } else { Expected::Refusal { errno: failure.errno } };
    }
    match decide(service, instance, exit, now) {
        Expected::Restart { .. } if stage != ShutdownStage::Up => Expected::Shutdown(RestartDecision::StayStopped),
        expected => expected,
    }
}

fn decide(service: &Service, instance: &Instance, exit: Exit, now: Mono) -> Expected {
    let restart = &service.restart;
    let ran = instance.failure.is_none() && instance.fault.is_none();
    let success = ran && instance.hook.is_none() && restart.success.contains(exit.status);
    if ran && restart.prevent.contains(exit.status) {
        return Expected::Shutdown(if success {
            RestartDecision::Complete
        } else {
            RestartDecision::Fail(FailureReason::Prevented)
        });
    }
    let again = match (restart.policy, service.kind) {
        (RestartPolicy::Never, _) => false,
        (RestartPolicy::Always, Kind::Service) => true,
        (RestartPolicy::Always, Kind::Oneshot) | (RestartPolicy::OnFailure, _) => !success,
    };
    if !again {
        return Expected::Shutdown(if success {
            RestartDecision::Complete
        } else {
            RestartDecision::Fail(FailureReason::Policy)
        });
    }
    let cannot_execute = instance.failure.is_some_and(StartFailure::is_of_program);
    if cannot_execute && !instance.has_executed {
        return Expected::Shutdown(RestartDecision::Fail(FailureReason::NeverExecuted));
    }
    let has_failed = matches!(instance.fault, Some(Fault::NotFinished(_) | Fault::Unhealthy));
    if instance.has_been_ready() && !has_failed && now.since(instance.since) >= restart.min_uptime {
        return Expected::Restart { least: restart.delay, most: restart.delay, unstable: 0 };
    }
    let unstable = instance.unstable + 1;
    if let Some(limit) = restart.max_restarts.filter(|limit| unstable > *limit && !instance.has_died_beside_old) {
        return Expected::Shutdown(RestartDecision::Fail(FailureReason::RestartLimit(limit)));
    }
    let (least, most) = bounds(&restart.backoff, unstable);
    Expected::Restart { least: restart.delay + least, most: restart.delay + most, unstable }
}

/// Delay n = min(initial · factorⁿ⁻¹, max), ± jitter, by repeated multiplication.
fn bounds(backoff: &Backoff, n: u32) -> (Duration, Duration) {
    let max = backoff.max.as_secs_f64();
    let mut delay = backoff.initial.as_secs_f64();
    for _ in 1..n {
        delay *= backoff.factor;
        if delay >= max || backoff.factor <= 1.0 {
            break;
        }
    }
    let delay = Duration::from_secs_f64(delay.min(max));
    (delay.mul_f64(1.0 - backoff.jitter).saturating_sub(ROUNDING), delay.mul_f64(1.0 + backoff.jitter) + ROUNDING)
}

/// The delay after a refused fork.
fn refusal_bounds(attempt: u32) -> (Duration, Duration) {
    let backoff =
        Backoff { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(10), jitter: 0.1 };
    bounds(&backoff, attempt)
}

/// Checks that the decision of the supervisor is the expected one.
pub(crate) fn agrees(expected: &Expected, reason: &Reason, to: StateName, instance: &Instance) -> Verdict {
    match (expected, reason) {
        (Expected::Refusal { errno: expect }, Reason::SpawnFailed { errno, retry_in, attempt }) => {
            let (least, most) = refusal_bounds(*attempt);
            rule!(errno == expect && *attempt == instance.refusals + 1, "{reason:?} after {instance:?}");
            rule!((least..=most).contains(retry_in), "{reason:?} is not within {least:?} and {most:?}");
        }
        (
            Expected::Restart { least, most, unstable: expect },
            Reason::Exited { decision: RestartDecision::Restart { delay, unstable, .. }, .. },
        ) => {
            rule!(unstable == expect, "{unstable} unstable runs, not {expect}");
            rule!((*least..=*most).contains(delay), "{delay:?} is not within {least:?} and {most:?}");
        }
        (Expected::Shutdown(expect), Reason::Exited { decision, .. }) => {
            rule!(expect == decision, "{decision:?}, not {expect:?}");
        }
        (Expected::Stopped, Reason::Exited { decision, .. }) => {
            let fits = match decision {
                RestartDecision::StayStopped => matches!(to, StateName::Stopped | StateName::Stopping),
                RestartDecision::Restart { delay, .. } => {
                    delay.is_zero() && matches!(to, StateName::Starting | StateName::Stopping | StateName::Waiting)
                }
                RestartDecision::Complete | RestartDecision::Fail(_) => false,
            };
            rule!(fits, "{decision:?} and {to:?} after a stop");
        }
        (Expected::Anything, _) => {}
        (Expected::Replaced, Reason::Exited { decision, .. }) => {
            let rests = matches!(to, StateName::Stopped | StateName::Stopping);
            rule!(*decision == RestartDecision::StayStopped && rests, "{decision:?} and {to:?} of a surge");
        }
        (Expected::RefusedSurge, Reason::SpawnFailed { .. } | Reason::Shutdown) => {
            rule!(to == StateName::Stopped, "{to:?} instead of stopped");
        }
        (Expected::Rest, _) => rule!(to == StateName::Stopped, "{to:?} instead of stopped"),
        (expected, reason) => rule!(false, "{reason:?} does not follow from {expected:?}"),
    }
    Ok(())
}

/// Checks a transition against the expected decision, if a run has ended.
pub(super) fn check_expected(
    id: InstanceId,
    instance: &mut Instance,
    to: StateName,
    reason: &Reason,
    stage: ShutdownStage,
) -> Verdict {
    let Some(expected) = instance.expected.take() else {
        let unfounded = matches!(reason, Reason::Exited { .. } | Reason::SpawnFailed { .. });
        rule!(!unfounded, "{id:?}: no run has ended: {reason:?}");
        return Ok(());
    };
    let expected = match expected {
        Expected::Refusal { .. } if stage != ShutdownStage::Up => Expected::Rest,
        expected => expected,
    };
    agrees(&expected, reason, to, instance)
}
