//! Definitions that have come by a reload and have not worked, and what later requests make of them.

use keepalive::model::plan::{RestartPolicy, Service};

use super::reload::{boot_ready, changed, notify};
use super::{Setup, Spawns, depending_on, seconds};
use crate::plans::{oneshot, service};

fn once(mut service: Service) -> Service {
    service.restart.policy = RestartPolicy::Never;
    service
}

/// A start or a restart is no proof that it works.
#[test]
fn a_new_definition_that_has_never_worked_never_ends_keepalive() {
    for new in [once(oneshot("seed")), once(service("seed"))] {
        let mut setup = Setup::boot(vec![service("web")]);
        setup.configure(vec![service("web"), new]);
        setup.exits("seed.0", 4);
        assert_eq!(setup.only("reply"), ["reply 1 Failed"]);
        for (number, restarts) in [(2, false), (3, true), (4, false)] {
            if restarts {
                setup.restart("seed")
            } else {
                setup.start("seed")
            }
            setup.exits("seed.0", 4);
            assert_eq!(setup.only("reply"), [format!("reply {number} Failed")]);
        }
        setup.check(&[]);
    }
}

#[test]
fn a_new_service_whose_socket_is_in_use_never_ends_keepalive() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.spawns = Spawns::BindFailing;
    setup.configure(vec![service("web"), service("api")]);
    setup.start("api");
    setup.restart("api");
    setup.configure(vec![service("web"), service("api")]);
    let lines = setup.only("");
    assert!(!lines.iter().any(|line| line.starts_with("draining")), "{lines:?}");
    let replies: Vec<_> = lines.iter().filter(|line| line.starts_with("reply")).collect();
    assert_eq!(replies, ["reply 1 Failed", "reply 2 Failed", "reply 3 Failed", "reply 4 Failed"]);
}

/// Once it has worked, it ends keepalive as any other.
#[test]
fn a_new_definition_that_has_worked_ends_keepalive_when_it_fails() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.configure(vec![service("web"), once(service("seed"))]);
    setup.exits("seed.0", 4);
    setup.start("seed");
    setup.after(seconds(1));
    setup.forget();
    setup.exits("seed.0", 4);
    assert_eq!(setup.only("draining"), ["draining: failed"]);
}

/// A reload that says "unchanged" while what an earlier one has brought does not work would be a lie.
#[test]
fn each_reload_tries_a_new_definition_again_that_has_failed() {
    for new in [once(oneshot("seed")), once(service("seed")), oneshot("seed"), notify("seed", 1)] {
        let mut setup = Setup::boot(vec![service("web")]);
        setup.configure(vec![service("web"), new.clone()]);
        setup.exits("seed.0", 4);
        for _ in 0..3 {
            setup.forget();
            setup.configure(vec![service("web"), new.clone()]);
            let lines = setup.only("");
            assert!(
                lines.contains(&"configured: 0 new, 0 removed, 1 reloaded, 0 adjusted, 1 unchanged".into()),
                "{lines:?}"
            );
            assert!(lines.iter().any(|line| line.starts_with("spawn seed.0")), "{lines:?}");
            setup.exits("seed.0", 4);
            let replies = setup.only("reply");
            assert!(replies.iter().all(|reply| reply.ends_with("Failed") || reply.ends_with("Died")), "{replies:?}");
            assert_eq!(replies.len(), 1);
        }
    }
}

#[test]
fn a_reload_waits_for_a_new_definition_that_is_still_starting() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.configure(vec![service("web"), notify("api", 1)]);
    setup.forget();
    setup.configure(vec![service("web"), notify("api", 1)]);
    setup.after(seconds(1));
    setup.check(&["adopt", "configured: 0 new, 0 removed, 1 reloaded, 0 adjusted, 1 unchanged"]);
    setup.report_ready("api.0");
    assert_eq!(setup.only("reply"), ["reply 1 done", "reply 2 done"]);
    setup.configure(vec![service("web"), notify("api", 1)]);
    setup.check(&["adopt", "configured: 0 new, 0 removed, 0 reloaded, 0 adjusted, 2 unchanged", "reply 3 done"]);
}

/// Changing its restart policy does not make it work.
#[test]
fn a_new_definition_that_has_failed_is_tried_again_with_other_settings() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.configure(vec![service("web"), once(oneshot("seed"))]);
    setup.exits("seed.0", 4);
    setup.forget();
    setup.configure(vec![service("web"), oneshot("seed")]);
    setup.exits("seed.0", 4);
    assert_eq!(setup.only("reply"), ["reply 2 Died"]);
}

