//! The command line: argv → [`Invocation`].
//!
//! It parses arguments and does nothing else: it reads no file and no environment variable, and prints nothing. Invalid
//! arguments are a [`UsageError`], which shows the correct usage. Start reading at [`read()`], in `read.rs`; `run.rs`
//! parses the options of `run`, `init_options.rs` those of init mode, `client.rs` the commands for a running keepalive.
//! `definitions.rs` lists all commands and options; help, completions and the manual page are generated from it. Under the
//! name of another init, keepalive parses the arguments of that init: [`drop_in`].

mod client;
#[cfg(feature = "tools")]
mod completions;
mod definitions;
pub mod drop_in;
mod foreign;
mod help;
mod init_options;
mod invocation;
#[cfg(feature = "tools")]
mod man;
mod option;
mod read;
mod run;
mod usage_error;
mod words;

pub use crate::control::Form;
pub use invocation::{Invocation, Stream};
pub use read::read;
pub use usage_error::UsageError;

#[cfg(test)]
pub(crate) use definitions::IMPORT_FORMATS;

/// What `keepalive completions WORD` prints: a script for a shell, or the manual page; `None`: it prints something else.
#[cfg(feature = "tools")]
#[must_use]
pub fn script(word: &str) -> Option<String> {
    match word {
        "man" => Some(man::page()),
        "bash" => Some(completions::bash()),
        "zsh" => Some(completions::zsh()),
        "fish" => Some(completions::fish()),
        _ => None,
    }
}

/// The text of `keepalive import --help`.
#[cfg(feature = "tools")]
pub(crate) fn import_help() -> String {
    help::for_command_name("import")
}
