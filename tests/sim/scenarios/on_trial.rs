//! What a reload or a command of an operator has started, and has not been ready since: its failure does not end keepalive.

use keepalive::model::plan::{Ready, RestartPolicy, Service, Strategy};
use keepalive::supervisor::{Request, Target, Verb};

use super::reload::{changed, notify};
use super::{Setup, Signal, depending_on, millis, seconds};
use crate::plans::{oneshot, service};

fn once(mut service: Service) -> Service {
    service.restart.policy = RestartPolicy::Never;
    service.reload.soak = seconds(1);
    service
}

fn lazy(service: Service) -> Service {
    Service { autostart: false, ..service }
}

fn off(service: Service) -> Service {
    Service { instances: 0, ..service }
}

impl Setup {
    /// Since the last check, requests were refused for these reasons, and there was no shutdown.
    #[track_caller]
    fn check_goes_on(&mut self, replies: &[&str]) {
        let lines = self.only("");
        let draining: Vec<_> = lines.iter().filter(|line| line.starts_with("draining")).collect();
        assert_eq!(draining, [""; 0], "{lines:?}");
        let given: Vec<_> = lines.iter().filter(|line| line.starts_with("reply")).collect();
        assert_eq!(given, replies, "{lines:?}");
    }
}

#[test]
fn a_reload_that_starts_a_service_for_the_first_time_does_not_end_keepalive() {
    let started = |name| depending_on(&[0], service(name));
    let reloads = [
        // A new service needs it.
        vec![lazy(once(service("a"))), service("b"), started("c")],
        // A service that runs needs it.
        vec![lazy(once(service("a"))), changed(started("b"))],
        // It starts by itself.
        vec![once(service("a")), service("b")],
    ];
    for new in reloads {
        let mut setup = Setup::boot(vec![lazy(once(service("a"))), service("b")]);
        setup.configure(new);
        setup.exits("a.0", 1);
        setup.after(seconds(60));
        let lines = setup.only("");
        assert!(!lines.iter().any(|line| line.starts_with("draining")), "{lines:?}");
        assert!(lines.iter().any(|line| line == "a failed"), "{lines:?}");
    }
}

#[test]
fn a_new_service_that_is_off_is_untried_when_it_is_scaled_up() {
    let mut setup = Setup::boot(vec![service("b")]);
    setup.configure(vec![service("b"), off(once(service("a")))]);
    setup.request(Request::Scale(setup.id("b.0").service, 1));
    setup.forget();
    for _ in 0..2 {
        setup.scale("a", 1);
        setup.exits("a.0", 1);
        setup.check_goes_on(&[&format!("reply {} Failed", setup.requests)]);
    }
}

#[test]
fn a_service_that_is_off_is_untried_when_its_definition_has_changed() {
    let mut setup = Setup::boot(vec![service("b"), off(once(service("a")))]);
    setup.configure(vec![service("b"), off(changed(once(service("a"))))]);
    setup.forget();
    setup.scale("a", 1);
    setup.exits("a.0", 1);
    setup.check_goes_on(&["reply 2 Failed"]);
}

#[test]
fn scaling_an_untried_service_to_0_proves_nothing() {
    let mut setup = Setup::boot(vec![service("b")]);
    setup.configure(vec![service("b"), once(service("a"))]);
    setup.exits("a.0", 1);
    setup.scale("a", 0);
    setup.scale("a", 1);
    setup.exits("a.0", 1);
    setup.check_goes_on(&["reply 1 Failed", "reply 2 done", "reply 3 Failed"]);
}

/// The process of the old definition, which is ready, proves nothing about the new one.
#[test]
fn a_definition_whose_reload_was_interrupted_is_untried() {
    for is_scaled in [false, true] {
        let mut setup = Setup::boot(vec![service("b"), once(service("a"))]);
        setup.configure(vec![service("b"), changed(once(notify("a", 1)))]);
        if is_scaled {
            setup.scale("a", 0);
        } else {
            setup.stop("a");
        }
        setup.exits("a.0'", 0);
        setup.exits("a.0", 0);
        setup.check_goes_on(&["reply 1 ReloadFailed", "reply 2 done"]);
        if is_scaled {
            setup.scale("a", 1);
        } else {
            setup.start("a");
        }
        setup.exits("a.0", 3);
        let lines = setup.only("");
        assert!(lines.contains(&"a rolled back".into()) && lines.contains(&"reply 3 Failed".into()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("draining")), "{lines:?}");
    }
}

/// While a reload waits for a dependency, a process of the old definition exits, and one of the new definition takes its place.
#[test]
fn what_fails_while_its_reload_waits_does_not_end_keepalive() {
    let web = depending_on(&[0], notify("web", 1));
    let mut setup = Setup::boot(vec![notify("db", 1), web.clone()]);
    setup.report_ready("db.0");
    setup.report_ready("web.0");
    setup.exits("db.0", 1);
    setup.configure(vec![notify("db", 1), changed(once(web))]);
    setup.exits("web.0", 1);
    setup.after(millis(500));
    setup.forget();
    setup.exits("web.0", 1);
    setup.check_goes_on(&[]);
    setup.report_ready("db.0");
    setup.report_ready("web.0");
    setup.after(seconds(1));
    setup.check_goes_on(&["reply 1 done"]);
}

