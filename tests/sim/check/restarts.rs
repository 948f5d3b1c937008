//! What has to follow the end of a run, computed from the rules alone.

use std::time::Duration;

use keepalive::model::Mono;
use keepalive::model::plan::{Backoff, Kind, RestartPolicy, Service};
use keepalive::supervisor::{Exit, FailureReason, Reason, RestartDecision, StateName};
use nix::errno::Errno;

use super::instance::{Instance, OwnStop};
use super::shutdown::Stage;
use super::{Verdict, rule};

#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// It is tried again: the system was short of something.
    Refusal { errno: Errno },
    /// It is restarted after a delay within these bounds.
    Restart { least: Duration, most: Duration, unstable: u32 },
    /// It succeeded or failed for good.
    End(RestartDecision),
    /// It was being stopped.
    Stopped,
    /// Another process has its place, or has kept it.
    Replaced,
    /// The second process of an instance could not be made.
    RefusedSurge,
    /// What is broken ends while everything is being stopped.
    Anything,
    /// It was never made, because everything is being stopped.
    Rest,
}

/// Rounding of the delay, which is computed in seconds.
const ROUNDING: Duration = Duration::from_micros(2);

pub(crate) fn after(service: &Service, instance: &Instance, exit: Exit, now: Mono, stage: Stage) -> Expected {
    if instance.state == StateName::Stopping {
        let is_asked = instance.fault.is_none() && instance.own_stop != OwnStop::Alone;
        if is_asked {
            return Expected::Stopped;
        }
        // Whether the end of everything had already come to it cannot be told.
        if stage != Stage::Up {
            return Expected::Anything;
        }
    }
    if let Some(failure) = instance.failure.filter(|failure| failure.is_shortage()) {
        return if stage != Stage::Up { Expected::Rest } else { Expected::Refusal { errno: failure.errno } };
    }
    match decide(service, instance, exit, now) {
        Expected::Restart { .. } if stage != Stage::Up => Expected::End(RestartDecision::StayStopped),
        expected => expected,
    }
}

fn decide(service: &Service, instance: &Instance, exit: Exit, now: Mono) -> Expected {
    let restart = &service.restart;
    let ran = instance.failure.is_none() && instance.fault.is_none();
    let success = ran && restart.success.contains(exit.status);
    if ran && restart.prevent.contains(exit.status) {
        return Expected::End(if success {
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
        return Expected::End(if success {
            RestartDecision::Complete
        } else {
            RestartDecision::Fail(FailureReason::Policy)
        });
    }
    if instance.has_been_ready() && now.since(instance.since) >= restart.min_uptime {
        return Expected::Restart { least: restart.delay, most: restart.delay, unstable: 0 };
    }
    let unstable = instance.unstable + 1;
    if let Some(limit) = restart.max_restarts.filter(|limit| unstable > *limit) {
        return Expected::End(RestartDecision::Fail(FailureReason::RestartLimit(limit)));
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

/// Between starts that the system refuses.
fn refusal_bounds(attempt: u32) -> (Duration, Duration) {
    let backoff =
        Backoff { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(10), jitter: 0.1 };
    bounds(&backoff, attempt)
}

/// Whether what the supervisor says of the end is what has to follow.
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
        (Expected::End(expect), Reason::Exited { decision, .. }) => {
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
            rule!(to == StateName::Stopped, "{to:?} instead of rest");
        }
        (Expected::Rest, _) => rule!(to == StateName::Stopped, "{to:?} instead of rest"),
        (expected, reason) => rule!(false, "{reason:?} does not follow from {expected:?}"),
    }
    Ok(())
}
