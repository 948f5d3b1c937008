//! keepalive's role in the process tree.

use crate::sys::process;

/// keepalive's role in the process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// PID 1: all processes of the PID namespace belong to it, and the kernel kills them when it exits.
    Init,
    /// Any other process: its descendants belong to it.
    Subreaper,
}

impl Role {
    pub(super) fn detect() -> Self {
        if process::is_init() { Self::Init } else { Self::Subreaper }
    }
}
