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
fn whoever_is_not_asked_to_answer_gets_it_and_that_is_all() {
    let web = Service { ready: Ready::Exec, ..told("web", 2) };
    let mut stage = up(vec![by_signal(web)]);
    stage.reload("web");
    stage.check(&["web reloads", "kill web.0 main SIGHUP", "kill web.1 main SIGHUP", "web reloaded", "reply 1 done"]);
}

#[test]
fn it_takes_until_all_say_that_they_are_ready_again() {
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
fn of_which_nothing_is_heard_it_is_over_soon() {
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
fn whoever_is_not_ready_for_it_is_restarted() {
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
fn it_has_failed_if_one_is_not_ready_again_in_time_or_ends() {
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
fn it_has_failed_if_one_goes_by_itself_or_is_broken() {
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
fn it_has_not_failed_because_an_operator_wants_something_else() {
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
