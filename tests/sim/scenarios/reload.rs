//! Rolling reloads.

use std::rc::Rc;

use keepalive::model::plan::{Ready, Reload, Service, Strategy};
use keepalive::supervisor::RolloutError;

use super::*;
use crate::plans::{oneshot, plan, service};

pub(super) fn notify(name: &str, instances: u32) -> Service {
    Service { ready: Ready::Notify, instances, ready_timeout: Some(seconds(10)), ..service(name) }
}

pub(super) fn with(reload: impl FnOnce(&mut Reload), mut service: Service) -> Service {
    reload(&mut service.reload);
    service
}

/// Boots the services and waits until all are ready.
pub(super) fn boot_ready(services: Vec<Service>) -> Setup {
    let counts: Vec<_> = services.iter().map(|service| (service.name.clone(), service.instances)).collect();
    let mut setup = Setup::boot(services);
    for (name, instances) in counts {
        for number in 0..instances {
            setup.report_ready(&format!("{name}.{number}"));
        }
    }
    setup.forget();
    setup
}

/// The same service with another command.
pub(super) fn changed(mut service: Service) -> Service {
    Rc::make_mut(&mut service.process).command = Box::new([keepalive::model::Template::Fixed(c"other".to_owned())]);
    service
}

impl Setup {
    pub(super) fn reload(&mut self, name: &str) {
        self.ask(name, Verb::Reload);
    }
}

#[test]
fn a_new_process_is_ready_before_the_old_one_stops() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.reload("web");
    setup.check(&["web reloads", "web.0' stopped → starting", "spawn web.0' (1 restarts)"]);
    setup.report_ready("web.0'");
    setup.check(&[
        "web.0' starting → running",
        "web.0 replaced",
        "web.0' running → stopping",
        "kill web.0' main SIGTERM",
        "kill web.0' main SIGCONT",
    ]);
    setup.exits("web.0'", 0);
    setup.check(&["web.0' stopping → stopped", "web.1' stopped → starting", "spawn web.1' (1 restarts)"]);
    setup.report_ready("web.1'");
    setup.forget();
    setup.exits("web.1'", 0);
    setup.check(&["web.1' stopping → stopped", "web reloaded", "reply 1 done"]);
    // Then they are ordinary instances.
    setup.at(seconds(60));
    setup.exits("web.0", 1);
    setup.check(&["web.0 running → starting", "spawn web.0 (2 restarts)"]);
}

#[test]
fn a_new_process_that_is_not_ready_does_not_replace_the_old_one() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.reload("web");
    setup.forget();
    setup.at(seconds(10));
    setup.check(&["web.0' starting → stopping", "kill web.0' main SIGTERM", "kill web.0' main SIGCONT"]);
    setup.exits("web.0'", 0);
    setup.check(&["web.0' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    setup.at(seconds(60));
    setup.reload("web.1");
    setup.forget();
    setup.exits("web.1'", 7);
    setup.check(&["web.1' starting → stopped", "web not reloaded", "reply 2 ReloadFailed"]);
}

#[test]
fn a_new_process_must_stay_up_for_the_soak_time() {
    let mut setup = boot_ready(vec![with(|reload| reload.soak = seconds(5), notify("web", 1))]);
    setup.reload("web");
    setup.report_ready("web.0'");
    setup.forget();
    setup.at(seconds(4));
    setup.exits("web.0'", 0);
    setup.check(&["web.0' running → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    setup.reload("web");
    setup.report_ready("web.0'");
    setup.forget();
    setup.at(seconds(9));
    setup.check(&[
        "web.0 replaced",
        "web.0' running → stopping",
        "kill web.0' main SIGTERM",
        "kill web.0' main SIGCONT",
    ]);
}

#[test]
fn max_surge_allows_several_replacements_at_once() {
    let mut setup = boot_ready(vec![with(|reload| reload.max_surge = 2, notify("web", 3))]);
    setup.reload("web");
    assert_eq!(setup.only("spawn"), ["spawn web.0' (1 restarts)", "spawn web.1' (1 restarts)"]);
    setup.report_ready("web.1'");
    setup.exits("web.1'", 0);
    assert_eq!(setup.only("spawn"), ["spawn web.2' (1 restarts)"]);
    // The failure of one of two stops the other one too.
    setup.exits("web.0'", 1);
    setup.check(&[
        "web.0' starting → stopped",
        "web.2' starting → stopping",
        "kill web.2' main SIGTERM",
        "kill web.2' main SIGCONT",
    ]);
    setup.exits("web.2'", 0);
    setup.check(&["web.2' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
}

#[test]
fn a_second_reload_is_refused_during_the_first() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.reload("web");
    setup.forget();
    setup.reload("web.1");
    setup.check(&["reply 2 Reloading"]);
    setup.configure(vec![notify("web", 3)]);
    setup.check(&["configuration deferred"]);
}

#[test]
fn a_configuration_that_comes_during_a_reload_is_loaded_when_that_has_ended() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.reload("web");
    let loaded = |setup: &Setup| Event::ConfigLoaded {
        id: None,
        plan: Rc::new(setup.plan.merged(plan(vec![notify("web", 2)]))),
    };
    setup.send(loaded(&setup));
    setup.send(loaded(&setup));
    setup.report_ready("web.0'");
    setup.forget();
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("configure"), ["configure"]);
    setup.send(loaded(&setup));
    assert_eq!(setup.only("spawn"), ["spawn web.1 (0 restarts)"]);
}

#[test]
fn a_surge_instance_replaces_an_old_process_that_dies_at_once() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.at(seconds(60));
    setup.reload("web");
    setup.forget();
    setup.exits("web.0", 1);
    setup.check(&["web.0 replaced", "web.0' running → stopped"]);
    setup.report_ready("web.0");
    setup.check(&["web.0 starting → running", "web reloaded", "reply 1 done"]);
}

#[test]
fn the_replacement_of_a_dead_process_can_fail_and_back_off() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.reload("web");
    setup.exits("web.0", 1);
    setup.forget();
    setup.exits("web.0", 1);
    setup.check(&["web.0 starting → backoff", "web not reloaded", "reply 1 ReloadFailed"]);
}

