//! Loads of a new configuration.

use std::rc::Rc;

use keepalive::model::plan::{ExitAction, RestartPolicy, Service};

use super::reload::{boot_ready, changed, notify};
use super::*;
use crate::plans::{oneshot, plan, service};

impl Setup {
    pub(super) fn configure(&mut self, services: Vec<Service>) {
        let plan = self.plan.merged(plan(services));
        self.request(Request::ReloadConfig);
        self.send(Event::ConfigLoaded { id: Some(RequestId(self.requests)), plan: Rc::new(plan) });
    }
}

#[test]
fn a_new_configuration_affects_only_changed_services() {
    let mut setup = boot_ready(vec![notify("web", 1), notify("db", 1), notify("gone", 1)]);
    let mut db = notify("db", 1);
    db.restart.min_uptime = seconds(1);
    setup.configure(vec![db, notify("new", 1), changed(notify("web", 1))]);
    setup.check(&[
        "adopt",
        "new.0 stopped → waiting",
        "new.0 waiting → starting",
        "spawn new.0 (0 restarts)",
        "web reloads",
        "configured: 1 new, 1 removed, 1 reloaded, 1 adjusted, 0 unchanged",
        "web.0' stopped → starting",
        "spawn web.0' (1 restarts)",
        "gone.0 running → stopping",
        "kill gone.0 main SIGTERM",
        "kill gone.0 main SIGCONT",
    ]);
}

#[test]
fn an_unchanged_configuration_changes_nothing() {
    let mut setup = boot_ready(vec![notify("web", 2), notify("db", 1)]);
    setup.configure(vec![notify("db", 1), notify("web", 2)]);
    setup.check(&["adopt", "configured: 0 new, 0 removed, 0 reloaded, 0 adjusted, 2 unchanged", "reply 1 done"]);
}

#[test]
fn a_failed_new_version_is_rolled_back() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.configure(vec![changed(notify("web", 2))]);
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    setup.forget();
    // The second process fails.
    setup.exits("web.1'", 1);
    setup.check(&[
        "web.1' starting → stopped",
        "web rolled back",
        "adopt",
        "web.0' stopped → starting",
        "spawn web.0' (2 restarts)",
    ]);
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("reply"), ["reply 1 ReloadFailed"]);
    assert_eq!(*setup.plan, plan(vec![notify("web", 2)]));
}

#[test]
fn a_removed_service_stops_after_its_dependents() {
    let mut setup = boot_ready(vec![notify("db", 1), depending_on(&[0], notify("web", 1)), notify("other", 1)]);
    setup.configure(vec![notify("other", 1)]);
    assert_eq!(setup.only("kill"), ["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.exits("web.0", 0);
    assert_eq!(setup.only("kill"), ["kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    setup.exits("db.0", 0);
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
    assert_eq!(setup.supervisor.view().services().count(), 1);
    // It can be added again.
    setup.configure(vec![notify("other", 1), notify("db", 1)]);
    assert_eq!(setup.only("spawn"), ["spawn db.0 (0 restarts)"]);
}

#[test]
fn a_new_configuration_can_change_the_number_of_instances() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.configure(vec![notify("web", 3)]);
    assert_eq!(setup.only("spawn"), ["spawn web.2 (0 restarts)"]);
    setup.report_ready("web.2");
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
    setup.configure(vec![notify("web", 1)]);
    assert_eq!(setup.only("kill").len(), 4);
}

#[test]
fn a_failed_service_starts_again_when_its_definition_changes() {
    let mut web = notify("web", 1);
    web.on_failure = ExitAction::Ignore;
    web.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![web.clone(), service("db")]);
    setup.exits("web.0", 1);
    setup.forget();
    setup.configure(vec![changed(web), service("db")]);
    assert_eq!(setup.only("spawn"), ["spawn web.0 (1 restarts)"]);
}

#[test]
fn no_configuration_is_loaded_during_a_shutdown() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.signal(Signal::HUP);
    setup.check(&["configreloadrequested", "configure"]);
    setup.signal(Signal::TERM);
    setup.forget();
    setup.signal(Signal::HUP);
    setup.check(&["signalignored"]);
    setup.configure(vec![notify("web", 2)]);
    setup.check(&["reply 1 ShuttingDown"]);
}

#[test]
fn a_new_dependency_is_ready_before_the_new_version_starts() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.configure(vec![notify("db", 1), depending_on(&[0], changed(notify("web", 1)))]);
    assert_eq!(setup.only("spawn"), ["spawn db.0 (0 restarts)"]);
    setup.report_ready("db.0");
    assert_eq!(setup.only("spawn"), ["spawn web.0' (1 restarts)"]);
}

