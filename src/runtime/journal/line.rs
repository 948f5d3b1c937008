//! The log line of a journal entry, and its level.

use std::io::IsTerminal as _;

use log::Level;

use crate::model::plan::SignalAction;
use crate::model::{InstanceId, Plan, Signal};
use crate::runtime::text::log_lines;
use crate::runtime::wording::{Line, SuppressedLine};
use crate::supervisor::{Cause, JournalEvent, Reason, Requester, RestartDecision, StateName};

/// Writes the log line of `event`.
pub(super) fn write(plan: &Plan, event: &JournalEvent) {
    log::log!(level_of(event), "{}{}", Line { plan, event }, interrupt_hint(plan, event));
    if let JournalEvent::ConfigReloadFailed { reason } = event {
        log_lines(Level::Error, reason);
    }
}

/// How a person at the terminal can cut the shutdown short.
fn interrupt_hint(plan: &Plan, event: &JournalEvent) -> &'static str {
    let JournalEvent::ShutdownStarted { cause } = event else { return "" };
    if plan.signals.of(Signal::INT) != SignalAction::Shutdown || !std::io::stderr().is_terminal() {
        return "";
    }
    match cause {
        Cause::Signal(Signal::INT) => " (press Ctrl-C again to kill all processes now)",
        Cause::Signal(_)
        | Cause::Requested
        | Cause::Failed { .. }
        | Cause::Unhealthy { .. }
        | Cause::Completed { .. } => " (press Ctrl-C twice to kill all processes now)",
        Cause::NothingLeft { .. } => "",
    }
}

/// Writes that events similar to `latest` have been suppressed. `instance`: whose; `None`: keepalive's own.
pub(super) fn write_suppressed(plan: &Plan, instance: Option<InstanceId>, count: u64, latest: &JournalEvent) {
    log::log!(level_of(latest), "{}", SuppressedLine { plan, instance, count });
}

fn level_of(event: &JournalEvent) -> Level {
    match event {
        JournalEvent::Transition { from, to, reason, .. } => level_of_transition(*from, *to, reason),
        JournalEvent::StopTimedOut { .. }
        | JournalEvent::HookFailed { .. }
        | JournalEvent::Unkillable { .. }
        | JournalEvent::Unhealthy { .. }
        | JournalEvent::DependencyAwaited { .. }
        | JournalEvent::RunSkipped { .. }
        | JournalEvent::ReloadRolledBack { .. }
        | JournalEvent::ReloadStarted { by: Requester::Memory(_), .. }
        | JournalEvent::ReloadFinished { failure: Some(_), .. }
        | JournalEvent::ShutdownForced { .. }
        | JournalEvent::LeftoverProcessesKilled
        | JournalEvent::ProcessesAbandoned => Level::Warn,
        JournalEvent::Healthy { .. }
        | JournalEvent::Scaled { .. }
        | JournalEvent::ConfigReloadRequested { .. }
        | JournalEvent::ConfigReloaded(_)
        | JournalEvent::ReloadStarted { .. }
        | JournalEvent::InstanceReplaced { .. }
        | JournalEvent::ReloadFinished { failure: None, .. } => Level::Info,
        JournalEvent::ConfigReloadDeferred { .. } => Level::Info,
        JournalEvent::ConfigReloadFailed { .. } => Level::Error,
        // Other lines say so: that keepalive exits, and why.
        JournalEvent::ShutdownStarted { cause: Cause::NothingLeft { .. } } => Level::Debug,
        JournalEvent::ShutdownStarted { .. } => Level::Info,
        JournalEvent::LeftoverProcessesFound { is_daemon: true, .. } => Level::Warn,
        // Its instances have failed, and each has logged why.
        JournalEvent::ServiceFailed { .. }
        | JournalEvent::LeftoverProcessesFound { is_daemon: false, .. }
        | JournalEvent::SignalForwarded { .. }
        | JournalEvent::SignalIgnored { .. } => Level::Debug,
    }
}

fn level_of_transition(from: StateName, to: StateName, reason: &Reason) -> Level {
    match reason {
        // It has failed when its leftover processes are gone, which is another line.
        // Or it runs again on its schedule.
        Reason::Exited { decision: RestartDecision::Fail(_), .. }
            if matches!(to, StateName::Stopping | StateName::Scheduled) =>
        {
            Level::Warn
        }
        Reason::Exited { decision: RestartDecision::Fail(_), .. }
        | Reason::CleanedUp { decision: RestartDecision::Fail(_), .. }
        | Reason::DependencyCompleted { .. }
        | Reason::DependencyFailed { .. } => Level::Error,
        Reason::Fault(..) => Level::Warn,
        Reason::Exited { decision: RestartDecision::Restart { unstable, .. }, run, definition } => {
            let success = run.failure.is_none() && definition.restart.success.contains(run.exit.status);
            // A process that is being stopped has not crashed. A fault has been logged when the stop began.
            let is_crash = *unstable > 0 || (from != StateName::Stopping && !success);
            if is_crash && run.fault.is_none() { Level::Warn } else { Level::Info }
        }
        Reason::Exited { decision: RestartDecision::Complete | RestartDecision::StayStopped, .. }
        // A crash has been logged when the process exited.
        | Reason::CleanedUp { .. } => Level::Info,
        // Only the first failure is a warning.
        Reason::SpawnFailed { attempt: 1, .. } => Level::Warn,
        Reason::SpawnFailed { .. } => Level::Debug,
        Reason::DependenciesReady | Reason::BackoffElapsed | Reason::StartRequested(_) => match to {
            StateName::Starting | StateName::Waiting => Level::Debug,
            StateName::Running
            | StateName::Stopping
            | StateName::Stopped
            | StateName::Backoff
            | StateName::Scheduled
            | StateName::Completed
            | StateName::Failed => Level::Info,
        },
        Reason::Ready
        | Reason::ReloadingReported
        | Reason::StoppingReported
        | Reason::Replaced
        | Reason::StopRequested(_)
        | Reason::RestartRequested(_)
        | Reason::Shutdown => Level::Info,
    }
}
