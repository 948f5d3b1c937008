//! What reloads of the configuration have brought and does not work: later requests, and what is said of it.

use keepalive::model::Signal;

use crate::harness::Place;
use crate::http::Control;
use crate::services::Set;

const WEB: &str = "[services.web]\ncommand = \"sleep 1000\"\n";

fn oneshot(name: &str, script: &str) -> String {
    format!("[services.{name}]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nrestart = \"never\"\n")
}

/// `a || b` of a pipeline must not go green with a failed migration.
#[test]
fn what_a_reload_has_brought_and_has_failed_fails_each_reload_and_ends_nothing() {
    let set = Set::new(WEB);
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "running");
    set.change("[services.web]", &(oneshot("seed", "exit 4") + "[services.web]"));
    for request in ["reload", "reload", "services/seed/start", "services/seed/restart", "reload"] {
        let answer = control.post(&format!("/v1/{request}"));
        assert_eq!(answer.status, 409, "{request}: {}", answer.body);
        assert!(answer.reason().starts_with("seed.0 has failed (exited with code 4, ran "), "{}", answer.reason());
    }
    set.change("exit 4", "exit 0");
    let answer = control.post("/v1/reload");
    assert_eq!((answer.status, &*answer.reason()), (200, "configuration reloaded: 1 reloaded, 1 unchanged"));
    let answer = control.post("/v1/reload");
    assert_eq!((answer.status, &*answer.reason()), (200, "configuration reloaded: 2 unchanged"));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn what_runs_with_its_previous_definition_says_so() {
    const BACK: &str = "migrate: the previous definition is in effect, because the reload has failed; `keepalive reload` \
                        tries the new one again";
    let set = Set::new(&(WEB.to_owned() + &oneshot("migrate", "true") + &oneshot("other", "exit 0")));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "running");
    control.wait_for("migrate.0", "completed");
    control.wait_for("other.0", "completed");
    set.change("\"true\"", "\"exit 3\"");
    for _ in 0..3 {
        let answer = control.post("/v1/reload");
        assert_eq!(answer.status, 409);
        assert!(answer.reason().starts_with("migrate.0 has failed (exited with code 3, ran "), "{}", answer.reason());
    }
    assert_eq!(control.instance("migrate.0")["rolled_back"], true);
    assert!(control.get("/v1/services/migrate").body.contains("  definition the previous definition is in effect"));
    let warning = |request: &str| {
        let answer = control.post(&format!("/v1/services/{request}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["warning"].as_str().unwrap_or_default().to_owned()
    };
    // Only the other one was not run.
    let left = "other: completed, not run again; `keepalive start other` runs it";
    assert_eq!(warning("all/restart"), format!("{left}; {BACK}"));
    assert_eq!(warning("migrate/start"), BACK);
    assert_eq!(warning("web/restart"), "");
    set.change("exit 3", "true");
    assert_eq!(control.post("/v1/reload").reason(), "configuration reloaded: 3 unchanged");
    assert_eq!(control.instance("migrate.0")["rolled_back"], serde_json::Value::Null);
    assert_eq!(warning("migrate/start"), "");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let log = running.stderr();
    let line =
        "migrate rolled back to its previous configuration: the new process of migrate.0 failed: exited with code 3";
    assert!(log.contains(line), "{log}");
}

#[test]
fn the_answer_to_a_reload_names_what_does_not_run() {
    let api = "[services.api]\ncommand = \"sleep 1000\"\n[services.off]\ncommand = \"sleep 1000\"\nautostart = false\n";
    let set = Set::new(&(WEB.to_owned() + api));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "running");
    control.wait_for("api.0", "running");
    assert_eq!(control.post("/v1/services/api/stop").status, 200);
    assert_eq!(control.post("/v1/services/all/reload").reason(), "all reloaded; stopped: api.0, off.0");
    assert_eq!(control.post("/v1/services/all/stop").status, 200);
    let idle = control.post("/v1/services/all/reload");
    assert_eq!((idle.status, idle.reason().as_str()), (200, "nothing to reload; stopped: web.0, api.0, off.0"));
    assert_eq!(control.post("/v1/services/web/start").status, 200);
    set.change("sleep 1000", "sleep 1001");
    let expect = "configuration reloaded: 1 reloaded; not running: api, off (new definition used at the next start)";
    assert_eq!(control.post("/v1/reload").reason(), expect);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

/// More attempts of what is new may take long: the answer says what the reload of another service still waits for.
#[test]
fn the_answer_to_a_reload_says_that_a_service_still_waits_for_a_new_oneshot() {
    let set = Set::new(WEB);
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "running");
    let text = std::fs::read_to_string(&set.config).unwrap();
    let seed = "[services.seed]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"exit 4\"]\nbackoff = { initial = \"1h\", max = \"1h\" }\n";
    let new = text.replace("[services.web]", "[services.web]\nenv = { NEW = \"1\" }\ndepends_on = [\"seed\"]");
    std::fs::write(&set.config, format!("{new}\n{seed}")).unwrap();
    let answer = control.post("/v1/reload?timeout=50s");
    assert_eq!(answer.status, 409);
    let lines: Vec<String> = answer.reason().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("seed.0 is backing off (exited with code 4, ran "), "{lines:?}");
    assert_eq!(lines[1..], ["web is reloaded when seed is ready"]);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}
