//! The restart policy: whether an instance is restarted after its process has exited, and when.

use std::time::Duration;

use super::random::Random;
use super::run_result::{FailureReason, RestartDecision, RunResult};
use crate::model::StartFailure;
use crate::model::plan::{Backoff, Kind, RestartPolicy, Service};

/// Whether the process was ready before it exited. If not, the run counts as a failed start, however long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartResult {
    Ready,
    NotReady,
}

/// Decides what follows a run that has exited on its own or because of a fault.
///
/// `unstable`: the number of consecutive unstable runs before it. `limit`: `max_restarts`, if it applies. `has_executed`: the
/// instance has executed its program in this run or before.
pub(super) fn decide(
    service: &Service,
    run: &RunResult,
    start: StartResult,
    (unstable, limit, has_executed): (u32, Option<u32>, bool),
    random: &mut Random,
) -> RestartDecision {
    let restart = &service.restart;
    let status = run.exit.status;
    let exited_on_its_own = run.failure.is_none() && run.fault.is_none();
    let success = run.has_succeeded(&restart.success);
    let policy_restarts = match restart.policy {
        RestartPolicy::Always => !success || service.kind == Kind::Service,
        RestartPolicy::OnFailure => !success,
        RestartPolicy::Never => false,
    };
    let prevented = exited_on_its_own && restart.prevent.contains(status);
    if !policy_restarts || prevented {
        return match (success, prevented) {
            (true, _) => RestartDecision::Complete,
            (false, true) => RestartDecision::Fail(FailureReason::Prevented),
            (false, false) => RestartDecision::Fail(FailureReason::Policy),
        };
    }
    // A mistake in the configuration, and no crash.
    if !has_executed && run.failure.is_some_and(StartFailure::is_of_program) {
        return RestartDecision::Fail(FailureReason::NeverExecuted);
    }
    if start == StartResult::Ready && run.uptime >= restart.min_uptime {
        return RestartDecision::Restart { delay: restart.delay, unstable: 0, limit };
    }
    match limit {
        Some(limit) if unstable >= limit => RestartDecision::Fail(FailureReason::RestartLimit(limit)),
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
        // Zero times the infinity of a large exponent would be NaN.
        return Duration::ZERO;
    }
    let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = backoff.initial.as_secs_f64() * backoff.factor.powi(exponent);
    // `min` also limits the infinity of a large exponent.
    let capped = grown.min(backoff.max.as_secs_f64());
    let jittered = capped * (1.0 + backoff.jitter * random.signed_unit());
    Duration::try_from_secs_f64(jittered).unwrap_or(backoff.max)
}
