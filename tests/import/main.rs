//! Tests of `keepalive import`: files like those of real projects, and what becomes of them.
//!
//! `KEEPALIVE_TEST_WRITE_GOLDEN=1` writes the expected results again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, clippy::disallowed_macros, reason = "a skipped test says so")]
#![expect(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

mod errors;
mod golden;
mod round_trip;
mod scratch;
#[path = "../common/wait.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod wait;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) const TOOLS: &str = env!("CARGO_BIN_EXE_keepalive-tools");
pub(crate) const KEEPALIVE: &str = env!("CARGO_BIN_EXE_keepalive");

/// The folder with the sources.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/fixtures")
}

/// Runs `keepalive import` in `directory`.
pub(crate) fn import(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(TOOLS).arg("import").args(arguments).current_dir(directory).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Says that a test does not run; CI forbids it.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("KEEPALIVE_TEST_NO_SKIP").is_none(), "would skip: {reason}");
    eprintln!("SKIPPED: {reason}");
}

pub(crate) fn has_node() -> bool {
    Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success())
}
