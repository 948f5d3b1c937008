//! Reports why keepalive exits: as the last log line, and after a failure in the termination log.

use std::fmt;

use nix::errno::Errno;

use super::wording::Ending;
use crate::logs::{messages, termination_log};
use crate::model::{Plan, errno};
use crate::supervisor::{Cause, Outcome};

/// An operation that keepalive needs has failed.
pub(super) struct Refused {
    operation: &'static str,
    errno: Errno,
}

pub(super) fn refused(operation: &'static str) -> impl Fn(Errno) -> Refused {
    move |errno| Refused { operation, errno }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.operation, errno::words(self.errno))
    }
}

/// Logs why keepalive exits. The reason of a failure is also written to the termination log, with the last lines of the process
/// that has failed.
pub(super) fn log(plan: &Plan, outcome: &Outcome, last_lines: &str) {
    let reason = Ending(plan, outcome);
    match outcome.cause {
        Cause::Failed { .. } | Cause::NothingLeft { failure: Some(_) } => {
            report(plan, &reason.to_string(), last_lines);
        }
        // Nothing has failed, but a service could not start because its dependency has completed.
        Cause::NothingLeft { failure: None } if outcome.code != 0 => report(plan, &reason.to_string(), ""),
        Cause::Signal(_) | Cause::Requested | Cause::Completed { .. } | Cause::NothingLeft { failure: None } => {
            log::info!("{reason}");
        }
    }
}

/// Reports a failure, independently of the log level.
pub(super) fn report(plan: &Plan, reason: &str, last_lines: &str) {
    let lines = [reason, last_lines].into_iter().filter(|text| !text.is_empty()).map(|text| format!("{text}\n"));
    if let Err(error) = termination_log::write(&plan.termination_log, &lines.collect::<String>()) {
        log::warn!("cannot write the reason to {}: {error}", plan.termination_log.display());
    }
    messages::write_final_line(reason);
}
