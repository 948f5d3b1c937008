//! Why an instance is in its state, and what it waits for.

use super::snapshot::{StatusSnapshot, state_of, word_of};
use crate::model::ServiceIndex;
use crate::model::plan::Ready;
use crate::runtime::wording::Why;
use crate::supervisor::{InstanceView, Reason, ServiceView, StateName};

/// The number of dependencies that are named.
const MAX_NAMED: usize = 5;

/// Why an instance is in its state, and what it waits for; may be empty.
pub(super) fn reason_of(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) -> String {
    if instance.state == StateName::Waiting { missing(instance, snapshot) } else { own_reason(instance, snapshot) }
}

/// The dependencies that a waiting instance waits for: `waiting for db (starting: tcp 127.0.0.1:1 refused)`.
fn missing(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) -> String {
    let planned = snapshot.plan.services.get(instance.id.service.position());
    let dependencies = planned.map_or(&[][..], |planned| &planned.depends_on);
    let view = |dependency: &ServiceIndex| snapshot.view.service(*dependency);
    let missing = dependencies.iter().filter_map(view).filter(|dependency| !dependency.available);
    let mut text = String::from("waiting for ");
    for (position, dependency) in missing.take(MAX_NAMED).enumerate() {
        text.push_str(if position > 0 { ", " } else { "" });
        push_with_state(&mut text, dependency, snapshot);
    }
    text
}

/// `db (starting: tcp 127.0.0.1:1 refused)`.
fn push_with_state(text: &mut String, service: ServiceView<'_>, snapshot: &StatusSnapshot<'_>) {
    let state = state_of(service);
    // What it waits for itself is said in its own reason.
    let shown = service.instances().find(|instance| instance.state == state && state != StateName::Waiting);
    let reason = shown.map(|instance| own_reason(&instance, snapshot)).unwrap_or_default();
    let joint = if reason.is_empty() { "" } else { ": " };
    for part in [service.name, " (", word_of(service), joint, &reason, ")"] {
        text.push_str(part);
    }
}

fn own_reason(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) -> String {
    let plan = snapshot.plan;
    let Some(reason) = instance.reason else {
        let planned = plan.services.get(instance.id.service.position());
        let is_off = planned.is_some_and(|planned| !planned.autostart);
        return if is_off { "not started (autostart = false)" } else { "not started" }.to_owned();
    };
    if instance.state == StateName::Starting {
        return awaited(instance, snapshot);
    }
    let is_stopped = instance.is_stopped_by_operator && !matches!(reason, Reason::StopRequested(_));
    let prefix = if is_stopped { "stopped by operator; " } else { "" };
    let remaining = instance.due.map(|due| due.since(snapshot.now));
    format!("{prefix}{}", Why { plan, instance: instance.id, to: instance.state, reason, remaining })
}

/// What an instance that is starting is not ready without.
fn awaited(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) -> String {
    if let Some(progress) = instance.run.and_then(|run| snapshot.probes.progress(run)) {
        return progress;
    }
    let planned = snapshot.plan.services.get(instance.id.service.position());
    let awaited = match planned.map_or(&Ready::Exec, |planned| &planned.ready) {
        // A probe begins when the program runs.
        Ready::Exec | Ready::Probe(_) => "its program",
        Ready::Delay(_) => "the end of its `delay`",
        Ready::Notify => "READY=1",
        Ready::Ipc => "`ready` on its ipc channel",
        Ready::Fd(_) => "a newline on its `fd`",
    };
    ["waiting for ", awaited].concat()
}
