//! One test suite for other inits and for keepalive by their names.
//!
//! Common assertions are those that images rely on. If keepalive differs on purpose, the test says so and asserts both
//! behaviours. `INIT_UNDER_TEST=keepalive`, or `=tini` and so on, runs only this one.
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

#[path = "../common/session.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod session;

mod cases;
mod catatonit;
mod dumb_init;
mod dumb_init_terminal;
mod subject;
mod tini;
mod tini_terminal;
#[path = "../common/wait.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod wait;
