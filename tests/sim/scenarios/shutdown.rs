//! The ordered shutdown.

use std::time::Duration;

use keepalive::model::plan::{ExitAction, RestartPolicy, Service, SignalAction};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{Event, Leftovers, Request};

use super::{Setup, Spawns, depending_on, millis, seconds};
use crate::plans::{oneshot, plan, service};

/// "SIGTERM: the ordered stop", in reverse order, and "it ends the moment the last process is gone".
#[test]
fn a_shutdown_stops_in_reverse_order_and_exits_with_the_last_process() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web"))]);
    setup.forget();
    setup.signal(Signal::TERM);
    setup.check(&[
        "draining: signal",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    setup.exits("web", 0);
    setup.check(&[
        "web.0 stopping → stopped",
        "db.0 running → stopping",
        "kill db.0 main SIGTERM",
        "kill db.0 main SIGCONT",
    ]);
    setup.dies("db", Signal::TERM);
    setup.check(&["db.0 stopping → stopped", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]);
}

/// The order also applies across a service that has completed.
#[test]
fn an_indirect_dependency_stops_last_though_the_oneshot_between_has_completed() {
    let services = vec![service("db"), depending_on(&[0], oneshot("migrate")), depending_on(&[1], service("web"))];
    let mut setup = Setup::boot(services);
    setup.exits("migrate", 0);
    setup.forget();
    setup.signal(Signal::INT);
    assert_eq!(setup.only("kill"), ["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.exits("web", 0);
    assert_eq!(setup.only("kill"), ["kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
}

/// "More of SIGTERM and SIGQUIT change nothing": platforms send two.
#[test]
fn a_repeated_stop_signal_changes_nothing() {
    for signals in [[Signal::TERM; 2], [Signal::QUIT; 2], [Signal::TERM, Signal::QUIT], [Signal::INT, Signal::TERM]] {
        for interval in [0, 500, 10_000, 500_000].map(Duration::from_micros) {
            let mut setup = Setup::boot(vec![service("web")]);
            setup.signal(signals[0]);
            setup.forget();
            setup.after(interval);
            setup.signal(signals[1]);
            setup.check(&[]);
            setup.exits("web", 0);
            setup.check(&["web.0 stopping → stopped", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]);
        }
    }
}

/// Neither does a request, a signal that the configuration maps, or the loss of the terminal.
#[test]
fn only_sigint_cuts_a_shutdown_short() {
    let mut plan = plan(vec![service("web")]);
    plan.signals.set(Signal::USR1, SignalAction::Shutdown);
    let mut setup = Setup::new(plan);
    setup.send(Event::Boot);
    setup.signal(Signal::USR1);
    setup.forget();
    setup.after(seconds(1));
    setup.signal(Signal::USR1);
    setup.send(Event::TerminalClosed);
    setup.request(Request::Shutdown);
    assert_eq!(setup.only("kill"), Vec::<String>::new());
    setup.exits("web", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// "A second SIGINT, 0.2 s or more after the first, is a person's: SIGKILL to all now."
#[test]
fn a_second_sigint_kills_at_once() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web"))]);
    setup.signal(Signal::INT);
    setup.forget();
    setup.after(millis(200));
    setup.signal(Signal::INT);
    setup.check(&["kill all SIGKILL", "forced", "db.0 running → stopping", "kill db.0 group SIGKILL"]);
    setup.dies("db", Signal::KILL);
    setup.forget();
    setup.dies("web", Signal::KILL);
    setup.check(&["web.0 stopping → stopped", "exit 137"]);
}

/// Within 0.2 s it is the same Ctrl-C, passed on twice. The time counts from the first one.
#[test]
fn a_second_sigint_within_a_fifth_of_a_second_changes_nothing() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.signal(Signal::INT);
    setup.forget();
    setup.after(millis(199));
    setup.signal(Signal::INT);
    setup.check(&[]);
    setup.after(millis(1));
    setup.signal(Signal::INT);
    assert_eq!(setup.only("forced"), ["forced"]);
}

/// "kill": SIGKILL to all now, whether or not the shutdown has begun.
#[test]
fn a_signal_with_the_action_kill_kills_at_once() {
    for first in [None, Some(Signal::TERM)] {
        let mut plan = plan(vec![service("web")]);
        plan.signals.set(Signal::QUIT, SignalAction::Kill);
        let mut setup = Setup::new(plan);
        setup.send(Event::Boot);
        first.into_iter().for_each(|signal| setup.signal(signal));
        setup.signal(Signal::QUIT);
        assert_eq!(setup.only("kill all"), ["kill all SIGKILL"]);
        setup.dies("web", Signal::KILL);
        assert_eq!(setup.only("exit"), ["exit 137"]);
    }
}

/// The first SIGINT is just the first one, whatever has begun the shutdown.
#[test]
fn the_first_sigint_does_not_force_a_shutdown_that_another_signal_has_begun() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.signal(Signal::TERM);
    setup.forget();
    setup.after(seconds(1));
    setup.signal(Signal::INT);
    setup.check(&[]);
    setup.after(seconds(1));
    setup.signal(Signal::INT);
    assert_eq!(setup.only("forced"), ["forced"]);
}

/// A shutdown without a signal does not count as the first SIGINT. A failure keeps its exit code.
#[test]
fn the_first_sigint_after_a_failure_does_not_force_the_shutdown() {
    let failing = Service { restart: never(), ..service("a") };
    let mut setup = Setup::boot(vec![failing, service("b")]);
    setup.exits("a", 5);
    setup.forget();
    setup.signal(Signal::INT);
    setup.check(&[]);
    setup.after(seconds(1));
    setup.signal(Signal::INT);
    assert_eq!(setup.only("forced"), ["forced"]);
    setup.dies("b", Signal::KILL);
    assert_eq!(setup.only("exit"), ["exit 5"]);
}

/// "`shutdown_timeout`: the whole ordered stop; then SIGKILL to all that is left."
#[test]
fn the_shutdown_timeout_kills_all_remaining_processes() {
    let mut services = vec![service("db"), depending_on(&[0], service("web"))];
    for service in &mut services {
        service.stop.timeout = seconds(60);
    }
    let mut setup = Setup::boot(services);
    setup.at(seconds(100));
    setup.signal(Signal::QUIT);
    setup.forget();
    setup.after(millis(8_999));
    setup.check(&[]);
    setup.after(millis(1));
    assert_eq!(setup.only("kill"), ["kill all SIGKILL", "kill db.0 group SIGKILL"]);
    setup.dies("web", Signal::KILL);
    setup.dies("db", Signal::KILL);
    assert_eq!(setup.only("exit"), ["exit 137"]);
}

/// A completed job keeps its code even if another service is killed.
#[test]
fn a_completed_job_keeps_its_code_when_a_sidecar_is_killed() {
    let job = Service { on_success: ExitAction::Shutdown, ..oneshot("job") };
    let mut side = service("side");
    side.stop.timeout = seconds(60);
    let mut setup = Setup::boot(vec![job, side]);
    setup.exits("job", 0);
    setup.forget();
    setup.after(seconds(9));
    assert_eq!(setup.only("forced"), ["forced"]);
    setup.dies("side", Signal::KILL);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// A process that hangs in the kernel does not block keepalive.
#[test]
fn a_process_that_outlasts_sigkill_is_abandoned() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.signal(Signal::INT);
    setup.after(seconds(1));
    setup.signal(Signal::INT);
    setup.after(millis(499));
    assert_eq!(setup.only("exit"), Vec::<String>::new());
    setup.after(millis(1));
    assert_eq!(setup.only("exit"), ["exit 137"]);
}

/// "Nothing outlives keepalive: what daemonised is found and stopped too."
#[test]
fn a_daemon_that_left_its_group_gets_sigterm_and_then_sigkill() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.has_other_processes = true;
    setup.signal(Signal::TERM);
    setup.forget();
    setup.exits("web", 0);
    setup.check(&["web.0 stopping → stopped", "kill all SIGTERM", "kill all SIGCONT"]);
    setup.after(seconds(5));
    setup.check(&["kill all SIGKILL", "leftoverprocesseskilled"]);
    setup.send(Event::NoChildren);
    setup.check(&["exit 0"]);
}

/// "137: a stop that had to be forced: `shutdown_timeout` was over", even if only a daemon was left.
#[test]
fn a_daemon_that_outlasts_the_shutdown_timeout_forces_the_stop() {
    let mut slow = service("web");
    slow.stop.timeout = seconds(60);
    let mut setup = Setup::boot(vec![slow]);
    setup.has_other_processes = true;
    setup.signal(Signal::TERM);
    setup.after(seconds(6));
    setup.exits("web", 0);
    setup.forget();
    setup.after(millis(2_999));
    setup.check(&[]);
    setup.after(millis(1));
    setup.check(&["kill all SIGKILL", "forced"]);
    setup.send(Event::NoChildren);
    setup.check(&["exit 137"]);
}

/// No service starts or restarts during a shutdown.
#[test]
fn no_service_starts_during_a_shutdown() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web")), service("slow")]);
    setup.exits("slow", 1);
    setup.forget();
    setup.signal(Signal::TERM);
    setup.exits("db", 1);
    setup.start("slow");
    setup.after(millis(200));
    assert_eq!(setup.only("spawn"), Vec::<String>::new());
    setup.exits("web", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// A start and the cause of the shutdown coincide: the process is not spawned.
#[test]
fn a_start_that_is_due_at_the_shutdown_does_not_happen() {
    let failing = Service { restart: never(), ..service("a") };
    let mut setup = Setup::boot(vec![failing, service("web")]);
    setup.ends("a", ExitStatus::Code(5), Leftovers::Some);
    setup.at(seconds(6));
    setup.exits("web", 1);
    setup.forget();
    setup.sleep_through(seconds(60));
    setup.check(&[
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

/// "None while draining": seeds 24 and 25. A service with a pending start does not start only to be stopped, even if
/// others depend on it.
#[test]
fn a_shutdown_cancels_pending_starts() {
    let services =
        vec![service("db"), Service { instances: 2, ..service("web") }, depending_on(&[0, 1], service("proxy"))];
    let mut setup = Setup::boot_without_spawns(services);
    setup.signal(Signal::TERM);
    setup.check(&[
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

/// Seed 4030: a signal is pending when the shutdown begins, and its process has been reaped.
#[test]
fn a_pending_signal_does_not_reach_a_process_reaped_during_a_shutdown() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.forget();
    setup.queue(Event::Signal(Signal::INT));
    setup.queue_tick_after(millis(200));
    setup.queue(Event::Signal(Signal::INT));
    setup.queue_tick_after(seconds(1));
    setup.queue_exit("web");
    setup.send(Event::Tick);
    setup.check(&[
        "draining: signal",
        "web.0 running → stopping",
        "kill all SIGKILL",
        "forced",
        "processesabandoned",
        "exit 137",
    ]);
}

/// A thousand services: each starts after the previous one and stops before it.
#[test]
fn a_chain_of_a_thousand_starts_and_stops_in_order() {
    let chain = |number| match number {
        0 => service("s0"),
        number => depending_on(&[number - 1], service(&format!("s{number}"))),
    };
    let mut setup = Setup::boot((0..1_000).map(chain).collect());
    let starts: Vec<_> = (0..1_000).map(|number| format!("spawn s{number}.0 (0 restarts)")).collect();
    assert_eq!(setup.only("spawn"), starts);
    setup.signal(Signal::TERM);
    for number in (0..1_000).rev() {
        let name = format!("s{number}");
        assert_eq!(setup.only("kill"), ["TERM", "CONT"].map(|signal| format!("kill {name}.0 main SIG{signal}")));
        setup.exits(&name, 0);
    }
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// A refused fork and the shutdown coincide.
#[test]
fn a_refused_fork_does_not_delay_a_shutdown() {
    let mut setup = Setup::new(plan(vec![service("web")]));
    setup.spawns = Spawns::Refused(nix::errno::Errno::EAGAIN);
    setup.send(Event::Boot);
    setup.forget();
    setup.request(Request::Shutdown);
    setup.check(&[
        "reply 1 done",
        "draining: requested",
        "web.0 backoff → stopped",
        "kill all SIGTERM",
        "kill all SIGCONT",
        "exit 0",
    ]);
}

/// After the exit, no event causes an action.
#[test]
fn no_action_follows_the_exit() {
    let mut setup = Setup::boot(vec![oneshot("job")]);
    setup.exits("job", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
    setup.signal(Signal::TERM);
    setup.send(Event::NoChildren);
    setup.after(seconds(60));
    setup.check(&[]);
    assert_eq!(setup.next(), None);
}

fn never() -> keepalive::model::plan::Restart {
    keepalive::model::plan::Restart { policy: RestartPolicy::Never, ..service("").restart }
}
