//! Hooks: commands that run before and after the main process. README, "Hooks".

use keepalive::model::plan::{Hook, Hooks, KillMode, Service, Stop};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{Leftovers, RolloutError, Verb};
use nix::errno::Errno;

use super::{MISSING, Setup, Spawns, millis, seconds};
use crate::plans::{oneshot, service};

/// `service` with these hooks and a `hook_timeout` of 3 seconds.
fn with_hooks(hooks: &[Hook], service: Service) -> Service {
    let mut commands: [Box<[_]>; 3] = Default::default();
    for hook in hooks {
        commands[*hook as usize] = service.process.command.clone();
    }
    Service { hooks: Hooks { commands, timeout: seconds(3) }, ..service }
}

fn prepared() -> Service {
    with_hooks(&[Hook::PreStart], service("web"))
}

#[test]
fn pre_start_runs_before_each_start_and_the_service_is_starting_meanwhile() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.check(&["web.0 stopped → waiting", "web.0 waiting → starting", "spawn web.0/pre_start"]);
    setup.exits("web", 0);
    setup.check(&["spawn web.0 (0 restarts)", "web.0 starting → running"]);
    setup.exits("web", 1);
    setup.check(&["web.0 running → backoff"]);
    setup.after(millis(100));
    setup.check(&["web.0 backoff → starting", "spawn web.0/pre_start"]);
    setup.exits("web", 0);
    setup.check(&["spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

#[test]
fn a_pre_start_that_fails_is_a_failed_start() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.forget();
    setup.exits("web", 3);
    setup.check(&["web.0 starting → backoff"]);
    assert_eq!(setup.unstable("web"), 1);
    setup.after(millis(100));
    setup.check(&["web.0 backoff → starting", "spawn web.0/pre_start"]);
}

/// `success_exit_codes` are those of the main process.
#[test]
fn only_the_exit_code_0_of_pre_start_is_success() {
    let mut one = with_hooks(&[Hook::PreStart], oneshot("web"));
    one.restart.success = [ExitStatus::Code(0), ExitStatus::Code(3)].into_iter().collect();
    let mut setup = Setup::boot(vec![one]);
    setup.forget();
    setup.exits("web", 3);
    setup.check(&["web.0 starting → backoff"]);
}

#[test]
fn a_pre_start_that_is_not_done_in_time_is_stopped_as_a_process() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.forget();
    setup.after(seconds(3));
    setup.check(&["web.0 starting → stopping", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.after(seconds(5));
    setup.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
    setup.dies("web", Signal::KILL);
    setup.check(&["web.0 stopping → backoff"]);
}

#[test]
fn a_stop_ends_pre_start_and_the_service_never_starts() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 starting → stopping", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.exits("web", 0);
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
    setup.start("web");
    setup.check(&["web.0 stopped → starting", "spawn web.0/pre_start"]);
    setup.signal(Signal::TERM);
    setup.check(&[
        "draining: signal",
        "reply 2 ShuttingDown",
        "web.0 starting → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
}

#[test]
fn what_pre_start_leaves_behind_is_gone_before_the_service_starts() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.forget();
    setup.ends("web", ExitStatus::Code(0), Leftovers::Some);
    let run = setup.ended_run("web");
    assert_eq!(setup.only("kill").len(), 2);
    setup.restart("web");
    setup.check(&[]);
    setup.after(seconds(1));
    setup.check(&["kill web.0 leftovers SIGKILL"]);
    setup.leftovers_gone("web");
    setup.check(&["spawn web.0 (0 restarts)", "web.0 starting → running"]);
    assert!(setup.run("web") > run);
}

#[test]
fn a_stop_waits_for_what_pre_start_has_left_behind() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.ends("web", ExitStatus::Code(0), Leftovers::Some);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 starting → stopping"]);
    setup.leftovers_gone("web");
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
}

#[test]
fn a_pre_start_that_cannot_be_executed_at_first_has_failed_at_once() {
    let mut setup = Setup::new(crate::plans::plan(vec![prepared()]));
    setup.spawns = Spawns::Failing(MISSING);
    setup.send(keepalive::supervisor::Event::Boot);
    setup.forget();
    setup.exits("web", 127);
    assert_eq!(setup.only("web.0"), ["web.0 starting → failed"]);
}

#[test]
fn pre_start_that_cannot_be_created_is_tried_again() {
    let mut setup = Setup::boot_without_spawns(vec![prepared()]);
    setup.spawns = Spawns::Refused(Errno::EAGAIN);
    setup.send(keepalive::supervisor::Event::Tick);
    assert_eq!(setup.only("web.0 starting"), ["web.0 starting → backoff"]);
    setup.spawns = Spawns::Executed;
    setup.after(millis(200));
    setup.check(&["web.0 backoff → starting", "spawn web.0/pre_start"]);
}

#[test]
fn a_signal_of_an_operator_does_not_reach_pre_start() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.forget();
    setup.ask("web", Verb::Signal(Signal::USR1));
    setup.check(&["reply 1 NotRunning"]);
    setup.signal(Signal::USR1);
    setup.check(&["SIGUSR1 forwarded to 0"]);
}

