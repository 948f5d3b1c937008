//! Schedules with real processes and the real clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keepalive::model::Signal;

use crate::harness::{KEEPALIVE, Place, Run, wait_until};
use crate::http::Control;
use crate::services::Set;

fn client(set: &Set, words: &[&str]) -> (i32, String, String) {
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words, &["--timeout=1h"]].concat());
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    run.finish()
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Waits for the next minute, and for the run that is due then.
#[test]
fn a_schedule_runs_at_its_minute() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"exit\", \"3\"]\nschedule = \"* * * * *\"\n");
    let begun = unix_time();
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    wait_until("a run that has failed", || (service(&control)["runs"]["failed"] == 1).then_some(()));
    let minutes = |time: Duration| time.as_secs() / 60;
    assert!(minutes(begun) < minutes(unix_time()), "it has run before its minute");
    let instance = control.instance("a.0");
    assert_eq!((&instance["state"], &instance["exit"]["code"]), (&"scheduled".into(), &3.into()));
    let reason = instance["reason"].as_str().unwrap();
    assert!(reason.starts_with("exited with code 3, ran ") && reason.contains("; next run in "), "{reason}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

fn service(control: &Control) -> serde_json::Value {
    control.get("/v1/status").json()["services"][0].clone()
}

#[test]
fn an_operator_runs_a_schedule_now_and_suspends_it() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nschedule = \"0 0 1 1 *\"\ntimezone = \"UTC\"\nrestart = \"never\"\n",
    );
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    let next = wait_until("the next run", || service(&control)["next_run"].as_str().map(str::to_owned));
    assert!(next.ends_with("-01-01T00:00:00.000Z"), "{next}");
    let (code, text, _) = client(&set, &["status"]);
    assert!(code == 0 && text.contains("scheduled") && text.contains("next run in "), "{text}");
    assert_eq!(client(&set, &["start", "a"]).0, 0);
    assert_eq!(service(&control)["runs"]["succeeded"], 1);
    let metrics = control.get("/metrics").body;
    for sample in [
        "keepalive_service_scheduled_runs_total{service=\"a\",result=\"succeeded\"} 1\n",
        "keepalive_service_next_run_time_seconds{service=\"a\"} ",
        "keepalive_service_last_run_duration_seconds{service=\"a\"} 0.",
        "keepalive_instance_state{service=\"a\",instance=\"a.0\",state=\"scheduled\"} 1\n",
    ] {
        assert!(metrics.contains(sample), "{sample}: {metrics}");
    }
    assert_eq!(client(&set, &["stop", "a"]).0, 0);
    assert_eq!(service(&control)["next_run"], serde_json::Value::Null);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn processes_that_are_old_are_replaced_one_after_the_other() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\ninstances = 2\nmax_lifetime = \"100ms\"\nreload = { soak = \"0s\" }\n",
    );
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    let restarts = |samples: &str, id: &str| {
        let series =
            format!("keepalive_instance_restarts_total{{service=\"a\",instance=\"{id}\",reason=\"max_lifetime\"}} ");
        let value = samples.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok());
        value.unwrap_or_default()
    };
    wait_until("both to be replaced twice", || {
        let samples = control.get("/metrics").body;
        (restarts(&samples, "a.0") >= 2 && restarts(&samples, "a.1") >= 2).then_some(())
    });
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(stderr.contains("a restart started by `max_lifetime`"), "{stderr}");
}