#[test]
fn a_changed_oneshot_succeeds_before_its_dependents_are_reloaded() {
    let mut setup = Setup::boot(vec![oneshot("migrate"), depending_on(&[0], notify("web", 1))]);
    setup.exits("migrate.0", 0);
    setup.report_ready("web.0");
    setup.forget();
    setup.configure(vec![changed(oneshot("migrate")), depending_on(&[0], changed(notify("web", 1)))]);
    assert_eq!(setup.only("spawn"), ["spawn migrate.0 (1 restarts)"]);
    setup.exits("migrate.0", 0);
    assert_eq!(setup.only("spawn"), ["spawn web.0' (1 restarts)"]);
}

#[test]
fn a_failure_of_a_changed_oneshot_rolls_its_dependents_back() {
    let job = Service { on_failure: ExitAction::Ignore, ..oneshot("migrate") };
    let last = |mut service: Service| {
        service.restart.policy = RestartPolicy::Never;
        service
    };
    let mut setup = Setup::boot(vec![job.clone(), depending_on(&[0], notify("web", 1))]);
    setup.exits("migrate.0", 0);
    setup.report_ready("web.0");
    setup.configure(vec![changed(last(job)), depending_on(&[0], changed(notify("web", 1)))]);
    setup.forget();
    setup.exits("migrate.0", 1);
    assert_eq!(setup.only("web"), ["web rolled back", "web not reloaded"]);
    assert_eq!(
        setup.plan.services[1],
        plan(vec![service("migrate"), depending_on(&[0], notify("web", 1))]).services[1]
    );
}

#[test]
fn a_waiting_reload_is_superseded_by_a_newer_configuration() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.configure(vec![notify("db", 1), depending_on(&[0], changed(notify("web", 1)))]);
    setup.forget();
    // The database does not become ready, and the next configuration has none.
    setup.configure(vec![changed(notify("web", 1))]);
    assert_eq!(setup.only("reply"), ["reply 1 Several"]);
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    setup.exits("db.0", 0);
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
}

#[test]
fn the_number_of_instances_changes_only_if_the_new_version_succeeds() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.configure(vec![changed(notify("web", 3))]);
    assert_eq!(setup.only("spawn"), ["spawn web.0' (1 restarts)"]);
    setup.exits("web.0'", 1);
    assert_eq!(setup.only("reply"), ["reply 1 ReloadFailed"]);
    assert_eq!(setup.supervisor.view().instances().count(), 2);
    setup.configure(vec![changed(notify("web", 1))]);
    setup.forget();
    setup.exits("web.0'", 1);
    assert_eq!(setup.only("reply"), ["reply 2 ReloadFailed"]);
    assert_eq!(setup.only("kill"), [""; 0]);
    setup.configure(vec![changed(notify("web", 1))]);
    setup.report_ready("web.0'");
    setup.forget();
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("kill"), ["kill web.1 main SIGTERM", "kill web.1 main SIGCONT"]);
    assert_eq!(setup.only("reply"), [""; 0]);
    setup.exits("web.1", 0);
    assert_eq!(setup.only("reply"), ["reply 3 done"]);
}

#[test]
fn a_service_that_is_added_again_during_its_removal_restarts() {
    let mut setup = boot_ready(vec![notify("web", 1), notify("db", 1)]);
    setup.configure(vec![notify("web", 1)]);
    setup.configure(vec![notify("web", 1), notify("db", 1)]);
    setup.forget();
    setup.exits("db.0", 0);
    assert_eq!(setup.only("spawn"), ["spawn db.0 (1 restarts)"]);
    setup.report_ready("db.0");
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
}

