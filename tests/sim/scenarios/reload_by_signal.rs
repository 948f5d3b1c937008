//! Reloads by a signal, with reports of the processes if they support it.

use keepalive::model::plan::{Ready, Service, Strategy};
use keepalive::supervisor::{Fault, RolloutError};

use super::reload::{boot_ready, notify, with};
use super::*;
use crate::plans::service;

fn by_signal(service: Service) -> Service {
    with(|reload| reload.strategy = Strategy::Signal(Signal::HUP), service)
}

impl Setup {
    /// Reports a reload now that began `before` ago; `None`: without a time.
    fn report_reload(&mut self, name: &str, before: Option<Duration>) {
        let (run, now) = (self.run(name), self.now);
        let since = before.map(|before| Mono::from_nanos(now.as_nanos() - u64::try_from(before.as_nanos()).unwrap()));
        self.send(Event::Reloading { run, since });
    }
}

#[test]
fn a_service_without_notify_gets_the_signal_and_the_reload_is_done() {
    let web = Service { ready: Ready::Exec, ..notify("web", 2) };
    let mut setup = boot_ready(vec![by_signal(web)]);
    setup.reload("web");
    setup.after(seconds(1));
    setup.check(&["web reloads", "kill web.0 main SIGHUP", "kill web.1 main SIGHUP", "web reloaded", "reply 1 done"]);
}

#[test]
fn a_reload_is_done_when_all_instances_report_ready_again() {
    let mut setup = boot_ready(vec![by_signal(notify("web", 2))]);
    setup.at(seconds(1));
    setup.reload("web");
    setup.check(&["web reloads", "kill web.0 main SIGHUP", "kill web.1 main SIGHUP"]);
    setup.report_reload("web.0", Some(seconds(0)));
    setup.report_reload("web.1", Some(seconds(0)));
    setup.report_ready("web.1");
    setup.at(seconds(9));
    setup.check(&[]);
    setup.report_ready("web.0");
    setup.check(&["web reloaded", "reply 1 done"]);
    assert_eq!(setup.next(), None);
}

#[test]
fn a_reload_without_a_valid_report_is_done_after_a_second() {
    let mut setup = boot_ready(vec![by_signal(notify("web", 1))]);
    setup.at(seconds(1));
    setup.reload("web");
    setup.forget();
    // The first report is of an earlier reload, and the second one has no time.
    setup.report_reload("web.0", Some(millis(1)));
    setup.report_ready("web.0");
    setup.report_reload("web.0", None);
    setup.at(millis(1_900));
    setup.check(&[]);
    setup.at(seconds(2));
    setup.check(&["web reloaded", "reply 1 done"]);
    assert!(!setup.is_ready("web.0"));
    setup.report_ready("web.0");
    assert!(setup.is_ready("web.0"));
}

#[test]
fn an_instance_that_is_not_ready_is_restarted_instead_of_signalled() {
    let mut setup = Setup::boot(vec![by_signal(notify("web", 2))]);
    setup.report_ready("web.0");
    setup.forget();
    setup.reload("web");
    setup.check(&[
        "web reloads",
        "kill web.0 main SIGHUP",
        "web.1 starting → stopping",
        "kill web.1 main SIGTERM",
        "kill web.1 main SIGCONT",
    ]);
    setup.exits("web.1", 0);
    setup.report_ready("web.1");
    setup.forget();
    setup.at(seconds(1));
    setup.check(&["web reloaded", "reply 1 done"]);
}

#[test]
fn a_signal_reload_of_what_backs_off_starts_it_and_is_done_when_it_is_ready() {
    let mut setup = boot_ready(vec![by_signal(notify("web", 1))]);
    setup.exits("web.0", 1);
    setup.forget();
    setup.reload("web");
    setup.check(&["web reloads", "web.0 backoff → starting", "spawn web.0 (1 restarts)"]);
    setup.report_ready("web.0");
    setup.check(&["web.0 starting → running", "web reloaded", "reply 1 done"]);
    setup.exits("web.0", 1);
    setup.reload("web");
    setup.forget();
    setup.exits("web.0", 1);
    setup.check(&["web.0 starting → backoff", "web not reloaded", "reply 2 ReloadFailed"]);
}

