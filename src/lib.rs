//! keepalive: a container's init and supervisor in one static binary.
//!
//! The supervisor decides, the runtime does, sys touches the kernel. ARCHITECTURE.md shows the rooms and who may use
//! whom; each folder's `mod.rs` says where to start reading.

pub mod cli;
pub mod config;
pub mod control;
pub mod init;
pub mod logs;
pub mod model;
pub mod runtime;
pub mod supervisor;
pub mod sys;
