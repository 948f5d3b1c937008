//! Requests of operators, also at critical moments.

use keepalive::model::plan::{ExitAction, KillMode, Reload, Restart, RestartPolicy, Service, Strategy};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{Event, Leftovers, Reason, Request, StateName, Target, Verb};

use super::blocked::once;
use super::{Setup, depending_on, millis, seconds};
use crate::plans::{oneshot, service};

/// "A service stopped by an operator holds it open."
#[test]
fn a_service_stopped_by_an_operator_keeps_keepalive_running() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.forget();
    setup.stop("web");
    setup.exits("web", 0);
    setup.send(Event::NoChildren);
    setup.after(seconds(86_400));
    setup.check(&[
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
        "web.0 stopping → stopped",
        "reply 1 done",
    ]);
    setup.start("web");
    setup.after(seconds(1));
    setup.check(&["web.0 stopped → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 2 done"]);
}

/// A restart is answered when the service is ready again.
#[test]
fn a_restart_is_answered_when_the_service_is_ready_again() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.forget();
    setup.restart("web");
    assert_eq!(setup.only("reply"), Vec::<String>::new());
    setup.exits("web", 1);
    setup.after(seconds(1));
    setup.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 1 done"]);
}

#[test]
fn a_stop_supersedes_a_restart() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.restart("web");
    setup.forget();
    setup.stop("web");
    setup.check(&["reply 1 Superseded"]);
    setup.exits("web", 0);
    setup.check(&["web.0 stopping → stopped", "reply 2 done"]);
}

#[test]
fn a_start_supersedes_a_stop() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.stop("web");
    setup.forget();
    setup.start("web");
    setup.check(&["reply 1 Superseded"]);
    setup.exits("web", 0);
    setup.after(seconds(1));
    setup.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 2 done"]);
}

#[test]
fn a_restart_waits_until_leftover_processes_are_gone() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.ends("web", ExitStatus::Code(1), Leftovers::Some);
    setup.forget();
    setup.restart("web");
    setup.check(&[]);
    setup.leftovers_gone("web");
    setup.after(seconds(1));
    setup.check(&["web.0 stopping → starting", "spawn web.0 (1 restarts)", "web.0 starting → running", "reply 1 done"]);
}

/// The reason tells why the service failed, not that its leftovers are gone.
#[test]
fn the_exit_remains_the_reason_when_leftovers_are_gone() {
    let mut web = Service { on_failure: ExitAction::Ignore, ..service("web") };
    web.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![web, service("other")]);
    setup.ends("web", ExitStatus::Code(1), Leftovers::Some);
    setup.leftovers_gone("web");
    let web = setup.supervisor.view().instances().next().unwrap();
    assert_eq!(web.state, StateName::Failed);
    assert!(matches!(web.reason, Some(Reason::Exited { .. })), "{:?}", web.reason);
}

/// A oneshot that has succeeded stays completed even if it is stopped during the cleanup of its leftovers.
#[test]
fn a_stop_during_the_cleanup_does_not_undo_a_success() {
    let mut setup = Setup::boot(vec![oneshot("job"), depending_on(&[0], service("web"))]);
    setup.ends("job", ExitStatus::Code(0), Leftovers::Some);
    setup.forget();
    setup.stop("job");
    setup.leftovers_gone("job");
    setup.check(&[
        "job.0 stopping → completed",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "reply 1 done",
        "web.0 starting → running",
    ]);
}

/// Start and restart reset the count of failures.
#[test]
fn a_start_during_backoff_starts_at_once_and_resets_the_count() {
    let mut setup = Setup::boot(vec![service("web")]);
    for _ in 0..3 {
        setup.exits("web", 1);
        setup.after(setup.next().unwrap());
    }
    setup.exits("web", 1);
    setup.forget();
    setup.start("web");
    setup.after(seconds(1));
    setup.check(&["web.0 backoff → starting", "spawn web.0 (4 restarts)", "web.0 starting → running", "reply 1 done"]);
    setup.exits("web", 1);
    assert_eq!(setup.next(), Some(millis(100)));
}

/// A signal reaches running instances, and is refused if there is none.
#[test]
fn a_signal_request_reaches_running_instances_only() {
    let mut setup = Setup::boot(vec![Service { instances: 3, ..service("web") }]);
    setup.exits("web.1", 1);
    setup.forget();
    setup.ask("web", Verb::Signal(Signal::USR1));
    setup.check(&["kill web.0 main SIGUSR1", "kill web.2 main SIGUSR1", "reply 1 done"]);
    setup.ask("web.1", Verb::Signal(Signal::USR1));
    setup.check(&["reply 2 NotRunning"]);
}