#[test]
fn a_reload_leaves_alone_what_has_failed_and_was_stopped_then() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.configure(vec![service("web"), oneshot("seed")]);
    setup.exits("seed.0", 4);
    setup.stop("seed");
    setup.forget();
    setup.configure(vec![service("web"), oneshot("seed")]);
    setup.check(&["adopt", "configured: 0 new, 0 removed, 0 reloaded, 0 adjusted, 2 unchanged", "reply 3 done"]);
}

/// Each reload tries it once and goes back.
#[test]
fn each_reload_tries_a_changed_oneshot_once_and_rolls_it_back() {
    let mut setup = boot_ready_after(vec![oneshot("migrate"), depending_on(&[0], notify("web", 1))]);
    for number in 1..4 {
        setup.configure(vec![changed(oneshot("migrate")), depending_on(&[0], changed(notify("web", 1)))]);
        setup.forget();
        setup.exits("migrate.0", 3);
        setup.check(&[
            "migrate.0 running → failed",
            "migrate failed",
            "migrate rolled back",
            "adopt",
            "web rolled back",
            "adopt",
            "web not reloaded",
            &format!("reply {number} Several"),
        ]);
    }
    // The definition that has worked stands.
    setup.restart("migrate");
    setup.exits("migrate.0", 0);
    assert_eq!(setup.only("reply"), ["reply 4 done"]);
}

/// Of what has never worked there is no previous definition that does.
#[test]
fn a_new_service_that_has_never_worked_is_not_rolled_back_to_itself() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.configure(vec![service("web"), once(notify("api", 1))]);
    setup.exits("api.0", 4);
    setup.configure(vec![service("web"), changed(once(notify("api", 1)))]);
    setup.forget();
    setup.exits("api.0", 4);
    setup.check(&["api.0 starting → failed", "api not reloaded", "api failed", "reply 2 ReloadFailed"]);
}

#[test]
fn a_service_that_is_started_with_a_new_definition_goes_back_to_the_one_that_has_worked() {
    let mut setup = Setup::boot(vec![service("web"), once(service("api"))]);
    setup.stop("api");
    setup.exits("api.0", 0);
    setup.configure(vec![service("web"), changed(once(service("api")))]);
    setup.start("api");
    setup.forget();
    setup.exits("api.0", 4);
    setup.check(&["api.0 running → failed", "api failed", "api rolled back", "adopt", "reply 3 Failed"]);
}

#[test]
fn a_reload_counts_what_it_reloads_and_names_what_does_not_run() {
    let mut setup = Setup::boot(vec![service("web"), service("api"), oneshot("migrate")]);
    setup.stop("api");
    setup.exits("api.0", 0);
    setup.stop("migrate");
    setup.exits("migrate.0", 0);
    setup.forget();
    setup.configure(vec![changed(service("web")), changed(service("api")), changed(oneshot("migrate"))]);
    assert_eq!(
        setup.only("configured"),
        ["configured: 0 new, 0 removed, 1 reloaded, 0 adjusted, 0 unchanged; not running: api, migrate"]
    );
}

fn boot_ready_after(services: Vec<Service>) -> Setup {
    let mut setup = Setup::boot(services);
    setup.exits("migrate.0", 0);
    setup.report_ready("web.0");
    setup.forget();
    setup
}

/// "A service of which one instance has failed for good is `degraded`, not failed, and not ready": so its definition "has never
/// been ready since it came by a reload", and the next reload tries it again.
#[test]
fn a_new_definition_that_works_in_one_of_two_instances_never_ends_keepalive() {
    let new = || once(Service { instances: 2, ..service("api") });
    let mut setup = Setup::boot(vec![service("web")]);
    setup.configure(vec![service("web"), new()]);
    setup.exits("api.1", 4);
    setup.after(seconds(60));
    assert_eq!(setup.only("reply"), ["reply 1 Failed"]);
    setup.configure(vec![service("web"), new()]);
    assert_eq!(setup.only("spawn"), ["spawn api.1 (1 restarts)"]);
    setup.exits("api.1", 4);
    assert_eq!(setup.only("reply"), ["reply 2 Failed"]);
    setup.exits("api.0", 4);
    assert_eq!(setup.only("draining"), [""; 0]);
}

/// What a new service needs several attempts for may take long: the reload that has brought it has failed with the first one, also
/// if another service is reloaded when it is ready.
#[test]
fn a_reload_does_not_wait_for_more_attempts_of_a_new_oneshot() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.configure(vec![depending_on(&[1], changed(notify("web", 1))), oneshot("seed")]);
    setup.exits("seed.0", 4);
    assert_eq!(setup.only("reply"), ["reply 1 Several"]);
    setup.after(seconds(1));
    setup.forget();
    setup.exits("seed.0", 0);
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("web reloaded"), ["web reloaded"]);
}
