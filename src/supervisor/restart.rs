//! Whether a run is followed by another, and when.

use std::time::Duration;

use super::random::Random;
use super::run_result::{FailureReason, RestartDecision, RunResult};
use crate::model::plan::{Backoff, Kind, RestartPolicy, Service};

/// Whether the run was ready before it ended; if not, it is a failed start however long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartResult {
    Ready,
    NotReady,
}

/// What comes after `run`, when nobody asked for its end and `unstable` unstable runs in a row came before it.
pub(super) fn decide(
    service: &Service,
    run: &RunResult,
    start: StartResult,
    unstable: u32,
    random: &mut Random,
) -> RestartDecision {
    let restart = &service.restart;
    let status = run.exit.status;
    let is_its_own_end = run.failure.is_none() && run.fault.is_none();
    let success = is_its_own_end && restart.success.contains(status);
    let wants_another = match restart.policy {
        RestartPolicy::Always => !success || service.kind == Kind::Service,
        RestartPolicy::OnFailure => !success,
        RestartPolicy::Never => false,
    };
    let prevented = is_its_own_end && restart.prevent.contains(status);
    if !wants_another || prevented {
        return match (success, prevented) {
            (true, _) => RestartDecision::Complete,
            (false, true) => RestartDecision::Fail(FailureReason::Prevented),
            (false, false) => RestartDecision::Fail(FailureReason::Policy),
        };
    }
    if start == StartResult::Ready && run.uptime >= restart.min_uptime {
        return RestartDecision::Restart { delay: restart.delay, unstable: 0, limit: restart.max_restarts };
    }
    match restart.max_restarts {
        Some(limit) if unstable >= limit => RestartDecision::Fail(FailureReason::Limit(limit)),
        limit => {
            let unstable = unstable.saturating_add(1);
            let delay = restart.delay.saturating_add(backoff_delay(&restart.backoff, unstable, random));
            RestartDecision::Restart { delay, unstable, limit }
        }
    }
}

/// Delay n = min(initial · factorⁿ⁻¹, max), ± jitter; `n` counts from 1.
pub(super) fn backoff_delay(backoff: &Backoff, n: u32, random: &mut Random) -> Duration {
    if backoff.initial.is_zero() {
        // Zero times the infinity that a large exponent gives would be no number.
        return Duration::ZERO;
    }
    let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = backoff.initial.as_secs_f64() * backoff.factor.powi(exponent);
    // `min` also takes the infinity that a large exponent gives down to the maximum.
    let capped = grown.min(backoff.max.as_secs_f64());
    let jittered = capped * (1.0 + backoff.jitter * random.signed_unit());
    Duration::try_from_secs_f64(jittered).unwrap_or(backoff.max)
}
