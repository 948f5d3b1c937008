//! Readiness that is told, and what comes of a process that is broken.

use keepalive::model::Template;
use keepalive::model::plan::{Probe, Process, Ready, Service, Stop};
use keepalive::supervisor::ReadySource;

use super::*;
use crate::plans::service;

fn told(name: &str) -> Service {
    Service { ready: Ready::Notify, ..service(name) }
}

impl Stage {
    pub(crate) fn is_ready(&mut self, name: &str) {
        self.is_ready_by(ReadySource::Notify, name);
    }

    fn is_ready_by(&mut self, source: ReadySource, name: &str) {
        let run = self.run(name);
        self.send(Event::Ready { run, source });
    }

    pub(crate) fn is_away(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Reloading { run, since: None });
    }

    fn pid_shown(&self, name: &str) -> Option<Pid> {
        let id = self.id(name);
        self.supervisor.view().instances().find(|instance| instance.id == id).and_then(|instance| instance.pid)
    }

    pub(crate) fn ready_now(&self, name: &str) -> bool {
        let id = self.id(name);
        self.supervisor.view().instances().any(|instance| instance.id == id && instance.ready)
    }
}

#[test]
fn a_dependent_waits_until_its_dependency_reports_ready() {
    let mut stage = Stage::boot(vec![told("db"), needing(&[0], service("web"))]);
    stage.check(&[
        "db.0 stopped → waiting",
        "web.0 stopped → waiting",
        "db.0 waiting → starting",
        "spawn db.0 (0 restarts)",
    ]);
    stage.at(seconds(7));
    stage.is_ready("db.0");
    stage.check(&[
        "db.0 starting → running",
        "web.0 waiting → starting",
        "spawn web.0 (0 restarts)",
        "web.0 starting → running",
    ]);
    // Twice is no news.
    stage.is_ready("db.0");
    stage.check(&[]);
}

