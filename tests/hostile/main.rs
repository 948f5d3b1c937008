//! Nobody can hold up PID 1: services that are hostile or broken, and what keepalive must do for the others meanwhile.
//!
//! Each test runs `attacks.py`, or a puppet, as the service `evil` beside two others (`setup`).
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
#[expect(dead_code, reason = "other test binaries use more of it")]
mod harness;
#[path = "../common/http.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod http;
#[path = "../common/port.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod port;
#[path = "../common/services.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod services;
#[path = "../common/wait.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod wait;

mod descriptors;
mod file_systems;
mod processes;
mod setup;
mod sockets;
mod system_calls;
