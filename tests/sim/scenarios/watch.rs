//! `watch`: a service is restarted when its files change.

use std::rc::Rc;

use keepalive::model::plan::{Kind, Ready, Restart, Service};
use keepalive::model::{ExitStatus, ServiceIndex};
use keepalive::supervisor::{Event, Leftovers, RestartCause};

use super::{Setup, seconds};
use crate::plans::{service, watch};

/// Two instances.
fn web() -> Service {
    Service { instances: 2, ready: Ready::Notify, watch: Some(Rc::new(watch())), ..service("web") }
}

fn single(kind: Kind) -> Service {
    Service { kind, watch: Some(Rc::new(watch())), ..service("web") }
}

fn ready() -> Setup {
    let mut setup = Setup::boot(vec![web()]);
    setup.both_ready();
    setup
}

impl Setup {
    fn change(&mut self) {
        self.send(Event::FilesChanged { service: ServiceIndex(0) });
    }
}

#[test]
fn a_service_is_restarted_one_instance_after_the_other() {
    let mut setup = ready();
    setup.change();
    assert_eq!(setup.starts(), ["web reloads", "spawn web.0' (1 restarts)"]);
    setup.is_replaced("web.0");
    setup.is_replaced("web.1");
    assert_eq!(setup.restarts(RestartCause::Watch), [1, 1]);
}

#[test]
fn changes_during_a_restart_lead_to_one_more() {
    let mut setup = ready();
    setup.change();
    setup.change();
    setup.is_replaced("web.0");
    setup.change();
    setup.forget();
    setup.is_replaced("web.1");
    assert_eq!(setup.starts(), ["web reloaded", "web reloads", "spawn web.0' (2 restarts)"]);
    setup.is_replaced("web.0");
    setup.is_replaced("web.1");
    setup.forget();
    setup.at(seconds(100));
    setup.check(&[]);
}

#[test]
fn a_restart_that_fails_keeps_the_old_processes_and_the_next_change_tries_again() {
    let mut setup = ready();
    setup.change();
    setup.forget();
    setup.ends("web.0'", ExitStatus::Code(1), Leftovers::None);
    setup.check(&["web.0' starting → stopped", "web not reloaded"]);
    setup.change();
    assert_eq!(setup.starts(), ["web reloads", "spawn web.0' (1 restarts)"]);
}

#[test]
fn a_service_in_backoff_starts_at_once() {
    let restart = Restart { delay: seconds(50), ..service("web").restart };
    let mut setup = Setup::boot(vec![Service { restart, ..single(Kind::Service) }]);
    for time in 1..6 {
        setup.ends("web.0", ExitStatus::Code(1), Leftovers::None);
        setup.at(seconds(100 * time));
    }
    setup.ends("web.0", ExitStatus::Code(1), Leftovers::None);
    setup.forget();
    setup.change();
    assert!(setup.lines.iter().any(|line| line.starts_with("spawn web.0 ")), "{:?}", setup.lines);
    assert_eq!(setup.supervisor.view().instances().next().unwrap().unstable, 0);
}

#[test]
fn a_service_that_has_failed_is_kept_and_starts_at_once() {
    let restart = Restart { max_restarts: Some(0), ..service("web").restart };
    let on_failure = keepalive::model::plan::ExitAction::Ignore;
    let mut setup = Setup::boot(vec![Service { restart, on_failure, ..single(Kind::Service) }]);
    setup.ends("web.0", ExitStatus::Code(1), Leftovers::None);
    setup.forget();
    setup.change();
    assert_eq!(setup.starts(), ["spawn web.0 (1 restarts)"]);
}

#[test]
fn a_service_that_an_operator_has_stopped_stays_stopped() {
    let mut setup = ready();
    setup.stop("web");
    setup.change();
    setup.exits("web.0", 0);
    setup.exits("web.1", 0);
    setup.forget();
    setup.change();
    setup.check(&[]);
}

#[test]
fn a_oneshot_runs_again_and_once_more_after_changes_during_its_run() {
    let mut setup = Setup::boot(vec![single(Kind::Oneshot)]);
    setup.exits("web.0", 0);
    setup.forget();
    setup.change();
    assert_eq!(setup.starts(), ["spawn web.0 (1 restarts)"]);
    setup.change();
    setup.change();
    assert_eq!(setup.starts(), [""; 0]);
    setup.exits("web.0", 0);
    assert_eq!(setup.starts(), ["spawn web.0 (2 restarts)"]);
    setup.exits("web.0", 0);
    assert_eq!(setup.starts(), [""; 0]);
}

#[test]
fn a_service_without_watch_is_not_restarted() {
    let mut setup = Setup::boot(vec![Service { watch: None, ..web() }]);
    setup.both_ready();
    setup.change();
    setup.check(&[]);
}
