//! keepalive in real containers: images are built, started, stopped and killed with the `docker` command.
//!
//! Start with [`engine`], the harness. Every image and container has a unique name and is removed when its value is
//! dropped, also when a test fails. Without a Docker Engine the tests are skipped with a message on stderr, or fail if
//! `KEEPALIVE_TEST_NO_SKIP` is 1. The binary is the one that `KEEPALIVE_DIST` names, else the one that cargo built.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test harness may wait, block and fail"
)]

#[path = "../common/terminal.rs"]
mod pty;
#[path = "../common/wait.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod wait;

mod above;
mod archive;
mod board;
mod client;
mod deployment;
mod distributed;
mod drop_in;
mod engine;
mod examples;
mod failure;
mod hardening;
mod host;
mod image;
mod init;
mod kubernetes;
mod own_engine;
mod podman;
mod python;
mod real_set;
mod scratch;
mod served_examples;
mod shortage;
mod stop;
mod swarm;
mod terminal;
mod web;
mod worker_examples;
