//! Readiness, watchdog and other reports of processes.

use std::rc::Rc;

use keepalive::model::Template;
use keepalive::model::plan::{Probe, Ready, RestartPolicy, Service, Stop};
use keepalive::supervisor::ReadySource;

use super::*;
use crate::plans::{oneshot, service};

fn notify(name: &str) -> Service {
    Service { ready: Ready::Notify, ..service(name) }
}

impl Setup {
    pub(crate) fn report_ready(&mut self, name: &str) {
        self.report_ready_by(ReadySource::Notify, name);
    }

    fn report_ready_by(&mut self, source: ReadySource, name: &str) {
        let run = self.run(name);
        self.send(Event::Ready { run, source });
    }

    pub(crate) fn report_reloading(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Reloading { run, since: None });
    }

    fn pid_shown(&self, name: &str) -> Option<Pid> {
        let id = self.id(name);
        self.supervisor.view().instances().find(|instance| instance.id == id).and_then(|instance| instance.pid)
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        let id = self.id(name);
        self.supervisor.view().instances().any(|instance| instance.id == id && instance.ready)
    }
}

#[test]
fn a_dependent_waits_until_its_dependency_reports_ready() {
    let mut setup = Setup::boot(vec![notify("db"), depending_on(&[0], service("web"))]);
    setup.check(&[
        "db.0 stopped → waiting",
        "web.0 stopped → waiting",
        "db.0 waiting → starting",
        "spawn db.0 (0 restarts)",
    ]);
    setup.at(seconds(7));
    setup.report_ready("db.0");
    setup.check(&[
        "db.0 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
    // A second report has no effect.
    setup.report_ready("db.0");
    setup.check(&[]);
}

#[test]
fn a_service_that_is_not_ready_in_time_is_stopped_and_restarted() {
    let mut setup = Setup::boot(vec![Service { ready_timeout: Some(seconds(3)), ..notify("db") }]);
    setup.forget();
    assert_eq!(setup.next(), Some(seconds(3)));
    setup.at(seconds(3));
    setup.check(&["db.0 starting → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    // The report is too late, and the exit is not a success.
    setup.report_ready("db.0");
    setup.exits("db.0", 0);
    setup.check(&["db.0 stopping → backoff"]);
    assert_eq!(setup.unstable("db.0"), 1);
    setup.after(millis(100));
    setup.check(&["db.0 backoff → starting", "spawn db.0 (1 restarts)"]);
}

#[test]
fn a_service_can_extend_its_start_and_stop_timeouts() {
    let mut setup = Setup::boot(vec![Service { ready_timeout: Some(seconds(3)), ..notify("db") }]);
    setup.forget();
    setup.at(seconds(2));
    let run = setup.run("db.0");
    setup.send(Event::TimeoutExtended { run, by: seconds(5) });
    setup.at(seconds(6));
    setup.check(&[]);
    setup.at(seconds(7));
    setup.check(&["db.0 starting → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    setup.send(Event::TimeoutExtended { run, by: seconds(20) });
    setup.at(seconds(26));
    setup.check(&[]);
    setup.at(seconds(27));
    setup.check(&["db.0 ignores its stop", "kill db.0 group SIGKILL"]);
}

#[test]
fn a_stop_during_a_start_is_not_a_failure() {
    let mut setup = Setup::boot(vec![notify("db"), service("web")]);
    setup.forget();
    setup.stop("db");
    setup.exits("db.0", 1);
    setup.check(&[
        "db.0 starting → stopping",
        "kill db.0 main SIGTERM",
        "kill db.0 main SIGCONT",
        "db.0 stopping → stopped",
        "reply 1 done",
    ]);
}

#[test]
fn a_service_without_watchdog_pings_is_aborted_and_restarted() {
    let mut setup = Setup::boot(vec![Service { watchdog: Some(seconds(4)), ..notify("db") }]);
    setup.report_ready("db.0");
    setup.forget();
    let run = setup.run("db.0");
    setup.at(seconds(3));
    setup.send(Event::WatchdogPing { run });
    setup.at(seconds(6));
    setup.check(&[]);
    setup.at(seconds(7));
    setup.check(&["db.0 running → stopping", "kill db.0 main SIGABRT", "kill db.0 main SIGCONT"]);
    setup.at(seconds(11));
    setup.dies("db.0", Signal::ABRT);
    // A run of eleven seconds is stable.
    setup.check(&["db.0 stopping → starting", "spawn db.0 (1 restarts)"]);
}

#[test]
fn a_watchdog_interval_applies_from_its_report_on() {
    let mut setup = Setup::boot(vec![service("db")]);
    setup.forget();
    let run = setup.run("db.0");
    setup.send(Event::WatchdogInterval { run, interval: seconds(2) });
    assert_eq!(setup.next(), Some(seconds(2)));
    setup.send(Event::WatchdogInterval { run, interval: seconds(0) });
    assert_eq!(setup.next(), None);
    setup.send(Event::WatchdogTriggered { run });
    setup.check(&["db.0 running → stopping", "kill db.0 main SIGABRT", "kill db.0 main SIGCONT"]);
}

#[test]
fn a_watchdog_interval_reported_before_readiness_applies_once_the_service_is_ready() {
    let mut setup = Setup::boot(vec![notify("db")]);
    let run = setup.run("db.0");
    setup.send(Event::WatchdogInterval { run, interval: seconds(2) });
    setup.at(seconds(5));
    setup.report_ready("db.0");
    setup.forget();
    assert_eq!(setup.next(), Some(seconds(2)));
    setup.at(seconds(7));
    setup.check(&["db.0 running → stopping", "kill db.0 main SIGABRT", "kill db.0 main SIGCONT"]);
    setup.dies("db.0", Signal::ABRT);
    setup.after(millis(100));
    setup.report_ready("db.0");
    assert_eq!(setup.next(), None, "the next process has not reported an interval");
}

#[test]
fn a_service_that_reports_its_stop_has_no_watchdog_and_the_usual_stop_timeout() {
    let db = || Service { watchdog: Some(seconds(1)), ..notify("db") };
    let mut setup = Setup::boot(vec![db(), service("web")]);
    setup.report_ready("db.0");
    setup.forget();
    let run = setup.run("db.0");
    setup.send(Event::StoppingReported { run });
    setup.check(&["db.0 running → stopping"]);
    setup.at(seconds(4));
    setup.exits("db.0", 0);
    // A run of four seconds is not stable.
    setup.check(&["db.0 stopping → backoff"]);
    setup.after(millis(100));
    setup.report_ready("db.0");
    setup.forget();
    let run = setup.run("db.0");
    setup.send(Event::StoppingReported { run });
    setup.after(seconds(5));
    setup.check(&["db.0 running → stopping", "db.0 ignores its stop", "kill db.0 group SIGKILL"]);
    setup.dies("db.0", Signal::KILL);
    setup.after(seconds(1));
    setup.report_ready("db.0");
    setup.forget();
    // A requested stop sends the stop signal.
    let run = setup.run("db.0");
    setup.send(Event::StoppingReported { run });
    setup.stop("db");
    setup.check(&["db.0 running → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    setup.exits("db.0", 0);
    setup.check(&["db.0 stopping → stopped", "reply 1 done"]);
}

#[test]
fn a_service_can_reset_its_failure_count() {
    let mut setup = Setup::boot(vec![notify("db")]);
    for _ in 0..3 {
        setup.exits("db.0", 1);
        setup.after(seconds(10));
    }
    assert_eq!(setup.unstable("db.0"), 3);
    let run = setup.run("db.0");
    setup.send(Event::ResetFailures { run });
    setup.exits("db.0", 1);
    assert_eq!(setup.unstable("db.0"), 1);
}

#[test]
fn a_reloading_service_is_not_ready_until_it_reports_ready_again() {
    let mut setup = Setup::boot(vec![notify("db"), Service { autostart: false, ..depending_on(&[0], service("web")) }]);
    setup.report_ready("db.0");
    let run = setup.run("db.0");
    setup.send(Event::Reloading { run, since: None });
    assert!(!setup.is_ready("db.0"));
    setup.forget();
    setup.start("web");
    setup.check(&["web.0 stopped → waiting"]);
    setup.report_ready("db.0");
    assert!(setup.is_ready("db.0"));
    setup.after(seconds(1));
    setup.check(&["web.0 waiting → starting", "spawn web.0 (0 restarts)", "web.0 starting → running", "reply 1 done"]);
}

#[test]
fn a_reported_main_pid_replaces_the_main_process() {
    let mut setup = Setup::boot(vec![service("db")]);
    setup.forget();
    let (run, pid) = (setup.run("db.0"), Pid::new(500).unwrap());
    assert_ne!(setup.pid_shown("db.0"), Some(pid));
    setup.send(Event::MainPidChanged { run, pid });
    setup.check(&[]);
    assert_eq!(setup.pid_shown("db.0"), Some(pid));
    setup.signal(Signal::USR1);
    setup.check(&["kill db.0 main SIGUSR1", "SIGUSR1 forwarded to 1"]);
    setup.exits("db.0", 1);
    setup.check(&["db.0 running → backoff"]);
}

#[test]
fn a_failed_bind_makes_the_service_fail() {
    let mut setup = Setup::boot_without_spawns(vec![
        Service { on_failure: keepalive::model::plan::ExitAction::Ignore, ..service("web") },
        service("db"),
    ]);
    setup.spawns = Spawns::BindFailing;
    setup.send(Event::Tick);
    let lines = setup.only("web.0");
    assert_eq!(lines, ["web.0 stopped → waiting", "web.0 waiting → starting", "web.0 starting → failed"]);
}

#[test]
fn stop_delay_delays_the_stop_signal_but_not_a_forced_stop() {
    let web = Service { stop: Stop { delay: seconds(2), ..service("web").stop }, ..service("web") };
    let mut setup = Setup::boot(vec![web, service("db")]);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 running → stopping"]);
    setup.at(seconds(2));
    setup.check(&["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    setup.at(seconds(7));
    setup.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
    setup.dies("web.0", Signal::KILL);
    setup.forget();
    // `stop_delay` does not apply before the instance is ready, nor to a forced stop.
    setup.start("web");
    setup.forget();
    setup.signal(Signal::INT);
    setup.after(millis(200));
    setup.signal(Signal::INT);
    assert_eq!(setup.only("forced"), ["forced"]);
}

fn probed(name: &str) -> Service {
    let probe = Probe::Tcp(Template::Fixed(c"127.0.0.1:80".to_owned()));
    Service { ready: Ready::Probe(probe), ready_timeout: Some(seconds(3)), ..service(name) }
}

const SOURCES: [ReadySource; 4] = [ReadySource::Notify, ReadySource::Ipc, ReadySource::Fd, ReadySource::Probe];

#[test]
fn only_the_configured_source_makes_a_service_ready() {
    let settings = [Ready::Notify, Ready::Ipc, Ready::Fd(3), probed("").ready];
    for (ready, own) in settings.into_iter().zip(SOURCES) {
        for source in SOURCES {
            let mut setup = Setup::boot(vec![Service { ready: ready.clone(), ..service("db") }]);
            setup.report_ready_by(source, "db.0");
            assert_eq!(setup.is_ready("db.0"), source == own, "{source:?} with {ready:?}");
        }
    }
    for source in SOURCES {
        let mut setup = Setup::boot(vec![Service { ready: Ready::Delay(seconds(5)), ..service("db") }]);
        setup.report_ready_by(source, "db.0");
        assert!(!setup.is_ready("db.0"), "{source:?} with a delay");
    }
}

#[test]
fn a_ready_report_implies_that_the_program_runs() {
    let mut setup = Setup::new(plans::plan(vec![notify("db")]));
    setup.spawns = Spawns::Pending;
    setup.send(Event::Boot);
    setup.report_ready("db.0");
    assert!(setup.is_ready("db.0"));
    setup.forget();
    setup.executes("db.0");
    setup.check(&[]);
}

#[test]
fn ready_1_ends_a_reload_whatever_the_readiness_setting() {
    for ready in [Ready::Exec, Ready::Delay(seconds(0)), Ready::Ipc, Ready::Fd(3), probed("").ready] {
        let own = match ready {
            Ready::Ipc => ReadySource::Ipc,
            Ready::Fd(_) => ReadySource::Fd,
            _ => ReadySource::Probe,
        };
        let mut setup = Setup::boot(vec![Service { ready: ready.clone(), ..service("db") }]);
        // Before it has been ready, there is no reload to end.
        if !setup.is_ready("db.0") && ready != Ready::Delay(seconds(0)) {
            setup.report_reloading("db.0");
            setup.report_ready("db.0");
            assert!(!setup.is_ready("db.0"), "{ready:?}");
        }
        setup.report_ready_by(own, "db.0");
        setup.at(seconds(1));
        assert!(setup.is_ready("db.0"), "{ready:?}");
        setup.report_reloading("db.0");
        assert!(!setup.is_ready("db.0"), "{ready:?}");
        setup.report_ready("db.0");
        assert!(setup.is_ready("db.0"), "{ready:?}");
    }
}

#[test]
fn ready_1_ends_a_reload_of_a_surge_instance() {
    for ready in [Ready::Exec, Ready::Delay(seconds(0))] {
        let mut web = Service { ready: ready.clone(), ..service("web") };
        web.reload.soak = seconds(5);
        let mut setup = Setup::boot(vec![web]);
        setup.at(seconds(1));
        setup.ask("web", Verb::Reload);
        setup.at(seconds(2));
        setup.forget();
        setup.report_reloading("web.0'");
        setup.report_ready_by(ReadySource::Ipc, "web.0'");
        setup.check(&["web.0' running → starting"]);
        setup.report_ready("web.0'");
        setup.check(&["web.0' starting → running"]);
        setup.at(seconds(7));
        assert_eq!(setup.only("web.0 "), ["web.0 replaced"], "{ready:?}");
    }
}

#[test]
fn reports_after_stopping_1_are_ignored() {
    let mut setup = Setup::boot(vec![Service { ready_timeout: Some(seconds(3)), ..notify("db") }]);
    setup.forget();
    let run = setup.run("db.0");
    setup.send(Event::StoppingReported { run });
    setup.report_ready("db.0");
    setup.check(&[]);
    setup.at(seconds(3));
    setup.check(&["db.0 starting → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    setup.exits("db.0", 0);
    setup.after(millis(100));
    setup.forget();
    // The next process has not reported its stop.
    setup.report_ready("db.0");
    setup.check(&["db.0 starting → running"]);
    let run = setup.run("db.0");
    setup.send(Event::StoppingReported { run });
    setup.report_reloading("db.0");
    setup.report_ready("db.0");
    setup.check(&["db.0 running → stopping"]);
}

#[test]
fn a_probe_starts_once_when_the_program_runs() {
    let mut setup = Setup::new(plans::plan(vec![probed("db")]));
    setup.spawns = Spawns::Pending;
    setup.send(Event::Boot);
    assert_eq!(setup.only("probe"), [""; 0]);
    setup.executes("db.0");
    setup.executes("db.0");
    setup.check(&["probe db.0"]);
    let run = setup.run("db.0");
    setup.send(Event::MainPidChanged { run, pid: Pid::new(500).unwrap() });
    setup.check(&[]);
    setup.report_ready_by(ReadySource::Probe, "db.0");
    setup.check(&["db.0 starting → running"]);
    setup.at(seconds(60));
    setup.check(&[]);
}

#[test]
fn a_reported_main_pid_implies_that_the_program_runs() {
    let mut setup = Setup::new(plans::plan(vec![probed("db")]));
    setup.spawns = Spawns::Pending;
    setup.send(Event::Boot);
    setup.forget();
    let run = setup.run("db.0");
    setup.send(Event::MainPidChanged { run, pid: Pid::new(500).unwrap() });
    setup.executes("db.0");
    setup.check(&["probe db.0"]);
}

#[test]
fn a_probe_is_aborted_at_the_ready_timeout() {
    let mut setup = Setup::boot(vec![probed("db"), Service { ready_timeout: Some(seconds(3)), ..notify("web") }]);
    setup.forget();
    setup.at(seconds(3));
    setup.check(&[
        "db.0 starting → stopping",
        "kill db.0 main SIGTERM",
        "kill db.0 main SIGCONT",
        "give up the probe of db.0",
        "web.0 starting → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    // The probe has passed too late.
    setup.report_ready_by(ReadySource::Probe, "db.0");
    setup.check(&[]);
}

#[test]
fn a_reaped_process_is_not_probed() {
    let mut setup = Setup::new(plans::plan(vec![probed("db")]));
    setup.spawns = Spawns::Pending;
    setup.send(Event::Boot);
    let run = setup.run("db.0");
    setup.forget();
    setup.queue(Event::Executed { run });
    setup.queue_exit("db.0");
    setup.send(Event::Tick);
    setup.check(&["db.0 starting → backoff"]);
}

#[test]
fn a_stop_is_announced_on_the_ipc_channel_before_the_stop_signal() {
    let mut web = service("web");
    Rc::make_mut(&mut web.process).ipc = true;
    web.stop.delay = seconds(2);
    let mut setup = Setup::boot(vec![web, service("db")]);
    setup.forget();
    setup.stop("web");
    setup.check(&["web.0 running → stopping"]);
    setup.at(seconds(2));
    setup.check(&["announce the stop of web.0", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
}

#[test]
fn a_run_is_released_before_any_other_action_follows_its_exit() {
    let mut setup = Setup::boot(vec![service("web")]);
    setup.shows_releases = true;
    setup.forget();
    setup.ends("web", ExitStatus::Code(1), Leftovers::Some);
    assert_eq!(setup.lines[..2], ["release web.0", "web.0 leaves processes"]);
    setup.forget();
    setup.leftovers_gone("web");
    setup.check(&["web.0 stopping → backoff"]);
    setup.at(seconds(60));
    setup.forget();
    // The old process exits while the new one is not ready. The new one replaces it after the release.
    setup.ask("web", Verb::Reload);
    setup.spawns = Spawns::Pending;
    setup.exits("web.0'", 0);
    setup.forget();
    setup.ask("web", Verb::Reload);
    setup.forget();
    setup.exits("web.0", 1);
    setup.check(&["release web.0", "web.0 replaced", "web.0' running → stopped"]);
}

/// A signal that keepalive itself has sent is not the exit code; a code that the process has chosen is.
#[test]
fn a_fault_ends_keepalive_with_1_or_the_code_of_the_process() {
    let never = || keepalive::model::plan::Restart { policy: RestartPolicy::Never, ..service("").restart };
    let late = |code: ExitStatus| {
        let job = Service { ready_timeout: Some(seconds(30)), restart: never(), ..oneshot("job") };
        let hung = Service { ready: Ready::Exec, watchdog: Some(seconds(30)), ..notify("hung") };
        for failing in [notify("web"), job, hung] {
            let mut setup = Setup::boot(vec![Service { restart: never(), ..failing }]);
            setup.after(seconds(30));
            let name = setup.plan.services[0].name.to_string();
            setup.ends(&name, code, Leftovers::None);
            assert_eq!(setup.only("exit"), [format!("exit {}", if code == ExitStatus::Code(3) { 3 } else { 1 })]);
        }
    };
    [Signal::TERM, Signal::ABRT, Signal::KILL].into_iter().for_each(|signal| late(ExitStatus::Signal(signal)));
    [0, 3, 143].into_iter().for_each(|code| late(ExitStatus::Code(code)));
}
