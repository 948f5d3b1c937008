//! The scripted child that tests start instead of shell loops.
fn main() {}
