//! The client's half of the control protocol: sends a request to a running keepalive, and prints the response.
//!
//! The protocol is HTTP/1.1 over a Unix socket, one request for each connection; bodies are JSON, streams are lines of
//! JSON. This folder holds no state of services and knows nothing of the supervisor. PID 1 uses nothing of it but
//! `socket_paths.rs`.
//!
//! Start reading at [`perform()`], in `perform.rs`. `client.rs` sends requests, `change.rs` those that change something, `http.rs` is the protocol, `status.rs` and
//! `top.rs` print tables, `stream.rs` prints logs and events. `exec.rs` becomes another program.

mod change;
mod client;
mod describe;
mod exec;
mod format;
mod health;
mod http;
mod output;
mod perform;
mod request;
mod signals;
mod socket_paths;
mod status;
mod stream;
mod table;
mod top;

pub use client::FindSet;
pub use output::print_text;
pub use perform::perform;
pub use request::{Change, EXIT_FAILURE, EXIT_UNREACHABLE, Follow, Form, LOG_LINES, Names, Request, Task};
pub use socket_paths::{Environment, ServiceSet, SocketPath};
