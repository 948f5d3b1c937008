//! Touches the kernel: the only unsafe code, the only clock, the only fork and kill.
//!
//! One file per family of system calls, each function safe to call and answering with the bare `Errno`: only the
//! caller knows what it was doing. Nothing here decides, logs or keeps state beyond a descriptor. Signal masks and
//! dispositions go through raw system calls, because musl refuses the signals 32 to 34. Start with [`spawn`], then
//! [`signals`] and [`wait`].

#![allow(unsafe_code, reason = "this is the one room that talks to the kernel")]

pub mod clock;
pub mod counters;
pub mod cpus;
pub mod datagram;
pub mod deferred_close;
pub mod entry;
pub mod fork;
pub mod kill;
pub mod listen;
pub mod memfd;
pub mod memory;
pub mod message;
pub mod non_blocking_writer;
mod open_file;
pub mod packet;
mod path_search;
pub mod pipe;
pub mod poll;
pub mod port_owner;
pub mod process;
pub mod procfs;
pub mod screen;
pub mod signals;
pub mod socket;
pub mod spawn;
mod spawn_child;
pub mod stream;
pub mod strings;
pub mod terminal;
pub mod wait;

pub use clock::{now, wall};
pub use deferred_close::deferred_close;
pub use kill::{PidLiveness, signal_everyone, signal_exactly, signal_group, signal_process};
pub use message::StandardError;
pub use poll::{Interest, Poller};
pub use signals::{ChildSignals, Depth, Inherited, Origin, Received, SignalQueue, SignalSet};
pub use spawn::{OpenFile, Progress, Session, Setup, SpawnMode, Spawner};
pub use strings::StringList;
pub use wait::{ChildEvent, Ended, Reaped};
