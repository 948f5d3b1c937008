//! Drop-ins: started by the name of another init, keepalive takes that program's words.
//!
//! It reads words and the variables that it is given, and prints nothing. The texts are those that scripts match;
//! what they say of options, variables and exit codes is that program's. A file for each; how all of
//! them read options is in `getopt.rs`.

mod answer;
mod catatonit;
mod dumb_init;
mod getopt;
mod read;
mod tini;

pub use answer::Context;
pub use read::read;
