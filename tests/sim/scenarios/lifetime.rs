//! `restart_schedule` and `max_lifetime`: processes that work are replaced, one after the other.

use std::time::Duration;

use keepalive::model::plan::{Ready, Reload, Service, Strategy};
use keepalive::model::{ExitStatus, Signal};
use keepalive::supervisor::{Event, Leftovers, ReadySource, RestartCause};

use super::schedule::{TEN, schedule};
use super::{Setup, seconds};
use crate::plans::service;

/// Two instances, restarted at each full hour, or after 100 s.
fn web() -> Service {
    Service { instances: 2, ready: Ready::Notify, ..service("web") }
}

fn hourly() -> Setup {
    let mut setup = Setup::boot(vec![Service { schedule: Some(schedule("0 * * * *")), ..web() }]);
    setup.send(Event::WallClock(TEN - 60));
    setup.both_ready();
    setup
}

fn short_lived(service: Service) -> Setup {
    let mut setup = Setup::boot(vec![Service { max_lifetime: Some(seconds(100)), ..service }]);
    setup.both_ready();
    setup
}

impl Setup {
    pub(super) fn both_ready(&mut self) {
        self.sends_ready("web.0");
        self.sends_ready("web.1");
        self.forget();
    }

    pub(super) fn sends_ready(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Ready { run, source: ReadySource::Notify });
    }

    /// The new process of this instance is ready, and the old one exits.
    pub(super) fn is_replaced(&mut self, name: &str) {
        self.sends_ready(&format!("{name}'"));
        self.exits(&format!("{name}'"), 0);
    }

    /// The lines that say what was started, and the beginning and the end.
    pub(super) fn starts(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().filter(|line| line.starts_with("spawn") || line.starts_with("web ")).collect()
    }

    pub(super) fn restarts(&self, cause: RestartCause) -> Vec<u32> {
        self.supervisor.view().instances().map(|instance| instance.restarts.of(cause)).collect()
    }
}

// The contract: "restart_schedule … a rolling restart".
#[test]
fn a_service_is_restarted_at_its_time_one_instance_after_the_other() {
    let mut setup = hourly();
    setup.send(Event::WallClock(TEN));
    assert_eq!(setup.starts(), ["web reloads", "spawn web.0' (1 restarts)"]);
    setup.is_replaced("web.0");
    assert_eq!(setup.starts(), ["spawn web.1' (1 restarts)"]);
    setup.is_replaced("web.1");
    assert_eq!(setup.starts(), ["web reloaded"]);
    assert_eq!(
        (setup.restarts(RestartCause::Schedule), setup.restarts(RestartCause::Reload)),
        (vec![1, 1], vec![0, 0])
    );
    setup.send(Event::WallClock(TEN + 3_600));
    assert_eq!(setup.starts(), ["web reloads", "spawn web.0' (2 restarts)"]);
}

#[test]
fn a_restart_that_is_due_during_another_one_is_skipped() {
    let mut setup = hourly();
    setup.send(Event::WallClock(TEN));
    setup.forget();
    setup.send(Event::WallClock(TEN + 3_600));
    setup.check(&["web skipped"]);
}

#[test]
fn a_restart_whose_new_process_fails_keeps_the_old_ones() {
    let mut setup = hourly();
    setup.send(Event::WallClock(TEN));
    setup.forget();
    setup.ends("web.0'", ExitStatus::Code(1), Leftovers::None);
    setup.check(&["web.0' starting → stopped", "web not reloaded"]);
}

#[test]
fn a_service_that_an_operator_has_stopped_is_not_restarted() {
    let mut setup = hourly();
    setup.stop("web");
    setup.exits("web.0", 0);
    setup.exits("web.1", 0);
    setup.forget();
    setup.send(Event::WallClock(TEN));
    setup.check(&[]);
}

// A signal would reload the process, and not replace it.
#[test]
fn a_service_that_is_reloaded_by_a_signal_is_restarted_in_place() {
    let reload = Reload { strategy: Strategy::Signal(Signal::HUP), ..service("web").reload };
    let mut setup = short_lived(Service { reload, ..web() });
    setup.at(seconds(101));
    let kills = setup.only("kill");
    assert!(kills[0].ends_with(" main SIGTERM") && !kills.iter().any(|kill| kill.contains("SIGHUP")), "{kills:?}");
}

#[test]
fn a_process_is_replaced_at_the_end_of_its_lifetime_or_up_to_a_tenth_earlier() {
    let mut setup = short_lived(Service { instances: 2, ..web() });
    setup.at(Duration::from_millis(89_999));
    setup.check(&[]);
    setup.at(seconds(101));
    let first = setup.starts();
    assert!(
        first == ["web reloads", "spawn web.0' (1 restarts)"] || first == ["web reloads", "spawn web.1' (1 restarts)"],
        "never two at once: {first:?}"
    );
    let (one, other) = if first[1].contains("web.0") { ("web.0", "web.1") } else { ("web.1", "web.0") };
    setup.is_replaced(one);
    assert_eq!(
        setup.starts(),
        ["web reloaded".to_owned(), "web reloads".to_owned(), format!("spawn {other}' (1 restarts)")]
    );
    setup.is_replaced(other);
    assert_eq!(setup.restarts(RestartCause::Lifetime), [1, 1]);
    setup.at(seconds(150));
    setup.forget();
    setup.at(seconds(202));
    assert_eq!(setup.starts().len(), 2);
}

#[test]
fn a_replacement_that_fails_is_tried_again_after_a_tenth_of_the_lifetime() {
    let mut setup = Setup::boot(vec![Service { max_lifetime: Some(seconds(100)), instances: 1, ..web() }]);
    setup.sends_ready("web.0");
    setup.at(seconds(101));
    setup.forget();
    setup.ends("web.0'", ExitStatus::Code(1), Leftovers::None);
    assert_eq!(setup.starts(), ["web not reloaded"]);
    setup.after(seconds(10));
    assert_eq!(setup.starts(), ["web reloads", "spawn web.0' (1 restarts)"]);
}

#[test]
fn a_new_limit_counts_from_the_start_of_the_process() {
    let mut setup = Setup::boot(vec![web()]);
    setup.both_ready();
    setup.at(seconds(1_000));
    setup.configure(vec![Service { max_lifetime: Some(seconds(100)), ..web() }]);
    setup.at(seconds(1_001));
    assert_eq!(setup.only("web reloads").len(), 1);
}
