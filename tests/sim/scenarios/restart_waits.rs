//! Restarts, and more instances, of what depends on something that is not ready.

use keepalive::model::plan::{ExitAction, RestartPolicy, Service};
use keepalive::supervisor::{Event, Request, RequestId, Verb};

use super::reload::notify;
use super::{Setup, depending_on, millis, seconds};
use crate::plans::{oneshot, service};

/// `db` is ready, and so is `web`, which depends on it.
fn db_and_web() -> Setup {
    let mut setup = Setup::boot(vec![notify("db", 1), depending_on(&[0], service("web"))]);
    setup.report_ready("db.0");
    setup.after(seconds(60));
    setup.forget();
    setup
}

/// A process that works is not given up before another one can start.
#[test]
fn a_restart_waits_until_the_dependencies_are_ready() {
    let mut setup = db_and_web();
    setup.exits("db.0", 1);
    setup.forget();
    setup.restart("web");
    setup.after(millis(500));
    assert_eq!(setup.only("web"), [""; 0]);
    setup.report_ready("db.0");
    setup.check(&[
        "db.0 starting → running",
        "web.0 running → stopping",
        "kill web.0 main SIGTERM",
        "kill web.0 main SIGCONT",
    ]);
    setup.exits("web.0", 0);
    setup.after(seconds(1));
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
}

#[test]
fn a_restart_that_was_withdrawn_while_it_waited_changes_nothing() {
    let mut setup = db_and_web();
    setup.exits("db.0", 1);
    setup.restart("web");
    setup.send(Event::Withdrawn(RequestId(1)));
    setup.after(seconds(1));
    setup.report_ready("db.0");
    assert_eq!(setup.only("web"), [""; 0]);
}

#[test]
fn a_restart_that_waits_is_refused_when_the_dependency_is_stopped() {
    let mut setup = db_and_web();
    setup.exits("db.0", 1);
    setup.restart("web");
    setup.forget();
    setup.stop("db");
    setup.exits("db.0", 0);
    let lines = setup.only("");
    assert!(lines.contains(&"reply 1 DependencyUnavailable".into()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("web")), "{lines:?}");
}

#[test]
fn a_stop_supersedes_a_restart_that_waits() {
    let mut setup = db_and_web();
    setup.exits("db.0", 1);
    setup.restart("web");
    setup.forget();
    setup.stop("web");
    setup.exits("web.0", 0);
    assert_eq!(setup.only("reply"), ["reply 1 Superseded", "reply 2 done"]);
    setup.after(seconds(1));
    setup.report_ready("db.0");
    setup.after(seconds(60));
    assert_eq!(setup.only("web"), [""; 0]);
}

/// The new process is another one than that which has exited while the restart waited.
#[test]
fn a_restart_whose_process_exits_while_it_waits_is_done_when_the_next_one_is_ready() {
    let mut setup = db_and_web();
    setup.exits("db.0", 1);
    setup.restart("web");
    setup.exits("web.0", 1);
    setup.after(seconds(3));
    setup.report_ready("db.0");
    setup.exits("web.0", 0);
    setup.after(seconds(2));
    assert_eq!(setup.only("reply"), ["reply 1 done"]);
}

/// "`restart` is refused while a dependency is stopped or has failed, and so is `scale` to more instances": whatever its state.
#[test]
fn what_an_operator_has_stopped_is_not_started_by_a_restart_or_a_scale() {
    let mut setup = Setup::boot(vec![
        service("db"),
        depending_on(&[0], service("web")),
        depending_on(&[0], oneshot("one")),
        depending_on(&[0], Service { instances: 0, ..service("off") }),
    ]);
    setup.exits("one.0", 0);
    setup.ask_all(Verb::Stop);
    setup.exits("web.0", 0);
    setup.exits("db.0", 0);
    setup.forget();
    setup.restart("web");
    setup.restart("one");
    setup.scale("web", 2);
    setup.scale("off", 1);
    setup.check(&[2, 3, 4, 5].map(|number| format!("reply {number} DependencyUnavailable")).each_ref().map(|it| &**it));
}

#[test]
fn what_has_completed_stays_so_if_a_restart_is_refused() {
    let mut db = Service { on_failure: ExitAction::Ignore, ..service("db") };
    db.restart.policy = RestartPolicy::Never;
    let mut setup = Setup::boot(vec![db, depending_on(&[0], oneshot("c")), service("b")]);
    setup.exits("c.0", 0);
    setup.exits("db.0", 1);
    setup.forget();
    setup.restart("c");
    setup.check(&["reply 1 DependencyUnavailable"]);
    setup.request(Request::Scale(setup.id("b").service, 1));
    setup.check(&["reply 2 done"]);
}
