//! The last words: why keepalive ended, where people and orchestrators look for it.

use super::wording::Ending;
use crate::logs::{messages, termination_log};
use crate::model::Plan;
use crate::supervisor::{Cause, Outcome};

/// Tells how it ended. The reason of an end that nobody asked for is the last line on stderr and in the termination log.
pub(super) fn conclude(plan: &Plan, outcome: &Outcome) {
    let reason = Ending(plan, outcome);
    match outcome.cause {
        Cause::Failed { .. } | Cause::NothingLeft { failure: Some(_) } => report(plan, &reason.to_string()),
        // Nothing has failed, but something waits for what has completed without ever having been ready.
        Cause::NothingLeft { failure: None } if outcome.code != 0 => report(plan, &reason.to_string()),
        Cause::Signal(_) | Cause::Requested | Cause::Completed { .. } | Cause::NothingLeft { failure: None } => {
            log::info!("{reason}");
        }
    }
}

/// Tells the reason of an unrecoverable end, whatever the level of messages.
pub(super) fn report(plan: &Plan, reason: &str) {
    if let Err(error) = termination_log::write(&plan.termination_log, &format!("{reason}\n")) {
        log::warn!("cannot write the reason to {}: {error}", plan.termination_log.display());
    }
    messages::write_final_line(reason);
}
