//! Reload by a signal, of which the processes say what comes of it if they know how to.

use keepalive::model::plan::{Ready, Service, Strategy};
use keepalive::supervisor::{Fault, RolloutError};

use super::reload::{told, up, with};
use super::*;
use crate::plans::service;

fn by_signal(service: Service) -> Service {
    with(|reload| reload.strategy = Strategy::Signal(Signal::HUP), service)
}

impl Stage {
    /// It says so now, and that it has begun now, or so long before.
    fn reloads(&mut self, name: &str, before: Option<Duration>) {
        let (run, now) = (self.run(name), self.now);
        let since = before.map(|before| Mono::from_nanos(now.as_nanos() - u64::try_from(before.as_nanos()).unwrap()));
        self.send(Event::Reloading { run, since });
    }
}

#[test]
fn a_service_without_notify_gets_the_signal_and_the_reload_is_done() {
    let web = Service { ready: Ready::Exec, ..told("web", 2) };
    let mut stage = up(vec![by_signal(web)]);
    stage.reload("web");
    stage.check(&["web reloads", "kill web.0 main SIGHUP", "kill web.1 main SIGHUP", "web reloaded", "reply 1 done"]);
}

#[test]
fn a_reload_is_done_when_all_instances_report_ready_again() {
    let mut stage = up(vec![by_signal(told("web", 2))]);
    stage.at(seconds(1));
    stage.reload("web");
    stage.check(&["web reloads", "kill web.0 main SIGHUP", "kill web.1 main SIGHUP"]);
    stage.reloads("web.0", Some(seconds(0)));
    stage.reloads("web.1", Some(seconds(0)));
    stage.is_ready("web.1");
    stage.at(seconds(9));
    stage.check(&[]);
    stage.is_ready("web.0");
    stage.check(&["web reloaded", "reply 1 done"]);
    assert_eq!(stage.next(), None);
}

#[test]
fn a_reload_without_a_valid_report_is_done_after_a_second() {
    let mut stage = up(vec![by_signal(told("web", 1))]);
    stage.at(seconds(1));
    stage.reload("web");
    stage.forget();
    // This one was under way before, and that one does not say when it has begun.
    stage.reloads("web.0", Some(millis(1)));
    stage.is_ready("web.0");
    stage.reloads("web.0", None);
    stage.at(millis(1_900));
    stage.check(&[]);
    stage.at(seconds(2));
    stage.check(&["web reloaded", "reply 1 done"]);
    assert!(!stage.ready_now("web.0"));
    stage.is_ready("web.0");
    assert!(stage.ready_now("web.0"));
}

#[test]
fn an_instance_that_is_not_ready_is_restarted_instead_of_signalled() {
    let mut stage = Stage::boot(vec![by_signal(told("web", 2))]);
    stage.is_ready("web.0");
    stage.forget();
    stage.reload("web");
    stage.check(&[
        "web reloads",
        "kill web.0 main SIGHUP",
        "web.1 starting → stopping",
        "kill web.1 main SIGTERM",
        "kill web.1 main SIGCONT",
    ]);
    stage.exits("web.1", 0);
    stage.is_ready("web.1");
    stage.forget();
    stage.at(seconds(1));
    stage.check(&["web reloaded", "reply 1 done"]);
}

#[test]
fn a_reload_fails_if_an_instance_exits_or_is_not_ready_in_time() {
    let mut stage = up(vec![by_signal(told("web", 2))]);
    stage.reload("web");
    stage.forget();
    stage.reloads("web.0", Some(seconds(0)));
    let run = stage.run("web.0");
    stage.at(seconds(9));
    stage.send(Event::TimeoutExtended { run, by: seconds(6) });
    stage.at(seconds(14));
    stage.check(&[]);
    stage.at(seconds(15));
    stage.check(&["web not reloaded", "reply 1 ReloadFailed"]);
    stage.is_ready("web.0");
    stage.reload("web");
    stage.forget();
    stage.reloads("web.1", Some(seconds(0)));
    stage.exits("web.1", 3);
    stage.check(&["web.1 running → starting", "spawn web.1 (1 restarts)", "web not reloaded", "reply 2 ReloadFailed"]);
}

#[test]
fn a_reload_fails_if_an_instance_stops_itself_or_its_watchdog_expires() {
    let mut stage = up(vec![by_signal(Service { watchdog: Some(seconds(3)), ..told("web", 1) })]);
    let run = stage.run("web.0");
    stage.reload("web");
    stage.reloads("web.0", Some(seconds(0)));
    stage.forget();
    stage.send(Event::StoppingReported { run });
    stage.check(&["web.0 running → stopping"]);
    stage.at(seconds(1));
    stage.exits("web.0", 0);
    stage.check(&["web.0 stopping → backoff", "web not reloaded", "reply 1 ReloadFailed"]);
    assert!(matches!(stage.rollout_error, Some(RolloutError::ExitedAfterStopping(_))), "{:?}", stage.rollout_error);
    stage.at(seconds(2));
    stage.is_ready("web.0");
    stage.reload("web");
    stage.reloads("web.0", Some(seconds(0)));
    stage.forget();
    stage.at(seconds(5));
    stage.check(&["web.0 running → stopping", "kill web.0 main SIGABRT", "kill web.0 main SIGCONT"]);
    stage.dies("web.0", Signal::ABRT);
    stage.check(&["web.0 stopping → backoff", "web not reloaded", "reply 2 ReloadFailed"]);
    let broken = matches!(stage.rollout_error, Some(RolloutError::Exited(run)) if run.fault == Some(Fault::WatchdogTimeout(seconds(3))));
    assert!(broken, "{:?}", stage.rollout_error);
}

#[test]
fn a_reload_does_not_fail_if_an_operator_restarts_or_stops_the_service() {
    let mut stage = up(vec![by_signal(told("web", 1)), service("db")]);
    let run = stage.run("web.0");
    stage.reload("web");
    stage.forget();
    stage.restart("web");
    assert_eq!(stage.only("web"), ["web.0 running → stopping", "web reloaded"]);
    stage.exits("web.0", 1);
    stage.is_ready("web.0");
    stage.reload("web");
    stage.send(Event::WatchdogTriggered { run: stage.run("web.0") });
    assert_ne!(run, stage.run("web.0"));
    stage.forget();
    stage.stop("web");
    assert_eq!(stage.only("web"), ["web reloaded"]);
    stage.exits("web.0", 1);
    assert_eq!(stage.rollout_error, None);
}
