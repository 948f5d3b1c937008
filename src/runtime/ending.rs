//! Reports why keepalive exits: as the last log line, and after a failure in the termination log.

use std::fmt;

use nix::errno::Errno;

use super::wording::Ending;
use crate::logs::{messages, termination_log};
use crate::model::{Plan, StartStep, errno};
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
/// that has failed. `port_owner`: an address, and who uses it.
pub(super) fn log(plan: &Plan, outcome: &Outcome, last_lines: &str, port_owner: Option<(String, String)>) {
    let port_owner = port_owner.filter(|(address, _)| is_of_failure(plan, &outcome.cause, address));
    let reason = Ending(plan, outcome, port_owner.map_or_else(String::new, |(_, owner)| format!(" ({owner})")));
    match outcome.cause {
        Cause::Failed { .. } | Cause::Unhealthy { .. } | Cause::NothingLeft { failure: Some(_) } => {
            report(plan, &reason.to_string(), last_lines);
        }
        // Nothing has failed, but a service could not start because its dependency has completed.
        Cause::NothingLeft { failure: None } if outcome.code != 0 => report(plan, &reason.to_string(), ""),
        Cause::Signal(_) | Cause::Requested | Cause::Completed { .. } | Cause::NothingLeft { failure: None } => {
            log::info!("{reason}");
        }
    }
}

/// Whether the failure is that `address` could not be bound.
fn is_of_failure(plan: &Plan, cause: &Cause, address: &str) -> bool {
    let (Cause::Failed { instance, run, .. } | Cause::NothingLeft { failure: Some((instance, run, _)) }) = cause else {
        return false;
    };
    let service = plan.services.get(instance.service.position());
    let step = run.failure.map(|failure| failure.step);
    let position = if let Some(StartStep::Listen(position)) = step { usize::from(position) } else { return false };
    let listen = service.and_then(|service| service.process.listen.get(position));
    listen.is_some_and(|listen| listen.address.to_string() == address)
}

/// Reports a failure, independently of the log level.
pub(super) fn report(plan: &Plan, reason: &str, last_lines: &str) {
    let lines = [reason, last_lines].into_iter().filter(|text| !text.is_empty()).map(|text| format!("{text}\n"));
    if let Err(error) = termination_log::write(&plan.termination_log, &lines.collect::<String>()) {
        let path = plan.termination_log.shown(|path| path.display().to_string());
        log::warn!("cannot write the reason to {path}: {error}");
    }
    messages::write_final_line(reason);
}
