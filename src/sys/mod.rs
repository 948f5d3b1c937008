//! System calls: the only place for `unsafe`, the clocks, fork and kill.
//!
//! One file for each family of manual pages. Every function is safe to call and returns the bare `Errno`, because only
//! the caller can say which operation failed. Nothing here makes decisions, logs, or keeps state other than descriptors
//! and the reserve of memory. Signal masks and dispositions use raw system calls, because musl refuses signals 32 to
//! 34. Start reading at [`spawn`], then [`signals`] and [`wait`].

#![allow(unsafe_code, reason = "the only folder that makes system calls")]

pub mod allocator;
pub mod bounded;
mod child_env;
mod child_memory;
pub mod clock;
mod companion;
pub mod counters;
pub mod cpus;
pub mod datagram;
pub mod deferred_close;
mod descriptor_copies;
pub mod directory;
pub mod entry;
mod exec_failure;
mod exec_step;
mod exec_target;
pub mod fault;
pub mod fork;
pub mod kcmp;
pub mod kill;
pub mod listen;
pub mod memfd;
pub mod memory;
pub mod message;
pub mod mounts;
pub mod needed;
pub mod non_blocking_writer;
mod open_file;
pub mod packet;
mod path_search;
pub mod peer_stream;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod port_owner;
pub mod process;
pub mod procfs;
pub mod random;
pub mod signals;
pub mod socket;
pub mod socket_file;
pub mod spawn;
mod spawn_child;
mod spawn_options;
pub mod stream;
pub mod strings;
mod syscall;
pub mod terminal;
pub mod termios;
pub mod timer;
pub mod wait;

pub use clock::{file_time, now, wall};
pub use companion::execute_companion;
pub use deferred_close::deferred_close;
pub use kill::{PidLiveness, signal_everyone, signal_exactly, signal_group, signal_process};
pub use message::StandardError;
pub use peer_stream::PeerStream;
pub use poll::{Interest, Poller};
pub use signals::{ChildSignals, DispositionReset, InheritedSignals, Origin, Received, SignalQueue, SignalSet};
pub use spawn::{ExecResult, PendingExec, Spawner, replace_process};
pub use spawn_options::{EnvFiles, OpenFile, ReadEnvFile, Session, SpawnOptions, StoredDescriptors};
pub use strings::StringList;
pub use wait::{ChildEvent, Ended, Reaped};