/// Every other signal is forwarded to the main processes.
#[test]
fn signals_are_forwarded_to_running_instances() {
    let mut setup = Setup::boot(vec![service("a"), service("b"), service("c")]);
    setup.exits("b", 1);
    setup.forget();
    setup.signal(Signal::WINCH);
    setup.check(&["kill a.0 main SIGWINCH", "kill c.0 main SIGWINCH", "SIGWINCH forwarded to 2"]);
}

/// A start that fails for good is answered.
#[test]
fn a_failed_start_is_answered() {
    let mut web = Service { on_failure: ExitAction::Ignore, autostart: false, ..service("web") };
    (web.restart.policy, web.ready) = (RestartPolicy::Never, keepalive::model::plan::Ready::Delay(seconds(1)));
    web.stop.kill_mode = KillMode::Process;
    let mut setup = Setup::boot(vec![web, service("other")]);
    setup.start("web");
    setup.forget();
    setup.exits("web", 1);
    setup.check(&["web.0 starting → failed", "web failed", "reply 1 Failed"]);
}

/// Every request gets a reply.
#[test]
fn a_shutdown_refuses_open_requests() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.restart("web");
    setup.forget();
    setup.signal(Signal::TERM);
    setup.check(&["draining: signal", "reply 1 ShuttingDown"]);
    setup.start("web");
    setup.check(&["reply 2 ShuttingDown"]);
    setup.request(Request::Shutdown);
    setup.check(&["reply 3 done"]);
    setup.exits("web", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// Seed 9: a pending start is cancelled. The process was spawned only to be stopped.
#[test]
fn a_stop_before_the_spawn_cancels_the_start() {
    let mut setup = Setup::boot_without_spawns(vec![service("web")]);
    setup.stop("web");
    setup.check(&["web.0 stopped → waiting", "web.0 waiting → starting", "web.0 starting → stopped", "reply 1 done"]);
    setup.start("web");
    setup.after(seconds(1));
    setup.check(&["web.0 stopped → starting", "spawn web.0 (0 restarts)", "web.0 starting → running", "reply 2 done"]);
}

#[test]
fn a_start_after_a_stop_before_the_spawn_starts_the_process() {
    let mut setup = Setup::boot_without_spawns(vec![service("web")]);
    setup.queue_request("web", Verb::Stop);
    setup.start("web");
    setup.after(seconds(1));
    setup.check(&[
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
    let mut setup = Setup::boot_without_spawns(vec![service("web")]);
    setup.restart("web");
    setup.after(seconds(1));
    setup.check(&[
        "web.0 stopped → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
        "reply 1 done",
    ]);
}

/// After a process has been reaped, another one may have its pid.
#[test]
fn a_pending_signal_does_not_reach_a_process_that_reuses_the_pid() {
    let mut setup = Setup::boot(vec![service("web"), Service { autostart: false, ..service("other") }]);
    setup.forget();
    setup.queue_request("other", Verb::Start);
    setup.queue_request("web", Verb::Stop);
    setup.queue_exit("web");
    setup.set_next_pid(101);
    setup.send(Event::Tick);
    setup.after(seconds(1));
    setup.check(&[
        "other.0 stopped → starting",
        "spawn other.0 (0 restarts)",
        "web.0 running → stopping",
        "web.0 stopping → stopped",
        "reply 2 done",
        "other.0 starting → running",
        "reply 1 done",
    ]);
}

/// The same applies to its leftovers.
#[test]
fn a_signal_to_leftovers_does_not_reach_a_process_that_reuses_the_pid() {
    let mut setup = Setup::boot(vec![service("web"), Service { autostart: false, ..service("other") }]);
    setup.forget();
    setup.queue_request("other", Verb::Start);
    setup.queue_exit_with_leftovers("web");
    let run = setup.ended_run("web");
    setup.queue(Event::LeftoversGone { run });
    setup.set_next_pid(101);
    setup.send(Event::Tick);
    assert_eq!(setup.only("kill"), Vec::<String>::new());
}

/// "`waiting` (for what it depends on)": a restart by an operator checks the dependencies again.
#[test]
fn a_requested_restart_waits_for_its_dependency() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web"))]);
    setup.restart("web");
    setup.stop("db");
    setup.exits("db", 0);
    setup.forget();
    setup.exits("web", 0);
    setup.check(&["web.0 stopping → waiting"]);
    setup.start("db");
    setup.check(&[
        "db.0 stopped → starting",
        "spawn db.0 (1 restarts)",
        "db.0 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (1 restarts)",
        "web.0 starting → running",
    ]);
    setup.after(seconds(1));
    setup.check(&["reply 1 done", "reply 3 done"]);
}

/// A process that works is not given up for one that could not start.
#[test]
fn a_restart_is_refused_while_a_dependency_is_stopped() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web"))]);
    setup.stop("db");
    setup.exits("db", 0);
    setup.forget();
    setup.restart("web");
    setup.check(&["reply 2 DependencyUnavailable"]);
}

/// The process dies before it has run for a second.
#[test]
fn a_start_fails_when_its_process_exits_at_once() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.at(seconds(60));
    setup.restart("web");
    setup.exits("web", 0);
    setup.after(millis(999));
    setup.forget();
    setup.exits("web", 3);
    setup.check(&["web.0 running → backoff", "reply 1 Died"]);
    setup.after(seconds(2));
    setup.forget();
    setup.start("web");
    setup.check(&["reply 2 done"]);
}

