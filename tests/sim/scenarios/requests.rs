//! What operators ask for, at bad moments too.

use keepalive::model::plan::{ExitAction, KillMode, RestartPolicy, Service};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{Event, Leftovers, Reason, Request, StateName, Verb};

use super::{Stage, millis, needing, seconds};
use crate::plans::{oneshot, service};

/// "A service stopped by an operator holds it open."
#[test]
fn a_service_stopped_by_an_operator_keeps_keepalive_running() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.forget();
    stage.stop("web");
    stage.exits("web", 0);
    stage.send(Event::NoChildren);
    stage.after(seconds(86_400));
    stage.check(&[
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
        "web.0 stopping → stopped",
        "reply 1 done",
    ]);
    stage.start("web");
    stage.check(&["web.0 stopped → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 2 done"]);
}

/// A restart is answered when it runs again.
#[test]
fn a_restart_is_answered_when_the_service_is_ready_again() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.forget();
    stage.restart("web");
    assert_eq!(stage.only("reply"), Vec::<String>::new());
    stage.exits("web", 1);
    stage.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 1 done"]);
}

/// The start of a oneshot is answered when it has succeeded, however often that takes.
#[test]
fn the_start_of_a_oneshot_is_answered_when_it_has_succeeded() {
    let mut stage = Stage::boot(vec![Service { autostart: false, ..oneshot("migrate") }, service("web")]);
    stage.start("migrate");
    stage.exits("migrate", 1);
    stage.after(millis(100));
    assert_eq!(stage.only("reply"), Vec::<String>::new());
    stage.exits("migrate", 0);
    assert_eq!(stage.only("reply"), ["reply 1 done"]);
}

#[test]
fn a_stop_supersedes_a_restart() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.restart("web");
    stage.forget();
    stage.stop("web");
    stage.check(&["reply 1 Superseded"]);
    stage.exits("web", 0);
    stage.check(&["web.0 stopping → stopped", "reply 2 done"]);
}

#[test]
fn a_start_supersedes_a_stop() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.stop("web");
    stage.forget();
    stage.start("web");
    stage.check(&["reply 1 Superseded"]);
    stage.exits("web", 0);
    stage.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 2 done"]);
}

#[test]
fn a_restart_waits_until_leftover_processes_are_gone() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    stage.forget();
    stage.restart("web");
    stage.check(&[]);
    stage.leftovers_gone("web");
    stage.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 1 done"]);
}

/// Those who look at it later want to know why, not that nothing is left.
#[test]
fn the_exit_remains_the_reason_when_leftovers_are_gone() {
    let mut web = Service { on_failure: ExitAction::Ignore, ..service("web") };
    web.restart.policy = RestartPolicy::Never;
    let mut stage = Stage::boot(vec![web, service("other")]);
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    stage.leftovers_gone("web");
    let web = stage.supervisor.view().instances().next().unwrap();
    assert_eq!(web.state, StateName::Failed);
    assert!(matches!(web.reason, Some(Reason::Exited { .. })), "{:?}", web.reason);
}

/// A oneshot that has succeeded has done so, even if it is stopped while what it left goes.
#[test]
fn a_stop_during_the_cleanup_does_not_undo_a_success() {
    let mut stage = Stage::boot(vec![oneshot("job"), needing(&[0], service("web"))]);
    stage.ends("job", ExitStatus::Code(0), Leftovers::Some);
    stage.forget();
    stage.stop("job");
    stage.leftovers_gone("job");
    stage.check(&[
        "job.0 stopping → completed",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "reply 1 done",
        "web.0 starting → running",
    ]);
}

/// Start and restart forget the failures so far.
#[test]
fn a_start_during_backoff_starts_at_once_and_resets_the_count() {
    let mut stage = Stage::boot(vec![service("web")]);
    for _ in 0..3 {
        stage.exits("web", 1);
        stage.after(stage.next().unwrap());
    }
    stage.exits("web", 1);
    stage.forget();
    stage.start("web");
    stage.check(&["web.0 backoff → starting", "spawn web.0 (4 restarts)", "web.0 starting → running", "reply 1 done"]);
    stage.exits("web", 1);
    assert_eq!(stage.next(), Some(millis(100)));
}

/// A signal reaches the instances that run, and is refused if there is none.
#[test]
fn a_signal_request_reaches_running_instances_only() {
    let mut stage = Stage::boot(vec![Service { instances: 3, ..service("web") }]);
    stage.exits("web.1", 1);
    stage.forget();
    stage.ask("web", Verb::Signal(Signal::USR1));
    stage.check(&["kill web.0 main SIGUSR1", "kill web.2 main SIGUSR1", "reply 1 done"]);
    stage.ask("web.1", Verb::Signal(Signal::USR1));
    stage.check(&["reply 2 NotRunning"]);
}

/// Every other signal goes to the main processes.
#[test]
fn signals_are_forwarded_to_running_instances() {
    let mut stage = Stage::boot(vec![service("a"), service("b"), service("c")]);
    stage.exits("b", 1);
    stage.forget();
    stage.signal(Signal::WINCH);
    stage.check(&["kill a.0 main SIGWINCH", "kill c.0 main SIGWINCH", "SIGWINCH forwarded to 2"]);
}

