//! Why an instance is in its state, and what it waits for.

use std::fmt::Write as _;
use std::time::Duration;

use super::snapshot::{StatusSnapshot, neediest, word_of};
use crate::model::ServiceIndex;
use crate::model::plan::{Kind, Ready};
use crate::runtime::text::Span;
use crate::runtime::wording::{Name, Why};
use crate::supervisor::{Fault, HealthStatus, InstanceView, Reason, ServiceView, StateName, StopStage};

/// The number of dependencies that are named.
const MAX_NAMED: usize = 5;
/// The number of services that are followed from what could not start to what has failed.
const MAX_FOLLOWED: usize = 20;

/// Why an instance is in its state, and what it waits for; may be empty.
pub(super) fn reason_of(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) -> String {
    let mut text = String::new();
    if instance.state == StateName::Waiting {
        push_missing(&mut text, instance, snapshot);
    } else {
        push_own_reason(&mut text, instance, snapshot);
    }
    text
}

/// The dependencies that a waiting instance waits for: `waiting for db (starting: tcp 127.0.0.1:1 refused)`.
fn push_missing(text: &mut String, instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) {
    let Some(planned) = snapshot.plan.services.get(instance.id.service.position()) else { return };
    let mut named = 0;
    for dependency in &planned.depends_on {
        let Some(service) = snapshot.view.service(*dependency).filter(|service| !service.available) else { continue };
        for part in [if named == 0 { "waiting for " } else { ", " }, service.name, " (", word_of(service)] {
            text.push_str(part);
        }
        // What it waits for itself is said in its own reason. One that runs has none.
        let is_silent = |state| matches!(state, StateName::Waiting | StateName::Running | StateName::Completed);
        let has_reason = |instance: &InstanceView<'_>| !is_silent(instance.state) || is_unhealthy(instance);
        if let Some(instance) = neediest(service).filter(has_reason) {
            text.push_str(": ");
            push_own_reason(text, &instance, snapshot);
        }
        push_root(text, service, snapshot);
        text.push(')');
        named += 1;
        if named == MAX_NAMED {
            break;
        }
    }
}

/// What a dependency that waits itself waits for in the end: ` for db (backoff: …)`.
fn push_root(text: &mut String, service: ServiceView<'_>, snapshot: &StatusSnapshot<'_>) {
    let mut root = service;
    for _ in 0..MAX_FOLLOWED {
        if neediest(root).is_none_or(|instance| instance.state != StateName::Waiting) {
            break;
        }
        let dependencies = snapshot.plan.services.get(root.index.position()).map(|planned| planned.depends_on.iter());
        let mut missing = dependencies.into_iter().flatten().filter_map(|index| snapshot.view.service(*index));
        let Some(next) = missing.find(|dependency| !dependency.available) else { break };
        root = next;
    }
    if root.index == service.index {
        return;
    }
    for part in [" for ", root.name, " (", word_of(root)] {
        text.push_str(part);
    }
    if let Some(instance) = neediest(root).filter(|instance| instance.state != StateName::Waiting) {
        text.push_str(": ");
        push_own_reason(text, &instance, snapshot);
    }
    text.push(')');
}

fn is_unhealthy(instance: &InstanceView<'_>) -> bool {
    instance.health == Some(HealthStatus::Unhealthy)
}

