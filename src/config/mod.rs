//! Configuration: text → [`Plan`](crate::model::Plan), or all errors at once.
//!
//! [`load`] parses a file and the files that it includes into trees with source positions ([`toml`] reports all syntax
//! errors, too), decodes them, completes them with defaults, expands `${VAR}`, looks up users and resolves dependencies.
//! No step stops at the first error: each records its errors, and the [`Report`] shows all of them with file, line and
//! column.
//!
//! This folder starts no process and keeps no state; its only result is the plan. What it needs to know about the system is
//! passed in as an [`Environment`]. Start reading at [`load`], then `service.rs`.

mod decoder;
mod document;
mod env_file;
mod environment;
mod expand;
mod files;
mod find;
mod global;
mod graph;
mod health;
mod hints;
mod inline;
mod inspect;
pub mod json;
mod limits;
mod log;
mod other_format;
mod process;
mod read;
mod ready;
mod report;
mod schedule;
mod service;
mod shell;
pub mod show;
mod sockets;
mod specifiers;
mod suggest;
#[cfg(test)]
mod tests;
mod users;
mod variables;
mod watch;
mod words;

pub use document::{control, load, load_with_main};
pub use env_file::read_env_file;
pub use environment::{Environment, Purpose};
pub use expand::LISTEN_FDS_START;
pub use files::{Files, FsQuery, FsResult, LimitedFs, RecordedFs, RecordingFs, query_fs};
pub use find::{NotFound, find};
pub use graph::start_order;
pub(crate) use hints::names_port;
pub use inline::{InlineOption, InlineService, load_inline};
pub use read::describe;
pub use report::{Diagnostic, Loaded, Report, write_warnings};
pub(crate) use service::MAX_SERVICE_NAME_LENGTH;
#[cfg(feature = "tools")]
pub(crate) use service::{invalid_name, service_key_position};
pub(crate) use suggest::{look_up, nearest, nearest_signal};
#[cfg(feature = "tools")]
pub(crate) use {other_format::other_format, shell::needs_shell};
