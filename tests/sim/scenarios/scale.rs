//! Scaling, also at critical moments.

use keepalive::model::Signal;
use keepalive::model::plan::{ExitAction, Ready, RestartPolicy, Service};
use keepalive::supervisor::{Event, RequestId, Verb};

use super::{Setup, depending_on, seconds};
use crate::plans::{oneshot, service};

fn two(name: &str) -> Service {
    Service { instances: 2, ..service(name) }
}

/// The request is done when the new instances are ready.
#[test]
fn scaling_up_starts_instances_and_waits_until_they_are_ready() {
    let mut setup = Setup::boot(vec![Service { ready: Ready::Delay(seconds(1)), ..two("web") }]);
    setup.after(seconds(1));
    setup.forget();
    setup.scale("web", 3);
    setup.check(&["web scaled 2 → 3", "web.2 stopped → starting", "spawn web.2 (0 restarts)"]);
    setup.after(seconds(1));
    setup.check(&["web.2 starting → running", "reply 1 done"]);
}

/// The instances with the highest numbers stop; the request is done when they have stopped.
#[test]
fn scaling_down_stops_and_removes_the_highest_instances() {
    let mut setup = Setup::boot(vec![Service { instances: 3, ..service("web") }]);
    setup.forget();
    setup.scale("web", 1);
    setup.check(&[
        "web scaled 3 → 1",
        "web.1 running → stopping",
        "kill web.1 main SIGTERM",
        "kill web.1 main SIGCONT",
        "web.2 running → stopping",
        "kill web.2 main SIGTERM",
        "kill web.2 main SIGCONT",
    ]);
    setup.exits("web.1", 0);
    setup.check(&["web.1 stopping → stopped"]);
    setup.exits("web.2", 0);
    setup.check(&["web.2 stopping → stopped", "reply 1 done"]);
    setup.ask("web.1", Verb::Start);
    setup.check(&["reply 2 UnknownInstance"]);
    setup.exits("web.0", 1);
    setup.after(seconds(1));
    setup.forget();
    setup.scale("web", 2);
    setup.after(seconds(1));
    setup.check(&[
        "web scaled 1 → 2",
        "web.1 stopped → starting",
        "spawn web.1 (0 restarts)",
        "web.1 starting → running",
        "reply 3 done",
    ]);
}

#[test]
fn a_stopping_instance_restarts_if_a_scale_adds_it_again() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.scale("web", 1);
    setup.forget();
    setup.scale("web", 2);
    setup.check(&["web scaled 1 → 2", "reply 1 Superseded"]);
    setup.exits("web.1", 0);
    setup.after(seconds(1));
    setup.check(&["web.1 stopping → starting", "spawn web.1 (1 restarts)", "web.1 starting → running", "reply 2 done"]);
}

/// A surplus instance that is stopping cannot be started.
#[test]
fn a_surplus_instance_cannot_be_started() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.scale("web", 1);
    setup.forget();
    setup.ask("web.1", Verb::Start);
    setup.restart("web.1");
    setup.check(&["reply 2 UnknownInstance", "reply 3 UnknownInstance"]);
    setup.start("web");
    setup.after(seconds(1));
    setup.check(&["reply 4 done"]);
}

#[test]
fn a_scale_to_the_current_number_is_answered_at_once() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.forget();
    setup.scale("web", 2);
    setup.check(&["reply 1 done"]);
}

#[test]
fn scaling_does_not_start_what_an_operator_has_stopped() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.stop("web.0");
    setup.exits("web.0", 0);
    setup.forget();
    setup.scale("web", 3);
    setup.after(seconds(1));
    setup.check(&[
        "web scaled 2 → 3",
        "web.2 stopped → starting",
        "spawn web.2 (0 restarts)",
        "web.2 starting → running",
        "reply 2 done",
    ]);
    setup.stop("web.1");
    setup.scale("web", 4);
    setup.exits("web.1", 0);
    setup.after(seconds(1));
    assert_eq!(setup.only("web.1"), ["web.1 running → stopping", "web.1 stopping → stopped"]);
}

#[test]
fn a_oneshot_cannot_be_scaled() {
    let mut setup = Setup::boot(vec![oneshot("job"), service("web")]);
    setup.forget();
    setup.scale("job", 2);
    setup.check(&["reply 1 Oneshot"]);
}

