//! The command line: argv → [`Invocation`].
//!
//! It reads arguments and nothing else: no file, no environment, no output. Wrong arguments are a [`UsageError`], which
//! says what would be right. Start reading at [`read()`], in `read.rs`; `run.rs` reads the options of `run`,
//! `init_options.rs` those of init mode, `client.rs` the commands of a running keepalive. `definitions.rs` lists all commands
//! and options; help, completions and the manual page are made from it. Under the name of another init, keepalive reads
//! that program's arguments: [`drop_in`]. [`show`] prints the plan for `check`.

mod client;
mod completions;
mod definitions;
pub mod drop_in;
mod help;
mod init_options;
mod invocation;
pub mod json;
mod man;
mod read;
mod run;
pub mod show;
mod usage_error;
mod words;

pub use crate::control::Form;
pub use invocation::{Invocation, Stream};
pub use read::read;
pub use usage_error::UsageError;
