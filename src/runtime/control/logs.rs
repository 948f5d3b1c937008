//! Requests for logs, which the logger answers.

use std::os::fd::AsFd as _;

use super::answer::{self, plain};
use super::client::{Client, Stage};
use super::snapshot::StatusSnapshot;
use crate::logs::protocol::LogsQuery;
use crate::model::InstanceId;
use crate::supervisor::Target;

const NOT_LOGGED: &str = "no logs: the output of all services is set to `inherit` or `null`; \
                          set `log = { stdout = \"raw\", stderr = \"raw\" }` to collect it";

/// Passes the connection to the logger, which has the lines. `instances`: those that the query names.
pub(super) fn hand_over(
    client: &mut Client,
    query: LogsQuery,
    instances: &[InstanceId],
    snapshot: &StatusSnapshot<'_>,
) {
    for instance in instances {
        if !snapshot.logging.knows(*instance) {
            return client.answer(answer::no_instance(snapshot, Target::Instance(*instance)), snapshot.now);
        }
    }
    if !snapshot.logging.is_on() {
        return client.answer(plain(409, "refused", NOT_LOGGED), snapshot.now);
    }
    // The logger must not receive descriptors either, and may close the connection before keepalive does.
    if !client.fd.end_input() {
        return client.answer(plain(400, "invalid", "more data after the request"), snapshot.now);
    }
    // The descriptor of keepalive is closed afterwards.
    let handed =
        client.fd.as_fd().try_clone_to_owned().ok().and_then(|copy| snapshot.logging.hand_over(copy, query).ok());
    match handed {
        Some(()) => client.stage = Stage::HandedOver,
        None => client.answer(plain(503, "refused", "the logger is not running, try again later"), snapshot.now),
    }
}
