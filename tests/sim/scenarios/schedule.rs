//! Schedules: what runs when the wall clock shows its time, and what does not.

use std::rc::Rc;

use keepalive::model::cron::Cron;
use keepalive::model::plan::{ExitAction, Restart, RestartPolicy, Service};
use keepalive::model::schedule::Schedule;
use keepalive::model::time_zone::TimeZone;
use keepalive::supervisor::{Event, Runs, Verb};

use super::{Setup, depending_on, seconds};
use crate::plans::{oneshot, service};

/// 2026-12-01 10:00 UTC, a Tuesday.
pub(crate) const TEN: i64 = 1_796_119_200;
const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

pub(crate) fn schedule(text: &str) -> Rc<Schedule> {
    let cron = Cron::parse(text).unwrap();
    Rc::new(Schedule { text: text.into(), zone_name: "UTC".into(), cron, zone: Rc::new(TimeZone::utc()) })
}

/// As the configuration makes it.
fn scheduled(name: &str, text: &str) -> Service {
    let service = oneshot(name);
    let restart = Restart { policy: RestartPolicy::Never, ..service.restart };
    Service { schedule: Some(schedule(text)), on_failure: ExitAction::Ignore, restart, ..service }
}

/// Whatever else happens, keepalive goes on.
fn boot(services: Vec<Service>) -> Setup {
    let mut setup = Setup::boot(services);
    setup.clock(TEN);
    setup.forget();
    setup
}

impl Setup {
    /// The clock shows this time.
    fn clock(&mut self, now: i64) {
        self.send(Event::WallClock(now));
    }

    /// The next time of the first service, from ten o'clock on.
    fn next_run(&self) -> Option<i64> {
        self.supervisor.view().services().next().unwrap().next_run.map(|next| next - TEN)
    }

    fn runs(&self) -> [u64; 3] {
        let Runs { succeeded, failed, skipped } = self.supervisor.view().services().next().unwrap().runs;
        [succeeded, failed, skipped]
    }
}

#[test]
fn a_oneshot_with_a_schedule_runs_when_it_is_due_and_not_before() {
    let mut setup = Setup::boot(vec![scheduled("backup", "*/5 * * * *")]);
    setup.check(&["backup.0 stopped → scheduled"]);
    assert_eq!(setup.supervisor.wall_deadline(), Some(i64::MIN), "the time is not known yet");
    setup.clock(TEN + 61);
    assert_eq!(setup.supervisor.wall_deadline(), Some(TEN + 5 * MINUTE));
    setup.clock(TEN + 299);
    setup.check(&[]);
    setup.clock(TEN + 300);
    setup.check(&["backup.0 scheduled → starting", "spawn backup.0 (0 restarts)", "backup.0 starting → running"]);
    setup.exits("backup.0", 0);
    setup.check(&["backup.0 running → scheduled"]);
    assert_eq!((setup.next_run(), setup.runs()), (Some(600), [1, 0, 0]));
    // Nothing else is left, and keepalive goes on.
    setup.clock(TEN + 600);
    setup.check(&["backup.0 scheduled → starting", "spawn backup.0 (0 restarts)", "backup.0 starting → running"]);
}

#[test]
fn keepalive_that_starts_at_the_time_of_a_schedule_runs_it() {
    let mut setup = boot(vec![scheduled("backup", "0 10 * * *")]);
    setup.clock(TEN);
    setup.check(&["backup.0 scheduled → starting", "spawn backup.0 (0 restarts)", "backup.0 starting → running"]);
    assert_eq!(setup.next_run(), Some(24 * HOUR));
}

#[test]
fn a_run_that_fails_is_counted_and_ends_nothing() {
    let mut setup = boot(vec![scheduled("backup", "*/5 * * * *"), service("web")]);
    setup.clock(TEN + 300);
    setup.forget();
    setup.exits("backup.0", 3);
    setup.check(&["backup.0 running → scheduled"]);
    assert_eq!((setup.next_run(), setup.runs()), (Some(600), [0, 1, 0]));
    let backup = setup.supervisor.view().services().next().unwrap();
    assert!(backup.ready, "a schedule makes nothing unready");
}

