//! The answers about one service: its status with its definition, and the context of its processes.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use super::answer::ROLLED_BACK;
use super::snapshot::{StatusSnapshot, word_of};
use super::status::{begin_service, begin_status, write_instance};
use crate::config::{json, show};
use crate::model::json::{push, text};
use crate::model::plan::{Credentials, Limit};
use crate::model::{InstanceId, Numbers, Plan, ServiceIndex};
use crate::runtime::process_factory::ProcessFactory;
use crate::runtime::run_wording::numbers;
use crate::runtime::unready::probe_target;
use crate::runtime::wording::Name;
use crate::supervisor::{HealthStatus, InstanceView, ServiceView, Target};
use crate::sys::process;

/// The number of instances in an answer.
const MAX_LISTED: usize = 1_000;

/// Writes the status with `target` as its only service, and the definition of its next runs: as JSON, and as lines of text
/// below the last exits. Values of environment variables are not shown.
pub(super) fn describe(target: Target, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    begin_status(snapshot, out);
    if let Some(service) = find(target, snapshot) {
        begin_service(service, snapshot, out);
        let is_meant = |instance: &InstanceView<'_>| match target {
            Target::Instance(id) => instance.id.slot() == id,
            Target::Service(_) | Target::All => true,
        };
        let instances = service.instances_and_surges().filter(is_meant);
        for (position, instance) in instances.take(MAX_LISTED).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            write_instance(&instance, snapshot, out);
        }
        let plan = snapshot.plan;
        out.extend(b"],\"definition\":");
        json::write_definition(out, plan, service.definition);
        out.extend(b",\"text\":");
        let state = |index| snapshot.view.services().find(|other| other.index == index).map(word_of);
        let note = |index: ServiceIndex| state(index).map_or(String::new(), |state| format!(" ({state})"));
        let exit = |instance: InstanceView<'_>| Some((instance.id, instance.last_run?.exit.status));
        let ends = service.instances().filter(is_meant).take(MAX_LISTED).filter_map(exit);
        let ends: String = ends.map(|(id, status)| format!("  last exit  {} {status}\n", Name(plan, id))).collect();
        let back = if service.is_rolled_back() { format!("  definition {ROLLED_BACK}\n") } else { String::new() };
        let checks =
            service.instances().filter(is_meant).take(MAX_LISTED).filter_map(|instance| checks(plan, &instance));
        text(out, &(ends + &checks.collect::<String>() + &back + &show::service_text(plan, service.definition, &note)));
        out.push(b'}');
    }
    out.extend(b"]}\n");
}

/// `  checks     web.0 healthy; 3 failed, the last one: tcp 127.0.0.1:80: timed out`. `None`: it is not checked.
fn checks(plan: &Plan, instance: &InstanceView<'_>) -> Option<String> {
    let health = instance.definition.health.as_ref()?;
    let status = instance.health.map_or("not checked now", HealthStatus::as_str);
    let mut line = format!("  checks     {} {status}; {} failed", Name(plan, instance.id), instance.failed_checks);
    if let Some(failure) = instance.check_failure {
        let target = probe_target(&health.probe, numbers(instance.definition, instance.id));
        // Writing to a String cannot fail.
        let _ = write!(line, ", the last one: {target}: {failure}");
    }
    line.push('\n');
    Some(line)
}

/// Whether there is such an instance; of a service, its first one. A service can be described without one.
pub(super) fn exists(target: Target, snapshot: &StatusSnapshot<'_>) -> bool {
    first_of(target, snapshot).is_some()
}

fn first_of<'s>(target: Target, snapshot: &StatusSnapshot<'s>) -> Option<(InstanceView<'s>, ServiceView<'s>)> {
    let service = find(target, snapshot)?;
    let number = if let Target::Instance(id) = target { id.number } else { 0 };
    Some((service.instances().find(|instance| instance.id.number == number)?, service))
}

fn find<'s>(target: Target, snapshot: &StatusSnapshot<'s>) -> Option<ServiceView<'s>> {
    let index = match target {
        Target::Service(index) | Target::Instance(InstanceId { service: index, .. }) => index,
        Target::All => return None,
    };
    snapshot.view.services().find(|service| service.index == index)
}

/// What a process of the instance finds when it starts, without its descriptors. Of a service: its first instance. Empty if
/// there is none. README.md describes the format. `peer`: the user of the client.
pub(super) fn environment(
    target: Target,
    snapshot: &StatusSnapshot<'_>,
    factory: &ProcessFactory,
    peer: Option<u32>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let Some((instance, service)) = first_of(target, snapshot) else { return out };
    let settings = &service.definition.process;
    let numbers = Numbers { instance: instance.id.number, instances: service.desired };
    let (env, fixed) = factory.env_of(service.definition, numbers, instance.restarts.total());
    let (uid, gid, groups) = match &settings.credentials {
        Some(Credentials { uid, gid, groups }) => (*uid, *gid, groups.to_vec()),
        // It is already right. In another user namespace its number may not even exist.
        None if peer == Some(process::effective_user()) => (u32::MAX, u32::MAX, Vec::new()),
        None => (process::effective_user(), process::effective_group(), process::groups()),
    };
    let (umask, no_new_privs) = (settings.umask.unwrap_or(u32::MAX), settings.no_new_privs.into());
    let counts = [settings.env_files.len(), fixed].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    for number in [uid, gid, umask, no_new_privs].into_iter().chain(counts) {
        push(&mut out, format_args!("{number} "));
    }
    let (nice, oom_score_adj) = (settings.nice.unwrap_or(i8::MAX), settings.oom_score_adj.unwrap_or(i16::MAX));
    push(&mut out, format_args!("{nice} {oom_score_adj} {} ", settings.limits.len()));
    for Limit { resource, soft, hard, .. } in &settings.limits {
        let [soft, hard] = [soft, hard].map(|value| value.map_or(-1, u64::cast_signed));
        push(&mut out, format_args!("{resource} {soft} {hard} "));
    }
    for group in groups {
        push(&mut out, format_args!("{group} "));
    }
    out.push(0);
    match &settings.cwd {
        Some(path) => drop(path.write_to(numbers, &mut out)),
        None => {
            out.extend(std::env::current_dir().unwrap_or_default().as_os_str().as_bytes());
            out.push(0);
        }
    }
    for file in &settings.env_files {
        out.push(if file.required { b'+' } else { b'-' });
        file.path.write_to(numbers, &mut out);
    }
    for variable in env.iter() {
        out.extend(variable);
        out.push(0);
    }
    out
}