/// The number that an operator has set applies until the configuration limits it.
#[test]
fn a_service_limited_to_one_instance_loses_its_scaled_instances() {
    let mut web = notify("web", 1);
    let mut setup = boot_ready(vec![web.clone()]);
    setup.scale("web", 2);
    setup.report_ready("web.1");
    setup.forget();
    let file = keepalive::model::Template::Fixed(c"/data/state".to_owned());
    Rc::make_mut(&mut web.process).state = Some(keepalive::model::plan::State { size: 1, persist: Some(file) });
    setup.configure(vec![web]);
    assert_eq!(setup.only("web scaled"), ["web scaled 2 → 1"]);
    setup.exits("web.1", 0);
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
    setup.scale("web", 2);
    assert_eq!(setup.only("reply"), ["reply 3 TooMany"]);
}

#[test]
fn a_rolled_back_service_stops_before_its_dependency() {
    let mut setup = boot_ready(vec![notify("db", 1), depending_on(&[0], notify("web", 1))]);
    setup.configure(vec![notify("db", 1), changed(notify("web", 1))]);
    setup.exits("web.0'", 1);
    assert_eq!(setup.only("reply"), ["reply 1 ReloadFailed"]);
    setup.signal(Signal::TERM);
    assert_eq!(setup.only("kill"), ["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
}

#[test]
fn a_removed_dependency_stops_only_after_the_new_version_has_succeeded() {
    let mut setup = boot_ready(vec![notify("db", 1), depending_on(&[0], notify("web", 1))]);
    setup.configure(vec![changed(notify("web", 1))]);
    setup.exits("web.0'", 1);
    // It has been rolled back and needs its database.
    assert_eq!(setup.only("kill"), [""; 0]);
    setup.configure(vec![changed(notify("web", 1))]);
    setup.report_ready("web.0'");
    setup.forget();
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("kill"), ["kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    setup.exits("db.0", 0);
    assert_eq!(setup.supervisor.view().services().count(), 1);
}

#[test]
fn a_configuration_that_cannot_be_loaded_changes_nothing() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.request(Request::ReloadConfig);
    setup.check(&[]);
    let reason = "keepalive.toml:1:1: what is this".into();
    setup.send(Event::ConfigLoadFailed { id: Some(RequestId(1)), reason });
    setup.check(&["configuration not loaded: keepalive.toml:1:1: what is this", "reply 1 ConfigLoadFailed"]);
    setup.send(Event::ConfigLoadFailed { id: None, reason: "it is empty".into() });
    setup.check(&["configuration not loaded: it is empty"]);
}

#[test]
fn a_withdrawn_load_still_takes_effect_if_it_has_begun() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.request(Request::ReloadConfig);
    setup.send(Event::Withdrawn(RequestId(1)));
    setup.check(&["withdraw configuration for 1"]);
    let plan = setup.plan.merged(plan(vec![notify("web", 1)]));
    setup.send(Event::ConfigLoaded { id: Some(RequestId(1)), plan: Rc::new(plan) });
    setup.check(&["adopt", "configured: 0 new, 0 removed, 0 reloaded, 0 adjusted, 1 unchanged"]);
}

#[test]
fn a_shutdown_cancels_a_configuration_load() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.request(Request::ReloadConfig);
    setup.signal(Signal::TERM);
    setup.check_releases(&["configuration"]);
    assert_eq!(setup.only("reply"), ["reply 1 ShuttingDown"]);
    // The result of the load may already be on its way.
    let plan = setup.plan.merged(plan(vec![notify("db", 1)]));
    setup.send(Event::ConfigLoaded { id: Some(RequestId(1)), plan: Rc::new(plan) });
    setup.send(Event::ConfigLoadFailed { id: None, reason: "it is empty".into() });
    setup.check(&[]);
}

#[test]
fn the_resources_of_a_service_are_released_with_its_last_instance() {
    let mut setup = boot_ready(vec![notify("web", 2), notify("db", 1)]);
    setup.configure(vec![notify("db", 1)]);
    setup.check_releases(&[]);
    setup.exits("web.0", 0);
    setup.check_releases(&["release web.0"]);
    setup.exits("web.1", 0);
    setup.check_releases(&["release web.1", "remove web.1", "remove web.0", "release web"]);
}

