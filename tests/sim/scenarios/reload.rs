//! Rolling reload.

use keepalive::model::plan::{Ready, Reload, Service, Strategy};
use keepalive::supervisor::RolloutError;

use super::*;
use crate::plans::{oneshot, service};

pub(super) fn told(name: &str, instances: u32) -> Service {
    Service { ready: Ready::Notify, instances, ready_timeout: seconds(10), ..service(name) }
}

pub(super) fn with(reload: impl FnOnce(&mut Reload), mut service: Service) -> Service {
    reload(&mut service.reload);
    service
}

/// All are ready.
pub(super) fn up(services: Vec<Service>) -> Stage {
    let counts: Vec<_> = services.iter().map(|service| (service.name.clone(), service.instances)).collect();
    let mut stage = Stage::boot(services);
    for (name, instances) in counts {
        for number in 0..instances {
            stage.is_ready(&format!("{name}.{number}"));
        }
    }
    stage.forget();
    stage
}

/// The same with one more argument, which makes another process.
pub(super) fn changed(mut service: Service) -> Service {
    service.process.command = Box::new([keepalive::model::Template::Fixed(c"other".to_owned())]);
    service
}

impl Stage {
    pub(super) fn reload(&mut self, name: &str) {
        self.ask(name, Verb::Reload);
    }
}

#[test]
fn a_new_process_is_ready_before_the_old_one_stops() {
    let mut stage = up(vec![told("web", 2)]);
    stage.reload("web");
    stage.check(&["web reloads", "web.0' stopped → starting", "spawn web.0' (1 restarts)"]);
    stage.is_ready("web.0'");
    stage.check(&[
        "web.0' starting → running",
        "web.0 replaced",
        "web.0' running → stopping",
        "kill web.0' main SIGTERM",
        "kill web.0' main SIGCONT",
    ]);
    stage.exits("web.0'", 0);
    stage.check(&["web.0' stopping → stopped", "web.1' stopped → starting", "spawn web.1' (1 restarts)"]);
    stage.is_ready("web.1'");
    stage.forget();
    stage.exits("web.1'", 0);
    stage.check(&["web.1' stopping → stopped", "web reloaded", "reply 1 done"]);
    // From then on they are instances like any other.
    stage.at(seconds(60));
    stage.exits("web.0", 1);
    stage.check(&["web.0 running → starting", "spawn web.0 (2 restarts)"]);
}