#[test]
fn a_service_that_is_not_ready_in_time_is_stopped_and_restarted() {
    let mut stage = Stage::boot(vec![Service { ready_timeout: seconds(3), ..told("db") }]);
    stage.forget();
    assert_eq!(stage.next(), Some(seconds(3)));
    stage.at(seconds(3));
    stage.check(&["db.0 starting → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    // Too late, and its own end is no success.
    stage.is_ready("db.0");
    stage.exits("db.0", 0);
    stage.check(&["db.0 stopping → backoff"]);
    assert_eq!(stage.unstable("db.0"), 1);
    stage.after(millis(100));
    stage.check(&["db.0 backoff → starting", "spawn db.0 (1 restarts)"]);
}

#[test]
fn a_service_can_extend_its_start_and_stop_timeouts() {
    let mut stage = Stage::boot(vec![Service { ready_timeout: seconds(3), ..told("db") }]);
    stage.forget();
    stage.at(seconds(2));
    let run = stage.run("db.0");
    stage.send(Event::TimeoutExtended { run, by: seconds(5) });
    stage.at(seconds(6));
    stage.check(&[]);
    stage.at(seconds(7));
    stage.check(&["db.0 starting → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    stage.send(Event::TimeoutExtended { run, by: seconds(20) });
    stage.at(seconds(26));
    stage.check(&[]);
    stage.at(seconds(27));
    stage.check(&["db.0 ignores its stop", "kill db.0 group SIGKILL"]);
}

#[test]
fn a_stop_during_a_start_is_not_a_failure() {
    let mut stage = Stage::boot(vec![told("db"), service("web")]);
    stage.forget();
    stage.stop("db");
    stage.exits("db.0", 1);
    stage.check(&[
        "db.0 starting → stopping",
        "kill db.0 main SIGTERM",
        "kill db.0 main SIGCONT",
        "db.0 stopping → stopped",
        "reply 1 done",
    ]);
}

#[test]
fn a_service_without_watchdog_pings_is_aborted_and_restarted() {
    let mut stage = Stage::boot(vec![Service { watchdog: Some(seconds(4)), ..told("db") }]);
    stage.is_ready("db.0");
    stage.forget();
    let run = stage.run("db.0");
    stage.at(seconds(3));
    stage.send(Event::WatchdogPing { run });
    stage.at(seconds(6));
    stage.check(&[]);
    stage.at(seconds(7));
    stage.check(&["db.0 running → stopping", "kill db.0 main SIGABRT", "kill db.0 main SIGCONT"]);
    stage.at(seconds(11));
    stage.dies("db.0", Signal::ABRT);
    // Eleven seconds are a stable run.
    stage.check(&["db.0 stopping → starting", "spawn db.0 (1 restarts)"]);
}

#[test]
fn a_watchdog_interval_applies_from_its_report_on() {
    let mut stage = Stage::boot(vec![service("db")]);
    stage.forget();
    let run = stage.run("db.0");
    stage.send(Event::WatchdogInterval { run, interval: seconds(2) });
    assert_eq!(stage.next(), Some(seconds(2)));
    stage.send(Event::WatchdogInterval { run, interval: seconds(0) });
    assert_eq!(stage.next(), None);
    stage.send(Event::WatchdogTriggered { run });
    stage.check(&["db.0 running → stopping", "kill db.0 main SIGABRT", "kill db.0 main SIGCONT"]);
}

#[test]
fn a_watchdog_interval_reported_before_readiness_applies_once_the_service_is_ready() {
    let mut stage = Stage::boot(vec![told("db")]);
    let run = stage.run("db.0");
    stage.send(Event::WatchdogInterval { run, interval: seconds(2) });
    stage.at(seconds(5));
    stage.is_ready("db.0");
    stage.forget();
    assert_eq!(stage.next(), Some(seconds(2)));
    stage.at(seconds(7));
    stage.check(&["db.0 running → stopping", "kill db.0 main SIGABRT", "kill db.0 main SIGCONT"]);
    stage.dies("db.0", Signal::ABRT);
    stage.after(millis(100));
    stage.is_ready("db.0");
    assert_eq!(stage.next(), None, "the next process has not said so");
}

#[test]
fn a_service_that_reports_its_stop_has_no_watchdog_and_the_usual_stop_timeout() {
    let db = || Service { watchdog: Some(seconds(1)), ..told("db") };
    let mut stage = Stage::boot(vec![db(), service("web")]);
    stage.is_ready("db.0");
    stage.forget();
    let run = stage.run("db.0");
    stage.send(Event::StoppingReported { run });
    stage.check(&["db.0 running → stopping"]);
    stage.at(seconds(4));
    stage.exits("db.0", 0);
    // Four seconds were no stable run.
    stage.check(&["db.0 stopping → backoff"]);
    stage.after(millis(100));
    stage.is_ready("db.0");
    stage.forget();
    let run = stage.run("db.0");
    stage.send(Event::StoppingReported { run });
    stage.after(seconds(5));
    stage.check(&["db.0 running → stopping", "db.0 ignores its stop", "kill db.0 group SIGKILL"]);
    stage.dies("db.0", Signal::KILL);
    stage.after(seconds(1));
    stage.is_ready("db.0");
    stage.forget();
    // Whoever wants it stopped says so.
    let run = stage.run("db.0");
    stage.send(Event::StoppingReported { run });
    stage.stop("db");
    stage.check(&["db.0 running → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    stage.exits("db.0", 0);
    stage.check(&["db.0 stopping → stopped", "reply 1 done"]);
}

#[test]
fn a_service_can_reset_its_failure_count() {
    let mut stage = Stage::boot(vec![told("db")]);
    for _ in 0..3 {
        stage.exits("db.0", 1);
        stage.after(seconds(10));
    }
    assert_eq!(stage.unstable("db.0"), 3);
    let run = stage.run("db.0");
    stage.send(Event::ResetFailures { run });
    stage.exits("db.0", 1);
    assert_eq!(stage.unstable("db.0"), 1);
}

#[test]
fn a_reloading_service_is_not_ready_until_it_reports_ready_again() {
    let mut stage = Stage::boot(vec![told("db"), Service { autostart: false, ..needing(&[0], service("web")) }]);
    stage.is_ready("db.0");
    let run = stage.run("db.0");
    stage.send(Event::Reloading { run, since: None });
    assert!(!stage.ready_now("db.0"));
    stage.forget();
    stage.start("web");
    stage.check(&["web.0 stopped → waiting"]);
    stage.is_ready("db.0");
    assert!(stage.ready_now("db.0"));
    stage.check(&["web.0 waiting → starting", "spawn web.0 (0 restarts)", "web.0 starting → running", "reply 1 done"]);
}

#[test]
fn a_reported_main_pid_replaces_the_main_process() {
    let mut stage = Stage::boot(vec![service("db")]);
    stage.forget();
    let (run, pid) = (stage.run("db.0"), Pid::new(500).unwrap());
    assert_ne!(stage.pid_shown("db.0"), Some(pid));
    stage.send(Event::MainPidChanged { run, pid });
    stage.check(&[]);
    assert_eq!(stage.pid_shown("db.0"), Some(pid));
    stage.signal(Signal::USR1);
    stage.check(&["kill db.0 main SIGUSR1", "SIGUSR1 forwarded to 1"]);
    stage.exits("db.0", 1);
    stage.check(&["db.0 running → backoff"]);
}

#[test]
fn a_failed_bind_makes_the_service_fail() {
    let mut stage = Stage::unborn(vec![
        Service { on_failure: keepalive::model::plan::ExitAction::Ignore, ..service("web") },
        service("db"),
    ]);
    stage.spawns = Spawns::BindFailing;
    stage.send(Event::Tick);
    let lines = stage.only("web.0");
    assert_eq!(lines, ["web.0 stopped → waiting", "web.0 waiting → starting", "web.0 starting → failed"]);
}

#[test]
fn stop_delay_delays_the_stop_signal_but_not_a_forced_stop() {
    let web = Service { stop: Stop { delay: seconds(2), ..service("web").stop }, ..service("web") };
    let mut stage = Stage::boot(vec![web, service("db")]);
    stage.forget();
    stage.stop("web");
    stage.check(&["web.0 running → stopping"]);
    stage.at(seconds(2));
    stage.check(&["kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
    stage.at(seconds(7));
    stage.check(&["web.0 ignores its stop", "kill web.0 group SIGKILL"]);
    stage.dies("web.0", Signal::KILL);
    stage.forget();
    // Nobody relies on what does not run yet, and a second term waits for nobody.
    stage.start("web");
    stage.forget();
    stage.signal(Signal::TERM);
    stage.signal(Signal::TERM);
    assert_eq!(stage.only("forced"), ["forced"]);
}

fn probed(name: &str) -> Service {
    let probe = Probe::Tcp(Template::Fixed(c"127.0.0.1:80".to_owned()));
    Service { ready: Ready::Probe(probe), ready_timeout: seconds(3), ..service(name) }
}

const SOURCES: [ReadySource; 4] = [ReadySource::Notify, ReadySource::Ipc, ReadySource::Fd, ReadySource::Probe];

#[test]
fn only_the_configured_source_makes_a_service_ready() {
    let settings = [Ready::Notify, Ready::Ipc, Ready::Fd(3), probed("").ready];
    for (ready, own) in settings.into_iter().zip(SOURCES) {
        for source in SOURCES {
            let mut stage = Stage::boot(vec![Service { ready: ready.clone(), ..service("db") }]);
            stage.is_ready_by(source, "db.0");
            assert_eq!(stage.ready_now("db.0"), source == own, "{source:?} with {ready:?}");
        }
    }
    for source in SOURCES {
        let mut stage = Stage::boot(vec![Service { ready: Ready::Delay(seconds(5)), ..service("db") }]);
        stage.is_ready_by(source, "db.0");
        assert!(!stage.ready_now("db.0"), "{source:?} with a delay");
    }
}

#[test]
fn a_ready_report_implies_that_the_program_runs() {
    let mut stage = Stage::new(plans::plan(vec![told("db")]));
    stage.spawns = Spawns::Pending;
    stage.send(Event::Boot);
    stage.is_ready("db.0");
    assert!(stage.ready_now("db.0"));
    stage.forget();
    stage.executes("db.0");
    stage.check(&[]);
}

#[test]
fn ready_1_ends_a_reload_whatever_the_readiness_setting() {
    for ready in [Ready::Exec, Ready::Delay(seconds(0)), Ready::Ipc, Ready::Fd(3), probed("").ready] {
        let own = match ready {
            Ready::Ipc => ReadySource::Ipc,
            Ready::Fd(_) => ReadySource::Fd,
            _ => ReadySource::Probe,
        };
        let mut stage = Stage::boot(vec![Service { ready: ready.clone(), ..service("db") }]);
        // Before it has been ready there is nothing that this could end.
        if !stage.ready_now("db.0") && ready != Ready::Delay(seconds(0)) {
            stage.is_away("db.0");
            stage.is_ready("db.0");
            assert!(!stage.ready_now("db.0"), "{ready:?}");
        }
        stage.is_ready_by(own, "db.0");
        stage.at(seconds(1));
        assert!(stage.ready_now("db.0"), "{ready:?}");
        stage.is_away("db.0");
        assert!(!stage.ready_now("db.0"), "{ready:?}");
        stage.is_ready("db.0");
        assert!(stage.ready_now("db.0"), "{ready:?}");
    }
}

#[test]
fn ready_1_ends_a_reload_of_a_surge_instance() {
    for ready in [Ready::Exec, Ready::Delay(seconds(0))] {
        let mut web = Service { ready: ready.clone(), ..service("web") };
        web.reload.soak = seconds(5);
        let mut stage = Stage::boot(vec![web]);
        stage.at(seconds(1));
        stage.ask("web", Verb::Reload);
        stage.at(seconds(2));
        stage.forget();
        stage.is_away("web.0'");
        stage.is_ready_by(ReadySource::Ipc, "web.0'");
        stage.check(&["web.0' running → starting"]);
        stage.is_ready("web.0'");
        stage.check(&["web.0' starting → running"]);
        stage.at(seconds(7));
        assert_eq!(stage.only("web.0 "), ["web.0 replaced"], "{ready:?}");
    }
}

#[test]
fn reports_after_stopping_1_are_ignored() {
    let mut stage = Stage::boot(vec![Service { ready_timeout: seconds(3), ..told("db") }]);
    stage.forget();
    let run = stage.run("db.0");
    stage.send(Event::StoppingReported { run });
    stage.is_ready("db.0");
    stage.check(&[]);
    stage.at(seconds(3));
    stage.check(&["db.0 starting → stopping", "kill db.0 main SIGTERM", "kill db.0 main SIGCONT"]);
    stage.exits("db.0", 0);
    stage.after(millis(100));
    stage.forget();
    // The next process has not said so.
    stage.is_ready("db.0");
    stage.check(&["db.0 starting → running"]);
    let run = stage.run("db.0");
    stage.send(Event::StoppingReported { run });
    stage.is_away("db.0");
    stage.is_ready("db.0");
    stage.check(&["db.0 running → stopping"]);
}

#[test]
fn a_probe_starts_once_when_the_program_runs() {
    let mut stage = Stage::new(plans::plan(vec![probed("db")]));
    stage.spawns = Spawns::Pending;
    stage.send(Event::Boot);
    assert_eq!(stage.only("probe"), [""; 0]);
    stage.executes("db.0");
    stage.executes("db.0");
    stage.check(&["probe db.0"]);
    let run = stage.run("db.0");
    stage.send(Event::MainPidChanged { run, pid: Pid::new(500).unwrap() });
    stage.check(&[]);
    stage.is_ready_by(ReadySource::Probe, "db.0");
    stage.check(&["db.0 starting → running"]);
    stage.at(seconds(60));
    stage.check(&[]);
}

#[test]
fn a_reported_main_pid_implies_that_the_program_runs() {
    let mut stage = Stage::new(plans::plan(vec![probed("db")]));
    stage.spawns = Spawns::Pending;
    stage.send(Event::Boot);
    stage.forget();
    let run = stage.run("db.0");
    stage.send(Event::MainPidChanged { run, pid: Pid::new(500).unwrap() });
    stage.executes("db.0");
    stage.check(&["probe db.0"]);
}

#[test]
fn a_probe_is_aborted_at_the_ready_timeout() {
    let mut stage = Stage::boot(vec![probed("db"), Service { ready_timeout: seconds(3), ..told("web") }]);
    stage.forget();
    stage.at(seconds(3));
    stage.check(&[
        "db.0 starting → stopping",
        "kill db.0 main SIGTERM",
        "kill db.0 main SIGCONT",
        "give up the probe of db.0",
        "web.0 starting → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    // It has passed too late.
    stage.is_ready_by(ReadySource::Probe, "db.0");
    stage.check(&[]);
}

#[test]
fn a_reaped_process_is_not_probed() {
    let mut stage = Stage::new(plans::plan(vec![probed("db")]));
    stage.spawns = Spawns::Pending;
    stage.send(Event::Boot);
    let run = stage.run("db.0");
    stage.forget();
    stage.hears(Event::Executed { run });
    stage.reaped("db.0");
    stage.send(Event::Tick);
    stage.check(&["db.0 starting → backoff"]);
}

#[test]
fn a_stop_is_announced_on_the_ipc_channel_before_the_stop_signal() {
    let mut web = service("web");
    web.process = Process { ipc: true, ..web.process };
    web.stop.delay = seconds(2);
    let mut stage = Stage::boot(vec![web, service("db")]);
    stage.forget();
    stage.stop("web");
    stage.check(&["web.0 running → stopping"]);
    stage.at(seconds(2));
    stage.check(&["announce the stop of web.0", "kill web.0 main SIGTERM", "kill web.0 main SIGCONT"]);
}

#[test]
fn a_run_is_released_before_any_other_action_follows_its_exit() {
    let mut stage = Stage::boot(vec![service("web")]);
    stage.shows_releases = true;
    stage.forget();
    stage.ends("web", ExitStatus::Code(1), Leftovers::Some);
    assert_eq!(stage.lines[..2], ["release web.0", "web.0 leaves processes"]);
    stage.forget();
    stage.leftovers_gone("web");
    stage.check(&["web.0 stopping → backoff"]);
    stage.at(seconds(60));
    stage.forget();
    // The old process ends while the new one is not ready: they change places after that.
    stage.ask("web", Verb::Reload);
    stage.spawns = Spawns::Pending;
    stage.exits("web.0'", 0);
    stage.forget();
    stage.ask("web", Verb::Reload);
    stage.forget();
    stage.exits("web.0", 1);
    stage.check(&["release web.0", "web.0 replaced", "web.0' running → stopped"]);
}
