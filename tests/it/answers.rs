//! Answers to requests that have failed: reasons and last lines.

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::harness::{Place, Running};
use crate::http::Control;
use crate::services::Set;

const OTHER: &str = "[services.other]\ncommand = [\"sleep\", \"1000\"]\n";

fn failing(name: &str, script: &str, settings: &str) -> String {
    format!("[services.{name}]\ncommand = [\"sh\", \"-c\", \"{script}\"]\non_failure = \"ignore\"\n{settings}")
}

fn begin(text: &str) -> (Set, Running, Control) {
    let set = Set::new(&format!("{OTHER}{text}"));
    let running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("other.0", "running");
    (set, running, control)
}

fn end(mut running: Running) {
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

fn append(set: &Set, text: &str) {
    let before = std::fs::read_to_string(&set.config).unwrap();
    std::fs::write(&set.config, before + text).unwrap();
}

#[test]
fn the_answer_has_the_last_lines_of_each_failed_instance() {
    let script = "echo boom-{instance}; exit 3";
    let (_set, running, control) =
        begin(&failing("web", script, "instances = 7\nrestart = \"never\"\nautostart = false\n"));
    let answer = control.post("/v1/services/web/start");
    assert_eq!(answer.status, 409, "{}", answer.reason());
    let shown: String = (0..5).map(|number| format!("web.{number}:\nboom-{number}\n")).collect();
    assert_eq!(answer.json()["last_lines"], shown + "and of 2 more: see `keepalive status web`");
    end(running);
}

// One of them has been started again by the time of the answer.
#[test]
fn the_answer_has_the_reason_and_the_last_lines_of_a_process_that_another_one_has_followed() {
    let once = "if [ ! -e DIR/{service} ]; then touch DIR/{service}; echo boom; exit 3; fi; exec sleep 1000";
    let late = "sleep 0.7; echo late; exit 4";
    let settings = "autostart = false\nbackoff = { initial = \"1ms\" }\n";
    let (_set, running, control) = begin(&(failing("early", once, settings) + &failing("late", late, settings)));
    let answer = control.post("/v1/services/early,late/start");
    let (reason, lines) = (answer.reason(), answer.json()["last_lines"].clone());
    assert!(reason.starts_with("early.0 has failed (exited with code 3, ran "), "{reason}");
    assert_eq!((answer.status, lines), (409, "early.0:\nboom\nlate.0:\nlate".into()), "{reason}");
    end(running);
}

#[test]
fn the_answer_has_the_last_lines_of_the_dependency_that_has_failed() {
    let migrate = failing("migrate", "echo no database; exit 3", "type = \"oneshot\"\nrestart = \"never\"\n");
    let web = "[services.web]\ncommand = [\"sleep\", \"1000\"]\ndepends_on = [\"migrate\"]\nautostart = false\n";
    let (_set, running, control) = begin(&(migrate + web));
    control.wait_for("migrate.0", "failed");
    let answer = control.post("/v1/services/web/start");
    assert_eq!(
        (answer.status, answer.json()["last_lines"].as_str()),
        (409, Some("no database")),
        "{}",
        answer.reason()
    );
    end(running);
}

// The contract: its failure fails the reload, and nothing else is touched.
#[test]
fn a_reload_with_a_oneshot_that_fails_is_answered_with_its_reason_and_last_lines() {
    let (set, running, control) = begin("");
    let migrate = "[services.migrate]\ncommand = [\"sh\", \"-c\", \"echo no database; exit 3\"]\ntype = \"oneshot\"\n";
    let web = "[services.web]\ncommand = [\"sleep\", \"1000\"]\ndepends_on = [\"migrate\"]\n";
    append(&set, &format!("{migrate}backoff = {{ initial = \"1h\", max = \"1h\" }}\n{web}"));
    let check = |reason: &str| {
        let answer = control.post("/v1/reload");
        let (found, lines) = (answer.reason(), answer.json()["last_lines"].clone());
        assert!(found.starts_with("migrate.0 ") && found.contains(reason), "{found}");
        assert_eq!((answer.status, lines), (409, "no database".into()), "{found}");
    };
    check("exited with code 3");
    set.change("echo no database; exit 3", "true");
    assert_eq!(control.post("/v1/reload").status, 200);
    control.wait_for("web.0", "running");
    let web = control.instance("web.0")["pid"].clone();
    set.change("\"true\"", "\"echo no database; exit 4\"");
    check("not restarted, because the reload has failed");
    assert_eq!(control.instance("web.0")["pid"], web);
    end(running);
}

// The contract: "every wait has its reason in status".
#[test]
fn a_stop_that_waits_and_a_oneshot_that_runs_say_so() {
    let puppet = "command = [\"PUPPET\", \"ignore\", \"15\"]\n";
    let (_set, mut running, control) = begin(&format!(
        "[services.delayed]\n{puppet}stop_delay = \"2h\"\n[services.deaf]\n{puppet}stop_timeout = \"2h\"\n\
         [services.job]\n{puppet}type = \"oneshot\"\n"
    ));
    let reason = |id: &str| control.instance(id)["reason"].as_str().unwrap().to_owned();
    let mut pids = Vec::new();
    for id in ["delayed.0", "deaf.0", "job.0"] {
        control.wait_for(id, "running");
        pids.push(Pid::new(control.instance(id)["pid"].as_i64().unwrap().try_into().unwrap()).unwrap());
    }
    assert_eq!(reason("job.0"), "has not finished");
    for (name, expected) in
        [("delayed", "restarted by operator; stop signal in 1h"), ("deaf", "restarted by operator; SIGKILL in 1h")]
    {
        let answer = control.post(&format!("/v1/services/{name}/restart?timeout=10ms"));
        assert!(answer.status == 504 && answer.reason().contains(expected), "{}", answer.reason());
        assert!(reason(&format!("{name}.0")).starts_with(expected), "{}", reason(&format!("{name}.0")));
    }
    let events = control.get("/v1/events").body;
    assert!(events.contains("delayed.0 running → stopping (restarted by operator; stop signal in 2h)"), "{events}");
    assert!(events.contains("deaf.0 running → stopping (restarted by operator)"), "{events}");
    running.send(Signal::TERM);
    for pid in pids {
        signal_process(pid, Signal::KILL).unwrap();
    }
    running.end();
}

#[test]
fn a_scale_says_what_stays_stopped() {
    let (_set, running, control) = begin("");
    assert_eq!(control.post("/v1/services/other/stop").status, 200);
    let answer = control.post("/v1/services/other/scale?instances=%2B1");
    assert_eq!(
        (answer.status, answer.reason()),
        (200, "other has 2 instances; stopped by operator: other.0".to_owned())
    );
    let states = ["other.0", "other.1"].map(|id| control.instance(id)["state"].clone());
    assert_eq!(states, ["stopped", "running"]);
    end(running);
}