#[test]
fn a_new_process_that_is_not_ready_does_not_replace_the_old_one() {
    let mut stage = up(vec![told("web", 2)]);
    stage.reload("web");
    stage.forget();
    stage.at(seconds(10));
    stage.check(&["web.0' starting → stopping", "kill web.0' main SIGTERM", "kill web.0' main SIGCONT"]);
    stage.exits("web.0'", 0);
    stage.check(&["web.0' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    stage.at(seconds(60));
    stage.reload("web.1");
    stage.forget();
    stage.exits("web.1'", 7);
    stage.check(&["web.1' starting → stopped", "web not reloaded", "reply 2 ReloadFailed"]);
}

#[test]
fn a_new_process_must_stay_up_for_the_soak_time() {
    let mut stage = up(vec![with(|reload| reload.soak = seconds(5), told("web", 1))]);
    stage.reload("web");
    stage.is_ready("web.0'");
    stage.forget();
    stage.at(seconds(4));
    stage.exits("web.0'", 0);
    stage.check(&["web.0' running → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    stage.reload("web");
    stage.is_ready("web.0'");
    stage.forget();
    stage.at(seconds(9));
    stage.check(&[
        "web.0 replaced",
        "web.0' running → stopping",
        "kill web.0' main SIGTERM",
        "kill web.0' main SIGCONT",
    ]);
}

#[test]
fn max_surge_allows_several_replacements_at_once() {
    let mut stage = up(vec![with(|reload| reload.max_surge = 2, told("web", 3))]);
    stage.reload("web");
    assert_eq!(stage.only("spawn"), ["spawn web.0' (1 restarts)", "spawn web.1' (1 restarts)"]);
    stage.is_ready("web.1'");
    stage.exits("web.1'", 0);
    assert_eq!(stage.only("spawn"), ["spawn web.2' (1 restarts)"]);
    // One of two that goes wrong takes the other with it.
    stage.exits("web.0'", 1);
    stage.check(&[
        "web.0' starting → stopped",
        "web.2' starting → stopping",
        "kill web.2' main SIGTERM",
        "kill web.2' main SIGCONT",
    ]);
    stage.exits("web.2'", 0);
    stage.check(&["web.2' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
}

#[test]
fn a_second_reload_is_refused_during_the_first() {
    let mut stage = up(vec![told("web", 2)]);
    stage.reload("web");
    stage.forget();
    stage.reload("web.1");
    stage.check(&["reply 2 Reloading"]);
    stage.configure(vec![told("web", 3)]);
    stage.check(&["not configured", "reply 3 Reloading"]);
}

#[test]
fn a_surge_instance_replaces_an_old_process_that_dies_at_once() {
    let mut stage = up(vec![told("web", 1)]);
    stage.at(seconds(60));
    stage.reload("web");
    stage.forget();
    stage.exits("web.0", 1);
    stage.check(&["web.0 replaced", "web.0' running → stopped"]);
    stage.is_ready("web.0");
    stage.check(&["web.0 starting → running", "web reloaded", "reply 1 done"]);
}

#[test]
fn the_replacement_of_a_dead_process_can_fail_and_back_off() {
    let mut stage = up(vec![told("web", 1)]);
    stage.reload("web");
    stage.exits("web.0", 1);
    stage.forget();
    stage.exits("web.0", 1);
    stage.check(&["web.0 starting → backoff", "web not reloaded", "reply 1 ReloadFailed"]);
}

#[test]
fn a_shutdown_during_a_reload_stops_both_processes() {
    let mut stage = up(vec![told("web", 1)]);
    stage.reload("web");
    stage.forget();
    stage.signal(Signal::TERM);
    stage.check(&[
        "draining: signal",
        "reply 1 ShuttingDown",
        "web.0' starting → stopping",
        "kill web.0' main SIGTERM",
        "kill web.0' main SIGCONT",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    stage.exits("web.0", 0);
    stage.check(&["web.0 stopping → stopped"]);
    stage.exits("web.0'", 0);
    stage.check(&["web.0' stopping → stopped", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]);
}

#[test]
fn a_stop_during_a_reload_stops_both_processes_and_ends_the_reload() {
    let mut stage = up(vec![told("web", 2), service("db")]);
    stage.reload("web");
    stage.forget();
    stage.stop("web");
    stage.exits("web.0", 0);
    stage.exits("web.1", 0);
    stage.forget();
    stage.exits("web.0'", 0);
    stage.check(&["web.0' stopping → stopped", "web reloaded", "reply 1 done"]);
}

#[test]
fn a_service_can_be_scaled_down_during_a_reload() {
    let mut stage = up(vec![told("web", 3)]);
    stage.reload("web");
    stage.is_ready("web.0'");
    stage.forget();
    stage.scale("web", 1);
    stage.exits("web.1", 0);
    stage.exits("web.2", 0);
    stage.forget();
    stage.exits("web.0'", 0);
    stage.check(&["web.0' stopping → stopped", "web reloaded", "reply 1 done"]);
}

#[test]
fn a_service_can_be_scaled_up_during_a_reload() {
    let mut stage = up(vec![told("web", 1)]);
    stage.reload("web");
    stage.forget();
    stage.scale("web", 2);
    stage.check(&["web scaled 1 → 2", "web.1 stopped → starting", "spawn web.1 (0 restarts)"]);
    stage.is_ready("web.0'");
    stage.exits("web.0'", 0);
    stage.is_ready("web.1");
    assert_eq!(stage.only("reply"), ["reply 1 done", "reply 2 done"]);
}

#[test]
fn an_instance_that_is_not_ready_is_restarted_in_place() {
    let mut stage = up(vec![told("web", 2)]);
    stage.exits("web.0", 1);
    stage.forget();
    stage.reload("web");
    stage.check(&["web reloads", "web.0 backoff → starting", "spawn web.0 (1 restarts)"]);
    stage.is_ready("web.0");
    stage.check(&["web.0 starting → running", "web.1' stopped → starting", "spawn web.1' (1 restarts)"]);
}

#[test]
fn a_reload_does_not_affect_dependents() {
    let mut stage = up(vec![told("web", 1), needing(&[0], service("proxy"))]);
    stage.reload("web");
    stage.is_ready("web.0'");
    stage.exits("web.0'", 0);
    assert_eq!(stage.only("proxy"), [""; 0]);
    assert_eq!(stage.supervisor.view().services().filter(|service| service.ready).count(), 2);
}

#[test]
fn a_oneshot_or_a_stopped_service_cannot_be_reloaded() {
    let mut stage = Stage::boot(vec![oneshot("job"), told("web", 1)]);
    stage.is_ready("web.0");
    stage.stop("web");
    stage.exits("web.0", 0);
    stage.forget();
    stage.reload("job");
    stage.reload("web");
    stage.check(&["reply 2 Oneshot", "reply 3 NotRunning"]);
}

#[test]
fn the_restart_strategy_restarts_one_instance_after_the_other() {
    let mut stage = up(vec![with(|reload| reload.strategy = Strategy::Restart, told("web", 2))]);
    stage.reload("web");
    stage.check(&["web reloads", "web.0 running → stopping", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    stage.exits("web.0", 0);
    stage.is_ready("web.0");
    stage.check(&[
        "web.0 stopping → starting",
        "spawn web.0 (1 restarts)",
        "web.0 starting → running",
        "web.1 running → stopping",
        "kill web.1 main SIGTERM",
        "kill web.1 main SIGCONT",
    ]);
}

#[test]
fn a_refused_fork_fails_only_the_reload() {
    let mut stage = up(vec![told("web", 1)]);
    stage.spawns = Spawns::Refused(Errno::EAGAIN);
    stage.reload("web");
    stage.check(&[
        "web reloads",
        "web.0' stopped → starting",
        "spawn web.0' (1 restarts)",
        "web.0' starting → stopped",
        "web not reloaded",
        "reply 1 ReloadFailed",
    ]);
}

#[test]
fn a_dependency_is_reloaded_before_its_dependents() {
    let mut stage = up(vec![told("db", 1), needing(&[0], told("web", 1))]);
    stage.reload("db");
    stage.reload("web");
    assert_eq!(stage.only("spawn"), ["spawn db.0' (1 restarts)"]);
    stage.is_ready("db.0'");
    stage.exits("db.0'", 0);
    assert_eq!(stage.only("spawn"), ["spawn web.0' (1 restarts)"]);
}

#[test]
fn a_new_process_that_reports_its_stop_does_not_replace_the_old_one() {
    let mut stage = up(vec![with(|reload| reload.soak = seconds(5), told("web", 1))]);
    stage.reload("web");
    stage.is_ready("web.0'");
    let run = stage.run("web.0'");
    stage.send(Event::StoppingReported { run });
    stage.forget();
    stage.at(seconds(5));
    stage.check(&["web.0' ignores its stop", "kill web.0' group SIGKILL"]);
    stage.dies("web.0'", Signal::KILL);
    stage.check(&["web.0' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    assert!(matches!(stage.rollout_error, Some(RolloutError::ExitedAfterStopping(_))), "{:?}", stage.rollout_error);
}

#[test]
fn repeated_reloads_of_a_new_process_do_not_extend_its_deadline() {
    for strategy in [Strategy::Rolling, Strategy::Restart] {
        let settings = |reload: &mut Reload| (reload.soak, reload.strategy) = (seconds(5), strategy);
        let mut stage = up(vec![with(settings, told("web", 1))]);
        stage.reload("web");
        let new = if strategy == Strategy::Rolling { "web.0'" } else { "web.0" };
        if strategy == Strategy::Restart {
            stage.exits("web.0", 0);
        }
        stage.is_ready(new);
        stage.forget();
        // It has ten and five seconds from the first time on.
        for _ in 0..4 {
            stage.after(seconds(3));
            stage.is_away(new);
            stage.after(seconds(1));
            stage.is_ready(new);
        }
        assert_eq!(stage.only("kill"), [""; 0]);
        stage.at(seconds(17));
        stage.is_away(new);
        assert_eq!(stage.next(), Some(seconds(1)));
        stage.is_ready(new);
        stage.at(seconds(18));
        assert_eq!(stage.only("kill"), [""; 0]);
        stage.is_away(new);
        let kills = [format!("kill {new} main SIGTERM"), format!("kill {new} main SIGCONT")];
        assert_eq!(stage.only("kill"), kills);
        stage.exits(new, 0);
        assert_eq!(stage.only("reply"), ["reply 1 ReloadFailed"]);
    }
}

#[test]
fn the_deadline_of_a_new_process_does_not_depend_on_the_process_before_it() {
    let settings = |reload: &mut Reload| (reload.soak, reload.strategy) = (seconds(5), Strategy::Restart);
    let mut stage = up(vec![with(settings, told("web", 1))]);
    for _ in 0..2 {
        stage.after(seconds(60));
        stage.reload("web");
        stage.exits("web.0", 0);
        stage.is_ready("web.0");
        stage.is_away("web.0");
        assert_eq!(stage.next(), Some(seconds(10)));
        stage.is_ready("web.0");
        stage.after(seconds(5));
    }
    assert_eq!(stage.only("reply"), ["reply 1 done", "reply 2 done"]);
}

#[test]
fn a_new_process_that_reloads_itself_can_extend_its_timeout() {
    let mut stage = up(vec![with(|reload| reload.soak = seconds(5), told("web", 1))]);
    stage.reload("web");
    stage.is_ready("web.0'");
    stage.is_away("web.0'");
    stage.forget();
    let run = stage.run("web.0'");
    stage.send(Event::TimeoutExtended { run, by: seconds(30) });
    stage.at(seconds(29));
    stage.is_ready("web.0'");
    stage.is_away("web.0'");
    assert_eq!(stage.next(), Some(seconds(6)));
    stage.is_ready("web.0'");
    stage.at(seconds(34));
    assert_eq!(stage.only("web.0 "), ["web.0 replaced"]);
}

#[test]
fn a_surge_instance_that_stays_in_a_reload_is_stopped_at_the_ready_timeout() {
    let mut stage = up(vec![with(|reload| reload.soak = seconds(5), told("web", 1))]);
    stage.reload("web");
    stage.is_ready("web.0'");
    stage.forget();
    stage.at(seconds(1));
    stage.is_away("web.0'");
    stage.check(&["web.0' running → starting"]);
    stage.at(seconds(2));
    // It comes back, and has to prove itself anew.
    stage.is_ready("web.0'");
    stage.at(seconds(6));
    stage.check(&["web.0' starting → running"]);
    stage.is_away("web.0'");
    stage.forget();
    stage.at(seconds(16));
    stage.check(&["web.0' starting → stopping", "kill web.0' main SIGTERM", "kill web.0' main SIGCONT"]);
    stage.exits("web.0'", 0);
    assert_eq!(stage.only("reply"), ["reply 1 ReloadFailed"]);
}
