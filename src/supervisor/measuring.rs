//! The data of `max_memory`.

use crate::model::{MemoryUse, Mono};

/// When memory is measured next. All services with a limit are measured together.
#[derive(Debug, Default)]
pub(super) enum Measuring {
    /// Nothing that runs has a limit.
    #[default]
    Off,
    At(Mono),
    /// [`super::Event::MemoryMeasured`] follows.
    InProgress,
}

/// What is known about the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemoryState {
    /// It uses less than its limit, or has none, or is not measured yet.
    Below,
    /// It uses more. It is replaced as soon as no other instance of the service is.
    Above(MemoryUse),
    /// It was to be replaced. If it is still there at this time, it may be replaced again.
    TriedUntil(Mono),
}
