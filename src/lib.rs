//! keepalive: a container's init and supervisor in one static binary.
//!
//! The supervisor decides, the runtime performs, sys makes the system calls. ARCHITECTURE.md describes the folders and
//! which may use which; the `mod.rs` of each folder says where to start reading.

pub mod cli;
pub mod config;
pub mod control;
#[cfg(feature = "tools")]
pub mod import;
pub mod init;
pub mod logs;
pub mod model;
pub mod runtime;
pub mod supervisor;
pub mod sys;
