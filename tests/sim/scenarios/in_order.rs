//! Requests for several services keep to the order of their dependencies.

use keepalive::supervisor::{Request, Target, Verb};

use super::{Setup, depending_on, seconds};
use crate::plans::{oneshot, service};

impl Setup {
    pub(super) fn ask_all(&mut self, verb: Verb) {
        self.request(Request::Control(Target::All, verb));
    }

    fn ask_several(&mut self, names: &[&str], verb: Verb) {
        let targets = names.iter().map(|name| self.target(name)).collect();
        self.request(Request::Several(targets, verb));
    }
}

/// `proxy` depends on `web`, which depends on `db`; `other` on nothing. In the plan, dependents come first.
fn boot() -> Setup {
    let services =
        vec![depending_on(&[1], service("proxy")), depending_on(&[2], service("web")), service("db"), service("other")];
    let mut setup = Setup::boot(services);
    setup.after(seconds(20));
    setup.forget();
    setup
}

const STOPS: [&str; 4] = ["proxy", "other", "web", "db"];

#[test]
fn a_stop_of_all_stops_dependents_first_and_the_rest_at_once() {
    for several in [false, true] {
        let mut setup = boot();
        if several {
            setup.ask_several(&["db", "proxy", "other", "web"], Verb::Stop)
        } else {
            setup.ask_all(Verb::Stop)
        }
        assert_eq!(setup.only("kill").len(), 4, "proxy and other, each two signals");
        setup.exits("other", 0);
        setup.check(&["other.0 stopping → stopped"]);
        setup.exits("proxy", 0);
        setup.check(&[
            "proxy.0 stopping → stopped",
            "web.0 running → stopping",
            "kill web.0 main SIGTERM",
            "kill web.0 main SIGCONT",
        ]);
        setup.exits("web", 0);
        setup.exits("db", 0);
        assert_eq!(setup.only("reply"), ["reply 1 done"]);
    }
}

#[test]
fn a_start_of_all_after_a_stop_starts_dependencies_first() {
    let mut setup = boot();
    setup.ask_all(Verb::Stop);
    STOPS.into_iter().for_each(|name| setup.exits(name, 0));
    setup.forget();
    setup.ask_several(&["proxy", "web", "db"], Verb::Start);
    assert_eq!(setup.only("spawn"), ["db", "web", "proxy"].map(|name| format!("spawn {name}.0 (1 restarts)")));
    setup.after(seconds(1));
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
}

/// Also while they are still being stopped.
#[test]
fn a_start_also_starts_dependencies_that_an_operator_has_stopped() {
    for has_stopped in [true, false] {
        let mut setup = boot();
        setup.ask_all(Verb::Stop);
        if has_stopped {
            STOPS.into_iter().for_each(|name| setup.exits(name, 0));
        } else {
            // The stop of `db` has not begun, and is cancelled.
            ["proxy", "other"].into_iter().for_each(|name| setup.exits(name, 0));
        }
        setup.forget();
        setup.ask_several(&["proxy"], Verb::Start);
        if has_stopped {
            assert_eq!(setup.only("spawn"), ["db", "web", "proxy"].map(|name| format!("spawn {name}.0 (1 restarts)")));
        } else {
            setup.exits("web", 0);
            assert_eq!(setup.only("spawn"), ["web", "proxy"].map(|name| format!("spawn {name}.0 (1 restarts)")));
        }
        setup.after(seconds(1));
        assert_eq!(setup.only("reply").last().unwrap(), "reply 2 done");
    }
}

#[test]
fn a_start_of_what_waits_starts_what_it_waits_for() {
    let mut setup = boot();
    setup.ask_all(Verb::Stop);
    STOPS.into_iter().for_each(|name| setup.exits(name, 0));
    setup.spawns = super::Spawns::Pending;
    setup.start("proxy");
    setup.stop("db");
    setup.exits("db", 0);
    setup.forget();
    setup.spawns = super::Spawns::Executed;
    setup.start("proxy");
    assert_eq!(setup.only("spawn").first().unwrap(), "spawn db.0 (2 restarts)");
}

#[test]
fn a_restart_of_all_stops_dependents_first_and_starts_them_last() {
    let mut setup = boot();
    setup.ask_all(Verb::Restart);
    setup.exits("other", 0);
    setup.exits("proxy", 0);
    setup.exits("web", 0);
    setup.forget();
    setup.exits("db", 0);
    assert_eq!(setup.only("spawn"), ["db", "web", "proxy"].map(|name| format!("spawn {name}.0 (1 restarts)")));
    setup.after(seconds(1));
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
}

/// A client that has gone changes nothing, another request does.
#[test]
fn an_ordered_stop_goes_on_without_its_client_until_another_request() {
    let mut setup = boot();
    setup.ask_all(Verb::Restart);
    setup.send(keepalive::supervisor::Event::Withdrawn(keepalive::supervisor::RequestId(1)));
    setup.exits("proxy", 0);
    setup.start("db");
    setup.forget();
    setup.exits("web", 0);
    setup.check(&[
        "web.0 stopping → starting",
        "spawn web.0 (1 restarts)",
        "web.0 starting → running",
        "proxy.0 waiting → starting",
        "spawn proxy.0 (1 restarts)",
        "proxy.0 starting → running",
    ]);
}

#[test]
fn a_restart_of_all_leaves_alone_what_does_not_run() {
    let mut never = service("never");
    never.autostart = false;
    let mut setup = Setup::boot(vec![service("db"), depending_on(&[0], service("web")), service("off"), never]);
    setup.stop("off");
    setup.exits("off", 0);
    setup.after(seconds(20));
    setup.forget();
    setup.ask_all(Verb::Restart);
    setup.exits("web", 0);
    setup.exits("db", 0);
    assert_eq!(setup.only("spawn"), ["db", "web"].map(|name| format!("spawn {name}.0 (1 restarts)")));
    setup.after(seconds(1));
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
    setup.forget();
    setup.ask_all(Verb::Start);
    assert_eq!(setup.only("spawn"), ["spawn off.0 (1 restarts)", "spawn never.0 (0 restarts)"]);
    // `web` could not start again.
    setup.stop("db");
    setup.exits("db", 0);
    setup.forget();
    setup.ask_all(Verb::Restart);
    setup.check(&["reply 5 DependencyUnavailable"]);
}

#[test]
fn what_has_completed_runs_again_only_by_its_name() {
    let mut setup = Setup::boot(vec![oneshot("migrate"), depending_on(&[0], service("web"))]);
    setup.exits("migrate", 0);
    for (verb, spawns) in [(Verb::Start, 0), (Verb::Restart, 1)] {
        setup.forget();
        setup.ask_all(verb);
        if verb == Verb::Restart {
            setup.exits("web", 0);
        }
        let spawned = setup.only("spawn");
        assert_eq!(spawned.iter().filter(|line| line.contains("web")).count(), spawns);
        assert!(spawned.iter().all(|line| !line.contains("migrate")), "{spawned:?}");
    }
    setup.restart("migrate");
    assert_eq!(setup.only("spawn"), ["spawn migrate.0 (1 restarts)"]);
}