/// A service is ready when all desired instances are, so dependents wait for the new ones too.
#[test]
fn dependents_wait_for_new_instances() {
    let db = Service { ready: Ready::Delay(seconds(1)), ..service("db") };
    let mut setup = Setup::boot(vec![db, depending_on(&[0], service("web"))]);
    setup.scale("db", 2);
    setup.forget();
    setup.after(seconds(1));
    setup.check(&[
        "db.0 starting → running",
        "db.1 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "reply 1 done",
        "web.0 starting → running",
    ]);
}

/// A service has failed when all desired instances have, even if a surplus instance is still running.
#[test]
fn surplus_instances_do_not_prevent_the_failure_of_a_service() {
    let mut web = Service { on_failure: ExitAction::Shutdown, ..two("web") };
    web.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![web]);
    setup.scale("web", 1);
    setup.exits("web.0", 3);
    setup.forget();
    setup.exits("web.1", 0);
    assert_eq!(setup.only("draining"), ["draining: failed"]);
}

#[test]
fn a_shutdown_during_a_scale_completes() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.scale("web", 1);
    setup.signal(Signal::TERM);
    setup.forget();
    setup.exits("web.1", 0);
    setup.exits("web.0", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// The operation continues without a reply.
#[test]
fn a_withdrawn_request_is_not_answered() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.scale("web", 1);
    setup.send(Event::Withdrawn(RequestId(1)));
    setup.forget();
    setup.exits("web.1", 0);
    setup.check(&["web.1 stopping → stopped"]);
    setup.send(Event::Withdrawn(RequestId(1)));
    setup.send(Event::Withdrawn(RequestId(77)));
    setup.check(&[]);
}

/// "0 is allowed: off". A service that was set to 0 can be scaled up again, so keepalive goes on as after a stop.
#[test]
fn a_service_is_scaled_to_zero_and_back() {
    let mut setup = Setup::boot(vec![two("web")]);
    setup.forget();
    setup.scale("web", 0);
    setup.exits("web.0", 0);
    setup.exits("web.1", 0);
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
    setup.after(seconds(3_600));
    setup.check(&[]);
    setup.scale("web", 2);
    setup.after(seconds(1));
    setup.check(&[
        "web scaled 0 → 2",
        "web.0 stopped → starting",
        "spawn web.0 (0 restarts)",
        "web.1 stopped → starting",
        "spawn web.1 (0 restarts)",
        "web.0 starting → running",
        "web.1 starting → running",
        "reply 2 done",
    ]);
}

/// As in Compose with `replicas: 0`: there is nothing to wait for.
#[test]
fn nothing_waits_for_a_service_without_instances() {
    let off = |service: Service| Service { instances: 0, ..service };
    let services = vec![off(service("db")), off(oneshot("migrate")), depending_on(&[0, 1], service("web"))];
    let mut setup = Setup::boot(services);
    setup.check(&[
        "web.0 stopped → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
    let slow = Service { ready: Ready::Delay(seconds(60)), ..service("db") };
    let mut setup = Setup::boot(vec![slow, depending_on(&[0], service("web"))]);
    setup.forget();
    setup.scale("db", 0);
    assert_eq!(setup.only("spawn"), ["spawn web.0 (0 restarts)"]);
}

/// What is off needs nothing.
#[test]
fn a_service_without_instances_starts_no_dependencies() {
    let db = Service { autostart: false, ..service("db") };
    let off = Service { instances: 0, ..depending_on(&[0], service("cron")) };
    let mut setup = Setup::boot(vec![db, off, service("web")]);
    assert_eq!(setup.only("spawn"), ["spawn web.0 (0 restarts)"]);
}

/// "When nothing is left that runs or ever will, keepalive ends": what the configuration has turned off does not hold it open.
#[test]
fn keepalive_ends_if_only_services_without_instances_are_left() {
    let cron = Service { instances: 0, on_success: ExitAction::Shutdown, ..service("cron") };
    let mut setup = Setup::boot(vec![oneshot("migrate"), cron]);
    setup.exits("migrate", 0);
    assert_eq!(setup.only("draining"), ["draining: nothingleft"]);
}

#[test]
fn a_service_without_instances_can_only_be_stopped() {
    let mut setup = Setup::boot(vec![Service { instances: 0, ..service("cron") }, service("web")]);
    setup.after(seconds(2));
    setup.forget();
    setup.start("cron");
    setup.restart("cron");
    setup.ask("cron", Verb::Reload);
    setup.ask("cron.0", Verb::Start);
    setup.stop("cron");
    setup.check(&[
        "reply 1 NoInstances",
        "reply 2 NoInstances",
        "reply 3 NoInstances",
        "reply 4 UnknownInstance",
        "reply 5 done",
    ]);
}
