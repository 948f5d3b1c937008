//! Answers that are written at once: results of requests, and readiness.

use std::time::Duration;

use super::last_lines;
use super::reason::{push_cause, reason_of};
use super::snapshot::{StatusSnapshot, is_ready, neediest, word_of};
use crate::model::instance_limit::TooManyInstances;
use crate::model::json::Object;
use crate::model::plan::Kind;
use crate::model::{InstanceId, Numbers, ServiceIndex};
use crate::runtime::text::{Counted, Listed, Span};
use crate::runtime::wording::{CONFIG_UNCHANGED, Changed, Name, WhyReloadFailed, service_name};
use crate::supervisor::{InstanceView, Refusal, Request, RolloutError, ServiceView, StateName, Target, Verb};

/// The number of instances or services in an answer.
const MAX_LISTED: usize = 1_000;
/// The number of instances named in a message.
const MAX_NAMED: usize = 5;
/// What is said of a service that has been rolled back.
pub(super) const ROLLED_BACK: &str =
    "the previous definition is in effect, because the reload has failed; `keepalive reload` tries the new one again";
const SHUTTING_DOWN: &str = "keepalive is shutting down";

/// An answer: the HTTP status and a body of JSON.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// `{"result": …, "reason": …}`.
pub(super) fn plain(status: u16, result: &str, reason: &str) -> Answer {
    let mut body = Vec::new();
    let mut object = Object::new(&mut body);
    object.text("result", result);
    object.text("reason", reason);
    object.end();
    body.push(b'\n');
    Answer { status, body }
}

/// The answer to a request that is done or was refused. `warnings`: of the configuration that was loaded, or what the
/// request leaves alone, see [`left_alone`].
pub(super) fn result(
    snapshot: &StatusSnapshot<'_>,
    request: &Request,
    result: Result<(), Refusal>,
    warnings: &str,
) -> Answer {
    let last_lines = result.as_ref().err().map_or(String::new(), |refusal| last_lines::of(snapshot, refusal));
    let (status, word, reason) = match result {
        Ok(()) => (200, "done", done(snapshot, request)),
        Err(Refusal::ConfigLoadFailed(reason)) => {
            return plain(409, "refused", &format!("{CONFIG_UNCHANGED}\n{}", reason.trim_end()));
        }
        Err(refusal @ Refusal::UnknownInstance(_)) => (404, "not_found", refused(snapshot, request, refusal)),
        Err(refusal) => {
            let has_failed = !refusal.failed_instances().is_empty();
            let mut reason = refused(snapshot, request, refusal);
            if has_failed && snapshot.view.is_stopping {
                reason.push_str("; ");
                reason.push_str(SHUTTING_DOWN);
            }
            (409, "refused", reason)
        }
    };
    with_instances(snapshot, request, (status, word), &reason, [&last_lines, warnings])
}

/// The answer if there is no instance `target`.
pub(super) fn no_instance(snapshot: &StatusSnapshot<'_>, target: Target) -> Answer {
    let id = match target {
        Target::Instance(id) => id,
        Target::Service(service) => InstanceId { service, number: 0 },
        Target::All => InstanceId { service: ServiceIndex(0), number: 0 },
    };
    result(snapshot, &Request::Control(target, Verb::Start), Err(Refusal::UnknownInstance(id)), "")
}

/// The answer to a request that was not done in time: names the instances that it waits for.
pub(super) fn timeout(snapshot: &StatusSnapshot<'_>, request: &Request, after: Duration, warnings: &str) -> Answer {
    let is_underway = |instance: &InstanceView<'_>| match request {
        Request::Control(_, Verb::Stop) | Request::Several(_, Verb::Stop) => is_active(instance.state),
        Request::Control(..)
        | Request::Several(..)
        | Request::Scale(..)
        | Request::ReloadConfig
        | Request::Shutdown => !is_ready(instance, snapshot.plan),
    };
    let awaits = |instance: &InstanceView<'_>| {
        let service = snapshot.plan.services.get(instance.id.service.position())?;
        let views = service.depends_on.iter().filter_map(|dependency| snapshot.view.service(*dependency));
        views.filter(|dependency| !dependency.available).find_map(neediest)
    };
    let mut underway: Vec<_> = targets(snapshot, request).filter(is_underway).collect();
    for service in snapshot.view.services() {
        underway.extend(service.surges().filter(|surge| is_meant(request, surge.id.slot())));
    }
    if underway.is_empty() {
        // A reload or a restart that has not begun: what it waits for.
        underway.extend(targets(snapshot, request).find_map(|instance| awaits(&instance)));
    }
    let named =
        underway.iter().take(MAX_NAMED).map(|instance| sentence(instance, snapshot)).collect::<Vec<_>>().join("; ");
    let more = match underway.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let after = Span(after);
    let reason = if named.is_empty() {
        format!("not finished within {after}")
    } else {
        format!("not finished within {after}, still in progress: {named}{more}")
    };
    with_instances(snapshot, request, (504, "timeout"), &reason, ["", warnings])
}

