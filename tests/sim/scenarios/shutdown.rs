//! The ordered end.

use keepalive::model::plan::{ExitAction, RestartPolicy, Service};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{Event, Leftovers, Request};

use super::{Spawns, Stage, millis, needing, seconds};
use crate::plans::{oneshot, plan, service};

/// "SIGTERM: the ordered stop", in reverse order, and "it ends the moment the last process is gone".
#[test]
fn a_shutdown_stops_in_reverse_order_and_exits_with_the_last_process() {
    let mut stage = Stage::boot(vec![service("db"), needing(&[0], service("web"))]);
    stage.forget();
    stage.signal(Signal::TERM);
    stage.check(&[
        "draining: signal",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    stage.exits("web", 0);
    stage.check(&[
        "web.0 stopping → stopped",
        "db.0 running → stopping",
        "kill db.0 main SIGTERM",
        "kill db.0 main SIGCONT",
    ]);
    stage.dies("db", Signal::TERM);
    stage.check(&["db.0 stopping → stopped", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]);
}

/// The order holds through what has completed long ago, too.
#[test]
fn an_indirect_dependency_stops_last_though_the_oneshot_between_has_completed() {
    let services = vec![service("db"), needing(&[0], oneshot("migrate")), needing(&[1], service("web"))];
    let mut stage = Stage::boot(services);
    stage.exits("migrate", 0);
    stage.forget();
    stage.signal(Signal::INT);
    assert_eq!(stage.only("kill"), ["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    stage.exits("web", 0);
    assert_eq!(stage.only("kill"), ["kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
}

/// "A second one: SIGKILL to all now."
#[test]
fn a_second_sigterm_kills_at_once() {
    let mut stage = Stage::boot(vec![service("db"), needing(&[0], service("web"))]);
    stage.signal(Signal::TERM);
    stage.forget();
    stage.signal(Signal::TERM);
    stage.check(&["forced", "kill all SIGKILL", "db.0 running → stopping", "kill db.0 group SIGKILL"]);
    stage.dies("db", Signal::KILL);
    stage.forget();
    stage.dies("web", Signal::KILL);
    stage.check(&["web.0 stopping → stopped", "exit 137"]);
}

/// The first signal after an end that began by itself is only the first.
#[test]
fn the_first_signal_after_a_failure_does_not_force_the_shutdown() {
    let failing = Service { restart: never(), ..service("a") };
    let mut stage = Stage::boot(vec![failing, service("b")]);
    stage.exits("a", 5);
    stage.forget();
    stage.signal(Signal::TERM);
    stage.check(&[]);
    stage.signal(Signal::TERM);
    assert_eq!(stage.only("forced"), ["forced"]);
    stage.dies("b", Signal::KILL);
    assert_eq!(stage.only("exit"), ["exit 5"]);
}

/// "`shutdown_timeout`: the whole ordered stop; then SIGKILL to all that is left."
#[test]
fn the_shutdown_timeout_kills_all_remaining_processes() {
    let mut services = vec![service("db"), needing(&[0], service("web"))];
    for service in &mut services {
        service.stop.timeout = seconds(60);
    }
    let mut stage = Stage::boot(services);
    stage.at(seconds(100));
    stage.signal(Signal::QUIT);
    stage.forget();
    stage.after(millis(8_999));
    stage.check(&[]);
    stage.after(millis(1));
    assert_eq!(stage.only("kill"), ["kill all SIGKILL", "kill db.0 group SIGKILL"]);
    stage.dies("web", Signal::KILL);
    stage.dies("db", Signal::KILL);
    assert_eq!(stage.only("exit"), ["exit 137"]);
}

/// What completed keeps its code even if something else had to be killed for it.
#[test]
fn a_completed_job_keeps_its_code_when_a_sidecar_is_killed() {
    let job = Service { on_success: ExitAction::Shutdown, ..oneshot("job") };
    let mut side = service("side");
    side.stop.timeout = seconds(60);
    let mut stage = Stage::boot(vec![job, side]);
    stage.exits("job", 0);
    stage.forget();
    stage.after(seconds(9));
    assert_eq!(stage.only("forced"), ["forced"]);
    stage.dies("side", Signal::KILL);
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// A process that hangs in the kernel does not hang keepalive.
#[test]
fn a_process_that_outlasts_sigkill_is_abandoned() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.signal(Signal::TERM);
    stage.signal(Signal::TERM);
    stage.after(millis(499));
    assert_eq!(stage.only("exit"), Vec::<String>::new());
    stage.after(millis(1));
    assert_eq!(stage.only("exit"), ["exit 137"]);
}

/// "Nothing outlives keepalive: what daemonised is found and stopped too."
#[test]
fn a_daemon_that_left_its_group_gets_sigterm_and_then_sigkill() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.strays = true;
    stage.signal(Signal::TERM);
    stage.forget();
    stage.exits("web", 0);
    stage.check(&["web.0 stopping → stopped", "kill all SIGTERM", "kill all SIGCONT"]);
    stage.after(seconds(5));
    stage.check(&["leftoverprocesseskilled", "kill all SIGKILL"]);
    stage.send(Event::NoChildren);
    stage.check(&["exit 0"]);
}

/// "137: a stop that had to be forced: `shutdown_timeout` was over", whoever it was that did not go in time.
#[test]
fn a_daemon_that_outlasts_the_shutdown_timeout_forces_the_stop() {
    let mut slow = service("web");
    slow.stop.timeout = seconds(60);
    let mut stage = Stage::boot(vec![slow]);
    stage.strays = true;
    stage.signal(Signal::TERM);
    stage.after(seconds(6));
    stage.exits("web", 0);
    stage.forget();
    stage.after(millis(2_999));
    stage.check(&[]);
    stage.after(millis(1));
    stage.check(&["forced", "kill all SIGKILL"]);
    stage.send(Event::NoChildren);
    stage.check(&["exit 137"]);
}

/// Nothing is started, and nothing restarted, while everything is being stopped.
#[test]
fn no_service_starts_during_a_shutdown() {
    let mut stage = Stage::boot(vec![service("db"), needing(&[0], service("web")), service("slow")]);
    stage.exits("slow", 1);
    stage.forget();
    stage.signal(Signal::TERM);
    stage.exits("db", 1);
    stage.start("slow");
    stage.after(millis(200));
    assert_eq!(stage.only("spawn"), Vec::<String>::new());
    stage.exits("web", 0);
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// A start and the reason to stop everything fall together: what has not been made is not made any more.
#[test]
fn a_start_that_is_due_at_the_shutdown_does_not_happen() {
    let failing = Service { restart: never(), ..service("a") };
    let mut stage = Stage::boot(vec![failing, service("web")]);
    stage.ends("a", ExitStatus::Code(5), Leftovers::Some);
    stage.at(seconds(6));
    stage.exits("web", 1);
    stage.forget();
    stage.sleep_through(seconds(60));
    stage.check(&[
        "web.0 backoff → starting",
        "a.0 cannot be killed",
        "a.0 stopping → failed",
        "a failed",
        "draining: failed",
        "web.0 starting → stopped",
        "kill all SIGTERM",
        "kill all SIGCONT",
    ]);
}

/// "None while draining": seeds 24 and 25. What still waits for its turn is not started only to be stopped again, be
/// it that others depend on it.
#[test]
fn a_shutdown_cancels_pending_starts() {
    let services = vec![service("db"), Service { instances: 2, ..service("web") }, needing(&[0, 1], service("proxy"))];
    let mut stage = Stage::unborn(services);
    stage.signal(Signal::TERM);
    stage.check(&[
        "db.0 stopped → waiting",
        "web.0 stopped → waiting",
        "web.1 stopped → waiting",
        "proxy.0 stopped → waiting",
        "db.0 waiting → starting",
        "web.0 waiting → starting",
        "web.1 waiting → starting",
        "draining: signal",
        "db.0 starting → stopped",
        "web.0 starting → stopped",
        "web.1 starting → stopped",
        "proxy.0 waiting → stopped",
        "kill all SIGTERM",
        "kill all SIGCONT",
        "exit 0",
    ]);
}

/// Seed 4030: the end has been decided, and a signal decided before it waits. Who was to get it has been reaped.
#[test]
fn a_pending_signal_does_not_reach_a_process_reaped_during_a_shutdown() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.forget();
    stage.hears(Event::Signal(Signal::TERM));
    stage.hears(Event::Signal(Signal::TERM));
    stage.sleeps(seconds(1));
    stage.reaped("web");
    stage.send(Event::Tick);
    stage.check(&[
        "draining: signal",
        "web.0 running → stopping",
        "forced",
        "kill all SIGKILL",
        "processesabandoned",
        "exit 137",
    ]);
}

/// A thousand in a row: each waits for the one before, and goes before it.
#[test]
fn a_chain_of_a_thousand_starts_and_stops_in_order() {
    let chain = |number| match number {
        0 => service("s0"),
        number => needing(&[number - 1], service(&format!("s{number}"))),
    };
    let mut stage = Stage::boot((0..1_000).map(chain).collect());
    let starts: Vec<_> = (0..1_000).map(|number| format!("spawn s{number}.0 (0 restarts)")).collect();
    assert_eq!(stage.only("spawn"), starts);
    stage.signal(Signal::TERM);
    for number in (0..1_000).rev() {
        let name = format!("s{number}");
        assert_eq!(stage.only("kill"), ["TERM", "CONT"].map(|signal| format!("kill {name}.0 main SIG{signal}")));
        stage.exits(&name, 0);
    }
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// Spawning is refused and the end comes at the same time.
#[test]
fn a_refused_fork_does_not_delay_a_shutdown() {
    let mut stage = Stage::new(plan(vec![service("web")]));
    stage.spawns = Spawns::Refused(nix::errno::Errno::EAGAIN);
    stage.send(Event::Boot);
    stage.forget();
    stage.request(Request::Shutdown);
    stage.check(&[
        "reply 1 done",
        "draining: requested",
        "web.0 backoff → stopped",
        "kill all SIGTERM",
        "kill all SIGCONT",
        "exit 0",
    ]);
}

/// After the exit there is nothing, whatever happens.
#[test]
fn no_action_follows_the_exit() {
    let mut stage = Stage::boot(vec![oneshot("job")]);
    stage.exits("job", 0);
    assert_eq!(stage.only("exit"), ["exit 0"]);
    stage.signal(Signal::TERM);
    stage.send(Event::NoChildren);
    stage.after(seconds(60));
    stage.check(&[]);
    assert_eq!(stage.next(), None);
}

fn never() -> keepalive::model::plan::Restart {
    keepalive::model::plan::Restart { policy: RestartPolicy::Never, ..service("").restart }
}
