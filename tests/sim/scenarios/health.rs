//! Health checks: when they begin, what their results mean, and what ends them.

use std::rc::Rc;

use keepalive::model::plan::{Health, HttpCheck, OnUnhealthy, Probe, Process, Service};
use keepalive::model::{ProbeFailure, Template};
use keepalive::supervisor::{Event, RolloutError, Verb};

use super::{Setup, depending_on, seconds};
use crate::plans::service;

/// Every 10 s, 3 failures.
fn checked(name: &str, on_unhealthy: OnUnhealthy) -> Service {
    let probe = Probe::Tcp(Template::Fixed(c"127.0.0.1:80".to_owned()));
    let (interval, timeout, start_period) = (seconds(10), seconds(2), seconds(0));
    let health =
        Health { probe, http: HttpCheck::default(), interval, timeout, retries: 3, start_period, on_unhealthy };
    Service { health: Some(Rc::new(health)), ..service(name) }
}

fn with_start_period(name: &str, period: u64) -> Service {
    let mut service = checked(name, OnUnhealthy::Mark);
    Rc::make_mut(service.health.as_mut().unwrap()).start_period = seconds(period);
    service
}

impl Setup {
    fn passes(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Checked { run, failure: None });
    }

    fn fails(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Checked { run, failure: Some(ProbeFailure::TimedOut) });
    }

    /// The next check of `web.0`, which fails.
    fn fails_next(&mut self) {
        self.after(seconds(10));
        self.fails("web.0");
    }
}

#[test]
fn a_check_begins_an_interval_after_the_last_one_has_ended() {
    let mut setup = Setup::boot(vec![checked("web", OnUnhealthy::Mark)]);
    setup.forget();
    setup.at(seconds(9));
    setup.check(&[]);
    setup.at(seconds(10));
    setup.check(&["check web.0"]);
    // It takes long, and no other check begins meanwhile.
    setup.at(seconds(60));
    setup.check(&[]);
    setup.passes("web.0");
    setup.at(seconds(69));
    setup.check(&[]);
    setup.at(seconds(70));
    setup.check(&["check web.0"]);
    // A result that nobody waits for.
    setup.passes("web.0");
    setup.fails("web.0");
    setup.at(seconds(80));
    setup.check(&["check web.0"]);
}

