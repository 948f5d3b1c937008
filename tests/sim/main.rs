//! The supervisor in a world without a kernel.
//!
//! `seeds` runs it against random plans, processes, operators and accidents in virtual time and checks the rules after
//! every step; the same seed gives the same run. `scenarios` are written by hand, each quoting the rule that it pins.
//!
//! `SEEDS=n` runs so many seeds, `SEED=x` a single one with its whole trace.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and prints what it has found"
)]

mod chance;
mod check;
mod operator;
mod plans;
mod process;
mod puppet;
mod run;
mod scenarios;
mod seeds;
mod trace;
mod world;