/// A start that fails for good is answered.
#[test]
fn a_failed_start_is_answered() {
    let mut web = Service { on_failure: ExitAction::Ignore, autostart: false, ..service("web") };
    (web.restart.policy, web.ready) = (RestartPolicy::Never, keepalive::model::plan::Ready::Delay(seconds(1)));
    web.stop.kill_mode = KillMode::Process;
    let mut stage = Stage::boot(vec![web, service("other")]);
    stage.start("web");
    stage.forget();
    stage.exits("web", 1);
    stage.check(&["web.0 starting → failed", "web failed", "reply 1 Failed"]);
}

/// No request is left without an answer.
#[test]
fn a_shutdown_refuses_open_requests() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.restart("web");
    stage.forget();
    stage.signal(Signal::TERM);
    stage.check(&["draining: signal", "reply 1 ShuttingDown"]);
    stage.start("web");
    stage.check(&["reply 2 ShuttingDown"]);
    stage.request(Request::Shutdown);
    stage.check(&["reply 3 done"]);
    stage.exits("web", 0);
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// Seed 9: a start that waits for its turn is called off. The process was made only to be asked to end.
#[test]
fn a_stop_before_the_spawn_cancels_the_start() {
    let mut stage = Stage::unborn(vec![service("web")]);
    stage.stop("web");
    stage.check(&["web.0 stopped → waiting", "web.0 waiting → starting", "web.0 starting → stopped", "reply 1 done"]);
    stage.start("web");
    stage.check(&["web.0 stopped → starting", "spawn web.0 (0 restarts)", "web.0 starting → running", "reply 2 done"]);
}

#[test]
fn a_start_after_a_stop_before_the_spawn_starts_the_process() {
    let mut stage = Stage::unborn(vec![service("web")]);
    stage.asks("web", Verb::Stop);
    stage.start("web");
    stage.check(&[
        "web.0 stopped → waiting",
        "web.0 waiting → starting",
        "web.0 starting → stopped",
        "reply 1 done",
        "web.0 stopped → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
        "reply 2 done",
    ]);
}

#[test]
fn a_restart_before_the_spawn_does_not_start_twice() {
    let mut stage = Stage::unborn(vec![service("web")]);
    stage.restart("web");
    stage.check(&[
        "web.0 stopped → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
        "reply 1 done",
    ]);
}

/// What was reaped while a signal to it waited may be another by now.
#[test]
fn a_pending_signal_does_not_reach_a_process_that_reuses_the_pid() {
    let mut stage = Stage::boot(vec![service("web"), Service { autostart: false, ..service("other") }]);
    stage.forget();
    stage.asks("other", Verb::Start);
    stage.asks("web", Verb::Stop);
    stage.reaped("web");
    stage.spawns_next(101);
    stage.send(Event::Tick);
    stage.check(&[
        "other.0 stopped → starting",
        "spawn other.0 (0 restarts)",
        "web.0 running → stopping",
        "web.0 stopping → stopped",
        "reply 2 done",
        "other.0 starting → running",
        "reply 1 done",
    ]);
}

/// The same for what it had left behind.
#[test]
fn a_signal_to_leftovers_does_not_reach_a_process_that_reuses_the_pid() {
    let mut stage = Stage::boot(vec![service("web"), Service { autostart: false, ..service("other") }]);
    stage.forget();
    stage.asks("other", Verb::Start);
    stage.leaves("web");
    let run = stage.ended_run("web");
    stage.hears(Event::LeftoversGone { run });
    stage.spawns_next(101);
    stage.send(Event::Tick);
    assert_eq!(stage.only("kill"), Vec::<String>::new());
}

/// "`waiting` (for what it depends on)": what an operator restarts looks at it anew.
#[test]
fn a_requested_restart_waits_for_its_dependency() {
    let mut stage = Stage::boot(vec![service("db"), needing(&[0], service("web"))]);
    stage.stop("db");
    stage.exits("db", 0);
    stage.restart("web");
    stage.forget();
    stage.exits("web", 0);
    stage.check(&["web.0 stopping → waiting"]);
    stage.start("db");
    stage.check(&[
        "db.0 stopped → starting",
        "spawn db.0 (1 restarts)",
        "db.0 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (1 restarts)",
        "reply 3 done",
        "web.0 starting → running",
        "reply 2 done",
    ]);
}

/// And where that has failed for good, it says so after it has said how the run ended.
#[test]
fn a_requested_restart_is_refused_if_its_dependency_has_failed() {
    let mut db = Service { on_failure: ExitAction::Ignore, ..service("db") };
    db.restart.policy = RestartPolicy::Never;
    let mut stage = Stage::boot(vec![db, needing(&[0], service("web")), service("other")]);
    stage.exits("db", 1);
    stage.restart("web");
    stage.forget();
    stage.exits("web", 0);
    stage.check(&["web.0 stopping → waiting", "web.0 waiting → failed", "reply 1 Failed"]);
}

/// A crash is no such restart.
#[test]
fn a_restart_after_a_crash_does_not_wait_for_dependencies() {
    let mut stage = Stage::boot(vec![service("db"), needing(&[0], service("web"))]);
    stage.stop("db");
    stage.exits("db", 0);
    stage.at(seconds(20));
    stage.forget();
    stage.exits("web", 1);
    stage.check(&["web.0 running → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}