#[test]
fn a_run_is_restarted_if_it_is_configured_so_and_all_of_them_are_one_run() {
    let service = scheduled("backup", "*/5 * * * *");
    let restart = Restart { policy: RestartPolicy::OnFailure, max_restarts: Some(1), ..service.restart };
    let mut setup = boot(vec![Service { restart, ..service }]);
    setup.clock(TEN + 300);
    setup.forget();
    setup.exits("backup.0", 1);
    setup.check(&["backup.0 running → backoff"]);
    setup.clock(TEN + 600);
    setup.check(&["backup skipped"]);
    setup.after(seconds(1));
    setup.check(&["backup.0 backoff → starting", "spawn backup.0 (1 restarts)", "backup.0 starting → running"]);
    setup.exits("backup.0", 1);
    setup.check(&["backup.0 running → scheduled"]);
    assert_eq!((setup.next_run(), setup.runs()), (Some(900), [0, 1, 1]));
}

// cron(8) starts a second one. supercronic, systemd and Kubernetes with `Forbid` do not.
#[test]
fn a_run_that_is_due_while_the_last_one_is_not_over_is_skipped() {
    let mut setup = boot(vec![scheduled("backup", "*/5 * * * *")]);
    setup.clock(TEN + 300);
    setup.forget();
    for minutes in [10, 15, 20] {
        setup.clock(TEN + minutes * MINUTE);
        setup.check(&["backup skipped"]);
    }
    setup.exits("backup.0", 0);
    setup.check(&["backup.0 running → scheduled"]);
    assert_eq!((setup.next_run(), setup.runs()), (Some(1_500), [1, 0, 3]));
}

#[test]
fn runs_that_were_missed_do_not_pile_up() {
    let mut setup = boot(vec![scheduled("backup", "*/5 * * * *")]);
    // A pause of two hours.
    setup.clock(TEN + 2 * HOUR + 7);
    setup.check(&["backup.0 scheduled → starting", "spawn backup.0 (0 restarts)", "backup.0 starting → running"]);
    setup.exits("backup.0", 0);
    assert_eq!((setup.next_run(), setup.runs()), (Some(2 * HOUR + 300), [1, 0, 0]));
}

// cron(8): "Time changes of less than 3 hours … are handled specially … jobs that would have run in the skipped interval are run
// soon after … larger changes are considered to be corrections to the clock".
#[test]
fn a_clock_that_is_set_forward_by_hours_makes_up_for_nothing() {
    let mut setup = boot(vec![scheduled("backup", "0 11 * * *")]);
    setup.clock(TEN + 14 * HOUR);
    setup.check(&["backup skipped"]);
    assert_eq!((setup.next_run(), setup.runs()), (Some(25 * HOUR), [0, 0, 1]));
}

#[test]
fn what_has_run_does_not_run_again_when_the_clock_is_set_back() {
    let mut setup = boot(vec![scheduled("backup", "0 11 * * *")]);
    setup.clock(TEN + HOUR);
    setup.exits("backup.0", 0);
    setup.forget();
    setup.clock(TEN);
    assert_eq!(setup.next_run(), Some(25 * HOUR));
    setup.clock(TEN + HOUR);
    setup.check(&[]);
    // By more than three hours: the clock was wrong.
    setup.clock(TEN - 3 * HOUR);
    assert_eq!(setup.next_run(), Some(HOUR));
}

#[test]
fn a_schedule_that_repeats_follows_a_clock_that_is_set_back() {
    let mut setup = boot(vec![scheduled("poll", "*/5 * * * *")]);
    setup.clock(TEN + HOUR);
    setup.exits("poll.0", 0);
    setup.forget();
    setup.clock(TEN + 1);
    assert_eq!(setup.next_run(), Some(300));
    setup.clock(TEN + 300);
    assert_eq!(setup.only("spawn"), ["spawn poll.0 (0 restarts)"]);
}

#[test]
fn an_operator_runs_it_now_and_suspends_and_resumes_it() {
    let mut setup = boot(vec![scheduled("backup", "*/5 * * * *")]);
    setup.start("backup");
    setup.check(&["backup.0 scheduled → starting", "spawn backup.0 (0 restarts)", "backup.0 starting → running"]);
    setup.exits("backup.0", 0);
    setup.check(&["backup.0 running → scheduled", "reply 1 done"]);
    setup.stop("backup");
    setup.check(&["backup.0 scheduled → stopped", "reply 2 done"]);
    assert_eq!(setup.next_run(), None);
    setup.clock(TEN + 300);
    setup.check(&[]);
    setup.start("backup");
    setup.exits("backup.0", 1);
    assert_eq!(setup.only("reply"), ["reply 3 Failed"]);
    assert_eq!(setup.next_run(), Some(600));
    // A restart of everything runs nothing before its time.
    setup.request(keepalive::supervisor::Request::Control(keepalive::supervisor::Target::All, Verb::Restart));
    setup.check(&["reply 4 done"]);
}

