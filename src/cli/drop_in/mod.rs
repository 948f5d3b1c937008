//! Drop-ins: under the name of another init, keepalive reads that program's arguments.
//!
//! It reads arguments and the variables that it is given, and prints nothing. Scripts match the texts: what they say about
//! options, variables and exit codes is what that program says. Each program has a file; `getopt.rs` reads options for all.
//! Start reading at [`read()`], in `read.rs`.

mod answer;
mod catatonit;
mod dumb_init;
mod getopt;
mod read;
mod tini;

pub use answer::Context;
pub use read::read;
