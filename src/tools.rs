//! `keepalive-tools`: commands for people, which PID 1 never needs. `keepalive import` and `keepalive completions` execute it.

use std::ffi::OsString;
use std::process::ExitCode;

use keepalive::model::exit_code::USAGE;
use keepalive::{cli, control, import};

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let rest = arguments.split_off(arguments.len().min(1));
    let command = arguments.first().and_then(|word| word.to_str()).unwrap_or_default();
    let script = rest.first().and_then(|word| word.to_str()).and_then(cli::script);
    ExitCode::from(match (command, script) {
        ("import", _) => import::run(rest),
        ("completions", Some(text)) => control::print_text(&text),
        _ => control::print_text("keepalive-tools: write `keepalive import` or `keepalive completions`\n").max(USAGE),
    })
}
