//! Commands and reloads that fail: keepalive goes on, and says so.

use crate::control::begin;
use crate::harness::Place;
use crate::services::Set;

const SET: &str = concat!(
    "[services.b]\ncommand = [\"PUPPET\", \"ignore\"]\n",
    "[services.lazy]\ncommand = [\"false\"]\nmax_restarts = 0\nautostart = false\n",
    "[services.off]\ncommand = [\"false\"]\nmax_restarts = 0\ninstances = 0\n",
    "[services.mig]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"exit 4\"]\nautostart = false\n",
);

#[test]
fn a_command_that_fails_leaves_keepalive_running() {
    let set = Set::new(SET);
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("b.0", "running");
    // Without instances there is nothing to stop.
    let nothing = control.post("/v1/services/off/stop");
    assert_eq!(nothing.reason(), "off has no instances");
    for request in ["lazy/start", "off/scale?instances=1", "mig/start", "lazy/restart"] {
        let answer = control.post(&format!("/v1/services/{request}"));
        assert_eq!(answer.status, 409, "{request}: {}", answer.reason());
    }
    assert_eq!(control.state("b.0"), "running");
    let less = control.post("/v1/services/b/scale?instances=-5");
    assert_eq!((less.status, &*less.reason()), (400, "`-5` would leave fewer than 0 instances: there are 1 now"));
}

#[test]
fn the_metrics_tell_of_a_reload_that_has_brought_what_does_not_work() {
    let set = Set::new(SET);
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("b.0", "running");
    let check = |expected: [&str; 2]| {
        let text = control.get("/metrics").body;
        for line in expected {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    };
    check(["keepalive_config_reload_failures_total 0", "keepalive_config_last_reload_successful 1"]);
    set.change(
        "[services.b]",
        "[services.new]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"exit 9\"]\n[services.b]",
    );
    assert_eq!(control.post("/v1/reload").status, 409);
    check(["keepalive_config_reload_failures_total 1", "keepalive_config_last_reload_successful 0"]);
    set.change("exit 9", "exit 0");
    assert_eq!(control.post("/v1/reload").status, 200);
    check(["keepalive_config_reload_failures_total 1", "keepalive_config_last_reload_successful 1"]);
}

#[test]
fn what_waits_names_the_end_of_the_chain_that_it_waits_for() {
    let set = Set::new(concat!(
        "[services.db]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\nready = \"notify\"\nbackoff = { initial = \"1h\", max = \"1h\" }\n",
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"db\"]\n",
        "[services.mid]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"web\"]\n",
        "[services.edge]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"mid\"]\n",
    ));
    let (_running, control) = begin(&set, Place::Child);
    control.wait_for("db.0", "backoff");
    let reason = control.instance("edge.0")["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("waiting for mid (waiting for db (backoff: exited with code 3, ran "), "{reason}");
}