/// The old process may still have the port that the new one needs.
#[test]
fn a_new_process_that_dies_beside_the_old_one_uses_up_no_restarts() {
    let mut web = service("web");
    web.restart.max_restarts = Some(1);
    let mut setup = boot_ready(vec![web]);
    setup.reload("web");
    setup.after(seconds(1));
    setup.forget();
    for _ in 0..3 {
        setup.exits("web.0", 1);
        assert_eq!(setup.only("web.0 "), ["web.0 running → backoff"]);
        setup.after(seconds(1));
        setup.forget();
    }
    setup.exits("web.0", 1);
    setup.forget();
    setup.exits("web.0'", 0);
    setup.check(&[
        "web.0' stopping → stopped",
        "web.0 backoff → starting",
        "spawn web.0 (5 restarts)",
        "web not reloaded",
        "reply 1 ReloadFailed",
        "web.0 starting → running",
    ]);
    assert!(matches!(setup.rollout_error, Some(RolloutError::ExitedBesideOld(_))), "{:?}", setup.rollout_error);
    assert_eq!(setup.unstable("web"), 0);
}

/// Seed 4023: what the new process has left behind outlasts the old one. The restart followed only after the delay.
#[test]
fn a_new_process_starts_at_once_when_the_old_one_and_its_own_leftovers_are_gone() {
    let mut web = service("web");
    web.restart.backoff.initial = seconds(60);
    web.restart.backoff.max = seconds(60);
    let mut setup = boot_ready(vec![web]);
    setup.reload("web");
    setup.after(seconds(1));
    setup.ends("web.0", ExitStatus::Code(1), Leftovers::Some);
    setup.exits("web.0'", 0);
    setup.forget();
    setup.leftovers_gone("web.0");
    assert_eq!(setup.only("web.0 stopping"), ["web.0 stopping → starting"]);
}

#[test]
fn a_reload_is_superseded_by_a_stop_of_an_instance_before_or_during_its_turn() {
    for stopped in ["web.0", "web.1"] {
        let mut setup = boot_ready(vec![notify("web", 2)]);
        setup.reload("web");
        setup.stop(stopped);
        setup.exits(stopped, 0);
        let other = if stopped == "web.0" { "web.1'" } else { "web.0'" };
        if stopped == "web.0" {
            setup.exits("web.0'", 0);
        }
        setup.report_ready(other);
        setup.exits(other, 0);
        assert_eq!(setup.only("reply 1"), ["reply 1 ReloadFailed"], "{stopped}");
        assert_eq!(setup.rollout_error, Some(RolloutError::Stopped));
    }
}

