//! Restart decisions and delays.

use keepalive::model::plan::{ExitAction, Ready, Restart, RestartPolicy, Service};
use keepalive::model::{ExitStatus, Signal, StartFailure, StartStep};
use nix::errno::Errno;

use super::{MISSING, Setup, Spawns, depending_on, millis, seconds};
use crate::plans::{oneshot, service};

fn with(restart: impl FnOnce(&mut Restart), mut service: Service) -> Service {
    restart(&mut service.restart);
    service
}

/// "A crash after a stable run restarts after `restart_delay` alone: at once by default."
#[test]
fn a_crash_after_a_stable_run_restarts_at_once() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.check(&[
        "web.0 stopped → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
    setup.at(seconds(10));
    setup.exits("web", 1);
    setup.check(&["web.0 running → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

/// "`restart_delay`: before every restart."
#[test]
fn the_restart_delay_comes_before_every_restart() {
    let mut setup = Setup::boot(vec![with(|restart| restart.delay = seconds(3), service("web"))]);
    setup.at(seconds(60));
    setup.exits("web", 0);
    assert_eq!(setup.next(), Some(seconds(3)));
    setup.after(seconds(3));
    setup.exits("web", 0);
    assert_eq!(setup.next(), Some(millis(3_100)));
}

/// "Only unstable runs back off. Delay n = min(initial · factorⁿ⁻¹, max)."
#[test]
fn each_unstable_run_increases_the_backoff() {
    let mut setup = Setup::boot(vec![with(|restart| restart.max_restarts = None, service("web"))]);
    let delays: Vec<_> = (0..11)
        .map(|_| {
            setup.exits("web", 1);
            let delay = setup.next().unwrap();
            setup.after(delay);
            delay.as_millis()
        })
        .collect();
    assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
}

/// An initial delay of zero stays zero, however large the factor is.
#[test]
fn a_zero_initial_backoff_stays_zero() {
    let change = |restart: &mut Restart| {
        restart.max_restarts = None;
        restart.backoff.initial = seconds(0);
        restart.backoff.factor = 10.0;
    };
    let mut setup = Setup::boot(vec![with(change, service("web"))]);
    for _ in 0..2_000 {
        setup.exits("web", 1);
    }
    assert_eq!(setup.next(), None);
    assert_eq!(setup.unstable("web"), 2_000);
}

/// "One stable run resets the count."
#[test]
fn one_stable_run_resets_the_count() {
    let mut setup = Setup::boot(vec![service("web")]);
    for _ in 0..5 {
        setup.exits("web", 1);
        setup.after(setup.next().unwrap());
    }
    assert_eq!(setup.unstable("web"), 5);
    setup.after(seconds(10));
    setup.exits("web", 1);
    assert_eq!(setup.unstable("web"), 0);
    setup.exits("web", 1);
    assert_eq!((setup.unstable("web"), setup.next()), (1, Some(millis(100))));
}

/// "`min_uptime`: a run shorter than this is unstable."
#[test]
fn a_run_one_nanosecond_below_min_uptime_is_unstable() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.at(seconds(10) - std::time::Duration::from_nanos(1));
    setup.exits("web", 1);
    assert_eq!(setup.unstable("web"), 1);
}

/// A run that was never ready is a failed start, however long it took.
#[test]
fn a_run_that_was_never_ready_is_unstable() {
    let mut setup = Setup::boot(vec![Service { ready: Ready::Delay(seconds(60)), ..service("web") }]);
    setup.at(seconds(59));
    setup.exits("web", 1);
    assert_eq!(setup.unstable("web"), 1);
}

/// "`max_restarts = 16`: consecutive unstable restarts; the next one means failed", and "`on_failure = shutdown` ends
/// with the code of the failed process."
#[test]
fn the_seventeenth_unstable_run_fails() {
    let mut setup = Setup::boot(vec![service("web")]);
    for _ in 0..16 {
        setup.exits("web", 7);
        setup.after(setup.next().unwrap());
    }
    setup.forget();
    setup.exits("web", 7);
    setup.check(&[
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
    let mut setup = Setup::boot(vec![with(|restart| restart.max_restarts = Some(0), service("web"))]);
    setup.exits("web", 3);
    assert_eq!(setup.only("exit"), ["exit 3"]);
}

/// "`no_restart_exit_codes`": whatever the policy.
#[test]
fn an_exit_code_that_prevents_a_restart_fails_the_service_at_once() {
    let prevent = |restart: &mut Restart| restart.prevent.insert(ExitStatus::Code(125));
    let mut setup = Setup::boot(vec![with(prevent, service("web"))]);
    setup.at(seconds(60));
    setup.exits("web", 125);
    assert_eq!(setup.only("exit"), ["exit 125"]);
}

#[test]
fn a_success_that_prevents_a_restart_completes_the_service() {
    let prevent = |restart: &mut Restart| restart.prevent.insert(ExitStatus::Code(0));
    let mut setup = Setup::boot(vec![with(prevent, service("web"))]);
    setup.forget();
    setup.exits("web", 0);
    assert_eq!(setup.only("web"), ["web.0 running → completed"]);
}

/// The code of a failed exec is not an exit code of the program.
#[test]
fn the_code_of_a_failed_exec_does_not_count_as_an_exit_code() {
    let change = |restart: &mut Restart| {
        restart.prevent.insert(ExitStatus::Code(127));
        restart.success.insert(ExitStatus::Code(127));
    };
    let mut setup = Setup::new(crate::plans::plan(vec![with(change, service("web"))]));
    setup.spawns = Spawns::Failing(MISSING);
    setup.send(keepalive::supervisor::Event::Boot);
    setup.forget();
    setup.exits("web", 127);
    assert_eq!(setup.only("web.0"), ["web.0 starting → failed"]);
}

/// A program that is missing at the first start is a mistake. One that has run before may be being replaced.
#[test]
fn a_program_that_cannot_be_executed_fails_at_once_unless_it_has_run_before() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.spawns = Spawns::Failing(MISSING);
    setup.exits("web", 1);
    setup.after(seconds(1));
    setup.forget();
    setup.exits("web", 127);
    setup.check(&["web.0 starting → backoff"]);
}

/// "restart = on-failure": not after a success.
#[test]
fn the_policy_on_failure_restarts_after_failures_only() {
    let policy = |restart: &mut Restart| restart.policy = RestartPolicy::OnFailure;
    let mut setup = Setup::boot(vec![with(policy, service("web"))]);
    setup.at(seconds(60));
    setup.exits("web", 1);
    setup.forget();
    setup.exits("web", 0);
    assert_eq!(
        setup.only(""),
        ["web.0 running → completed", "draining: nothingleft", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]
    );
}

/// "restart = never", and an ignored failure gives its code when nothing is left.
#[test]
fn the_policy_never_does_not_restart() {
    let policy = |restart: &mut Restart| restart.policy = RestartPolicy::Never;
    let ignored = Service { on_failure: ExitAction::Ignore, ..service("web") };
    let mut setup = Setup::boot(vec![with(policy, ignored)]);
    setup.forget();
    setup.exits("web", 4);
    assert_eq!(
        setup.only(""),
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
    let mut setup = Setup::boot(vec![oneshot("migrate"), depending_on(&[0], service("web"))]);
    setup.forget();
    setup.exits("migrate", 1);
    setup.check(&["migrate.0 running → backoff"]);
    setup.after(millis(100));
    setup.check(&["migrate.0 backoff → starting", "spawn migrate.0 (1 restarts)", "migrate.0 starting → running"]);
    setup.exits("migrate", 0);
    setup.check(&[
        "migrate.0 running → completed",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
}

/// "`ready_timeout` of a oneshot: how long it may run": a run that takes longer is a failed start.
#[test]
fn a_oneshot_that_does_not_finish_in_time_has_failed() {
    let mut wait = Service { ready_timeout: Some(seconds(30)), ..oneshot("wait") };
    wait.restart.max_restarts = Some(1);
    let mut setup = Setup::boot(vec![wait]);
    setup.forget();
    setup.at(millis(29_999));
    setup.check(&[]);
    setup.at(seconds(30));
    setup.check(&["wait.0 running → stopping", "kill wait.0 main SIGTERM", "kill wait.0 main SIGCONT"]);
    setup.dies("wait", Signal::TERM);
    setup.check(&["wait.0 stopping → backoff"]);
    setup.after(seconds(31));
    setup.forget();
    setup.dies("wait", Signal::TERM);
    assert_eq!(setup.only("wait"), ["wait.0 stopping → failed", "wait failed"]);
}

/// A refused fork is not a failure of the service: it is not counted, and it is retried with growing delays.
#[test]
fn refused_forks_are_retried_without_limit_with_growing_delays() {
    let mut setup = Setup::new(crate::plans::plan(vec![service("web")]));
    setup.spawns = Spawns::Refused(Errno::EAGAIN);
    setup.send(keepalive::supervisor::Event::Boot);
    check_growing_pauses(&mut setup, |_| {});
    setup.spawns = Spawns::Executed;
    setup.forget();
    setup.after(seconds(11));
    setup.check(&["web.0 backoff → starting", "spawn web.0 (0 restarts)", "web.0 starting → running"]);
    assert_eq!(setup.unstable("web"), 0);
}

/// A process for which exec lacks memory counts as a refused fork.
#[test]
fn a_shortage_before_exec_is_retried_without_limit_with_growing_delays() {
    let mut setup = Setup::new(crate::plans::plan(vec![service("web")]));
    setup.spawns = Spawns::Failing(StartFailure { step: StartStep::Exec, errno: Errno::ENOMEM });
    setup.send(keepalive::supervisor::Event::Boot);
    check_growing_pauses(&mut setup, |setup| setup.exits("web", 126));
    setup.spawns = Spawns::Executed;
    setup.after(seconds(11));
    setup.forget();
    setup.exits("web", 126);
    setup.after(seconds(11));
    assert_eq!(setup.only("spawn"), ["spawn web.0 (0 restarts)"]);
}

fn check_growing_pauses(setup: &mut Setup, end: impl Fn(&mut Setup)) {
    for attempt in 0..40 {
        end(setup);
        let pause = setup.next().unwrap().as_secs_f64();
        let expect = (0.1 * f64::from(1 << attempt.min(10))).min(10.0);
        assert!((expect * 0.9..=expect * 1.1).contains(&pause), "attempt {attempt}: {pause} s, not about {expect} s");
        setup.after(setup.next().unwrap());
    }
}

/// `KEEPALIVE_RESTARTS` counts each start after a run, whatever its cause.
#[test]
fn every_start_after_a_run_counts_as_a_restart() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.at(seconds(20));
    setup.exits("web", 0);
    setup.restart("web");
    setup.exits("web", 0);
    setup.stop("web");
    setup.exits("web", 0);
    setup.start("web");
    assert_eq!(setup.only("spawn"), [0, 1, 2, 3].map(|restarts| format!("spawn web.0 ({restarts} restarts)")));
}
