//! argv → mode → exit code.

fn main() {}
