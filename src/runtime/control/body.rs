//! Bodies that are written piece by piece: each turn writes one piece, and only one piece is in memory.

use super::describe::describe;
use super::snapshot::{Cursor, StatusSnapshot, is_full};
use super::{metrics, status};
use crate::runtime::journal::events::write_dropped;
use crate::supervisor::Target;

/// A body, with the position of the next piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamingBody {
    Status(Cursor),
    Description(Target),
    Metrics {
        family: usize,
        cursor: Cursor,
    },
    /// Events after this number.
    Events {
        after: u64,
    },
}

impl StreamingBody {
    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Self::Status(_) | Self::Description(_) => "application/json",
            Self::Metrics { .. } => "text/plain; version=0.0.4; charset=utf-8",
            Self::Events { .. } => "application/x-ndjson",
        }
    }

    /// Writes the next piece. Returns whether it was the last one.
    pub(super) fn advance(&mut self, shown: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Status(cursor) => status::status(cursor, shown, out),
            Self::Description(target) => {
                describe(*target, shown, out);
                true
            }
            Self::Metrics { family, cursor } => metrics::advance(family, cursor, shown, out),
            Self::Events { after } => events(after, shown, out),
        }
    }
}

fn events(after: &mut u64, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
    while let Some(event) = snapshot.events.next(*after) {
        if is_full(out) {
            return false;
        }
        // At the beginning no event is missing for this client.
        if *after > 0 && event.number() > *after + 1 {
            write_dropped(event.number() - *after - 1, out);
        }
        event.write_to(snapshot.plan, out);
        *after = event.number();
    }
    true
}
