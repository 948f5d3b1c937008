//! The data that the server shows, and the JSON of the status.

use std::path::Path;
use std::time::Duration;

use super::usage::Usage;
use crate::model::plan::Kind;
use crate::model::{Mono, Pid, Plan};
use crate::runtime::ipc::Channels;
use crate::runtime::journal::counts::Counts;
use crate::runtime::journal::events::{Events, write_exit};
use crate::runtime::json::{Object, push, text};
use crate::runtime::logging::Logging;
use crate::runtime::notify::Notify;
use crate::runtime::subsystem::Context;
use crate::runtime::wording::{Name, Why};
use crate::supervisor::{InstanceView, ServiceView, StateName, View};
use crate::sys::process;

/// The size of a piece of a body, in bytes. A piece may be slightly longer.
const PIECE_SIZE: usize = 32 << 10;

/// The data that bodies are written from.
pub(in crate::runtime) struct StatusSnapshot<'a> {
    pub(in crate::runtime) plan: &'a Plan,
    pub(in crate::runtime) view: View<'a>,
    pub(super) usage: &'a Usage,
    pub(in crate::runtime) counts: &'a Counts,
    pub(in crate::runtime) logging: &'a Logging,
    pub(in crate::runtime) events: &'a Events,
    pub(in crate::runtime) notify: &'a Notify,
    pub(in crate::runtime) channels: &'a Channels,
    /// The configuration file.
    pub(in crate::runtime) config: Option<&'a Path>,
    pub(in crate::runtime) pid: Pid,
    pub(in crate::runtime) now: Mono,
    pub(in crate::runtime) started_at: Mono,
    /// `started_at` as Unix time.
    pub(in crate::runtime) started_at_wall: Duration,
}

/// Other subsystems whose data the server shows.
#[derive(Clone, Copy)]
pub(in crate::runtime) struct Sources<'a> {
    pub(in crate::runtime) logging: &'a Logging,
    pub(in crate::runtime) notify: &'a Notify,
    pub(in crate::runtime) channels: &'a Channels,
}

impl<'a> StatusSnapshot<'a> {
    pub(super) fn new(
        usage: &'a Usage,
        config: Option<&'a Path>,
        context: &'a Context<'_>,
        sources: Sources<'a>,
    ) -> Self {
        let Sources { logging, notify, channels } = sources;
        Self {
            plan: context.plan,
            view: context.supervisor.view(),
            usage,
            counts: context.journal.counts(),
            logging,
            events: context.journal.events(),
            notify,
            channels,
            config,
            pid: process::id(),
            now: context.now,
            started_at: context.journal.started_at(),
            started_at_wall: context.journal.started_at_wall(),
        }
    }
}

/// The position in the services and instances: the next one to write. `number` 0 includes the head of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) service: usize,
    pub(super) number: usize,
    /// The head of the body has been written.
    pub(super) has_started: bool,
}

pub(super) fn is_full(out: &[u8]) -> bool {
    out.len() >= PIECE_SIZE
}

/// Writes the next piece of the status. Returns whether it was the last one.
pub(super) fn status(cursor: &mut Cursor, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
    if !cursor.has_started {
        push(out, format_args!("{{\"pid\":{},\"version\":\"{}\"", snapshot.pid, env!("CARGO_PKG_VERSION")));
        push(out, format_args!(",\"config\":"));
        match snapshot.config {
            Some(path) => text(out, &path.to_string_lossy()),
            None => out.extend(b"null"),
        }
        push(out, format_args!(",\"uptime_ms\":{}", snapshot.now.since(snapshot.started_at).as_millis()));
        let state = if snapshot.view.is_stopping { "stopping" } else { "running" };
        push(out, format_args!(",\"state\":\"{state}\",\"services\":["));
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
        for instance in service.instances().chain(service.surges()).skip(cursor.number) {
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

/// Writes a service up to and including the `[` of its instances.
fn begin_service(service: ServiceView<'_>, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    let kind = snapshot.plan.services.get(service.index.position()).map(|service| service.kind);
    let mut object = Object::new(out);
    object.text("name", service.name);
    object.text("type", if kind == Some(Kind::Oneshot) { "oneshot" } else { "service" });
    object.text("state", state_of(service).as_str());
    object.plain("ready", service.ready);
    object.plain("desired", service.desired);
    object.value("instances").push(b'[');
}

/// The state of the service: that of the instance that most needs attention.
pub(super) fn state_of(service: ServiceView<'_>) -> StateName {
    const ORDER: [StateName; 8] = [
        StateName::Failed,
        StateName::Backoff,
        StateName::Stopping,
        StateName::Starting,
        StateName::Waiting,
        StateName::Running,
        StateName::Stopped,
        StateName::Completed,
    ];
    let rank = |state: StateName| ORDER.iter().position(|other| *other == state);
    service.instances().map(|instance| instance.state).min_by_key(|state| rank(*state)).unwrap_or(StateName::Stopped)
}

/// Why an instance is in its state; may be empty.
pub(super) fn reason_of(instance: &InstanceView<'_>, plan: &Plan) -> String {
    let why = |reason| Why { plan, instance: instance.id, to: instance.state, reason }.to_string();
    instance.reason.map(why).unwrap_or_default()
}

fn write_instance(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    let used = snapshot.usage.of(instance.pid);
    let mut object = Object::new(out);
    object.shown("id", Name(snapshot.plan, instance.id));
    object.text("state", instance.state.as_str());
    object.optional("pid", instance.pid);
    object.plain("ready", is_ready(instance, snapshot.plan));
    if instance.id.is_surge() {
        object.plain("surge", true);
    }
    object.plain("restarts", instance.restarts.total());
    object.optional("uptime_ms", instance.since.map(|since| snapshot.now.since(since).as_millis()));
    write_exit(instance.last_run.map(|run| run.exit), &mut object);
    object.text("reason", &reason_of(instance, snapshot.plan));
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

/// Whether it runs and is ready, or as a oneshot has succeeded.
pub(super) fn is_ready(instance: &InstanceView<'_>, plan: &Plan) -> bool {
    let kind = plan.services.get(instance.id.service.position()).map(|service| service.kind);
    if kind == Some(Kind::Oneshot) { instance.state == StateName::Completed } else { instance.ready }
}