fn with_instances(
    snapshot: &StatusSnapshot<'_>,
    request: &Request,
    (status, result): (u16, &str),
    reason: &str,
    [last_lines, warnings]: [&str; 2],
) -> Answer {
    let mut body = Vec::new();
    let mut object = Object::new(&mut body);
    object.text("result", result);
    object.text("reason", reason);
    if !last_lines.is_empty() {
        object.text("last_lines", last_lines);
    }
    let warning = match request {
        Request::Control(_, Verb::Stop) | Request::Several(_, Verb::Stop) => running_dependents(snapshot, request),
        Request::Control(_, Verb::Start | Verb::Restart | Verb::Reload) | Request::Several(..) => {
            let back = rolled_back(snapshot, request);
            if back.is_empty() || warnings.is_empty() { back + warnings } else { format!("{warnings}; {back}") }
        }
        Request::Control(..) | Request::Scale(..) | Request::ReloadConfig | Request::Shutdown => warnings.to_owned(),
    };
    if !warning.is_empty() {
        object.text("warning", &warning);
    }
    let list = object.value("instances");
    list.push(b'[');
    for (position, instance) in targets(snapshot, request).take(MAX_LISTED).enumerate() {
        if position > 0 {
            list.push(b',');
        }
        let mut one = Object::new(list);
        one.shown("id", Name(snapshot.plan, instance.id));
        one.text("state", instance.state.as_str());
        one.end();
    }
    list.push(b']');
    object.end();
    body.push(b'\n');
    Answer { status, body }
}

/// Says which services still run though they depend on one that has been stopped.
fn running_dependents(snapshot: &StatusSnapshot<'_>, request: &Request) -> String {
    let has_process = |service: &ServiceView<'_>| service.instances().any(|instance| instance.pid.is_some());
    let mut warnings = Vec::new();
    // A oneshot that has completed is still available.
    let has_stopped = |service: &ServiceView<'_>| !has_process(service) && !service.available;
    for stopped in snapshot.view.services().filter(has_stopped) {
        if !stopped.instances().any(|instance| is_meant(request, instance.id)) {
            continue;
        }
        let depends_on = |service: &ServiceView<'_>| {
            let planned = snapshot.plan.services.get(service.index.position());
            planned.is_some_and(|planned| planned.depends_on.contains(&stopped.index))
        };
        let dependents = snapshot.view.services().filter(|service| depends_on(service) && has_process(service));
        let names: Vec<&str> = dependents.map(|service| service.name).collect();
        let name = stopped.name;
        match names.split_last() {
            None => {}
            Some((last, [])) => warnings.push(format!("{last} depends on {name}, and still runs")),
            Some((last, others)) => {
                warnings.push(format!("{} and {last} depend on {name}, and still run", others.join(", ")));
            }
        }
    }
    warnings.join("; ")
}

/// What a start or restart of all services leaves alone, when it is requested.
pub(super) fn left_alone(snapshot: &StatusSnapshot<'_>, request: &Request) -> String {
    let Request::Control(Target::All, Verb::Start | Verb::Restart) = request else { return String::new() };
    let has_completed =
        |service: &ServiceView<'_>| service.instances().any(|instance| instance.state == StateName::Completed);
    let names: Vec<&str> = snapshot.view.services().filter(has_completed).map(|service| service.name).collect();
    let Some(first) = names.first() else { return String::new() };
    format!("{}: completed, not run again; `keepalive start {first}` runs it", Listed(&names))
}

/// Says which of the services run with another definition than the configuration file has.
fn rolled_back(snapshot: &StatusSnapshot<'_>, request: &Request) -> String {
    let is_target = |service: &ServiceView<'_>| service.instances().any(|instance| is_meant(request, instance.id));
    let services = snapshot.view.services().filter(|service| service.is_rolled_back() && is_target(service));
    let names: Vec<&str> = services.map(|service| service.name).collect();
    if names.is_empty() { String::new() } else { format!("{}: {ROLLED_BACK}", Listed(&names)) }
}

