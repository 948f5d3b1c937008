//! Another number of instances, at bad moments too.

use keepalive::model::Signal;
use keepalive::model::plan::{ExitAction, Ready, RestartPolicy, Service};
use keepalive::supervisor::{Event, RequestId, Verb};

use super::{Stage, needing, seconds};
use crate::plans::{oneshot, service};

fn two(name: &str) -> Service {
    Service { instances: 2, ..service(name) }
}

/// Done when the new ones are ready.
#[test]
fn scaling_up_starts_instances_and_waits_until_they_are_ready() {
    let mut stage = Stage::boot(vec![Service { ready: Ready::Delay(seconds(1)), ..two("web") }]);
    stage.after(seconds(1));
    stage.forget();
    stage.scale("web", 3);
    stage.check(&["web scaled 2 → 3", "web.2 stopped → starting", "spawn web.2 (0 restarts)"]);
    stage.after(seconds(1));
    stage.check(&["web.2 starting → running", "reply 1 done"]);
}

/// The highest numbers go; done when they are gone.
#[test]
fn scaling_down_stops_and_removes_the_highest_instances() {
    let mut stage = Stage::boot(vec![Service { instances: 3, ..service("web") }]);
    stage.forget();
    stage.scale("web", 1);
    stage.check(&[
        "web scaled 3 → 1",
        "web.1 running → stopping",
        "kill web.1 main SIGTERM",
        "kill web.1 main SIGCONT",
        "web.2 running → stopping",
        "kill web.2 main SIGTERM",
        "kill web.2 main SIGCONT",
    ]);
    stage.exits("web.1", 0);
    stage.check(&["web.1 stopping → stopped"]);
    stage.exits("web.2", 0);
    stage.check(&["web.2 stopping → stopped", "reply 1 done"]);
    stage.ask("web.1", Verb::Start);
    stage.check(&["reply 2 UnknownInstance"]);
    stage.exits("web.0", 1);
    stage.after(seconds(1));
    stage.forget();
    stage.scale("web", 2);
    stage.check(&[
        "web scaled 1 → 2",
        "web.1 stopped → starting",
        "spawn web.1 (0 restarts)",
        "web.1 starting → running",
        "reply 3 done",
    ]);
}

#[test]
fn a_stopping_instance_restarts_if_a_scale_adds_it_again() {
    let mut stage = Stage::boot(vec![two("web")]);
    stage.scale("web", 1);
    stage.forget();
    stage.scale("web", 2);
    stage.check(&["web scaled 1 → 2", "reply 1 Superseded"]);
    stage.exits("web.1", 0);
    stage.check(&["web.1 stopping → starting", "spawn web.1 (1 restarts)", "web.1 starting → running", "reply 2 done"]);
}

/// Surplus that is on its way down is nobody's to start.
#[test]
fn a_surplus_instance_cannot_be_started() {
    let mut stage = Stage::boot(vec![two("web")]);
    stage.scale("web", 1);
    stage.forget();
    stage.ask("web.1", Verb::Start);
    stage.restart("web.1");
    stage.check(&["reply 2 UnknownInstance", "reply 3 UnknownInstance"]);
    stage.start("web");
    stage.check(&["reply 4 done"]);
}

#[test]
fn a_scale_to_the_current_number_is_answered_at_once() {
    let mut stage = Stage::boot(vec![two("web")]);
    stage.forget();
    stage.scale("web", 2);
    stage.check(&["reply 1 done"]);
}

#[test]
fn a_oneshot_cannot_be_scaled() {
    let mut stage = Stage::boot(vec![oneshot("job"), service("web")]);
    stage.forget();
    stage.scale("job", 2);
    stage.check(&["reply 1 Oneshot"]);
}

/// A service is ready when all that it is to have are: those that wait for it wait for the new ones too.
#[test]
fn dependents_wait_for_new_instances() {
    let db = Service { ready: Ready::Delay(seconds(1)), ..service("db") };
    let mut stage = Stage::boot(vec![db, needing(&[0], service("web"))]);
    stage.scale("db", 2);
    stage.forget();
    stage.after(seconds(1));
    stage.check(&[
        "db.0 starting → running",
        "db.1 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "reply 1 done",
        "web.0 starting → running",
    ]);
}

/// Everything that there is to be has failed, although what is surplus still runs for a while.
#[test]
fn surplus_instances_do_not_prevent_the_failure_of_a_service() {
    let mut web = Service { on_failure: ExitAction::Shutdown, ..two("web") };
    web.restart.policy = RestartPolicy::Never;
    let mut stage = Stage::boot(vec![web]);
    stage.scale("web", 1);
    stage.exits("web.0", 3);
    stage.forget();
    stage.exits("web.1", 0);
    assert_eq!(stage.only("draining"), ["draining: failed"]);
}

#[test]
fn a_shutdown_during_a_scale_completes() {
    let mut stage = Stage::boot(vec![two("web")]);
    stage.scale("web", 1);
    stage.signal(Signal::TERM);
    stage.forget();
    stage.exits("web.1", 0);
    stage.exits("web.0", 0);
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// What was begun goes on; it is not answered.
#[test]
fn a_withdrawn_request_is_not_answered() {
    let mut stage = Stage::boot(vec![two("web")]);
    stage.scale("web", 1);
    stage.send(Event::Withdrawn(RequestId(1)));
    stage.forget();
    stage.exits("web.1", 0);
    stage.check(&["web.1 stopping → stopped"]);
    stage.send(Event::Withdrawn(RequestId(1)));
    stage.send(Event::Withdrawn(RequestId(77)));
    stage.check(&[]);
}
