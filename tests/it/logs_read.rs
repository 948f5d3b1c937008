//! Logs over the control socket: the server passes the connection to the logger, which answers.

use keepalive::model::Signal;
use keepalive::sys::signal_process;
use serde_json::{Value, json};

use crate::harness::{in_every_place, wait_until};
use crate::http::Control;
use crate::logs_lines::logger_of;
use crate::services::Set;

fn messages(lines: impl Iterator<Item = Value>) -> Vec<String> {
    lines.map(|line| line["message"].as_str().unwrap_or("?").to_owned()).collect()
}

#[test]
fn the_logger_answers_with_the_last_lines() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "put", "OUT", "one\\ntwo\\n", "ERR", "three\\n", "THEN", "end-on-term", "0"]
        log = { stdout = "prefix", stderr = "null", file = "DIR/web.log" }
        [services.db]
        command = ["PUPPET", "put", "OUT", "four\\n", "THEN", "end-on-term", "0"]
        log = { stdout = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        let control = Control::at(&set.socket());
        let (mut ready, mut output) = (0, Vec::new());
        while ready < 2 {
            output.push(running.line());
            ready += usize::from(output.last().unwrap().contains("| ready"));
        }
        let of = |names: &str| messages(control.stream(&format!("/v1/logs?{names}")));
        wait_until("all lines", || (of("service=web").len() == 4).then_some(()));
        let mut web = of("service=web.0");
        web.retain(|line| !line.starts_with("ready"));
        web.sort_unstable();
        assert_eq!(web, ["one", "three", "two"]);
        assert_eq!(of("service=db&lines=1").len(), 1);
        assert_eq!(of("service=db&lines=0"), [""; 0]);
        let both = of("service=db,keepalive");
        assert!(both.contains(&"four".to_owned()) && both[0].starts_with("version "), "{both:?}");
        let line = control.stream("/v1/logs?service=db").next().unwrap();
        let expect = json!({
            "time": line["time"], "service": "db", "instance": "db.0", "stream": "stdout", "message": "four",
            "partial": false,
        });
        assert_eq!(line, expect);
        assert_eq!(control.get("/v1/logs?service=nobody").status, 404);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn a_follower_receives_all_lines_until_the_end() {
    let set =
        Set::new("[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"prefix\" }\n");
    in_every_place(|place| {
        let mut running = set.start(place);
        let control = Control::at(&set.socket());
        assert!(running.line().contains("| ready"));
        let mut follower = control.stream("/v1/logs?service=web&follow=1");
        assert!(follower.next().unwrap()["message"].as_str().unwrap().starts_with("ready "));
        running.send(Signal::TERM);
        assert_eq!(messages(follower), ["signal 15"], "and then it closes");
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn surplus_followers_are_rejected_and_the_others_continue() {
    let set =
        Set::new("[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"prefix\" }\n");
    let mut running = set.start(crate::harness::Place::Child);
    let control = Control::at(&set.socket());
    assert!(running.line().contains("| ready"));
    let mut followers: Vec<_> = (0..16).map(|_| control.stream("/v1/logs?service=web&follow=1")).collect();
    for follower in &mut followers {
        assert!(follower.next().is_some());
    }
    let refused = control.get("/v1/logs");
    assert_eq!((refused.status, refused.reason().as_str()), (503, "too many clients read the log"));
    // When a client leaves, another one is accepted.
    followers.pop();
    wait_until("a free connection", || (control.get("/v1/logs?lines=1").status == 200).then_some(()));
    running.send(Signal::TERM);
    assert!(followers.into_iter().all(|follower| messages(follower) == ["signal 15"]));
    assert_eq!(running.end(), 0);
}

#[test]
fn the_stream_of_a_killed_logger_ends_and_the_next_logger_answers() {
    let set =
        Set::new("[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"prefix\" }\n");
    let mut running = set.start(crate::harness::Place::Child);
    let control = Control::at(&set.socket());
    assert!(running.line().contains("| ready"));
    let mut follower = control.stream("/v1/logs?service=web&follow=1");
    // A connection that the killed logger has not received would go to the next logger.
    assert!(follower.next().is_some());
    let logger = logger_of(running.keepalive()).unwrap();
    signal_process(logger, Signal::KILL).unwrap();
    assert_eq!(messages(follower), [""; 0]);
    wait_until("the next one", || {
        let lines = messages(control.stream("/v1/logs?service=keepalive"));
        lines.iter().any(|line| line.contains("logger restarted")).then_some(())
    });
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn without_a_logger_a_request_for_logs_is_refused_with_the_reason() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"inherit\", stderr = \"inherit\" }\n",
    );
    let mut running = set.start(crate::harness::Place::Child);
    let control = Control::at(&set.socket());
    running.ready();
    let answer = control.get("/v1/logs");
    assert_eq!(answer.status, 409);
    assert!(answer.reason().starts_with("no logs: "), "{}", answer.reason());
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}
