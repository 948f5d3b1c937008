//! `keepalive-import`: the program that `keepalive import` executes.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(keepalive::import::run(std::env::args_os().collect()))
}
