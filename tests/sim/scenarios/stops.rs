//! The ladder that one process is taken down.

use keepalive::model::plan::{KillMode, Service, Stop};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{GroupAtDeath, Leftovers};

use super::{Spawns, Stage, millis, seconds};
use crate::plans::service;

fn stopped_by(kill_mode: KillMode) -> Service {
    Service { stop: Stop { signal: Signal::INT, delay: seconds(0), timeout: seconds(2), kill_mode }, ..service("web") }
}

fn stopping(kill_mode: KillMode) -> Stage {
    let mut stage = Stage::boot(vec![stopped_by(kill_mode)]);
    stage.forget();
    stage.stop("web");
    stage
}

/// "stop_signal to the main process, SIGKILL to what it leaves"; "SIGCONT: a stopped process must hear it".
#[test]
fn kill_mode_mixed_stops_the_main_process_and_kills_the_group() {
    let mut stage = stopping(KillMode::Mixed);
    stage.check(&["web.0 running → stopping", "kill web.0 main SIGINT", "kill web.0 main SIGCONT"]);
    stage.after(millis(1_999));
    stage.check(&[]);
    stage.after(millis(1));
    stage.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
    stage.after(millis(200));
    stage.check(&["kill web.0 group SIGKILL"]);
}

#[test]
fn kill_mode_group_stops_and_kills_the_group() {
    let mut stage = stopping(KillMode::Group);
    stage.check(&["web.0 running → stopping", "kill web.0 group SIGINT", "kill web.0 group SIGCONT"]);
    stage.after(seconds(2));
    stage.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
}

#[test]
fn kill_mode_process_stops_and_kills_only_the_main_process() {
    let mut stage = stopping(KillMode::Process);
    stage.check(&["web.0 running → stopping", "kill web.0 main SIGINT", "kill web.0 main SIGCONT"]);
    stage.after(seconds(2));
    stage.check(&["web.0 ignores its stop", "kill web.0 main SIGKILL"]);
}

/// SIGKILL is repeated, more and more seldom, and what outlasts it is reported once.
#[test]
fn a_process_that_cannot_be_killed_is_reported_once() {
    let mut stage = stopping(KillMode::Mixed);
    stage.after(seconds(3_600));
    assert_eq!(stage.only("web.0 cannot"), ["web.0 cannot be killed"]);
    stage.after(seconds(3_600));
    assert_eq!(stage.only("kill").len(), 60);
}

/// "What a dead instance left behind in its process group or session is killed before the next run starts."
#[test]
fn leftovers_are_killed_before_the_next_run() {
    let mut stage = Stage::boot(vec![stopped_by(KillMode::Mixed)]);
    stage.at(seconds(60));
    stage.forget();
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    stage.check(&["web.0 leaves processes", "web.0 running → stopping", "kill web.0 leftovers SIGKILL"]);
    stage.after(millis(100));
    stage.leftovers_gone("web");
    stage.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

#[test]
fn kill_mode_group_sends_leftovers_the_stop_signal_first() {
    let mut stage = Stage::boot(vec![stopped_by(KillMode::Group)]);
    stage.at(seconds(60));
    stage.forget();
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    stage.check(&[
        "web.0 leaves processes",
        "web.0 running → stopping",
        "kill web.0 leftovers SIGINT",
        "kill web.0 leftovers SIGCONT",
    ]);
    stage.after(seconds(2));
    stage.check(&["kill web.0 leftovers SIGKILL"]);
}

/// They heard the stop signal together with the main process and have what is left of its time.
#[test]
fn kill_mode_group_sends_the_stop_signal_only_once() {
    let mut stage = stopping(KillMode::Group);
    stage.after(seconds(1));
    stage.forget();
    stage.ends("web", ExitStatus::Code(0), Leftovers::Some);
    stage.check(&["web.0 leaves processes", "web.0 stopping → stopping"]);
    stage.after(seconds(1));
    stage.check(&["kill web.0 leftovers SIGKILL"]);
    stage.leftovers_gone("web");
    stage.check(&["web.0 stopping → stopped", "reply 1 done"]);
}

/// "What it leaves": SIGKILL at its death, its stop signal after that, or nothing at all.
#[test]
fn the_kill_mode_determines_what_happens_to_the_group_of_a_dead_process() {
    let rule = [KillMode::Mixed, KillMode::Group, KillMode::Process].map(GroupAtDeath::of);
    assert_eq!(rule, [GroupAtDeath::Killed, GroupAtDeath::Kept, GroupAtDeath::LeftAlone]);
}

#[test]
fn kill_mode_process_leaves_leftovers_alone() {
    let mut stage = Stage::boot(vec![stopped_by(KillMode::Process)]);
    stage.at(seconds(60));
    stage.forget();
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    stage.check(&["web.0 running → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

/// Leftovers that hang in the kernel hold up the next run for a while only.
#[test]
fn leftovers_that_cannot_be_killed_do_not_block_the_next_run() {
    let mut stage = Stage::boot(vec![stopped_by(KillMode::Mixed)]);
    stage.at(seconds(60));
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    stage.forget();
    stage.after(seconds(60));
    let kill = "kill web.0 leftovers SIGKILL";
    stage.check(&[
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

/// A process that is told to end before it runs its program has ended all the same.
#[test]
fn a_stop_between_fork_and_exec_is_not_a_failure() {
    let mut stage = Stage::new(crate::plans::plan(vec![stopped_by(KillMode::Mixed)]));
    stage.spawns = Spawns::Pending;
    stage.send(keepalive::supervisor::Event::Boot);
    stage.forget();
    stage.stop("web");
    stage.check(&["web.0 starting → stopping", "kill web.0 main SIGINT", "kill web.0 main SIGCONT"]);
    stage.executes("web");
    stage.check(&[]);
    stage.dies("web", Signal::INT);
    stage.check(&["web.0 stopping → stopped", "reply 1 done"]);
}