/// "Its failure fails the reload, the service goes back to the definition that worked."
#[test]
fn a_changed_oneshot_that_fails_is_not_retried_and_fails_the_reload_at_once() {
    let mut setup = Setup::boot(vec![oneshot("migrate"), depending_on(&[0], service("web"))]);
    setup.exits("migrate.0", 0);
    setup.forget();
    setup.configure(vec![changed(oneshot("migrate")), depending_on(&[0], service("web"))]);
    setup.forget();
    // Longer than `min_uptime`.
    setup.after(seconds(60));
    setup.exits("migrate.0", 3);
    setup.check(&["migrate.0 running → failed", "migrate failed", "migrate rolled back", "adopt", "reply 1 Failed"]);
    // A start runs the definition that has worked, which is retried as it says.
    setup.start("migrate");
    setup.exits("migrate.0", 3);
    assert_eq!(
        setup.only("migrate.0"),
        ["migrate.0 failed → starting", "migrate.0 starting → running", "migrate.0 running → backoff"]
    );
}

/// It is retried as its definition says: it may need what starts later.
#[test]
fn a_new_oneshot_that_fails_is_retried_and_fails_the_reload_at_once() {
    let mut setup = Setup::boot(vec![service("db")]);
    setup.configure(vec![service("db"), oneshot("migrate"), depending_on(&[1], service("web"))]);
    setup.forget();
    setup.exits("migrate.0", 3);
    setup.check(&["migrate.0 running → backoff", "reply 1 Died"]);
    setup.after(seconds(1));
    setup.exits("migrate.0", 0);
    setup.after(seconds(1));
    assert_eq!(setup.only("web.0"), ["web.0 waiting → starting", "web.0 starting → running"]);
}

#[test]
fn a_reload_waits_for_a_new_oneshot() {
    let mut setup = Setup::boot(vec![service("db")]);
    setup.configure(vec![service("db"), oneshot("migrate")]);
    setup.after(seconds(10));
    assert_eq!(setup.only("reply"), [""; 0]);
    setup.exits("migrate.0", 0);
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
}

/// "0 is allowed: off", also by a reload, which starts it too.
#[test]
fn a_new_configuration_turns_a_service_off_and_on() {
    let mut setup = boot_ready(vec![notify("web", 2), notify("other", 1)]);
    setup.configure(vec![changed(notify("web", 0)), notify("other", 1)]);
    setup.exits("web.0", 0);
    setup.exits("web.1", 0);
    setup.check(&[
        "adopt",
        "web scaled 2 → 0",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
        "web.1 running → stopping",
        "kill web.1 main SIGTERM",
        "kill web.1 main SIGCONT",
        "configured: 0 new, 0 removed, 0 reloaded, 1 adjusted, 1 unchanged",
        "web.0 stopping → stopped",
        "web.1 stopping → stopped",
        "reply 1 done",
    ]);
    setup.configure(vec![notify("web", 1), notify("other", 1)]);
    setup.check(&[
        "adopt",
        "web scaled 0 → 1",
        "web.0 stopped → starting",
        "spawn web.0 (0 restarts)",
        "configured: 0 new, 0 removed, 1 reloaded, 0 adjusted, 1 unchanged",
    ]);
    setup.report_ready("web.0");
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
}

/// A definition that has come by a reload "cannot end the container".
#[test]
fn the_failure_of_a_service_that_a_reload_turns_on_ends_nothing() {
    let web = |instances| {
        let mut web = notify("web", instances);
        web.restart.policy = RestartPolicy::Never;
        web
    };
    let mut setup = boot_ready(vec![web(0), notify("other", 1)]);
    setup.configure(vec![web(1), notify("other", 1)]);
    setup.exits("web.0", 1);
    assert_eq!(setup.only("reply"), ["reply 1 Failed"]);
    assert_eq!(setup.only("draining"), [""; 0]);
}

/// Instances above the new number are stopped, also those that were still running for a dependent.
#[test]
fn a_removed_service_that_comes_back_smaller_stops_its_surplus() {
    let db = |instances| notify("db", instances);
    let mut setup = boot_ready(vec![db(2), depending_on(&[0], notify("web", 1)), notify("other", 1)]);
    setup.configure(vec![notify("other", 1)]);
    setup.configure(vec![notify("other", 1), db(1)]);
    assert_eq!(setup.only("kill db"), ["kill db.1 main SIGTERM", "kill db.1 main SIGCONT"]);
}