/// A process that works is not given up for one that could not start, nor is another one started.
#[test]
fn a_restart_is_refused_while_a_dependency_has_failed() {
    let mut db = Service { on_failure: ExitAction::Ignore, ..service("db") };
    db.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![db, depending_on(&[0], service("web"))]);
    setup.exits("db", 1);
    setup.forget();
    setup.restart("web");
    setup.check(&["reply 1 DependencyUnavailable"]);
    setup.scale("web", 2);
    setup.check(&["reply 2 DependencyUnavailable"]);
}

/// The dependency fails while the process stops: the restart is refused after the exit is recorded.
#[test]
fn a_requested_restart_is_refused_if_its_dependency_has_failed() {
    let mut db = Service { on_failure: ExitAction::Ignore, ..service("db") };
    db.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![db, depending_on(&[0], service("web")), service("other")]);
    setup.restart("web");
    setup.exits("db", 1);
    setup.forget();
    setup.exits("web", 0);
    setup.check(&["web.0 stopping → waiting", "web.0 waiting → failed", "reply 1 Failed"]);
}

#[test]
fn a_requested_start_of_what_has_failed_is_no_automatic_restart() {
    let mut setup = Setup::boot(vec![once(service("web")), service("other")]);
    setup.exits("web", 1);
    setup.start("web");
    let restarts = setup.supervisor.view().instances().next().unwrap().restarts;
    assert_eq!((restarts.total(), restarts.automatic()), (1, 0));
}

#[test]
fn the_answer_for_several_has_all_failures_when_the_rest_is_done() {
    let mut services =
        vec![once(service("one")), service("two"), service("three"), depending_on(&[2], service("four"))];
    services.iter_mut().for_each(|service| {
        service.autostart = false;
        service.on_failure = ExitAction::Ignore;
    });
    services.push(service("other"));
    let mut setup = Setup::boot(services);
    setup.request(Request::Control(Target::All, Verb::Start));
    setup.exits("one", 1);
    assert_eq!(setup.only("reply"), Vec::<String>::new());
    // `four` runs by now.
    setup.exits("three", 1);
    setup.after(millis(100));
    setup.after(seconds(1));
    assert_eq!(setup.only("reply"), ["reply 1 Several"]);
}

/// There is no process that a reload could replace.
#[test]
fn a_reload_of_what_waits_for_a_dependency_is_refused() {
    let mut setup = Setup::boot(vec![oneshot("migrate"), depending_on(&[0], service("web"))]);
    setup.forget();
    setup.ask("web", Verb::Reload);
    setup.check(&["reply 1 NotRunning"]);
}

/// A restart after a crash does not check the dependencies.
#[test]
fn a_restart_after_a_crash_does_not_wait_for_dependencies() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web"))]);
    setup.stop("db");
    setup.exits("db", 0);
    setup.at(seconds(20));
    setup.forget();
    setup.exits("web", 1);
    setup.check(&["web.0 running → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
}

/// A request whose failure ends keepalive is answered with the failure, and so is every other request.
#[test]
fn the_failure_that_causes_the_shutdown_is_the_answer_to_requests() {
    let mut web = service("web");
    web.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![web, service("other")]);
    setup.stop("other");
    setup.forget();
    setup.exits("web", 1);
    assert_eq!(setup.only("reply"), ["reply 1 Failed"]);
    // In place, the reload has failed for good.
    let restart = Restart { max_restarts: Some(0), ..service("web").restart };
    let reload = Reload { strategy: Strategy::Restart, soak: seconds(1), ..service("web").reload };
    let mut setup = Setup::boot(vec![Service { restart, reload, ..service("web") }, service("other")]);
    setup.after(seconds(60));
    setup.ask("web", Verb::Reload);
    setup.exits("web", 0);
    setup.forget();
    setup.exits("web", 3);
    assert_eq!(setup.only("reply"), ["reply 1 ReloadFailed"]);
}