#[test]
fn each_new_process_of_a_rolling_reload_has_its_pre_start() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.exits("web", 0);
    setup.forget();
    setup.ask("web", Verb::Reload);
    setup.check(&["web reloads", "web.0' stopped → starting", "spawn web.0'/pre_start"]);
    setup.exits("web.0'", 0);
    assert!(setup.only("web.0 replaced").len() == 1, "the new process is ready");
}

#[test]
fn a_failing_pre_start_fails_the_reload_and_the_old_process_stays() {
    let mut setup = Setup::boot(vec![prepared()]);
    setup.exits("web", 0);
    setup.ask("web", Verb::Reload);
    setup.forget();
    setup.exits("web.0'", 3);
    setup.check(&["web.0' starting → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    let Some(RolloutError::ExitedBesideOld(run)) = &setup.rollout_error else { panic!("{:?}", setup.rollout_error) };
    assert_eq!(run.hook, Some(Hook::PreStart));
}

#[test]
fn kill_mode_group_applies_to_pre_start() {
    let stop = Stop { kill_mode: KillMode::Group, ..service("web").stop };
    let mut setup = Setup::boot(vec![Service { stop, ..prepared() }]);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 starting → stopping", "kill web.0 group SIGTERM", "kill web.0 group SIGCONT"]);
}

fn drained() -> Setup {
    let mut setup = Setup::boot(vec![with_hooks(&[Hook::PreStop], service("web"))]);
    setup.forget();
    setup
}

#[test]
fn pre_stop_runs_before_the_stop_signal_inside_stop_timeout() {
    let mut setup = drained();
    setup.stop("web");
    setup.check(&["web.0 running → stopping", "spawn web.0/pre_stop"]);
    setup.after(seconds(2));
    setup.check(&[]);
    setup.exits("web/hook", 0);
    setup.check(&["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.after(millis(2_999));
    setup.check(&[]);
    setup.after(millis(1));
    setup.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
}

#[test]
fn a_pre_stop_that_fails_or_cannot_be_created_is_reported_and_the_stop_goes_on() {
    let mut setup = drained();
    setup.stop("web");
    setup.forget();
    setup.exits("web/hook", 1);
    setup.check(&["web.0/pre_stop fails", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    let mut setup = drained();
    setup.spawns = Spawns::Refused(Errno::EAGAIN);
    setup.stop("web");
    let lines = ["web.0/pre_stop fails", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"];
    setup.check(&[&["web.0 running → stopping", "spawn web.0/pre_stop"][..], &lines].concat());
}

#[test]
fn at_stop_timeout_pre_stop_and_the_service_are_killed() {
    let mut setup = drained();
    setup.stop("web");
    setup.forget();
    setup.after(seconds(5));
    setup.check(&[
        "web.0/pre_stop fails",
        "kill hook of web.0 group SIGKILL",
        "web.0 ignores its stop",
        "kill web.0 group SIGKILL",
    ]);
    setup.dies("web", Signal::KILL);
    setup.check(&["kill hook of web.0 group SIGKILL", "web.0 stopping → stopping"]);
    setup.dies("web/hook", Signal::KILL);
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
}

#[test]
fn pre_stop_ends_with_the_process_and_the_next_run_waits_for_its_end() {
    let mut setup = drained();
    setup.restart("web");
    setup.forget();
    setup.exits("web", 0);
    setup.check(&["kill hook of web.0 group SIGKILL", "web.0 stopping → stopping"]);
    setup.dies("web/hook", Signal::KILL);
    assert_eq!(setup.only("spawn"), ["spawn web.0 (1 restarts)"]);
}

#[test]
fn what_pre_stop_leaves_behind_is_killed_and_delays_no_stop_signal() {
    let mut setup = drained();
    setup.stop("web");
    setup.forget();
    setup.ends("web/hook", ExitStatus::Code(0), Leftovers::Some);
    setup.check(&["kill web.0 leftovers SIGKILL", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.exits("web", 0);
    setup.forget();
    let run = setup.ended_run("web");
    setup.send(keepalive::supervisor::Event::LeftoversGone { run });
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
}

/// A process that is not ready, or does not work, is not asked to prepare for its stop.
#[test]
fn only_an_ordered_stop_of_a_process_that_is_ready_begins_with_pre_stop() {
    let mut one = with_hooks(&[Hook::PreStop], service("web"));
    one.ready = keepalive::model::plan::Ready::Notify;
    let mut setup = Setup::boot(vec![one]);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 starting → stopping", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    let mut setup = drained();
    setup.exits("web", 1);
    setup.check(&["web.0 running → backoff"]);
}

#[test]
fn stop_delay_comes_before_pre_stop() {
    let stop = Stop { delay: seconds(1), ..service("web").stop };
    let mut setup = Setup::boot(vec![Service { stop, ..with_hooks(&[Hook::PreStop], service("web")) }]);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 running → stopping"]);
    setup.after(seconds(1));
    setup.check(&["spawn web.0/pre_stop"]);
}

#[test]
fn a_forced_shutdown_waits_for_no_hook() {
    let mut setup = Setup::boot(vec![with_hooks(&[Hook::PreStop, Hook::PostStop], service("web"))]);
    setup.signal(Signal::INT);
    assert_eq!(setup.only("spawn web.0/"), ["spawn web.0/pre_stop"]);
    setup.after(seconds(1));
    setup.signal(Signal::INT);
    setup.forget();
    setup.dies("web", Signal::KILL);
    setup.check(&["web.0 stopping → stopped"]);
}

fn cleaned() -> Setup {
    let mut setup = Setup::boot(vec![with_hooks(&[Hook::PostStop], service("web"))]);
    setup.forget();
    setup
}

#[test]
fn post_stop_runs_after_a_crash_and_the_restart_waits_for_it() {
    let mut setup = cleaned();
    setup.exits("web", 7);
    setup.check(&["web.0 running → stopping", "spawn web.0/post_stop after exited with code 7"]);
    setup.after(seconds(1));
    setup.check(&[]);
    setup.exits("web/hook", 1);
    setup.check(&[
        "web.0/post_stop fails",
        "web.0 stopping → starting",
        "spawn web.0 (1 restarts)",
        "web.0 starting → running",
    ]);
}

#[test]
fn post_stop_runs_when_the_leftover_processes_are_gone() {
    let mut setup = cleaned();
    setup.ends("web", ExitStatus::Signal(Signal::KILL), Leftovers::Some);
    setup.forget();
    setup.leftovers_gone("web");
    setup.check(&["spawn web.0/post_stop after killed by SIGKILL"]);
    setup.exits("web/hook", 0);
    setup.check(&["web.0 stopping → backoff"]);
}

#[test]
fn a_stop_and_the_shutdown_wait_for_post_stop_for_its_time_at_most() {
    let mut setup = cleaned();
    setup.stop("web");
    setup.exits("web", 0);
    setup.forget();
    setup.after(seconds(3));
    setup.check(&["web.0/post_stop fails", "kill hook of web.0 group SIGKILL"]);
    setup.after(millis(200));
    setup.check(&["kill hook of web.0 group SIGKILL"]);
    setup.dies("web/hook", Signal::KILL);
    setup.check(&["web.0 stopping → stopped", "reply 1 done"]);
    let mut setup = cleaned();
    setup.signal(Signal::TERM);
    setup.exits("web", 0);
    setup.forget();
    setup.exits("web/hook", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// As ExecStopPost= of systemd.
#[test]
fn post_stop_runs_after_a_pre_start_that_has_failed_and_is_told_no_exit() {
    let mut setup = Setup::boot(vec![with_hooks(&[Hook::PreStart, Hook::PostStop], service("web"))]);
    setup.forget();
    setup.exits("web", 3);
    setup.check(&["web.0 starting → stopping", "spawn web.0/post_stop"]);
    setup.exits("web/hook", 0);
    setup.check(&["web.0 stopping → backoff"]);
}

#[test]
fn a_start_during_post_stop_begins_when_it_is_done() {
    let mut setup = cleaned();
    setup.stop("web");
    setup.exits("web", 0);
    setup.start("web");
    setup.forget();
    setup.exits("web/hook", 0);
    assert_eq!(setup.only("spawn"), ["spawn web.0 (1 restarts)"]);
}

#[test]
fn the_old_process_of_a_rolling_reload_has_its_hooks() {
    let mut setup = Setup::boot(vec![with_hooks(&[Hook::PreStop, Hook::PostStop], service("web"))]);
    setup.forget();
    setup.ask("web", Verb::Reload);
    assert_eq!(setup.only("spawn"), ["spawn web.0' (1 restarts)", "spawn web.0'/pre_stop"]);
    setup.exits("web.0'/hook", 0);
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("spawn"), ["spawn web.0'/post_stop after exited with code 0"]);
    setup.exits("web.0'/hook", 0);
    setup.check(&["web.0' stopping → stopped", "web reloaded", "reply 1 done"]);
}