fn targets<'s>(snapshot: &StatusSnapshot<'s>, request: &'s Request) -> impl Iterator<Item = InstanceView<'s>> {
    snapshot.view.instances().filter(move |instance| is_meant(request, instance.id))
}

fn is_meant(request: &Request, instance: InstanceId) -> bool {
    match request {
        Request::Control(target, _) => target.includes(instance),
        Request::Several(targets, _) => targets.iter().any(|target| target.includes(instance)),
        Request::Scale(service, _) => instance.service == *service,
        Request::ReloadConfig => true,
        Request::Shutdown => false,
    }
}

fn target_name(snapshot: &StatusSnapshot<'_>, target: Target) -> String {
    match target {
        Target::All => "all".to_owned(),
        Target::Service(service) => service_name(snapshot.plan, service).to_owned(),
        Target::Instance(id) => Name(snapshot.plan, id).to_string(),
    }
}

fn done(snapshot: &StatusSnapshot<'_>, request: &Request) -> String {
    match request {
        Request::Shutdown => SHUTTING_DOWN.to_owned(),
        Request::ReloadConfig => Changed(snapshot.plan, &snapshot.counts.changes, "reloaded").to_string(),
        Request::Scale(service, wanted) => {
            let instances = Counted((*wanted).into(), "instance", "instances");
            let stopped = stopped(snapshot, request, "; stopped by operator: ");
            format!("{} has {instances}{stopped}", service_name(snapshot.plan, *service))
        }
        Request::Control(target, verb) => {
            // Oneshots, and what is stopped or waits, are not reloaded.
            let is_service = |service: &ServiceView<'_>| service.definition.kind == Kind::Service;
            let is_reloaded = |one: InstanceView<'_>| is_active(one.state) && one.state != StateName::Waiting;
            let mut reloaded = snapshot.view.services().filter(is_service).flat_map(ServiceView::instances);
            let mut text = match (target, verb) {
                (Target::All, Verb::Reload) if !reloaded.any(is_reloaded) => "nothing to reload".to_owned(),
                (Target::Service(service), Verb::Stop)
                    if snapshot.view.service(*service).is_some_and(|service| service.desired == 0) =>
                {
                    format!("{} has no instances", service_name(snapshot.plan, *service))
                }
                _ => done_to(&target_name(snapshot, *target), *verb),
            };
            if *verb == Verb::Reload {
                text += &stopped(snapshot, request, "; stopped: ");
            }
            text
        }
        Request::Several(targets, verb) => {
            let names: Vec<_> = targets.iter().map(|target| target_name(snapshot, *target)).collect();
            done_to(&names.join(", "), *verb)
        }
    }
}

/// The services and their instances that are stopped, after `prefix`.
fn stopped(snapshot: &StatusSnapshot<'_>, request: &Request, prefix: &str) -> String {
    let is_stopped =
        |instance: &InstanceView<'_>| instance.state == StateName::Stopped && is_meant(request, instance.id);
    let services = snapshot.view.services().filter(|service| service.definition.kind == Kind::Service);
    let ids = services.flat_map(ServiceView::instances).filter(is_stopped);
    let names: Vec<_> = ids.map(|instance| Name(snapshot.plan, instance.id)).collect();
    if names.is_empty() { String::new() } else { format!("{prefix}{}", Listed(&names)) }
}

fn done_to(name: &str, verb: Verb) -> String {
    match verb {
        Verb::Start => format!("{name} started"),
        Verb::Stop => format!("{name} stopped"),
        Verb::Restart => format!("{name} restarted"),
        Verb::Reload => format!("{name} reloaded"),
        Verb::Signal(signal) => format!("{signal} sent to {name}"),
    }
}

