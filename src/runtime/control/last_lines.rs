//! The last lines of the processes because of which a request has failed.

use std::fmt::Write as _;

use super::snapshot::StatusSnapshot;
use crate::model::InstanceId;
use crate::runtime::wording::{Name, service_name};
use crate::supervisor::{InstanceView, Reason, Refusal, ServiceView, StateName};

/// The number of instances whose last lines an answer has.
const MAX_SHOWN: usize = 5;
/// The number of failed instances that are looked at.
const MAX_EXAMINED: usize = 1_000;

/// The instances whose processes have failed. In place of one that could not start, those of its dependency.
pub(super) fn failed_instances(snapshot: &StatusSnapshot<'_>, refusal: &Refusal) -> Vec<InstanceId> {
    let mut examined = refusal.failed_instances();
    let (mut found, mut dependencies) = (Vec::new(), Vec::new());
    let mut position = 0;
    while let Some(id) = examined.get(position).copied()
        && position < MAX_EXAMINED
    {
        position += 1;
        let service = snapshot.view.service(id.service);
        let instance = service.and_then(|service| service.instances().find(|instance| instance.id == id));
        match instance.and_then(|instance| instance.reason) {
            Some(Reason::DependencyCompleted { .. }) => {}
            Some(Reason::DependencyFailed { dependency }) if dependencies.contains(dependency) => {}
            Some(Reason::DependencyFailed { dependency }) => {
                dependencies.push(*dependency);
                let failed = snapshot.view.service(*dependency).into_iter().flat_map(ServiceView::instances);
                let has_failed = |instance: &InstanceView<'_>| instance.state == StateName::Failed;
                examined.extend(failed.filter(has_failed).map(|instance| instance.id));
            }
            _ if found.contains(&id) => {}
            _ => found.push(id),
        }
    }
    found
}

/// Their last lines, with a heading for each instance if there are several.
pub(super) fn of(snapshot: &StatusSnapshot<'_>, refusal: &Refusal) -> String {
    let failed = failed_instances(snapshot, refusal);
    let lines = |id: &InstanceId| snapshot.logging.last_lines(*id);
    if let [one] = &failed[..] {
        return lines(one).to_owned();
    }
    let mut text = String::new();
    let mut shown = 0;
    let mut first_omitted = None;
    for id in failed.iter().filter(|id| !lines(id).is_empty()) {
        shown += 1;
        if shown <= MAX_SHOWN {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}:\n{}\n", Name(snapshot.plan, *id), lines(id));
        } else {
            first_omitted.get_or_insert(id.service);
        }
    }
    match first_omitted {
        None => text.truncate(text.trim_end().len()),
        Some(service) => {
            let (more, name) = (shown - MAX_SHOWN, service_name(snapshot.plan, service));
            let _ = write!(text, "and of {more} more: see `keepalive status {name}`");
        }
    }
    text
}
