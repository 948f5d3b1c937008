//! The names of those whose lines the logger reads.

use crate::logs::line::Label;
use crate::model::map::Map;

/// The writers of pipes by the key of the pipe, by which lines in the ring name them.
pub(super) type Names = Map<u64, Name>;

#[derive(Debug)]
pub(super) struct Name {
    pub(super) service: String,
    pub(super) instance: String,
    pub(super) label: Label,
}
