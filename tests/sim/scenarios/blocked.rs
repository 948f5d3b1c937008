//! What the fate of a service means to others, and to the whole.

use keepalive::model::plan::{ExitAction, Ready, RestartPolicy, Service};

use super::{Stage, millis, needing, seconds};
use crate::plans::{oneshot, service};

fn once(service: Service) -> Service {
    let mut service = Service { on_failure: ExitAction::Ignore, ..service };
    service.restart.policy = RestartPolicy::Never;
    service
}

/// "`waiting` (for what it depends on)": until a service is ready.
#[test]
fn a_service_starts_only_after_its_dependency_is_ready() {
    let db = Service { ready: Ready::Delay(seconds(2)), ..service("db") };
    let mut stage = Stage::boot(vec![needing(&[1], service("web")), db]);
    stage.forget();
    stage.at(millis(1_999));
    stage.check(&[]);
    stage.at(seconds(2));
    stage.check(&[
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
    let mut stage = Stage::boot(vec![web]);
    stage.forget();
    stage.exits("web.2", 2);
    stage.exits("web.0", 3);
    stage.check(&["web.2 running → failed", "web.0 running → failed"]);
    stage.exits("web.1", 5);
    assert_eq!(stage.only("exit"), ["exit 5"]);
}

/// "`shutdown` ends with the code of the failed process (1 if that was 0)."
#[test]
fn a_failure_with_exit_code_0_ends_keepalive_with_1() {
    let mut web = service("web");
    web.restart.max_restarts = Some(0);
    let mut stage = Stage::boot(vec![web]);
    stage.exits("web", 0);
    assert_eq!(stage.only("exit"), ["exit 1"]);
}

/// "What depends on it and has not started never will, and says so."
#[test]
fn a_failed_dependency_blocks_all_direct_and_indirect_dependents() {
    let services = vec![
        once(oneshot("migrate")),
        needing(&[0], service("web")),
        needing(&[1], service("proxy")),
        service("other"),
    ];
    let mut stage = Stage::boot(services);
    stage.forget();
    stage.exits("migrate", 9);
    stage.check(&[
        "migrate.0 running → failed",
        "migrate failed",
        "web.0 waiting → failed",
        "proxy.0 waiting → failed",
    ]);
    stage.after(seconds(3_600));
    stage.check(&[]);
}

/// A service that has completed before what depends on it started will never be ready.
#[test]
fn a_completed_dependency_blocks_its_dependents() {
    let db = Service { ready: Ready::Delay(seconds(2)), ..once(service("db")) };
    let mut stage = Stage::boot(vec![db, needing(&[0], service("web"))]);
    stage.forget();
    stage.exits("db", 0);
    stage.check(&[
        "db.0 starting → completed",
        "web.0 waiting → failed",
        "draining: nothingleft",
        "kill all SIGTERM",
        "kill all SIGCONT",
        "exit 1",
    ]);
}

/// Some instances have completed, the others failed: nobody is left to wait for.
#[test]
fn a_partly_failed_dependency_blocks_its_dependents() {
    let db = Service { instances: 2, ready: Ready::Delay(seconds(2)), ..once(service("db")) };
    let mut stage = Stage::boot(vec![db, needing(&[0], service("web")), service("other")]);
    stage.forget();
    stage.exits("db.0", 0);
    stage.exits("db.1", 1);
    stage.check(&["db.0 starting → completed", "db.1 starting → failed", "web.0 waiting → failed"]);
}

/// An operator starts what had failed: what it blocked goes on.
#[test]
fn a_blocked_service_starts_when_its_dependency_succeeds_later() {
    let services = vec![once(oneshot("migrate")), needing(&[0], service("web")), service("other")];
    let mut stage = Stage::boot(services);
    stage.exits("migrate", 9);
    stage.start("migrate");
    stage.forget();
    stage.exits("migrate", 0);
    stage.check(&[
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
    let mut stage = Stage::boot(vec![oneshot("a"), oneshot("b")]);
    stage.exits("a", 0);
    stage.exits("b", 0);
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// "Else the first failure's code."
#[test]
fn the_first_failure_determines_the_exit_code() {
    let mut stage = Stage::boot(vec![once(service("a")), once(service("b")), once(service("c"))]);
    stage.exits("b", 3);
    stage.exits("a", 2);
    stage.exits("c", 0);
    assert_eq!(stage.only("exit"), ["exit 3"]);
}

/// A failure that has been mended is none.
#[test]
fn a_repaired_failure_does_not_determine_the_exit_code() {
    let mut stage = Stage::boot(vec![once(service("a")), once(service("b"))]);
    stage.exits("a", 3);
    stage.start("a");
    stage.exits("a", 0);
    stage.exits("b", 4);
    assert_eq!(stage.only("exit"), ["exit 4"]);
}

/// "on_success = shutdown: when it has completed", and the processes that are left are stopped first.
#[test]
fn a_completed_job_shuts_down_before_its_dependents_start() {
    let job = Service { on_success: ExitAction::Shutdown, ..oneshot("job") };
    let mut stage = Stage::boot(vec![job, needing(&[0], service("web")), service("side")]);
    stage.forget();
    stage.exits("job", 0);
    stage.check(&[
        "job.0 running → completed",
        "draining: completed",
        "web.0 waiting → stopped",
        "side.0 running → stopping",
        "kill side.0 main SIGTERM",
        "kill side.0 main SIGCONT",
    ]);
    stage.exits("side", 0);
    assert_eq!(stage.only("exit"), ["exit 0"]);
}

/// `autostart = false`: unless something that starts depends on it.
#[test]
fn a_dependency_starts_even_without_autostart() {
    let mut services =
        vec![service("db"), needing(&[0], service("cache")), needing(&[1], service("web")), service("x")];
    for service in &mut services[..2] {
        service.autostart = false;
    }
    services[3].autostart = false;
    let mut stage = Stage::boot(services);
    assert_eq!(stage.only("spawn"), ["db.0", "cache.0", "web.0"].map(|name| format!("spawn {name} (0 restarts)")));
}

/// The same for what an operator starts, through any number of others.
#[test]
fn a_start_also_starts_indirect_dependencies() {
    let mut services =
        vec![service("db"), needing(&[0], service("cache")), needing(&[1], service("web")), service("x")];
    for service in &mut services[..3] {
        service.autostart = false;
    }
    let mut stage = Stage::boot(services);
    stage.forget();
    stage.start("web");
    assert_eq!(stage.only("spawn"), ["db.0", "cache.0", "web.0"].map(|name| format!("spawn {name} (0 restarts)")));
}

/// And when one of them has failed long ago, it says so instead of waiting for ever.
#[test]
fn a_start_is_refused_if_an_indirect_dependency_has_failed() {
    let mut services =
        vec![once(service("db")), needing(&[0], service("cache")), needing(&[1], service("web")), service("x")];
    for service in &mut services[1..3] {
        service.autostart = false;
    }
    let mut stage = Stage::boot(services);
    stage.exits("db", 1);
    stage.forget();
    stage.start("web");
    stage.check(&["cache.0 stopped → waiting", "cache.0 waiting → failed", "web.0 stopped → failed", "reply 1 Failed"]);
}

/// Seed 1118093: one instance of `cache` runs, the other is pulled in and blocked in the same step, in the middle of
/// which `web` began to wait. It went on waiting for something that was there.
#[test]
fn a_service_starts_though_its_dependency_changes_while_it_begins_to_wait() {
    let mut services = vec![
        once(service("db")),
        Service { instances: 2, ..needing(&[0], service("cache")) },
        needing(&[1], service("web")),
        needing(&[2], service("proxy")),
        service("other"),
    ];
    for service in &mut services[1..4] {
        service.autostart = false;
    }
    let mut stage = Stage::boot(services);
    stage.start("cache.1");
    stage.exits("db", 1);
    stage.forget();
    stage.start("proxy");
    stage.check(&[
        "web.0 stopped → waiting",
        "cache.0 stopped → waiting",
        "cache.0 waiting → failed",
        "proxy.0 stopped → waiting",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
        "proxy.0 waiting → starting",
        "spawn proxy.0 (0 restarts)",
        "proxy.0 starting → running",
        "reply 2 done",
    ]);
}
