//! Bodies that are made piece by piece: however large the service set is, one piece is what is in memory and what one turn
//! of the loop makes.

use super::metrics;
use super::snapshot::{self, Cursor, StatusSnapshot, is_full};
use crate::runtime::journal::events::write_dropped;

/// A body that is being made, and how far it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamingBody {
    Status(Cursor),
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
            Self::Status(_) => "application/json",
            Self::Metrics { .. } => "text/plain; version=0.0.4; charset=utf-8",
            Self::Events { .. } => "application/x-ndjson",
        }
    }

    /// Writes the next piece. Whether it was the last one.
    pub(super) fn go_on(&mut self, shown: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Status(cursor) => snapshot::status(cursor, shown, out),
            Self::Metrics { family, cursor } => metrics::go_on(family, cursor, shown, out),
            Self::Events { after } => events(after, shown, out),
        }
    }
}

fn events(after: &mut u64, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
    while let Some(event) = snapshot.events.next(*after) {
        if is_full(out) {
            return false;
        }
        // At the very beginning nothing is lost that this client could have had.
        if *after > 0 && event.number() > *after + 1 {
            write_dropped(event.number() - *after - 1, out);
        }
        event.write_to(snapshot.plan, out);
        *after = event.number();
    }
    true
}
