//! Asks: argv → [`Invocation`].
//!
//! It reads words and nothing else: no file, no environment, no output. What is wrong with the words is a
//! [`UsageError`] that says what would be right. Start reading at [`read()`]; `run` has its options in `run.rs`, init
//! mode in `init_options.rs`, the commands of a running keepalive in `client.rs`. What there is to write on the command
//! line is listed in `definitions.rs`, of which help, completions and the manual page are made. Started by another init's
//! name it is that one: [`drop_in`]. How `check` shows a plan is in [`show`].

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
