//! Signals for processes that only /proc knows: an inspector sends them.

use crate::model::{Pid, Signal};
use crate::sys::{kill, process, procfs};

/// How many tracers that trace each other are killed at once.
const MAX_TRACERS: usize = 64;

/// A signal for processes that only /proc knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// For the processes that have left the process group, but not the session, of a process that has been reaped.
    Session { leader: Pid, signal: Signal },
    /// SIGKILL for the tracer of a process that has been killed, if the tracer is a descendant of keepalive: until it has
    /// waited for the process, nobody else can. ptrace(2)
    Tracer { killed: Pid },
    /// For the descendants of a process that are outside of its process group.
    Below { root: Pid, signal: Signal },
    /// For all descendants of keepalive but `spared`.
    Descendants { signal: Signal, spared: Vec<Pid> },
}

impl Order {
    /// Runs in an inspector. `keepalive`: the process whose descendants are meant.
    pub(super) fn carry_out(&self, keepalive: Pid) {
        match self {
            Self::Session { leader, signal } => {
                for pid in procfs::session_members_outside_group(*leader) {
                    let is_stray = |pid| procfs::stat(pid).is_some_and(|stat| stat.is_outside_group_of(*leader));
                    kill::signal_exactly(pid, *signal, is_stray).ok();
                }
            }
            Self::Tracer { killed } => {
                let mut traced = *killed;
                for _ in 0..MAX_TRACERS {
                    let Some(tracer) = procfs::tracer_of(traced) else { break };
                    let is_tracer =
                        |pid| procfs::tracer_of(traced) == Some(pid) && procfs::is_descendant(pid, keepalive);
                    if kill::signal_exactly(tracer, Signal::KILL, is_tracer).is_err() {
                        break;
                    }
                    // A tracer that is traced itself may be held up, too.
                    traced = tracer;
                }
            }
            Self::Below { root, signal } => {
                for pid in procfs::descendants(*root) {
                    let is_below = |pid| {
                        let is_outside = procfs::stat(pid).is_some_and(|stat| stat.pgrp != root.get());
                        is_outside && procfs::is_descendant(pid, *root)
                    };
                    kill::signal_exactly(pid, *signal, is_below).ok();
                }
            }
            Self::Descendants { signal, spared } => {
                let own = process::id();
                for pid in procfs::descendants(keepalive).into_iter().filter(|pid| *pid != own && !spared.contains(pid))
                {
                    kill::signal_exactly(pid, *signal, |pid| procfs::is_descendant(pid, keepalive)).ok();
                }
            }
        }
    }
}