fn push_own_reason(text: &mut String, instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) {
    let plan = snapshot.plan;
    let Some(planned) = plan.services.get(instance.id.service.position()) else { return };
    let Some(reason) = instance.reason else {
        return text.push_str(if planned.autostart { "not started" } else { "not started (autostart = false)" });
    };
    if instance.state == StateName::Starting {
        return push_awaited(text, instance, &planned.ready, snapshot);
    }
    if instance.state == StateName::Running && planned.kind == Kind::Oneshot {
        return text.push_str("has not finished");
    }
    if instance.state == StateName::Scheduled {
        return push_scheduled(text, instance, reason, snapshot);
    }
    let unhealthy = Reason::Fault(Fault::Unhealthy, instance.check_failure.cloned());
    let reason = if is_unhealthy(instance) { &unhealthy } else { reason };
    // Nothing else stops an instance that stays.
    if instance.state == StateName::Stopped && matches!(reason, Reason::Exited { .. }) && !snapshot.view.is_stopping {
        text.push_str("stopped by operator; ");
    }
    let remaining = instance.due.map(|due| due.since(snapshot.now));
    // Writing to a String cannot fail.
    let _ = write!(text, "{}", Why { plan, instance: instance.id, to: instance.state, reason, remaining });
    if let Reason::Exited { run, definition, .. } = reason {
        text.push_str(&snapshot.port_owners.of(definition, run));
    }
    if let Reason::DependencyFailed { dependency } = reason {
        push_cause(text, *dependency, snapshot);
    }
    if let Some((stage, until)) = instance.stop {
        let remaining = Span(until.since(snapshot.now));
        let _ = match stage {
            StopStage::PreStop => write!(text, "; pre_stop; SIGKILL in {remaining}"),
            StopStage::PostStop => write!(text, "; post_stop, at most {remaining}"),
            StopStage::Delayed => write!(text, "; stop signal in {remaining}"),
            StopStage::SignalSent => write!(text, "; SIGKILL in {remaining}"),
            StopStage::Killed(_) => write!(text, "; SIGKILL sent"),
        };
    }
}

/// How the last run of a schedule has ended, and when the next one begins: `exited with code 1, ran 2s; next run in 3m`.
fn push_scheduled(text: &mut String, instance: &InstanceView<'_>, reason: &Reason, snapshot: &StatusSnapshot<'_>) {
    // At first it was only started.
    if !matches!(reason, Reason::StartRequested(_) | Reason::RestartRequested(_)) {
        let (plan, to) = (snapshot.plan, instance.state);
        // Writing to a String cannot fail.
        let _ = write!(text, "{}; ", Why { plan, instance: instance.id, to, reason, remaining: None });
    }
    let next = snapshot.view.service(instance.id.service).and_then(|service| service.next_run);
    if let Some(next) = next.and_then(|next| u64::try_from(next).ok()) {
        let _ = write!(text, "next run in {}", Span(Duration::from_secs(next).saturating_sub(snapshot.wall)));
    }
}

/// Why a dependency has failed: `; db.0: exited with code 1, ran 2s`. If it could not start either: why that is.
pub(super) fn push_cause(text: &mut String, mut dependency: ServiceIndex, snapshot: &StatusSnapshot<'_>) {
    for _ in 0..MAX_FOLLOWED {
        let service = snapshot.view.service(dependency);
        let failed = service.and_then(|service| service.instances().find(|one| one.state == StateName::Failed));
        let Some(failed) = failed else { return };
        if let Some(Reason::DependencyFailed { dependency: next }) = failed.reason {
            dependency = *next;
            continue;
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "; {}: ", Name(snapshot.plan, failed.id));
        return push_own_reason(text, &failed, snapshot);
    }
}

/// What an instance that is starting is not ready without.
fn push_awaited(text: &mut String, instance: &InstanceView<'_>, ready: &Ready, snapshot: &StatusSnapshot<'_>) {
    if let Some(hook) = instance.hook {
        return text.push_str(hook.as_str());
    }
    if instance.run.is_some_and(|run| snapshot.probes.push_progress(run, text)) {
        return;
    }
    text.push_str(match ready {
        // A probe begins when the program runs.
        Ready::Exec | Ready::Probe(_) => "waiting for its program",
        Ready::Delay(_) => "waiting for the end of its `delay`",
        Ready::Notify => "waiting for READY=1",
        Ready::Ipc => "waiting for `ready` on its ipc channel",
        Ready::Fd(_) => "waiting for a newline on its `fd`",
    });
}
