//! The JSON of the status.

use std::time::Duration;

use super::reason::reason_of;
use super::snapshot::{Cursor, StatusSnapshot, is_full, is_ready, word_of};
use crate::logs::timestamp::Timestamp;
use crate::model::json::{Object, push, text};
use crate::model::milliseconds;
use crate::model::plan::Kind;
use crate::runtime::journal::events::write_exit;
use crate::runtime::run_wording::numbers;
use crate::runtime::unready::probe_target;
use crate::runtime::wording::Name;
use crate::supervisor::{HealthStatus, InstanceView, Runs, ServiceView, StateName};

/// Writes the next piece of the status. Returns whether it was the last one.
pub(super) fn status(cursor: &mut Cursor, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
    if !cursor.has_started {
        begin_status(snapshot, out);
        cursor.has_started = true;
    }
    for service in snapshot.view.services().skip(cursor.service) {
        if cursor.number == 0 {
            if is_full(out) {
                return false;
            }
            if cursor.service > 0 {
                out.push(b',');
            }
            begin_service(service, snapshot, out);
        }
        for instance in service.instances_and_surges().skip(cursor.number) {
            // The head of a service and its first instance are in one piece: the cursor has no position between them.
            if cursor.number > 0 {
                if is_full(out) {
                    return false;
                }
                out.push(b',');
            }
            write_instance(&instance, snapshot, out);
            cursor.number += 1;
        }
        out.extend(b"]}");
        (cursor.service, cursor.number) = (cursor.service + 1, 0);
    }
    out.extend(b"]}\n");
    true
}

/// Writes the status up to and including the `[` of its services.
pub(super) fn begin_status(snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    push(out, format_args!("{{\"pid\":{},\"version\":\"{}\"", snapshot.pid, env!("CARGO_PKG_VERSION")));
    push(out, format_args!(",\"config\":"));
    match snapshot.config {
        Some(path) => text(out, &path.to_string_lossy()),
        None => out.extend(b"null"),
    }
    push(out, format_args!(",\"uptime_ms\":{}", milliseconds(snapshot.now.since(snapshot.started_at))));
    let state = if snapshot.view.is_stopping { "stopping" } else { "running" };
    push(out, format_args!(",\"state\":\"{state}\",\"services\":["));
}

/// Writes a service up to and including the `[` of its instances.
pub(super) fn begin_service(service: ServiceView<'_>, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    let kind = snapshot.plan.services.get(service.index.position()).map(|service| service.kind);
    let mut object = Object::new(out);
    object.text("name", service.name);
    object.text("type", if kind == Some(Kind::Oneshot) { "oneshot" } else { "service" });
    object.text("state", word_of(service));
    object.plain("ready", service.ready);
    object.plain("desired", service.desired);
    if service.desired == 0 {
        object.text("reason", "no instances");
    }
    if service.definition.schedule.is_some() {
        let next = service.next_run.and_then(|next| u64::try_from(next).ok());
        let next = next.map(|next| Timestamp::since_epoch(Duration::from_secs(next)));
        object.optional_shown("next_run", next.as_ref().map(Timestamp::as_str));
        let Runs { succeeded, failed, skipped } = service.runs;
        let mut runs = object.object("runs");
        runs.plain("succeeded", succeeded);
        runs.plain("failed", failed);
        runs.plain("skipped", skipped);
        runs.end();
    }
    object.value("instances").push(b'[');
}

pub(super) fn write_instance(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    let used = snapshot.usage.of(instance.pid);
    let mut object = Object::new(out);
    object.shown("id", Name(snapshot.plan, instance.id));
    object.text("state", instance.state.as_str());
    object.optional("pid", instance.pid);
    object.plain("ready", is_ready(instance, snapshot.plan));
    if instance.id.is_surge() {
        object.plain("surge", true);
    } else if snapshot.view.service(instance.id.service).is_some_and(ServiceView::is_rolled_back) {
        object.plain("rolled_back", true);
    }
    object.plain("restarts", instance.restarts.automatic());
    object.optional("uptime_ms", instance.since.map(|since| milliseconds(snapshot.now.since(since))));
    write_exit(instance.last_run.map(|run| run.exit), &mut object);
    if instance.definition.runs_on_schedule() {
        object.optional("last_run_ms", instance.last_run.map(|run| milliseconds(run.uptime)));
    }
    object.text("reason", &reason_of(instance, snapshot));
    if let Some(health) = &instance.definition.health {
        let numbers = numbers(instance.definition, instance.id);
        let failure = |failure| format!("{}: {failure}", probe_target(&health.probe, numbers));
        let mut inner = object.object("health");
        inner.optional_shown("status", instance.health.map(HealthStatus::as_str));
        inner.plain("failed_checks", instance.failed_checks);
        inner.optional_shown("last_failure", instance.check_failure.map(failure));
        inner.end();
    }
    let last_lines = snapshot.logging.last_lines(instance.id);
    if matches!(instance.state, StateName::Failed | StateName::Backoff) && !last_lines.is_empty() {
        object.text("last_lines", last_lines);
    }
    object.optional("rss_bytes", used.map(|used| used.memory));
    object.optional("cpu_ms", used.map(|used| used.milliseconds));
    object.optional("processes", used.map(|used| used.processes));
    if let Some(said) = snapshot.notify.status(instance.id, instance.run) {
        object.text("status_text", &said.status);
        object.optional("status_errno", said.errno);
        object.optional("status_exit", said.exit_status);
    }
    object.end();
}