fn refused(snapshot: &StatusSnapshot<'_>, request: &Request, refusal: Refusal) -> String {
    let find = |id| snapshot.view.instances().find(|instance| instance.id == id);
    match refusal {
        Refusal::ShuttingDown => SHUTTING_DOWN.to_owned(),
        Refusal::NotRunning(id) => {
            let name = match request {
                Request::Control(target, _) => target_name(snapshot, *target),
                Request::Several(..) | Request::Scale(..) | Request::ReloadConfig | Request::Shutdown => {
                    Name(snapshot.plan, id).to_string()
                }
            };
            match find(id).filter(|instance| instance.state == StateName::Waiting) {
                Some(waiting) => format!("{name} is not running: {}", reason_of(&waiting, snapshot)),
                None => format!("{name} is not running"),
            }
        }
        Refusal::Failed(id) | Refusal::Died(id) => match find(id) {
            // There is another process since.
            Some(InstanceView { state: StateName::Starting | StateName::Running, last_run: Some(run), .. }) => {
                format!("{} has failed ({}, ran {})", Name(snapshot.plan, id), run.exit.status, Span(run.uptime))
            }
            Some(instance) => sentence(&instance, snapshot),
            None => format!("{} has failed", Name(snapshot.plan, id)),
        },
        Refusal::DependencyUnavailable(service, dependency) => {
            let mut instances = snapshot.view.instances().filter(|instance| instance.id.service == dependency);
            let has_failed = instances.any(|instance| instance.state == StateName::Failed);
            let state = if has_failed { "has failed" } else { "is stopped" };
            let [name, dependency] = [service, dependency].map(|service| service_name(snapshot.plan, service));
            format!("{name} depends on {dependency}, which {state}: start {dependency} first")
        }
        Refusal::Superseded(id) => {
            format!("superseded by another request for {}", Name(snapshot.plan, id))
        }
        Refusal::UnknownInstance(id) => unknown_instance(snapshot, id),
        Refusal::TooMany(last, TooManyInstances::SharedStateFile) => {
            let (count, name) = (last.number + 1, service_name(snapshot.plan, last.service));
            format!("{count} instances of {name} would share one state file: add `{{instance}}` to its path")
        }
        Refusal::TooMany(last, TooManyInstances::InvalidProbeAddress) => {
            let numbers = Numbers { instance: last.number, instances: last.number + 1 };
            let service = snapshot.plan.services.get(last.service.position());
            let (key, authority) = service.and_then(|service| service.invalid_authority(numbers)).unzip();
            let place = authority.map(|authority| authority.expand(numbers)).unwrap_or_default();
            let (name, key, place) = (Name(snapshot.plan, last), key.unwrap_or_default(), place.to_string_lossy());
            format!("`{key}` of {name} would use the invalid address `{}`", place.escape_debug())
        }
        Refusal::NoInstances(service) | Refusal::Oneshot(service) => not_of_kind(snapshot, request, service),
        Refusal::ConfigLoadFailed(reason) => reason.to_string(),
        Refusal::Several(refusals) => {
            let mut lines: Vec<_> =
                refusals.iter().take(MAX_LISTED).map(|refusal| refused(snapshot, request, refusal.clone())).collect();
            lines.dedup();
            lines.join("\n")
        }
        Refusal::ReloadAwaits(service, dependency) => {
            let [name, dependency] = [service, dependency].map(|service| service_name(snapshot.plan, service));
            format!("{name} is reloaded when {dependency} is ready")
        }
        Refusal::Reloading(service) => format!("{} is already being reloaded", service_name(snapshot.plan, service)),
        Refusal::ReloadFailed(failure) => {
            let mut text = WhyReloadFailed(snapshot.plan, &failure).to_string();
            if let RolloutError::DependencyFailed(dependency) = failure.error {
                push_cause(&mut text, dependency, snapshot);
            }
            if let Some(run) = failure.error.run() {
                text += &snapshot.port_owners.of(&failure.definition, run);
            }
            text
        }
    }
}

/// Why a service without instances, or a oneshot, does not do what was requested.
fn not_of_kind(snapshot: &StatusSnapshot<'_>, request: &Request, service: ServiceIndex) -> String {
    let name = service_name(snapshot.plan, service);
    let shown = snapshot.view.service(service).filter(|service| service.definition.kind == Kind::Oneshot);
    match (shown.map(|oneshot| oneshot.desired), request) {
        (None, _) => format!("{name} has no instances: `keepalive scale {name} 1` starts one"),
        (Some(1..), Request::Control(..)) => format!("cannot reload oneshot {name}: restart it instead"),
        (Some(0), Request::Control(..) | Request::Several(..)) => {
            format!("{name} has no instances: change `instances` in the configuration")
        }
        (Some(_), _) => format!("cannot scale oneshot {name}: change `instances` in the configuration"),
    }
}

