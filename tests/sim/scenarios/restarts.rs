//! Whether and when a run is followed by another.

use keepalive::model::plan::{ExitAction, Ready, Restart, RestartPolicy, Service};
use keepalive::model::{ExitStatus, StartFailure, StartStep};
use nix::errno::Errno;

use super::{MISSING, Spawns, Stage, millis, needing, seconds};
use crate::plans::{oneshot, service};

fn with(restart: impl FnOnce(&mut Restart), mut service: Service) -> Service {
    restart(&mut service.restart);
    service
}

/// "A crash after a stable run restarts after `restart_delay` alone: at once by default."
#[test]
fn a_crash_after_a_stable_run_restarts_at_once() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.check(&[
        "web.0 stopped → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
    stage.at(seconds(10));
    stage.exits("web", 1);
    stage.check(&["web.0 running → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

/// "`restart_delay`: before every restart."
#[test]
fn the_restart_delay_comes_before_every_restart() {
    let mut stage = Stage::boot(vec![with(|restart| restart.delay = seconds(3), service("web"))]);
    stage.at(seconds(60));
    stage.exits("web", 0);
    assert_eq!(stage.next(), Some(seconds(3)));
    stage.after(seconds(3));
    stage.exits("web", 0);
    assert_eq!(stage.next(), Some(millis(3_100)));
}

/// "Only unstable runs back off. Delay n = min(initial · factorⁿ⁻¹, max)."
#[test]
fn each_unstable_run_increases_the_backoff() {
    let mut stage = Stage::boot(vec![with(|restart| restart.max_restarts = None, service("web"))]);
    let delays: Vec<_> = (0..11)
        .map(|_| {
            stage.exits("web", 1);
            let delay = stage.next().unwrap();
            stage.after(delay);
            delay.as_millis()
        })
        .collect();
    assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
}

/// An initial delay of zero stays zero, however large the power it is multiplied by.
#[test]
fn a_zero_initial_backoff_stays_zero() {
    let change = |restart: &mut Restart| {
        restart.max_restarts = None;
        restart.backoff.initial = seconds(0);
        restart.backoff.factor = 10.0;
    };
    let mut stage = Stage::boot(vec![with(change, service("web"))]);
    for _ in 0..2_000 {
        stage.exits("web", 1);
    }
    assert_eq!(stage.next(), None);
    assert_eq!(stage.unstable("web"), 2_000);
}

/// "One stable run resets the count."
#[test]
fn one_stable_run_resets_the_count() {
    let mut stage = Stage::boot(vec![service("web")]);
    for _ in 0..5 {
        stage.exits("web", 1);
        stage.after(stage.next().unwrap());
    }
    assert_eq!(stage.unstable("web"), 5);
    stage.after(seconds(10));
    stage.exits("web", 1);
    assert_eq!(stage.unstable("web"), 0);
    stage.exits("web", 1);
    assert_eq!((stage.unstable("web"), stage.next()), (1, Some(millis(100))));
}

/// "`min_uptime`: a run shorter than this is unstable."
#[test]
fn a_run_one_nanosecond_below_min_uptime_is_unstable() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.at(seconds(10) - std::time::Duration::from_nanos(1));
    stage.exits("web", 1);
    assert_eq!(stage.unstable("web"), 1);
}

/// A run that was never ready is a failed start, however long it took.
#[test]
fn a_run_that_was_never_ready_is_unstable() {
    let mut stage = Stage::boot(vec![Service { ready: Ready::Delay(seconds(60)), ..service("web") }]);
    stage.at(seconds(59));
    stage.exits("web", 1);
    assert_eq!(stage.unstable("web"), 1);
}

/// "`max_restarts = 16`: consecutive unstable restarts; the next one means failed", and "`on_failure = shutdown` ends
/// with the code of the failed process."
#[test]
fn the_seventeenth_unstable_run_fails() {
    let mut stage = Stage::boot(vec![service("web")]);
    for _ in 0..16 {
        stage.exits("web", 7);
        stage.after(stage.next().unwrap());
    }
    stage.forget();
    stage.exits("web", 7);
    stage.check(&[
        "web.0 running → failed",
        "web failed",
        "draining: failed",
        "kill all SIGTERM",
        "kill all SIGCONT",
        "exit 7",
    ]);
}

#[test]
fn with_max_restarts_0_the_first_unstable_run_fails() {
    let mut stage = Stage::boot(vec![with(|restart| restart.max_restarts = Some(0), service("web"))]);
    stage.exits("web", 3);
    assert_eq!(stage.only("exit"), ["exit 3"]);
}

/// "`no_restart_exit_codes`": whatever the policy.
#[test]
fn an_exit_code_that_prevents_a_restart_fails_the_service_at_once() {
    let prevent = |restart: &mut Restart| restart.prevent.insert(ExitStatus::Code(125));
    let mut stage = Stage::boot(vec![with(prevent, service("web"))]);
    stage.at(seconds(60));
    stage.exits("web", 125);
    assert_eq!(stage.only("exit"), ["exit 125"]);
}

#[test]
fn a_success_that_prevents_a_restart_completes_the_service() {
    let prevent = |restart: &mut Restart| restart.prevent.insert(ExitStatus::Code(0));
    let mut stage = Stage::boot(vec![with(prevent, service("web"))]);
    stage.forget();
    stage.exits("web", 0);
    assert_eq!(stage.only("web"), ["web.0 running → completed"]);
}

/// A program that cannot be started has not exited with one of these codes itself.
#[test]
fn the_code_of_a_failed_exec_does_not_count_as_an_exit_code() {
    let change = |restart: &mut Restart| {
        restart.prevent.insert(ExitStatus::Code(127));
        restart.success.insert(ExitStatus::Code(127));
    };
    let mut stage = Stage::new(crate::plans::plan(vec![with(change, service("web"))]));
    stage.spawns = Spawns::Failing(MISSING);
    stage.send(keepalive::supervisor::Event::Boot);
    stage.forget();
    stage.exits("web", 127);
    stage.check(&["web.0 starting → backoff"]);
}

/// "restart = on-failure": not after a success.
#[test]
fn the_policy_on_failure_restarts_after_failures_only() {
    let policy = |restart: &mut Restart| restart.policy = RestartPolicy::OnFailure;
    let mut stage = Stage::boot(vec![with(policy, service("web"))]);
    stage.at(seconds(60));
    stage.exits("web", 1);
    stage.forget();
    stage.exits("web", 0);
    assert_eq!(
        stage.only(""),
        ["web.0 running → completed", "draining: nothingleft", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]
    );
}

/// "restart = never", and an ignored failure gives its code when nothing is left.
#[test]
fn the_policy_never_does_not_restart() {
    let policy = |restart: &mut Restart| restart.policy = RestartPolicy::Never;
    let ignored = Service { on_failure: ExitAction::Ignore, ..service("web") };
    let mut stage = Stage::boot(vec![with(policy, ignored)]);
    stage.forget();
    stage.exits("web", 4);
    assert_eq!(
        stage.only(""),
        [
            "web.0 running → failed",
            "web failed",
            "draining: nothingleft",
            "kill all SIGTERM",
            "kill all SIGCONT",
            "exit 4"
        ]
    );
}

/// For a oneshot `always` means until it has succeeded.
#[test]
fn a_oneshot_runs_until_it_succeeds() {
    let mut stage = Stage::boot(vec![oneshot("migrate"), needing(&[0], service("web"))]);
    stage.forget();
    stage.exits("migrate", 1);
    stage.check(&["migrate.0 running → backoff"]);
    stage.after(millis(100));
    stage.check(&["migrate.0 backoff → starting", "spawn migrate.0 (1 restarts)", "migrate.0 starting → running"]);
    stage.exits("migrate", 0);
    stage.check(&[
        "migrate.0 running → completed",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
}

/// What the system refuses is no fault of the service: it neither counts nor gives up, and the pauses grow.
#[test]
fn refused_forks_are_retried_without_limit_with_growing_delays() {
    let mut stage = Stage::new(crate::plans::plan(vec![service("web")]));
    stage.spawns = Spawns::Refused(Errno::EAGAIN);
    stage.send(keepalive::supervisor::Event::Boot);
    check_growing_pauses(&mut stage, |_| {});
    stage.spawns = Spawns::Executed;
    stage.forget();
    stage.after(seconds(11));
    stage.check(&["web.0 backoff → starting", "spawn web.0 (0 restarts)", "web.0 starting → running"]);
    assert_eq!(stage.unstable("web"), 0);
}

/// A process that was made and then found the system short of memory is refused just the same.
#[test]
fn a_shortage_before_exec_is_retried_without_limit_with_growing_delays() {
    let mut stage = Stage::new(crate::plans::plan(vec![service("web")]));
    stage.spawns = Spawns::Failing(StartFailure { step: StartStep::Exec, errno: Errno::ENOMEM });
    stage.send(keepalive::supervisor::Event::Boot);
    check_growing_pauses(&mut stage, |stage| stage.exits("web", 126));
    stage.spawns = Spawns::Executed;
    stage.after(seconds(11));
    stage.forget();
    stage.exits("web", 126);
    stage.after(seconds(11));
    assert_eq!(stage.only("spawn"), ["spawn web.0 (0 restarts)"]);
}

fn check_growing_pauses(stage: &mut Stage, end: impl Fn(&mut Stage)) {
    for attempt in 0..40 {
        end(stage);
        let pause = stage.next().unwrap().as_secs_f64();
        let expect = (0.1 * f64::from(1 << attempt.min(10))).min(10.0);
        assert!((expect * 0.9..=expect * 1.1).contains(&pause), "attempt {attempt}: {pause} s, not about {expect} s");
        stage.after(stage.next().unwrap());
    }
}

/// `KEEPALIVE_RESTARTS` counts each start that follows a run, whoever wanted it.
#[test]
fn every_start_after_a_run_counts_as_a_restart() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.at(seconds(20));
    stage.exits("web", 0);
    stage.restart("web");
    stage.exits("web", 0);
    stage.stop("web");
    stage.exits("web", 0);
    stage.start("web");
    assert_eq!(stage.only("spawn"), [0, 1, 2, 3].map(|restarts| format!("spawn web.0 ({restarts} restarts)")));
}
