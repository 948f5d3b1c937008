//! Another configuration.

use keepalive::model::plan::{ExitAction, RestartPolicy, Service};

use super::reload::{changed, told, up};
use super::*;
use crate::plans::{oneshot, plan, service};

impl Stage {
    pub(super) fn configure(&mut self, services: Vec<Service>) {
        let plan = self.plan.merged(plan(services));
        self.request(Request::ReloadConfig);
        self.send(Event::ConfigLoaded { id: Some(RequestId(self.requests)), plan: Rc::new(plan) });
    }
}

#[test]
fn a_new_configuration_affects_only_changed_services() {
    let mut stage = up(vec![told("web", 1), told("db", 1), told("gone", 1)]);
    let mut db = told("db", 1);
    db.restart.min_uptime = seconds(1);
    stage.configure(vec![db, told("new", 1), changed(told("web", 1))]);
    stage.check(&[
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
    let mut stage = up(vec![told("web", 2), told("db", 1)]);
    stage.configure(vec![told("db", 1), told("web", 2)]);
    stage.check(&["adopt", "configured: 0 new, 0 removed, 0 reloaded, 0 adjusted, 2 unchanged", "reply 1 done"]);
}

#[test]
fn a_failed_new_version_is_rolled_back() {
    let mut stage = up(vec![told("web", 2)]);
    stage.configure(vec![changed(told("web", 2))]);
    stage.is_ready("web.0'");
    stage.exits("web.0'", 0);
    stage.forget();
    // The second one does not come up.
    stage.exits("web.1'", 1);
    stage.check(&[
        "web.1' starting → stopped",
        "web rolled back",
        "adopt",
        "web.0' stopped → starting",
        "spawn web.0' (2 restarts)",
    ]);
    stage.is_ready("web.0'");
    stage.exits("web.0'", 0);
    assert_eq!(stage.only("reply"), ["reply 1 ReloadFailed"]);
    assert_eq!(*stage.plan, plan(vec![told("web", 2)]));
}

#[test]
fn a_removed_service_stops_after_its_dependents() {
    let mut stage = up(vec![told("db", 1), needing(&[0], told("web", 1)), told("other", 1)]);
    stage.configure(vec![told("other", 1)]);
    assert_eq!(stage.only("kill"), ["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    stage.exits("web.0", 0);
    assert_eq!(stage.only("kill"), ["kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    stage.exits("db.0", 0);
    assert_eq!(stage.only("reply"), ["reply 1 done"]);
    assert_eq!(stage.supervisor.view().services().count(), 1);
    // And comes back as it was.
    stage.configure(vec![told("other", 1), told("db", 1)]);
    assert_eq!(stage.only("spawn"), ["spawn db.0 (0 restarts)"]);
}

#[test]
fn a_new_configuration_can_change_the_number_of_instances() {
    let mut stage = up(vec![told("web", 2)]);
    stage.configure(vec![told("web", 3)]);
    assert_eq!(stage.only("spawn"), ["spawn web.2 (0 restarts)"]);
    stage.is_ready("web.2");
    assert_eq!(stage.only("reply"), ["reply 1 done"]);
    stage.configure(vec![told("web", 1)]);
    assert_eq!(stage.only("kill").len(), 4);
}

#[test]
fn a_failed_service_starts_again_when_its_definition_changes() {
    let mut web = told("web", 1);
    web.on_failure = ExitAction::Ignore;
    web.restart.policy = RestartPolicy::Never;
    let mut stage = Stage::boot(vec![web.clone(), service("db")]);
    stage.exits("web.0", 1);
    stage.forget();
    stage.configure(vec![changed(web), service("db")]);
    assert_eq!(stage.only("spawn"), ["spawn web.0 (1 restarts)"]);
}

#[test]
fn no_configuration_is_loaded_during_a_shutdown() {
    let mut stage = up(vec![told("web", 1)]);
    stage.signal(Signal::HUP);
    stage.check(&["configreloadrequested", "configure"]);
    stage.signal(Signal::TERM);
    stage.forget();
    stage.signal(Signal::HUP);
    stage.check(&["signalignored"]);
    stage.configure(vec![told("web", 2)]);
    stage.check(&["reply 1 ShuttingDown"]);
}

#[test]
fn a_new_dependency_is_ready_before_the_new_version_starts() {
    let mut stage = up(vec![told("web", 1)]);
    stage.configure(vec![told("db", 1), needing(&[0], changed(told("web", 1)))]);
    assert_eq!(stage.only("spawn"), ["spawn db.0 (0 restarts)"]);
    stage.is_ready("db.0");
    assert_eq!(stage.only("spawn"), ["spawn web.0' (1 restarts)"]);
}

#[test]
fn a_changed_oneshot_succeeds_before_its_dependents_are_reloaded() {
    let mut stage = Stage::boot(vec![oneshot("migrate"), needing(&[0], told("web", 1))]);
    stage.exits("migrate.0", 0);
    stage.is_ready("web.0");
    stage.forget();
    stage.configure(vec![changed(oneshot("migrate")), needing(&[0], changed(told("web", 1)))]);
    assert_eq!(stage.only("spawn"), ["spawn migrate.0 (1 restarts)"]);
    stage.exits("migrate.0", 0);
    assert_eq!(stage.only("spawn"), ["spawn web.0' (1 restarts)"]);
}

#[test]
fn a_failure_of_a_changed_oneshot_rolls_its_dependents_back() {
    let job = Service { on_failure: ExitAction::Ignore, ..oneshot("migrate") };
    let last = |mut service: Service| {
        service.restart.policy = RestartPolicy::Never;
        service
    };
    let mut stage = Stage::boot(vec![job.clone(), needing(&[0], told("web", 1))]);
    stage.exits("migrate.0", 0);
    stage.is_ready("web.0");
    stage.configure(vec![changed(last(job)), needing(&[0], changed(told("web", 1)))]);
    stage.forget();
    stage.exits("migrate.0", 1);
    assert_eq!(stage.only("web"), ["web rolled back", "web not reloaded"]);
    assert_eq!(stage.plan.services[1], plan(vec![service("migrate"), needing(&[0], told("web", 1))]).services[1]);
}

#[test]
fn a_waiting_reload_is_superseded_by_a_newer_configuration() {
    let mut stage = up(vec![told("web", 1)]);
    stage.configure(vec![told("db", 1), needing(&[0], changed(told("web", 1)))]);
    stage.forget();
    // Its database does not come up, and the next configuration does without one.
    stage.configure(vec![changed(told("web", 1))]);
    assert_eq!(stage.only("reply"), ["reply 1 ReloadFailed"]);
    stage.is_ready("web.0'");
    stage.exits("web.0'", 0);
    stage.exits("db.0", 0);
    assert_eq!(stage.only("reply"), ["reply 2 done"]);
}

#[test]
fn the_number_of_instances_changes_only_if_the_new_version_succeeds() {
    let mut stage = up(vec![told("web", 2)]);
    stage.configure(vec![changed(told("web", 3))]);
    assert_eq!(stage.only("spawn"), ["spawn web.0' (1 restarts)"]);
    stage.exits("web.0'", 1);
    assert_eq!(stage.only("reply"), ["reply 1 ReloadFailed"]);
    assert_eq!(stage.supervisor.view().instances().count(), 2);
    stage.configure(vec![changed(told("web", 1))]);
    stage.forget();
    stage.exits("web.0'", 1);
    assert_eq!(stage.only("reply"), ["reply 2 ReloadFailed"]);
    assert_eq!(stage.only("kill"), [""; 0]);
    stage.configure(vec![changed(told("web", 1))]);
    stage.is_ready("web.0'");
    stage.forget();
    stage.exits("web.0'", 0);
    assert_eq!(stage.only("kill"), ["kill web.1 main SIGTERM", "kill web.1 main SIGCONT"]);
    assert_eq!(stage.only("reply"), [""; 0]);
    stage.exits("web.1", 0);
    assert_eq!(stage.only("reply"), ["reply 3 done"]);
}

#[test]
fn a_service_that_is_added_again_during_its_removal_restarts() {
    let mut stage = up(vec![told("web", 1), told("db", 1)]);
    stage.configure(vec![told("web", 1)]);
    stage.configure(vec![told("web", 1), told("db", 1)]);
    stage.forget();
    stage.exits("db.0", 0);
    assert_eq!(stage.only("spawn"), ["spawn db.0 (1 restarts)"]);
    stage.is_ready("db.0");
    assert_eq!(stage.only("reply"), ["reply 2 done"]);
}

/// An operator's number holds until the configuration says otherwise.
#[test]
fn a_service_limited_to_one_instance_loses_its_scaled_instances() {
    let mut web = told("web", 1);
    let mut stage = up(vec![web.clone()]);
    stage.scale("web", 2);
    stage.is_ready("web.1");
    stage.forget();
    let file = keepalive::model::Template::Fixed(c"/data/state".to_owned());
    web.process.state = Some(keepalive::model::plan::State { size: 1, persist: Some(file) });
    stage.configure(vec![web]);
    assert_eq!(stage.only("web scaled"), ["web scaled 2 → 1"]);
    stage.exits("web.1", 0);
    stage.is_ready("web.0'");
    stage.exits("web.0'", 0);
    assert_eq!(stage.only("reply"), ["reply 2 done"]);
    stage.scale("web", 2);
    assert_eq!(stage.only("reply"), ["reply 3 TooMany"]);
}

#[test]
fn a_rolled_back_service_stops_before_its_dependency() {
    let mut stage = up(vec![told("db", 1), needing(&[0], told("web", 1))]);
    stage.configure(vec![told("db", 1), changed(told("web", 1))]);
    stage.exits("web.0'", 1);
    assert_eq!(stage.only("reply"), ["reply 1 ReloadFailed"]);
    stage.signal(Signal::TERM);
    assert_eq!(stage.only("kill"), ["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
}

#[test]
fn a_removed_dependency_stops_only_after_the_new_version_has_succeeded() {
    let mut stage = up(vec![told("db", 1), needing(&[0], told("web", 1))]);
    stage.configure(vec![changed(told("web", 1))]);
    stage.exits("web.0'", 1);
    // It has gone back, and needs its database.
    assert_eq!(stage.only("kill"), [""; 0]);
    stage.configure(vec![changed(told("web", 1))]);
    stage.is_ready("web.0'");
    stage.forget();
    stage.exits("web.0'", 0);
    assert_eq!(stage.only("kill"), ["kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    stage.exits("db.0", 0);
    assert_eq!(stage.supervisor.view().services().count(), 1);
}

#[test]
fn a_configuration_that_cannot_be_loaded_changes_nothing() {
    let mut stage = up(vec![told("web", 1)]);
    stage.request(Request::ReloadConfig);
    stage.check(&[]);
    let reason = "keepalive.toml:1:1: what is this".into();
    stage.send(Event::ConfigLoadFailed { id: Some(RequestId(1)), reason });
    stage.check(&["configuration not loaded: keepalive.toml:1:1: what is this", "reply 1 ConfigLoadFailed"]);
    stage.send(Event::ConfigLoadFailed { id: None, reason: "it is empty".into() });
    stage.check(&["configuration not loaded: it is empty"]);
}

#[test]
fn a_withdrawn_load_still_takes_effect_if_it_has_begun() {
    let mut stage = up(vec![told("web", 1)]);
    stage.request(Request::ReloadConfig);
    stage.send(Event::Withdrawn(RequestId(1)));
    stage.check(&["withdraw configuration for 1"]);
    let plan = stage.plan.merged(plan(vec![told("web", 1)]));
    stage.send(Event::ConfigLoaded { id: Some(RequestId(1)), plan: Rc::new(plan) });
    stage.check(&["adopt", "configured: 0 new, 0 removed, 0 reloaded, 0 adjusted, 1 unchanged"]);
}

#[test]
fn a_shutdown_cancels_a_configuration_load() {
    let mut stage = up(vec![told("web", 1)]);
    stage.request(Request::ReloadConfig);
    stage.signal(Signal::TERM);
    stage.check_releases(&["configuration"]);
    assert_eq!(stage.only("reply"), ["reply 1 ShuttingDown"]);
    // It may be on its way.
    let plan = stage.plan.merged(plan(vec![told("db", 1)]));
    stage.send(Event::ConfigLoaded { id: Some(RequestId(1)), plan: Rc::new(plan) });
    stage.send(Event::ConfigLoadFailed { id: None, reason: "it is empty".into() });
    stage.check(&[]);
}

#[test]
fn the_resources_of_a_service_are_released_with_its_last_instance() {
    let mut stage = up(vec![told("web", 2), told("db", 1)]);
    stage.configure(vec![told("db", 1)]);
    stage.check_releases(&[]);
    stage.exits("web.0", 0);
    stage.check_releases(&["release web.0"]);
    stage.exits("web.1", 0);
    stage.check_releases(&["release web.1", "remove web.1", "remove web.0", "release web"]);
}