fn unknown_instance(snapshot: &StatusSnapshot<'_>, id: InstanceId) -> String {
    let wanted =
        snapshot.view.services().find(|service| service.index == id.service).map_or(0, |service| service.desired);
    let name = service_name(snapshot.plan, id.service);
    let known = match wanted {
        0 => "no instances".to_owned(),
        1 => format!("one, {name}.0"),
        _ => format!("{name}.0 to {name}.{}", wanted - 1),
    };
    format!("there is no instance {}: {name} has {known}", Name(snapshot.plan, id))
}

const fn is_active(state: StateName) -> bool {
    !matches!(state, StateName::Stopped | StateName::Completed | StateName::Failed)
}

/// `web.0 is in backoff (exit 1 after 20ms, retry in 400ms, 2 of 16)`.
fn sentence(instance: &InstanceView<'_>, snapshot: &StatusSnapshot<'_>) -> String {
    let name = Name(snapshot.plan, instance.id);
    let is = match instance.state {
        StateName::Waiting => "is",
        StateName::Starting => "is starting",
        StateName::Running => "is running",
        StateName::Stopping => "is stopping",
        StateName::Stopped => "is stopped",
        StateName::Backoff => "is backing off",
        StateName::Scheduled => "is waiting for its next run",
        StateName::Completed => "has completed",
        StateName::Failed => "has failed",
    };
    let reason = reason_of(instance, snapshot);
    if instance.state == StateName::Waiting {
        // The reason begins with the state.
        format!("{name} {is} {reason}")
    } else if reason.is_empty() {
        format!("{name} {is}")
    } else {
        format!("{name} {is} ({reason})")
    }
}

/// `{"ready": …, "reason": …, "services": {"web": {"ready": …, "state": …}}}`: 200 if the target is ready, else 503.
pub(super) fn readiness(snapshot: &StatusSnapshot<'_>, target: Target) -> Answer {
    let is_meant = |service: &ServiceView<'_>| match target {
        Target::All => true,
        Target::Service(index) => service.index == index,
        Target::Instance(id) => service.index == id.service,
    };
    let services: Vec<_> = snapshot.view.services().filter(is_meant).collect();
    let missing: Vec<String> = match target {
        Target::Instance(id) => {
            let instance = snapshot.view.instances().find(|instance| instance.id == id);
            match instance {
                Some(instance) if is_ready(&instance, snapshot.plan) => Vec::new(),
                Some(instance) => vec![sentence(&instance, snapshot)],
                None => vec![format!("there is no {}", Name(snapshot.plan, id))],
            }
        }
        Target::All | Target::Service(_) => {
            services.iter().filter_map(|service| why_not_ready(*service, snapshot, target)).collect()
        }
    };
    let ready = missing.is_empty() && !snapshot.view.is_stopping;
    let reason = match &missing[..] {
        _ if snapshot.view.is_stopping => SHUTTING_DOWN.to_owned(),
        [] => "ready".to_owned(),
        [..] => {
            let more = missing.len().saturating_sub(MAX_NAMED);
            let named = missing.get(..MAX_NAMED).unwrap_or(&missing).join("; ");
            if more > 0 { format!("{named}; and {more} more") } else { named }
        }
    };
    let mut body = Vec::new();
    let mut object = Object::new(&mut body);
    object.plain("ready", ready);
    object.text("reason", &reason);
    let mut inner = Object::new(object.value("services"));
    for service in services.into_iter().take(MAX_LISTED) {
        let mut one = Object::new(inner.value(service.name));
        one.plain("ready", service.ready);
        one.text("state", word_of(service));
        one.end();
    }
    inner.end();
    object.end();
    body.push(b'\n');
    Answer { status: if ready { 200 } else { 503 }, body }
}

/// Why a service that should be ready is not. If all services are asked for, a service that was not started or has completed
/// need not be ready, and neither need one without `autostart` that was stopped.
fn why_not_ready(service: ServiceView<'_>, snapshot: &StatusSnapshot<'_>, target: Target) -> Option<String> {
    let planned = snapshot.plan.services.get(service.index.position())?;
    let neediest = neediest(service)?;
    let is_idle = |instance: &InstanceView<'_>| {
        instance.state == StateName::Stopped && (instance.reason.is_none() || !planned.autostart)
    };
    let idle = service.instances().all(|instance| is_idle(&instance));
    let done = planned.kind == Kind::Service && neediest.state == StateName::Completed;
    if service.ready || ((idle || done) && target == Target::All) {
        return None;
    }
    Some(sentence(&neediest, snapshot))
}
