//! Drop-ins: under the name of another init, keepalive reads that program's arguments.
//!
//! It parses arguments and environment variables, and prints nothing. Scripts match the messages, so messages about
//! options, variables and exit codes are those of that program. Each program has a file; `getopt.rs` parses the options of
//! all of them.
//! Start reading at [`read()`], in `read.rs`.

mod catatonit;
mod dumb_init;
mod getopt;
mod parsed;
mod read;
mod tini;

pub use parsed::Context;
pub use read::read;
