//! The answers about one service: its status with its definition, and the context of its processes.

use std::os::unix::ffi::OsStrExt as _;

use super::snapshot::{StatusSnapshot, word_of};
use super::status::{begin_service, begin_status, write_instance};
use crate::config::{json, show};
use crate::model::plan::Credentials;
use crate::model::{InstanceId, Numbers, ServiceIndex};
use crate::runtime::json::{push, text};
use crate::runtime::process_factory::ProcessFactory;
use crate::supervisor::{InstanceView, ServiceView, Target};
use crate::sys::process;

/// The number of instances in an answer.
const MAX_LISTED: usize = 1_000;

/// Writes the status with `target` as its only service, and the definition of the next runs of it: as JSON, and as lines of
/// text. Values of environment variables are not shown.
pub(super) fn describe(target: Target, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) {
    begin_status(snapshot, out);
    if let Some(service) = find(target, snapshot) {
        begin_service(service, snapshot, out);
        let is_meant = |instance: &InstanceView<'_>| match target {
            Target::Instance(id) => instance.id.slot() == id,
            Target::Service(_) | Target::All => true,
        };
        let instances = service.instances().chain(service.surges()).filter(is_meant);
        for (position, instance) in instances.take(MAX_LISTED).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            write_instance(&instance, snapshot, out);
        }
        let plan = snapshot.plan;
        push(out, format_args!("],\"definition\":{},\"text\":", json::definition_json(plan, service.definition)));
        let state = |index| snapshot.view.services().find(|other| other.index == index).map(word_of);
        let note = |index: ServiceIndex| state(index).map_or(String::new(), |state| format!(" ({state})"));
        text(out, &show::service_text(plan, service.definition, &note));
        out.push(b'}');
    }
    out.extend(b"]}\n");
}

/// Whether there is such an instance; of a service, its first one.
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

/// What a process of the instance finds when it starts, without its descriptors: `KEY=VALUE` each, with a NUL at the end.
/// README.md lists the keys. Of a service: its first instance. Empty if there is none.
pub(super) fn environment(target: Target, snapshot: &StatusSnapshot<'_>, factory: &ProcessFactory) -> Vec<u8> {
    let Some((instance, service)) = first_of(target, snapshot) else { return Vec::new() };
    let settings = &service.definition.process;
    let numbers = Numbers { instance: instance.id.number, instances: service.desired };
    let mut out = Vec::new();
    let own = || Credentials {
        uid: process::effective_user(),
        gid: process::effective_group(),
        groups: process::groups().into(),
    };
    let Credentials { uid, gid, groups } = settings.credentials.clone().unwrap_or_else(own);
    push(&mut out, format_args!("user={uid}\0group={gid}\0"));
    groups.iter().for_each(|group| push(&mut out, format_args!("groups={group}\0")));
    if let Some(umask) = settings.umask {
        push(&mut out, format_args!("umask={umask}\0"));
    }
    if settings.no_new_privs {
        out.extend(b"no_new_privs=\0");
    }
    let mut field = |key: &str, value: &[u8]| {
        out.extend([key.as_bytes(), b"=", value, b"\0"].concat());
    };
    match (&settings.cwd, std::env::current_dir()) {
        (Some(path), _) => field("cwd", path.expand(numbers).as_bytes()),
        (None, Ok(path)) => field("cwd", path.as_os_str().as_bytes()),
        (None, Err(_)) => {}
    }
    for file in &settings.env_files {
        field(if file.required { "env_file" } else { "optional_env_file" }, file.path.expand(numbers).as_bytes());
    }
    let (env, fixed) = factory.env_of(service.definition, numbers, instance.restarts.total());
    for (position, variable) in env.iter().enumerate() {
        field(if position < fixed { "fixed_env" } else { "env" }, variable);
    }
    out
}
