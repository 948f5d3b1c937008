//! Reloads of services that depend on others.

use keepalive::model::plan::{ExitAction, RestartPolicy, Strategy};
use keepalive::supervisor::RolloutError;

use super::reload::{boot_ready, changed, notify, with};
use super::*;

#[test]
fn a_dependency_is_reloaded_before_its_dependents() {
    let mut setup = boot_ready(vec![notify("db", 1), depending_on(&[0], notify("web", 1))]);
    setup.reload("db");
    setup.reload("web");
    assert_eq!(setup.only("spawn"), ["spawn db.0' (1 restarts)"]);
    setup.report_ready("db.0'");
    setup.exits("db.0'", 0);
    assert_eq!(setup.only("spawn"), ["spawn web.0' (1 restarts)"]);
}

/// A process that works is not given up for one that could not start.
#[test]
fn a_reload_fails_while_a_dependency_is_stopped() {
    for strategy in [Strategy::Rolling, Strategy::Restart] {
        let web = with(|reload| reload.strategy = strategy, notify("web", 1));
        let mut setup = boot_ready(vec![notify("db", 1), depending_on(&[0], web.clone())]);
        setup.stop("db");
        setup.exits("db", 0);
        setup.forget();
        setup.reload("web");
        setup.check(&["web reloads", "web not reloaded", "reply 2 ReloadFailed"]);
        assert_eq!(setup.rollout_error, Some(RolloutError::DependencyStopped(ServiceIndex(0))));
        setup.configure(vec![notify("db", 1), depending_on(&[0], changed(web))]);
        assert_eq!(setup.only("reply"), ["reply 3 ReloadFailed"]);
    }
}

#[test]
fn a_signal_reload_needs_no_dependency() {
    let web = with(|reload| reload.strategy = Strategy::Signal(Signal::HUP), notify("web", 1));
    let mut setup = boot_ready(vec![notify("db", 1), depending_on(&[0], web)]);
    setup.stop("db");
    setup.exits("db", 0);
    setup.forget();
    setup.reload("web");
    setup.after(seconds(1));
    setup.check(&["web reloads", "kill web.0 main SIGHUP", "web reloaded", "reply 2 done"]);
}

/// There is no process that a reload could start.
#[test]
fn a_reload_of_what_has_failed_fails_if_its_dependency_has() {
    let mut services = [notify("db", 1), depending_on(&[0], notify("web", 1)), notify("other", 1)];
    for service in &mut services {
        (service.restart.policy, service.on_failure) = (RestartPolicy::Never, ExitAction::Ignore);
    }
    let mut setup = boot_ready(services.into());
    setup.exits("web", 1);
    setup.exits("db", 1);
    setup.forget();
    setup.reload("web");
    setup.check(&["web reloads", "web not reloaded", "reply 1 ReloadFailed"]);
    assert_eq!(setup.rollout_error, Some(RolloutError::DependencyFailed(ServiceIndex(0))));
}
