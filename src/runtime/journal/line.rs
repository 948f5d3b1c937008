//! The line of a journal entry: how severe it is, and what follows it.

use log::Level;

use crate::model::Plan;
use crate::runtime::wording::Line;
use crate::supervisor::{Cause, JournalEvent, Reason, RestartDecision, StateName};

/// Writes the line for `fact`.
pub(super) fn write(plan: &Plan, fact: &JournalEvent) {
    log::log!(level_of(fact), "{}", Line { plan, fact });
    if let JournalEvent::ConfigLoadFailed { reason } = fact {
        for line in reason.lines().filter(|line| !line.is_empty()) {
            log::error!("{line}");
        }
    }
}

fn level_of(fact: &JournalEvent) -> Level {
    match fact {
        JournalEvent::Transition { to, reason, .. } => level_of_transition(*to, reason),
        JournalEvent::StopTimedOut { .. }
        | JournalEvent::Unkillable { .. }
        | JournalEvent::ConfigReloadRejected { .. }
        | JournalEvent::RolledBack { .. }
        | JournalEvent::ReloadEnded { failure: Some(_), .. }
        | JournalEvent::Forced { .. }
        | JournalEvent::LeftoversKilled
        | JournalEvent::Abandoned => Level::Warn,
        JournalEvent::Scaled { .. }
        | JournalEvent::ConfigReloadRequested { .. }
        | JournalEvent::ConfigReloaded(_)
        | JournalEvent::ReloadBegun { .. }
        | JournalEvent::Replaced { .. }
        | JournalEvent::ReloadEnded { failure: None, .. } => Level::Info,
        JournalEvent::ServiceFailed { .. }
        | JournalEvent::ConfigLoadFailed { .. }
        | JournalEvent::Draining { cause: Cause::Failed { .. } } => Level::Error,
        JournalEvent::Draining { .. } => Level::Info,
        JournalEvent::LeftBehind { .. } | JournalEvent::SignalForwarded { .. } | JournalEvent::SignalIgnored { .. } => {
            Level::Debug
        }
    }
}

fn level_of_transition(to: StateName, reason: &Reason) -> Level {
    match reason {
        Reason::Ended { decision: RestartDecision::Fail(_), .. }
        | Reason::DependencyCompleted { .. }
        | Reason::DependencyFailed { .. } => Level::Error,
        Reason::Fault(_) => Level::Warn,
        Reason::Ended { decision: RestartDecision::Restart { .. }, run, .. } if run.failure.is_some() => Level::Warn,
        Reason::Ended {
            decision: RestartDecision::Restart { .. } | RestartDecision::Complete | RestartDecision::Stay,
            ..
        } => Level::Info,
        // The first says it; that it goes on is no news.
        Reason::Refused { attempt: 1, .. } => Level::Warn,
        Reason::Refused { .. } => Level::Debug,
        Reason::Unblocked | Reason::Due | Reason::Cleared | Reason::Requested => match to {
            StateName::Starting | StateName::Waiting => Level::Debug,
            StateName::Running
            | StateName::Stopping
            | StateName::Stopped
            | StateName::Backoff
            | StateName::Completed
            | StateName::Failed => Level::Info,
        },
        Reason::Ready
        | Reason::Leaves
        | Reason::Replaced
        | Reason::StopRequested
        | Reason::RestartRequested
        | Reason::Shutdown => Level::Info,
    }
}
