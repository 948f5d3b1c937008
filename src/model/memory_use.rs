//! The memory of processes.

use std::fmt::{self, Display, Formatter};

/// The memory that a main process and the processes that belong to it use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// In bytes.
    pub bytes: u64,
    /// Memory that n processes share counts 1/n for each: PSS. Otherwise it counts for each of them: RSS.
    pub is_proportional: bool,
}

/// `612 MiB (PSS)`.
impl Display for MemoryUse {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let kind = if self.is_proportional { "PSS" } else { "RSS" };
        write!(formatter, "{} MiB ({kind})", self.bytes.div_ceil(1 << 20))
    }
}