#[test]
fn a_command_that_starts_an_optional_service_does_not_end_keepalive() {
    let optional = [lazy(once(service("a"))), lazy(once(oneshot("a"))), off(once(service("a")))];
    for service_a in optional {
        let is_off = service_a.instances == 0;
        let mut setup = Setup::boot(vec![service("b"), service_a]);
        for number in 1..3 {
            setup.forget();
            if is_off {
                setup.scale("a", 1);
            } else {
                setup.start("a");
            }
            setup.exits("a.0", 1);
            setup.check_goes_on(&[&format!("reply {number} Failed")]);
        }
    }
}

#[test]
fn a_dependency_that_a_command_has_started_does_not_end_keepalive() {
    let mut setup = Setup::boot(vec![once(service("db")), depending_on(&[0], service("web")), service("b")]);
    setup.request(Request::Several([Target::Service(setup.id("db.0").service)].into(), Verb::Stop));
    setup.stop("web");
    setup.exits("web.0", 0);
    setup.exits("db.0", 0);
    setup.forget();
    setup.start("web");
    setup.after(millis(500));
    setup.exits("db.0", 1);
    setup.after(seconds(3));
    setup.exits("web.0", 1);
    let lines = setup.only("draining");
    assert_eq!(lines, [""; 0]);
}

/// Also if nothing else runs: a service that an operator has stopped keeps keepalive running, too.
#[test]
fn a_restart_that_fails_does_not_end_keepalive() {
    let mut setup = Setup::boot(vec![once(service("web"))]);
    setup.after(seconds(3_600));
    setup.restart("web");
    setup.exits("web.0", 0);
    setup.exits("web.0", 1);
    setup.after(seconds(86_400));
    setup.check_goes_on(&["reply 1 Failed"]);
    setup.start("web");
    setup.after(seconds(1));
    setup.check_goes_on(&["reply 2 done"]);
    setup.exits("web.0", 1);
    assert_eq!(setup.only("draining"), ["draining: failed"]);
}

/// What was started at boot ends keepalive, also if somebody waits for it with `start`.
#[test]
fn a_start_of_what_is_starting_changes_nothing() {
    let mut setup = Setup::boot(vec![service("b"), once(notify("web", 1))]);
    setup.start("web");
    setup.exits("web.0", 1);
    assert_eq!(setup.only("draining"), ["draining: failed"]);
}

/// A oneshot that fails may be tried again for long: a start is answered as that of a service.
#[test]
fn a_start_of_a_oneshot_fails_with_its_first_attempt() {
    let mut setup = Setup::boot(vec![service("b"), lazy(oneshot("migrate"))]);
    setup.start("migrate");
    setup.exits("migrate.0", 1);
    setup.check_goes_on(&["reply 1 Died"]);
    setup.after(seconds(1));
    setup.exits("migrate.0", 0);
    setup.start("migrate");
    setup.exits("migrate.0", 0);
    setup.check_goes_on(&["reply 2 done"]);
}

/// "A reload of an instance that is stopped meanwhile fails, with the reason that another request has superseded it."
#[test]
fn a_reload_fails_when_its_service_is_scaled_to_0() {
    let mut setup = Setup::boot(vec![service("b"), notify("web", 2)]);
    for id in ["web.0", "web.1"] {
        setup.report_ready(id);
    }
    setup.ask("web", Verb::Reload);
    setup.forget();
    setup.scale("web", 0);
    for id in ["web.0'", "web.0", "web.1"] {
        setup.exits(id, 0);
    }
    setup.check_goes_on(&["reply 1 ReloadFailed", "reply 2 done"]);
}

fn by_signal(mut service: Service) -> Service {
    service.reload.strategy = Strategy::Signal(Signal::HUP);
    once(service)
}

/// A process without a handler dies of the signal: that is a failed reload.
#[test]
fn what_a_reload_by_signal_kills_does_not_end_keepalive() {
    for web in [service("web"), notify("web", 1)] {
        let mut setup = Setup::boot(vec![by_signal(web.clone()), service("b")]);
        if web.ready == Ready::Notify {
            setup.report_ready("web.0");
        }
        setup.at(seconds(5));
        setup.forget();
        setup.reload("web");
        setup.exits("web.0", 1);
        setup.check_goes_on(&["reply 1 ReloadFailed"]);
    }
}

#[test]
fn what_survives_the_signal_of_a_reload_can_end_keepalive_afterwards() {
    let mut setup = Setup::boot(vec![by_signal(service("web")), service("b")]);
    setup.at(seconds(5));
    setup.reload("web");
    setup.after(seconds(1));
    setup.exits("web.0", 1);
    let lines = setup.only("");
    assert!(lines.iter().any(|line| line.starts_with("draining")), "{lines:?}");
}

/// There is no old process any more that a longer `soak` would keep.
#[test]
fn a_restart_by_a_reload_fails_if_the_new_process_exits_within_a_second() {
    for lasts in [millis(900), millis(1_100)] {
        let mut web = Service { ready: Ready::Exec, ..service("web") };
        (web.reload.strategy, web.reload.soak) = (Strategy::Restart, millis(0));
        let mut setup = Setup::boot(vec![web, service("b")]);
        setup.at(seconds(5));
        setup.forget();
        setup.reload("web");
        setup.exits("web.0", 0);
        setup.after(lasts);
        setup.exits("web.0", 1);
        setup.check_goes_on(&[if lasts < seconds(1) { "reply 1 ReloadFailed" } else { "reply 1 done" }]);
    }
}