#[test]
fn a_shutdown_during_a_reload_stops_both_processes() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.reload("web");
    setup.forget();
    setup.signal(Signal::TERM);
    setup.check(&[
        "draining: signal",
        "reply 1 ShuttingDown",
        "web.0' starting → stopping",
        "kill web.0' main SIGTERM",
        "kill web.0' main SIGCONT",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    setup.exits("web.0", 0);
    setup.check(&["web.0 stopping → stopped"]);
    setup.exits("web.0'", 0);
    setup.check(&["web.0' stopping → stopped", "kill all SIGTERM", "kill all SIGCONT", "exit 0"]);
}

#[test]
fn a_stop_during_a_reload_stops_both_processes_and_supersedes_the_reload() {
    let mut setup = boot_ready(vec![notify("web", 2), service("db")]);
    setup.reload("web");
    setup.forget();
    setup.stop("web");
    setup.exits("web.0", 0);
    setup.exits("web.1", 0);
    setup.forget();
    setup.exits("web.0'", 0);
    setup.check(&["web.0' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
}

#[test]
fn a_service_can_be_scaled_down_during_a_reload() {
    let mut setup = boot_ready(vec![notify("web", 3)]);
    setup.reload("web");
    setup.report_ready("web.0'");
    setup.forget();
    setup.scale("web", 1);
    setup.exits("web.1", 0);
    setup.exits("web.2", 0);
    setup.forget();
    setup.exits("web.0'", 0);
    setup.check(&["web.0' stopping → stopped", "web reloaded", "reply 1 done"]);
}

#[test]
fn a_service_can_be_scaled_up_during_a_reload() {
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.reload("web");
    setup.forget();
    setup.scale("web", 2);
    setup.check(&["web scaled 1 → 2", "web.1 stopped → starting", "spawn web.1 (0 restarts)"]);
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    setup.report_ready("web.1");
    assert_eq!(setup.only("reply"), ["reply 1 done", "reply 2 done"]);
}

#[test]
fn an_instance_that_is_not_ready_is_restarted_in_place() {
    let mut setup = boot_ready(vec![notify("web", 2)]);
    setup.exits("web.0", 1);
    setup.forget();
    setup.reload("web");
    setup.check(&["web reloads", "web.0 backoff → starting", "spawn web.0 (1 restarts)"]);
    setup.report_ready("web.0");
    setup.check(&["web.0 starting → running", "web.1' stopped → starting", "spawn web.1' (1 restarts)"]);
}

#[test]
fn a_reload_does_not_affect_dependents() {
    let mut setup = boot_ready(vec![notify("web", 1), depending_on(&[0], service("proxy"))]);
    setup.reload("web");
    setup.report_ready("web.0'");
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("proxy"), [""; 0]);
    assert_eq!(setup.supervisor.view().services().filter(|service| service.ready).count(), 2);
}

#[test]
fn a_oneshot_or_a_stopped_service_cannot_be_reloaded() {
    let mut setup = Setup::boot(vec![oneshot("job"), notify("web", 1)]);
    setup.report_ready("web.0");
    setup.stop("web");
    setup.exits("web.0", 0);
    setup.forget();
    setup.reload("job");
    setup.reload("web");
    setup.check(&["reply 2 Oneshot", "reply 3 NotRunning"]);
}

#[test]
fn the_restart_strategy_restarts_one_instance_after_the_other() {
    let mut setup = boot_ready(vec![with(|reload| reload.strategy = Strategy::Restart, notify("web", 2))]);
    setup.reload("web");
    setup.check(&["web reloads", "web.0 running → stopping", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.exits("web.0", 0);
    setup.report_ready("web.0");
    setup.check(&[
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
    let mut setup = boot_ready(vec![notify("web", 1)]);
    setup.spawns = Spawns::Refused(Errno::EAGAIN);
    setup.reload("web");
    setup.check(&[
        "web reloads",
        "web.0' stopped → starting",
        "spawn web.0' (1 restarts)",
        "web.0' starting → stopped",
        "web not reloaded",
        "reply 1 ReloadFailed",
    ]);
}

#[test]
fn a_new_process_that_reports_its_stop_does_not_replace_the_old_one() {
    let mut setup = boot_ready(vec![with(|reload| reload.soak = seconds(5), notify("web", 1))]);
    setup.reload("web");
    setup.report_ready("web.0'");
    let run = setup.run("web.0'");
    setup.send(Event::StoppingReported { run });
    setup.forget();
    setup.at(seconds(5));
    setup.check(&["web.0' ignores its stop", "kill web.0' group SIGKILL"]);
    setup.dies("web.0'", Signal::KILL);
    setup.check(&["web.0' stopping → stopped", "web not reloaded", "reply 1 ReloadFailed"]);
    assert!(matches!(setup.rollout_error, Some(RolloutError::ExitedAfterStopping(_))), "{:?}", setup.rollout_error);
}

#[test]
fn repeated_reloads_of_a_new_process_do_not_extend_its_deadline() {
    for strategy in [Strategy::Rolling, Strategy::Restart] {
        let settings = |reload: &mut Reload| (reload.soak, reload.strategy) = (seconds(5), strategy);
        let mut setup = boot_ready(vec![with(settings, notify("web", 1))]);
        setup.reload("web");
        let new = if strategy == Strategy::Rolling { "web.0'" } else { "web.0" };
        if strategy == Strategy::Restart {
            setup.exits("web.0", 0);
        }
        setup.report_ready(new);
        setup.forget();
        // The deadline is ten plus five seconds after the first report.
        for _ in 0..4 {
            setup.after(seconds(3));
            setup.report_reloading(new);
            setup.after(seconds(1));
            setup.report_ready(new);
        }
        assert_eq!(setup.only("kill"), [""; 0]);
        setup.at(seconds(17));
        setup.report_reloading(new);
        assert_eq!(setup.next(), Some(seconds(1)));
        setup.report_ready(new);
        setup.at(seconds(18));
        assert_eq!(setup.only("kill"), [""; 0]);
        setup.report_reloading(new);
        let kills = [format!("kill {new} main SIGTERM"), format!("kill {new} main SIGCONT")];
        assert_eq!(setup.only("kill"), kills);
        setup.exits(new, 0);
        assert_eq!(setup.only("reply"), ["reply 1 ReloadFailed"]);
    }
}

#[test]
fn the_deadline_of_a_new_process_does_not_depend_on_the_process_before_it() {
    let settings = |reload: &mut Reload| (reload.soak, reload.strategy) = (seconds(5), Strategy::Restart);
    let mut setup = boot_ready(vec![with(settings, notify("web", 1))]);
    for _ in 0..2 {
        setup.after(seconds(60));
        setup.reload("web");
        setup.exits("web.0", 0);
        setup.report_ready("web.0");
        setup.report_reloading("web.0");
        assert_eq!(setup.next(), Some(seconds(10)));
        setup.report_ready("web.0");
        setup.after(seconds(5));
    }
    assert_eq!(setup.only("reply"), ["reply 1 done", "reply 2 done"]);
}

#[test]
fn a_new_process_that_reloads_itself_can_extend_its_timeout() {
    let mut setup = boot_ready(vec![with(|reload| reload.soak = seconds(5), notify("web", 1))]);
    setup.reload("web");
    setup.report_ready("web.0'");
    setup.report_reloading("web.0'");
    setup.forget();
    let run = setup.run("web.0'");
    setup.send(Event::TimeoutExtended { run, by: seconds(30) });
    setup.at(seconds(29));
    setup.report_ready("web.0'");
    setup.report_reloading("web.0'");
    assert_eq!(setup.next(), Some(seconds(6)));
    setup.report_ready("web.0'");
    setup.at(seconds(34));
    assert_eq!(setup.only("web.0 "), ["web.0 replaced"]);
}

#[test]
fn a_surge_instance_that_stays_in_a_reload_is_stopped_at_the_ready_timeout() {
    let mut setup = boot_ready(vec![with(|reload| reload.soak = seconds(5), notify("web", 1))]);
    setup.reload("web");
    setup.report_ready("web.0'");
    setup.forget();
    setup.at(seconds(1));
    setup.report_reloading("web.0'");
    setup.check(&["web.0' running → starting"]);
    setup.at(seconds(2));
    // It is ready again, and its soak time starts again.
    setup.report_ready("web.0'");
    setup.at(seconds(6));
    setup.check(&["web.0' starting → running"]);
    setup.report_reloading("web.0'");
    setup.forget();
    setup.at(seconds(16));
    setup.check(&["web.0' starting → stopping", "kill web.0' main SIGTERM", "kill web.0' main SIGCONT"]);
    setup.exits("web.0'", 0);
    assert_eq!(setup.only("reply"), ["reply 1 ReloadFailed"]);
}