#[test]
fn a_service_is_unhealthy_after_consecutive_failures_and_is_stopped_gracefully() {
    let mut setup = Setup::boot(vec![checked("web", OnUnhealthy::Restart)]);
    setup.fails_next();
    setup.fails_next();
    setup.after(seconds(10));
    setup.passes("web.0");
    setup.fails_next();
    setup.fails_next();
    setup.forget();
    setup.fails_next();
    setup.check(&["check web.0", "web.0 running → stopping", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.exits("web.0", 0);
    setup.check(&["web.0 stopping → backoff"]);
    assert_eq!(setup.unstable("web.0"), 1, "however long it ran");
    setup.after(seconds(1));
    setup.check(&["web.0 backoff → starting", "spawn web.0 (1 restarts)", "web.0 starting → running"]);
    // It never works: that is counted.
    setup.fails_next();
    setup.fails_next();
    setup.fails_next();
    setup.exits("web.0", 0);
    assert_eq!(setup.unstable("web.0"), 2);
    setup.after(seconds(1));
    // Once it has worked for `min_uptime`, what comes later is another failure.
    setup.after(seconds(10));
    setup.passes("web.0");
    assert_eq!(setup.unstable("web.0"), 0);
}

#[test]
fn what_is_marked_is_not_ready_until_it_is_healthy_again() {
    let web = checked("web", OnUnhealthy::Mark);
    let mut setup = Setup::boot(vec![web, Service { autostart: false, ..depending_on(&[0], service("app")) }]);
    (0..3).for_each(|_| setup.fails_next());
    setup.forget();
    setup.start("app");
    setup.check(&["app.0 stopped → waiting"]);
    (0..3).for_each(|_| setup.fails_next());
    assert_eq!(setup.only("web.0"), [""; 0], "it is told once");
    setup.after(seconds(10));
    setup.forget();
    setup.passes("web.0");
    setup.check(&[
        "web.0 is healthy",
        "app.0 waiting → starting",
        "spawn app.0 (0 restarts)",
        "app.0 starting → running",
    ]);
}

#[test]
fn an_unhealthy_service_can_end_keepalive() {
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], checked("web", OnUnhealthy::Shutdown))]);
    (0..2).for_each(|_| setup.fails_next());
    setup.forget();
    setup.fails_next();
    setup.check(&[
        "check web.0",
        "draining: unhealthy",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    setup.exits("web.0", 0);
    setup.exits("db.0", 0);
    assert_eq!(setup.only("exit"), ["exit 1"]);
}

#[test]
fn failures_in_the_start_period_do_not_count_and_a_success_ends_it() {
    let mut setup = Setup::boot(vec![with_start_period("web", 45)]);
    // The check at 40 s began in the start period, and ends after it.
    (0..3).for_each(|_| setup.fails_next());
    setup.at(seconds(40));
    setup.at(seconds(46));
    setup.fails("web.0");
    (0..2).for_each(|_| setup.fails_next());
    assert_eq!(setup.only("web.0 is"), [""; 0]);
    setup.fails_next();
    assert_eq!(setup.only("web.0 is"), ["web.0 is unhealthy"]);

    let mut setup = Setup::boot(vec![with_start_period("web", 3_600)]);
    (0..5).for_each(|_| setup.fails_next());
    setup.after(seconds(10));
    setup.passes("web.0");
    (0..3).for_each(|_| setup.fails_next());
    assert_eq!(setup.only("web.0 is"), ["web.0 is unhealthy"]);
}

#[test]
fn a_stop_waits_for_no_check() {
    let mut web = checked("web", OnUnhealthy::Restart);
    web.stop.delay = seconds(30);
    let mut setup = Setup::boot(vec![web]);
    setup.at(seconds(10));
    setup.forget();
    setup.stop("web");
    setup.check(&["abort the check of web.0", "web.0 running → stopping"]);
    setup.fails("web.0");
    setup.at(seconds(39));
    setup.check(&[]);
}

#[test]
fn nothing_is_checked_during_the_shutdown() {
    let db = checked("db", OnUnhealthy::Restart);
    let mut setup = Setup::boot(vec![db, depending_on(&[0], service("web"))]);
    setup.at(seconds(10));
    setup.forget();
    setup.signal(keepalive::model::Signal::TERM);
    assert_eq!(setup.only("abort"), ["abort the check of db.0"], "it runs on until web has stopped");
    setup.at(seconds(14));
    setup.check(&[]);
}

#[test]
fn each_process_of_a_rolling_reload_has_its_own_checks() {
    let web = || {
        let mut web = checked("web", OnUnhealthy::Mark);
        web.reload.soak = seconds(60);
        web
    };
    let mut setup = Setup::boot(vec![web()]);
    setup.at(seconds(15));
    setup.passes("web.0");
    setup.forget();
    setup.ask("web", Verb::Reload);
    setup.forget();
    setup.at(seconds(25));
    setup.check(&["check web.0", "check web.0'"]);
    setup.passes("web.0");
    setup.fails("web.0'");
    (0..2).for_each(|_| {
        setup.after(seconds(10));
        setup.passes("web.0");
        setup.forget();
        setup.fails("web.0'");
    });
    // The old one stays, though the new one would only be marked.
    assert_eq!(setup.only("web.0'"), ["web.0' running → stopping"]);
    setup.exits("web.0'", 0);
    assert!(matches!(setup.rollout_error, Some(RolloutError::ExitedBesideOld(_))));
}

#[test]
fn other_checks_need_no_other_process() {
    let mut setup = Setup::boot(vec![checked("web", OnUnhealthy::Mark)]);
    (0..3).for_each(|_| setup.fails_next());
    setup.after(seconds(10));
    setup.forget();
    setup.configure(vec![with_start_period("web", 5)]);
    let expected = "configured: 0 new, 0 removed, 0 reloaded, 1 adjusted, 0 unchanged";
    setup.check(&["adopt", "abort the check of web.0", expected, "reply 1 done"]);
    setup.after(seconds(10));
    assert_eq!(setup.only("check"), ["check web.0"]);
    setup.configure(vec![service("web")]);
    setup.forget();
    setup.after(seconds(60));
    setup.check(&[]);
    // It runs another program: with that come the checks of the new definition.
    let process = Process::new(Box::new([Template::Fixed(c"other".to_owned())]));
    setup.configure(vec![Service { process: Rc::new(process), ..checked("web", OnUnhealthy::Mark) }]);
    setup.after(seconds(10));
    assert_eq!(setup.only("check"), ["check web.0"]);
}
