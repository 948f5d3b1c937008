//! The answers of the supervisor to requests. The answer to one that has failed waits a moment for the last lines of the
//! processes, and for who uses an address that could not be bound.

use std::time::Duration;

use super::client::{Client, ConnectionFate, Stage};
use super::port_owners::PortOwners;
use super::snapshot::{Sources, StatusSnapshot};
use super::{answer, last_lines};
use crate::model::{InstanceId, Mono};
use crate::supervisor::Refusal;

/// How long the answer to a request that has failed waits.
const DETAILS_TIMEOUT: Duration = Duration::from_millis(200);

/// The request of `client` is done or was refused.
pub(super) fn on_result(
    client: &mut Client,
    result: Result<(), Refusal>,
    snapshot: &StatusSnapshot<'_>,
) -> ConnectionFate {
    if let Stage::Awaiting(request, _) = &client.stage {
        let request = request.clone();
        if let Err(refusal) = &result {
            let mut awaited = last_lines::failed_instances(snapshot, refusal);
            awaited.retain(|instance| snapshot.logging.awaits_last_lines(*instance));
            let is_looking = snapshot.port_owners.is_looking && !refusal.failed_instances().is_empty();
            if !awaited.is_empty() || is_looking {
                client.stage = Stage::Failed(request, refusal.clone(), awaited);
                client.deadline = Some(snapshot.now + DETAILS_TIMEOUT);
                return ConnectionFate::Keep;
            }
        }
        client.answer(answer::result(snapshot, &request, result, &client.warnings), snapshot.now);
    }
    client.send(snapshot)
}

/// Answers a request that has failed, with the last lines if they are there.
pub(super) fn answer_failed(client: &mut Client, snapshot: &StatusSnapshot<'_>) -> ConnectionFate {
    if let Stage::Failed(request, refusal, _) = &client.stage {
        let answer = answer::result(snapshot, request, Err(refusal.clone()), &client.warnings);
        client.answer(answer, snapshot.now);
    }
    client.send(snapshot)
}

/// Whether the deadline of `client` has passed, or what its answer waits for is there.
pub(super) fn is_due(client: &Client, now: Mono, sources: Sources<'_>, port_owners: &PortOwners) -> bool {
    let is_missing = |instance: &InstanceId| sources.logging.awaits_last_lines(*instance);
    client.deadline.is_some_and(|deadline| deadline <= now)
        || matches!(&client.stage, Stage::Failed(_, _, awaited) if !port_owners.is_looking && !awaited.iter().any(is_missing))
}
