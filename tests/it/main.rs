//! Tests of the real program, as a child and as PID 1 of a PID namespace.
#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![expect(clippy::print_stderr, clippy::disallowed_macros, reason = "a skipped test says so")]
#![expect(clippy::disallowed_methods, reason = "tests start programs and wait for them, in threads, with a deadline")]

#[path = "../common/harness.rs"]
mod harness;

mod answers;
mod browser;
mod check;
mod cli;
mod client;
mod client_broken;
mod client_exec;
mod client_progress;
mod client_real;
mod client_sets;
mod client_shells;
mod client_top;
mod control;
mod control_edges;
mod control_slots;
mod documents;
mod env_files;
mod failed_commands;
mod fake_server;
mod foreign_fds;
mod health;
mod hooks;
#[path = "../common/http.rs"]
mod http;
mod memory;
mod metrics;

mod init_end;
mod init_leftovers;
mod init_signals;
mod init_start;
mod init_terminal;
mod ipc;
mod leftovers;
mod logs_files;
mod logs_flow;
mod logs_lines;
mod logs_raw;
mod logs_read;
mod mounts;
mod notify;
mod off;
mod oom;
mod page;
mod pause;
#[path = "../common/port.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod port;
mod programs;
mod ready;
mod reasons;
mod refused_calls;
mod reload;
mod reload_again;
mod schedule;
#[path = "../common/services.rs"]
mod services;
#[path = "../common/session.rs"]
mod session;
mod shortage;
mod sockets;
mod sockets_paths;
mod state;
mod supervise_life;
mod supervise_process;
mod supervise_stop;
mod supervise_terminal;
mod sys;
#[path = "../common/terminal.rs"]
mod terminal;
#[path = "../common/wait.rs"]
mod wait;
mod watch;