#[test]
fn a_signal_reload_waits_for_a_process_that_is_about_to_start() {
    let mut setup = boot_ready(vec![by_signal(notify("web", 1))]);
    setup.ends("web.0", ExitStatus::Code(1), Leftovers::Some);
    setup.reload("web");
    assert_eq!(setup.only("reply"), [""; 0]);
    setup.leftovers_gone("web.0");
    setup.after(seconds(1));
    setup.report_ready("web.0");
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
}

#[test]
fn a_reload_fails_if_an_instance_exits_or_is_not_ready_in_time() {
    let mut setup = boot_ready(vec![by_signal(notify("web", 2))]);
    setup.reload("web");
    setup.forget();
    setup.report_reload("web.0", Some(seconds(0)));
    let run = setup.run("web.0");
    setup.at(seconds(9));
    setup.send(Event::TimeoutExtended { run, by: seconds(6) });
    setup.at(seconds(14));
    setup.check(&[]);
    setup.at(seconds(15));
    setup.check(&["web not reloaded", "reply 1 ReloadFailed"]);
    setup.report_ready("web.0");
    setup.reload("web");
    setup.forget();
    setup.report_reload("web.1", Some(seconds(0)));
    setup.exits("web.1", 3);
    setup.check(&["web.1 running → starting", "spawn web.1 (1 restarts)", "web not reloaded", "reply 2 ReloadFailed"]);
}

#[test]
fn a_reload_fails_if_an_instance_stops_itself_or_its_watchdog_expires() {
    let mut setup = boot_ready(vec![by_signal(Service { watchdog: Some(seconds(3)), ..notify("web", 1) })]);
    let run = setup.run("web.0");
    setup.reload("web");
    setup.report_reload("web.0", Some(seconds(0)));
    setup.forget();
    setup.send(Event::StoppingReported { run });
    setup.check(&["web.0 running → stopping"]);
    setup.at(seconds(1));
    setup.exits("web.0", 0);
    setup.check(&["web.0 stopping → backoff", "web not reloaded", "reply 1 ReloadFailed"]);
    assert!(matches!(setup.rollout_error, Some(RolloutError::ExitedAfterStopping(_))), "{:?}", setup.rollout_error);
    setup.at(seconds(2));
    setup.report_ready("web.0");
    setup.reload("web");
    setup.report_reload("web.0", Some(seconds(0)));
    setup.forget();
    setup.at(seconds(5));
    setup.check(&["web.0 running → stopping", "kill web.0 main SIGABRT", "kill web.0 main SIGCONT"]);
    setup.dies("web.0", Signal::ABRT);
    setup.check(&["web.0 stopping → backoff", "web not reloaded", "reply 2 ReloadFailed"]);
    let broken = matches!(setup.rollout_error, Some(RolloutError::Exited(ref run)) if run.fault == Some(Fault::WatchdogTimeout(seconds(3))));
    assert!(broken, "{:?}", setup.rollout_error);
}

#[test]
fn a_reload_is_done_if_an_operator_restarts_the_service_and_superseded_if_one_stops_it() {
    let mut setup = boot_ready(vec![by_signal(notify("web", 1)), service("db")]);
    let run = setup.run("web.0");
    setup.reload("web");
    setup.forget();
    setup.restart("web");
    assert_eq!(setup.only("web"), ["web.0 running → stopping", "web reloaded"]);
    setup.exits("web.0", 1);
    setup.report_ready("web.0");
    setup.reload("web");
    setup.send(Event::WatchdogTriggered { run: setup.run("web.0") });
    assert_ne!(run, setup.run("web.0"));
    setup.forget();
    setup.stop("web");
    assert_eq!(setup.only("web"), ["web not reloaded"]);
    setup.exits("web.0", 1);
    assert_eq!(setup.rollout_error, Some(RolloutError::Stopped));
}
