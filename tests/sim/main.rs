//! Runs the supervisor in a simulation without a kernel.
//!
//! `seeds` runs it with random plans, processes, operators and failures in virtual time and checks the rules after
//! every step; the same seed gives the same run. `scenarios` are written by hand, and each of them quotes its rule.
//!
//! `SEEDS=n` runs n seeds; `SEED=x` runs a single seed and prints its whole trace.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking and prints the failure"
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
