//! The stages of stopping one process.

use keepalive::model::plan::{KillMode, Service, Stop};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::Leftovers;

use super::{Setup, Spawns, millis, seconds};
use crate::plans::service;

fn stopped_by(kill_mode: KillMode) -> Service {
    Service { stop: Stop { signal: Signal::INT, delay: seconds(0), timeout: seconds(2), kill_mode }, ..service("web") }
}

fn stopping(kill_mode: KillMode) -> Setup {
    let mut setup = Setup::boot(vec![stopped_by(kill_mode)]);
    setup.forget();
    setup.stop("web");
    setup
}

/// README, `kill_mode`: with `mixed`, the stop signal goes to the main process alone.
#[test]
fn kill_mode_mixed_stops_the_main_process_first() {
    let mut setup = stopping(KillMode::Mixed);
    setup.check(&["web.0 running → stopping", "kill web.0 main SIGINT", "kill web.0 main SIGCONT"]);
    setup.after(millis(1_999));
    setup.check(&[]);
    setup.after(millis(1));
    setup.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
    setup.after(millis(200));
    setup.check(&["kill web.0 group SIGKILL"]);
}

#[test]
fn kill_mode_group_stops_and_kills_the_group() {
    let mut setup = stopping(KillMode::Group);
    setup.check(&["web.0 running → stopping", "kill web.0 group SIGINT", "kill web.0 group SIGCONT"]);
    setup.after(seconds(2));
    setup.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
}

#[test]
fn kill_mode_process_stops_and_kills_only_the_main_process() {
    let mut setup = stopping(KillMode::Process);
    setup.check(&["web.0 running → stopping", "kill web.0 main SIGINT", "kill web.0 main SIGCONT"]);
    setup.after(seconds(2));
    setup.check(&["web.0 ignores its stop", "kill web.0 main SIGKILL"]);
}

/// SIGKILL is repeated with growing delays, and a process that survives it is reported once.
#[test]
fn a_process_that_cannot_be_killed_is_reported_once() {
    let mut setup = stopping(KillMode::Mixed);
    setup.after(seconds(3_600));
    assert_eq!(setup.only("web.0 cannot"), ["web.0 cannot be killed"]);
    setup.after(seconds(3_600));
    assert_eq!(setup.only("kill").len(), 60);
}

/// Leftover processes of a run do not disturb the next one.
#[test]
fn leftovers_are_stopped_before_the_next_run() {
    for kill_mode in [KillMode::Mixed, KillMode::Group] {
        let mut setup = Setup::boot(vec![stopped_by(kill_mode)]);
        setup.at(seconds(60));
        setup.forget();
        setup.ends("web", ExitStatus::Code(1), Leftovers::Some);
        setup.check(&[
            "web.0 leaves processes",
            "web.0 running → stopping",
            "kill web.0 leftovers SIGINT",
            "kill web.0 leftovers SIGCONT",
        ]);
        setup.after(seconds(1));
        setup.check(&["kill web.0 leftovers SIGKILL"]);
        setup.after(millis(100));
        setup.leftovers_gone("web");
        setup.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
    }
}

/// They have the rest of its stop timeout.
#[test]
fn kill_mode_mixed_sends_leftovers_the_stop_signal_when_the_main_process_has_exited() {
    let mut setup = stopping(KillMode::Mixed);
    setup.after(millis(500));
    setup.forget();
    setup.ends("web", ExitStatus::Code(0), Leftovers::Some);
    setup.check(&[
        "web.0 leaves processes",
        "web.0 stopping → stopping",
        "kill web.0 leftovers SIGINT",
        "kill web.0 leftovers SIGCONT",
    ]);
    setup.after(millis(1_499));
    setup.check(&[]);
    setup.after(millis(1));
    setup.check(&["kill web.0 leftovers SIGKILL"]);
    setup.leftovers_gone("web");
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
}

/// What the main process leaves when it had to be killed is killed, too.
#[test]
fn leftovers_of_a_killed_main_process_are_killed_at_once() {
    let mut setup = stopping(KillMode::Mixed);
    setup.after(seconds(2));
    setup.forget();
    setup.ends("web", ExitStatus::Signal(Signal::KILL), Leftovers::Some);
    setup.check(&["web.0 leaves processes", "web.0 stopping → stopping", "kill web.0 leftovers SIGKILL"]);
}

/// They got the stop signal together with the main process and have the rest of its stop timeout.
#[test]
fn kill_mode_group_sends_the_stop_signal_only_once() {
    let mut setup = stopping(KillMode::Group);
    setup.after(seconds(1));
    setup.forget();
    setup.ends("web", ExitStatus::Code(0), Leftovers::Some);
    setup.check(&["web.0 leaves processes", "web.0 stopping → stopping"]);
    setup.after(seconds(1));
    setup.check(&["kill web.0 leftovers SIGKILL"]);
    setup.leftovers_gone("web");
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
}

#[test]
fn kill_mode_process_leaves_leftovers_alone() {
    let mut setup = Setup::boot(vec![stopped_by(KillMode::Process)]);
    setup.at(seconds(60));
    setup.forget();
    setup.ends("web", ExitStatus::Code(1), Leftovers::Some);
    setup.check(&["web.0 running → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

/// Leftovers that hang in the kernel delay the next run only for a limited time.
#[test]
fn leftovers_that_cannot_be_killed_do_not_block_the_next_run() {
    let mut setup = Setup::boot(vec![stopped_by(KillMode::Mixed)]);
    setup.at(seconds(60));
    setup.ends("web", ExitStatus::Code(1), Leftovers::Some);
    setup.forget();
    setup.after(seconds(60));
    let kill = "kill web.0 leftovers SIGKILL";
    setup.check(&[
        kill,
        kill,
        kill,
        kill,
        kill,
        "web.0 cannot be killed",
        "web.0 stopping → starting",
        "spawn web.0 (1 restarts)",
        "web.0 starting → running",
    ]);
}

/// A process that gets its stop signal before exec counts as stopped.
#[test]
fn a_stop_between_fork_and_exec_is_not_a_failure() {
    let mut setup = Setup::new(crate::plans::plan(vec![stopped_by(KillMode::Mixed)]));
    setup.spawns = Spawns::Pending;
    setup.send(keepalive::supervisor::Event::Boot);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 starting → stopping", "kill web.0 main SIGINT", "kill web.0 main SIGCONT"]);
    setup.executes("web");
    setup.check(&[]);
    setup.dies("web", Signal::INT);
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
}