#[test]
fn without_autostart_a_schedule_is_suspended_until_it_is_started() {
    let mut setup = boot(vec![Service { autostart: false, ..scheduled("backup", "*/5 * * * *") }, service("web")]);
    setup.clock(TEN + 300);
    setup.check(&[]);
    setup.start("backup");
    setup.exits("backup.0", 0);
    setup.forget();
    setup.clock(TEN + 600);
    assert_eq!(setup.only("spawn"), ["spawn backup.0 (0 restarts)"]);
}

#[test]
fn a_run_waits_for_what_it_depends_on_and_is_skipped_if_that_has_failed() {
    let db = Service { on_failure: ExitAction::Ignore, ..service("db") };
    let restart = Restart { policy: RestartPolicy::Never, ..db.restart.clone() };
    let db = Service { restart, ..db };
    let mut setup = boot(vec![depending_on(&[1], scheduled("backup", "*/5 * * * *")), db]);
    setup.exits("db.0", 1);
    setup.forget();
    setup.clock(TEN + 300);
    setup.check(&["backup.0 scheduled → scheduled"]);
    assert_eq!(setup.runs(), [0, 0, 1]);
    setup.start("db");
    setup.forget();
    setup.clock(TEN + 600);
    assert_eq!(setup.only("spawn"), ["spawn backup.0 (0 restarts)"]);
}

#[test]
fn a_shutdown_ends_a_schedule_and_stops_its_run() {
    let mut setup = boot(vec![scheduled("backup", "*/5 * * * *"), scheduled("report", "0 11 * * *")]);
    setup.clock(TEN + 300);
    setup.forget();
    setup.signal(keepalive::model::Signal::TERM);
    assert_eq!(
        setup.only("backup.0").into_iter().chain(setup.only("report.0")).collect::<Vec<_>>(),
        ["backup.0 running → stopping"]
    );
    setup.clock(TEN + 600);
    setup.exits("backup.0", 0);
    assert_eq!(setup.only("exit"), ["exit 0"]);
}

#[test]
fn a_new_configuration_changes_the_schedule_and_lets_a_run_finish() {
    let mut setup = boot(vec![scheduled("backup", "*/5 * * * *")]);
    setup.clock(TEN + 300);
    setup.forget();
    setup.configure(vec![scheduled("backup", "30 * * * *")]);
    assert_eq!(setup.only("configured"), ["configured: 0 new, 0 removed, 0 reloaded, 1 adjusted, 0 unchanged"]);
    setup.clock(TEN + 301);
    assert_eq!(setup.next_run(), Some(1_800));
    setup.exits("backup.0", 0);
    setup.check(&["backup.0 running → scheduled"]);
}

#[test]
fn a_service_that_a_new_configuration_adds_or_gives_a_schedule_waits_for_it() {
    let mut setup = boot(vec![service("web"), service("old")]);
    setup.configure(vec![service("web"), scheduled("old", "30 * * * *"), scheduled("new", "30 * * * *")]);
    setup.clock(TEN);
    setup.exits("old.0", 0);
    assert_eq!(setup.only("old.0"), ["old.0 running → stopping", "old.0 stopping → scheduled"]);
    setup.clock(TEN + 1_800);
    assert_eq!(setup.only("spawn"), ["spawn old.0 (1 restarts)", "spawn new.0 (0 restarts)"]);
    // And back.
    setup.exits("old.0", 0);
    setup.exits("new.0", 0);
    setup.configure(vec![service("web"), service("old"), scheduled("new", "30 * * * *")]);
    assert_eq!(setup.only("spawn"), ["spawn old.0 (1 restarts)"]);
    setup.after(seconds(1));
    setup.configure(vec![service("web")]);
    setup.exits("old.0", 0);
    setup.clock(TEN + 3 * 1_800);
    assert_eq!(setup.only("spawn"), Vec::<String>::new());
}
