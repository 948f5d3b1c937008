//! The effect of the outcome of a service on its dependents and on keepalive.

use keepalive::model::plan::{ExitAction, Ready, RestartPolicy, Service};

use super::{Setup, depending_on, millis, seconds};
use crate::plans::{oneshot, service};

pub(crate) fn once(service: Service) -> Service {
    let mut service = Service { on_failure: ExitAction::Ignore, ..service };
    service.restart.policy = RestartPolicy::Never;
    service
}

/// "`waiting` (for what it depends on)": until a service is ready.
#[test]
fn a_service_starts_only_after_its_dependency_is_ready() {
    let db = Service { ready: Ready::Delay(seconds(2)), ..service("db") };
    let mut setup = Setup::boot(vec![depending_on(&[1], service("web")), db]);
    setup.forget();
    setup.at(millis(1_999));
    setup.check(&[]);
    setup.at(seconds(2));
    setup.check(&[
        "db.0 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
}

/// "A service has failed when each of its instances has."
#[test]
fn a_service_fails_when_the_last_of_its_instances_fails() {
    let mut web = service("web");
    (web.instances, web.restart.policy) = (3, RestartPolicy::Never);
    let mut setup = Setup::boot(vec![web]);
    setup.forget();
    setup.exits("web.2", 2);
    setup.exits("web.0", 3);
    setup.check(&["web.2 running → failed", "web.0 running → failed"]);
    setup.exits("web.1", 5);
    assert_eq!(setup.only("exit"), ["exit 5"]);
}

/// "`shutdown` ends with the code of the failed process (1 if that was 0)."
#[test]
fn a_failure_with_exit_code_0_ends_keepalive_with_1() {
    let mut web = service("web");
    web.restart.max_restarts = Some(0);
    let mut setup = Setup::boot(vec![web]);
    setup.exits("web", 0);
    assert_eq!(setup.only("exit"), ["exit 1"]);
}

/// "What depends on it and has not started never will, and says so."
#[test]
fn a_failed_dependency_blocks_all_direct_and_indirect_dependents() {
    let services = vec![
        once(oneshot("migrate")),
        depending_on(&[0], service("web")),
        depending_on(&[1], service("proxy")),
        service("other"),
    ];
    let mut setup = Setup::boot(services);
    setup.forget();
    setup.exits("migrate", 9);
    setup.check(&[
        "migrate.0 running → failed",
        "migrate failed",
        "web.0 waiting → failed",
        "proxy.0 waiting → failed",
    ]);
    setup.after(seconds(3_600));
    setup.check(&[]);
}

/// A service that has completed before its dependents started will never be ready.
#[test]
fn a_completed_dependency_blocks_its_dependents() {
    let db = Service { ready: Ready::Delay(seconds(2)), ..once(service("db")) };
    let mut setup = Setup::boot(vec![db, depending_on(&[0], service("web"))]);
    setup.forget();
    setup.exits("db", 0);
    setup.check(&[
        "db.0 starting → completed",
        "web.0 waiting → failed",
        "draining: nothingleft",
        "kill all SIGTERM",
        "kill all SIGCONT",
        "exit 1",
    ]);
}

/// Some instances have completed and the others have failed, so none can become ready.
#[test]
fn a_partly_failed_dependency_blocks_its_dependents() {
    let db = Service { instances: 2, ready: Ready::Delay(seconds(2)), ..once(service("db")) };
    let mut setup = Setup::boot(vec![db, depending_on(&[0], service("web")), service("other")]);
    setup.forget();
    setup.exits("db.0", 0);
    setup.exits("db.1", 1);
    setup.check(&["db.0 starting → completed", "db.1 starting → failed", "web.0 waiting → failed"]);
}

/// An operator starts the failed service, and the blocked service continues.
#[test]
fn a_blocked_service_starts_when_its_dependency_succeeds_later() {
    let services = vec![once(oneshot("migrate")), depending_on(&[0], service("web")), service("other")];
    let mut setup = Setup::boot(services);
    setup.exits("migrate", 9);
    setup.start("migrate");
    setup.forget();
    setup.exits("migrate", 0);
    setup.check(&[
        "migrate.0 running → completed",
        "web.0 failed → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "reply 1 done",
        "web.0 starting → running",
    ]);
}

/// "0 if all completed."
#[test]
fn keepalive_exits_with_0_when_all_services_have_completed() {
    let mut setup = Setup::boot(vec![oneshot("a"), oneshot("b")]);
    setup.exits("a", 0);
    setup.exits("b", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// "Else the first failure's code."
#[test]
fn the_first_failure_determines_the_exit_code() {
    let mut setup = Setup::boot(vec![once(service("a")), once(service("b")), once(service("c"))]);
    setup.exits("b", 3);
    setup.exits("a", 2);
    setup.exits("c", 0);
    assert_eq!(setup.only("exit"), ["exit 3"]);
}

/// A repaired failure does not count.
#[test]
fn a_repaired_failure_does_not_determine_the_exit_code() {
    let mut setup = Setup::boot(vec![once(service("a")), once(service("b"))]);
    setup.exits("a", 3);
    setup.start("a");
    setup.exits("a", 0);
    setup.exits("b", 4);
    assert_eq!(setup.only("exit"), ["exit 4"]);
}

/// "on_success = shutdown: when it has completed", and remaining processes are stopped first.
#[test]
fn a_completed_job_shuts_down_before_its_dependents_start() {
    let job = Service { on_success: ExitAction::Shutdown, ..oneshot("job") };
    let mut setup = Setup::boot(vec![job, depending_on(&[0], service("web")), service("side")]);
    setup.forget();
    setup.exits("job", 0);
    setup.check(&[
        "job.0 running → completed",
        "draining: completed",
        "web.0 waiting → stopped",
        "side.0 running → stopping",
        "kill side.0 main SIGTERM",
        "kill side.0 main SIGCONT",
    ]);
    setup.exits("side", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

/// `autostart = false` has no effect if a service that starts depends on it.
#[test]
fn a_dependency_starts_even_without_autostart() {
    let mut services =
        vec![service("db"), depending_on(&[0], service("cache")), depending_on(&[1], service("web")), service("x")];
    for service in &mut services[..2] {
        service.autostart = false;
    }
    services[3].autostart = false;
    let mut setup = Setup::boot(services);
    assert_eq!(setup.only("spawn"), ["db.0", "cache.0", "web.0"].map(|name| format!("spawn {name} (0 restarts)")));
}

/// The same applies to a start by an operator, over any number of dependencies.
#[test]
fn a_start_also_starts_indirect_dependencies() {
    let mut services =
        vec![service("db"), depending_on(&[0], service("cache")), depending_on(&[1], service("web")), service("x")];
    for service in &mut services[..3] {
        service.autostart = false;
    }
    let mut setup = Setup::boot(services);
    setup.forget();
    setup.start("web");
    assert_eq!(setup.only("spawn"), ["db.0", "cache.0", "web.0"].map(|name| format!("spawn {name} (0 restarts)")));
}

/// As with `systemctl start` and `docker compose up`: who starts a service expects that what it needs is tried again. "A failure
/// is told": if it fails again, the start has failed.
#[test]
fn a_start_tries_an_indirect_dependency_again_that_has_failed() {
    let mut services = vec![
        once(service("db")),
        depending_on(&[0], service("cache")),
        depending_on(&[1], service("web")),
        service("x"),
    ];
    for service in &mut services[1..3] {
        service.autostart = false;
    }
    let mut setup = Setup::boot(services);
    setup.exits("db", 1);
    setup.forget();
    setup.start("web");
    assert_eq!(
        setup.only("spawn"),
        ["db.0 (1", "cache.0 (0", "web.0 (0"].map(|name| format!("spawn {name} restarts)"))
    );
}

#[test]
fn a_start_fails_if_its_dependency_fails_again() {
    let migrate = || once(oneshot("migrate"));
    let mut setup = Setup::boot(vec![migrate(), depending_on(&[0], service("web")), service("x")]);
    setup.exits("migrate", 1);
    setup.forget();
    setup.start("web");
    setup.check(&[
        "migrate.0 failed → waiting",
        "migrate.0 waiting → starting",
        "spawn migrate.0 (1 restarts)",
        "web.0 failed → waiting",
        "migrate.0 starting → running",
    ]);
    setup.exits("migrate", 1);
    setup.check(&["migrate.0 running → failed", "migrate failed", "web.0 waiting → failed", "reply 1 Failed"]);
    setup.start("web");
    setup.exits("migrate", 0);
    setup.after(seconds(1));
    assert_eq!(setup.only("reply"), ["reply 2 done"]);
}

/// A oneshot of which one instance has succeeded does not run that one again; a service that has completed runs again.
#[test]
fn a_start_repeats_of_its_dependencies_what_is_missing() {
    let two = Service { instances: 2, ..once(oneshot("migrate")) };
    let mut setup = Setup::boot(vec![two, once(service("db")), depending_on(&[0, 1], service("web")), service("x")]);
    setup.exits("migrate.0", 0);
    setup.exits("migrate.1", 1);
    setup.exits("db", 0);
    setup.forget();
    setup.start("web");
    assert_eq!(setup.only("spawn"), ["spawn migrate.1 (1 restarts)", "spawn db.0 (1 restarts)"]);
}

/// Seed 1118093: one instance of `cache` runs, the other one changes in the step in which `web` begins to wait. `web` continued
/// to wait although `cache` was ready.
#[test]
fn a_service_starts_though_its_dependency_changes_while_it_begins_to_wait() {
    let mut services = vec![
        once(service("db")),
        Service { instances: 2, ..depending_on(&[0], service("cache")) },
        depending_on(&[1], service("web")),
        depending_on(&[2], service("proxy")),
        service("other"),
    ];
    for service in &mut services[1..4] {
        service.autostart = false;
    }
    let mut setup = Setup::boot(services);
    setup.start("cache.1");
    setup.exits("db", 1);
    setup.forget();
    setup.start("proxy");
    setup.after(seconds(1));
    setup.check(&[
        "web.0 stopped → waiting",
        "cache.0 stopped → waiting",
        "db.0 failed → waiting",
        "db.0 waiting → starting",
        "spawn db.0 (1 restarts)",
        "proxy.0 stopped → waiting",
        "db.0 starting → running",
        "cache.0 waiting → starting",
        "spawn cache.0 (0 restarts)",
        "cache.0 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
        "proxy.0 waiting → starting",
        "spawn proxy.0 (0 restarts)",
        "proxy.0 starting → running",
        "reply 1 done",
        "reply 2 done",
    ]);
}

/// "once per wait", for all instances together, and no timer afterwards.
#[test]
fn a_long_wait_is_told_once() {
    let web = || Service { instances: 2, ..depending_on(&[0], service("web")) };
    let mut setup = Setup::boot(vec![oneshot("migrate"), web()]);
    setup.forget();
    setup.at(seconds(29));
    setup.check(&[]);
    setup.at(seconds(30));
    setup.check(&["web waits for migrate"]);
    setup.at(seconds(3_600));
    setup.check(&[]);
    assert_eq!(setup.next(), None);
}
