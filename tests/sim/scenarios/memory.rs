//! `max_memory`: processes that use too much are replaced, one after the other.

use std::time::Duration;

use keepalive::model::MemoryUse;
use keepalive::model::plan::{ExitAction, Ready, Reload, Restart, RestartPolicy, Service, Strategy};
use keepalive::supervisor::{Event, ReadySource, RestartCause};

use super::{Setup, seconds};
use crate::plans::service;

const LIMIT: u64 = 100 << 20;

/// Two instances that have been up for an hour.
fn limited() -> Setup {
    let web = Service { instances: 2, ready: Ready::Notify, max_memory: Some(LIMIT), ..service("web") };
    let mut setup = Setup::boot(vec![web]);
    for name in ["web.0", "web.1"] {
        setup.becomes_ready(name);
    }
    setup.measured(&[("web.0", 0), ("web.1", 0)]);
    setup.after(seconds(3_600));
    setup
}

impl Setup {
    fn becomes_ready(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Ready { run, source: ReadySource::Notify });
    }

    /// Time passes until the next measurement, and these instances use so much: in percent of the limit.
    fn measured(&mut self, percent: &[(&str, u64)]) -> Duration {
        let before = self.now;
        while !self.lines.iter().any(|line| line == "measure memory") {
            let next = self.next().expect("a deadline");
            self.after(next);
        }
        let uses = |&(name, percent): &(&str, u64)| {
            (self.run(name), MemoryUse { bytes: LIMIT * percent / 100, is_proportional: true })
        };
        let used = percent.iter().map(uses).collect();
        self.forget();
        let waited = self.now.since(before);
        self.send(Event::MemoryMeasured(used));
        waited
    }

    /// The new process of this instance is ready, and the old one exits.
    fn is_replaced_by_second(&mut self, name: &str) {
        self.becomes_ready(&format!("{name}'"));
        self.exits(&format!("{name}'"), 0);
    }

    fn starts_and_reloads(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().filter(|line| line.starts_with("spawn") || line.starts_with("web ")).collect()
    }
}

// PM2 measures every 30 seconds and kills a process in the middle of its work.
#[test]
fn instances_that_use_too_much_are_replaced_one_after_the_other() {
    let mut setup = limited();
    setup.measured(&[("web.0", 101), ("web.1", 150)]);
    assert_eq!(setup.starts_and_reloads(), ["web reloads", "spawn web.0' (1 restarts)"]);
    setup.is_replaced_by_second("web.0");
    assert_eq!(setup.starts_and_reloads(), ["web reloaded", "web reloads", "spawn web.1' (1 restarts)"]);
    setup.is_replaced_by_second("web.1");
    assert_eq!(setup.starts_and_reloads(), ["web reloaded"]);
    let restarts: Vec<_> =
        setup.supervisor.view().instances().map(|one| one.restarts.of(RestartCause::Memory)).collect();
    assert_eq!(restarts, [1, 1]);
}

#[test]
fn the_closer_to_the_limit_the_sooner_it_is_measured_again_but_once_a_second_at_most() {
    let mut setup = limited();
    setup.measured(&[("web.0", 0), ("web.1", 0)]);
    assert_eq!(setup.measured(&[("web.0", 50), ("web.1", 10)]), seconds(30));
    assert_eq!(setup.measured(&[("web.0", 99), ("web.1", 10)]), seconds(15));
    assert_eq!(setup.measured(&[("web.0", 50)]), seconds(1));
    assert_eq!(setup.measured(&[]), seconds(5), "one could not be measured");
    assert_eq!(setup.starts_and_reloads(), [""; 0]);
}

#[test]
fn a_process_that_needs_too_much_at_once_is_not_replaced_before_its_min_uptime() {
    let mut setup = Setup::boot(vec![Service { max_memory: Some(LIMIT), ..service("web") }]);
    let min_uptime = setup.supervisor.view().services().next().unwrap().definition.restart.min_uptime;
    setup.forget();
    let started = setup.now;
    while setup.lines.iter().all(|line| !line.starts_with("web reloads")) {
        setup.lines.retain(|line| line != "measure memory");
        setup.measured(&[("web.0", 200)]);
    }
    assert!(setup.now.since(started) >= min_uptime);
}

#[test]
fn a_replacement_that_fails_is_tried_again_after_a_minute_if_it_is_still_too_large() {
    let mut setup = limited();
    setup.measured(&[("web.0", 200), ("web.1", 10)]);
    setup.exits("web.0'", 1);
    let lines = setup.starts_and_reloads();
    assert!(lines.iter().any(|line| line.starts_with("web not reloaded")), "{lines:?}");
    let failed = setup.now;
    while setup.starts_and_reloads().is_empty() {
        setup.measured(&[("web.0", 200), ("web.1", 10)]);
    }
    let waited = setup.now.since(failed);
    assert!(waited >= seconds(59) && waited <= seconds(62), "{waited:?}");
}

#[test]
fn a_process_that_uses_less_again_is_not_replaced() {
    let mut setup = limited();
    setup.measured(&[("web.0", 200), ("web.1", 200)]);
    setup.measured(&[("web.0", 200), ("web.1", 20)]);
    setup.is_replaced_by_second("web.0");
    assert_eq!(setup.starts_and_reloads(), ["web reloaded"]);
}

#[test]
fn a_new_limit_applies_to_the_running_process_and_without_one_nothing_is_measured() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.forget();
    assert_eq!(setup.supervisor.poll(), keepalive::supervisor::Step::Wait { until: None });
    setup.configure(vec![Service { max_memory: Some(LIMIT), ..service("web") }]);
    assert_eq!(setup.measured(&[("web.0", 0)]), seconds(1));
    setup.configure(vec![service("web")]);
    setup.measured(&[("web.0", 500)]);
    assert_eq!(setup.supervisor.poll(), keepalive::supervisor::Step::Wait { until: None });
    assert_eq!(setup.lines, [""; 0]);
}

#[test]
fn a_planned_restart_that_fails_ends_keepalive_as_any_other_failure_does() {
    let reload = Reload { strategy: Strategy::Restart, ..service("web").reload };
    let web = Service { max_memory: Some(LIMIT), reload, on_failure: ExitAction::Shutdown, ..service("web") };
    let restart = Restart { policy: RestartPolicy::Never, ..web.restart };
    let mut setup = Setup::boot(vec![Service { restart, ..web }]);
    setup.measured(&[("web.0", 0)]);
    setup.after(seconds(3_600));
    setup.measured(&[("web.0", 200)]);
    setup.exits("web.0", 0);
    setup.exits("web.0", 7);
    assert!(setup.lines.iter().any(|line| line == "exit 7"), "{:?}", setup.lines);
}
