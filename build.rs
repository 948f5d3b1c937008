//! Compresses the page for browsers: keepalive has no other use for it than to send it, and it is smaller by two thirds.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this runs in cargo, not in PID 1"
)]

use std::env;
use std::fs::File;
use std::path::Path;
use std::process::Command;

fn main() {
    const PAGE: &str = "src/control/page.html";
    println!("cargo::rerun-if-changed={PAGE}");
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let page = File::open(PAGE).expect(PAGE);
    let compressed = File::create(Path::new(&folder).join("page.html.gz")).expect("a file in OUT_DIR");
    let status = Command::new("gzip").arg("-9n").stdin(page).stdout(compressed).status();
    let status = status.unwrap_or_else(|error| panic!("gzip, which compresses {PAGE}, cannot be run: {error}"));
    assert!(status.success(), "gzip cannot compress {PAGE}: {status}");
}
