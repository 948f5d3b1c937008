//! Tables as people see them.

use serde_json::json;

use super::super::output::Colour;
use super::*;

const PLAIN: Style = Style { colour: Colour::No, columns: 80 };

fn sample() -> Value {
    json!({"pid": 1, "version": "0.1.0", "uptime_ms": 130_000, "state": "running", "services": [
        {"name": "migrate", "state": "completed", "instances": [
            {"id": "migrate.0", "state": "completed", "pid": null, "ready": true, "restarts": 0, "uptime_ms": null,
             "exit": {"code": 0}, "reason": "exit 0", "rss_bytes": 0, "cpu_ms": 0}]},
        {"name": "web", "state": "backoff", "instances": [
            {"id": "web.0", "state": "running", "pid": 12, "ready": true, "restarts": 3, "uptime_ms": 99_000,
             "reason": "ready", "rss_bytes": 13_631_488, "cpu_ms": 1_250, "processes": 2},
            {"id": "web.1", "state": "backoff", "pid": null, "ready": false, "restarts": 2, "uptime_ms": null,
             "exit": {"code": 1}, "oom_killed": false, "reason": "exit 1 after 20ms, retry in 400ms, 2 of 16",
             "rss_bytes": 0, "cpu_ms": 0}]},
        {"name": "idle", "state": "stopped", "instances": []}]})
}

#[test]
fn whatever_does_not_plainly_run_says_why() {
    let expected = "\
NAME       STATE      PID  UPTIME  RESTARTS    CPU  MEMORY
migrate.0  completed    -       -         0      -       -
web.0      running     12   1m39s         3  1.25s   13.0M
web.1      backoff      -       -         2      -       -
  exit 1 after 20ms, retry in 400ms, 2 of 16
idle       stopped      -       -         -      -       -
";
    assert_eq!(table(&sample(), PLAIN), expected);
}

#[test]
fn the_summary_counts_states() {
    assert_eq!(summary(&sample()), "keepalive 0.1.0, pid 1, up 2m10s: 1 backoff, 1 completed, 1 running");
}

#[test]
fn what_runs_but_is_not_ready_or_was_killed_for_its_memory_says_so() {
    let unready = json!({"id": "a", "state": "running", "ready": false, "reason": "reloading", "pid": 7});
    assert_eq!(row(&unready, [String::new()]).note, "not ready; reloading");
    let killed = json!({"id": "a", "state": "backoff", "oom_killed": true, "reason": "SIGKILL after 2s"});
    assert_eq!(row(&killed, [String::new()]).note, "SIGKILL after 2s; killed by the kernel, which was out of memory");
}

#[test]
fn no_line_is_wider_than_the_screen() {
    let mut instances = vec![];
    for number in 0..1_000_u64 {
        instances.push(json!({"id": format!("a-rather-long-name-of-a-service-{}.{number}", "x".repeat(30)),
            "state": "backoff", "pid": 4_194_304, "ready": false, "restarts": 4_000_000_000_u64,
            "uptime_ms": 86_400_000_u64 * 50, "reason": "ä".repeat(200), "rss_bytes": 123_u64 << 30, "cpu_ms": 86_000_000_u64}));
    }
    let status = json!({"services": [{"name": "a", "instances": instances}]});
    let text = table(&status, PLAIN);
    assert_eq!(text.lines().count(), 2_001);
    assert_eq!(text.lines().map(|line| line.chars().count()).max(), Some(80), "{}", &text[..400]);
    let wide = table(&status, Style { columns: 200, ..PLAIN });
    assert!(wide.contains(".999 "), "a wide screen has room for whole names");
}

#[test]
fn a_name_chooses_a_service_or_an_instance() {
    let ids = |names: &[&str]| -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let chosen = chosen(sample(), &names).map_err(str::to_owned)?;
        Ok(instances(&chosen).map(|instance| cells(instance)[0].clone()).collect())
    };
    let all = ["migrate.0", "web.0", "web.1", "idle"].map(str::to_owned).to_vec();
    assert_eq!(ids(&[]), Ok(all.clone()));
    assert_eq!(ids(&["web", "all"]), Ok(all));
    assert_eq!(ids(&["web"]), Ok(vec!["web.0".to_owned(), "web.1".to_owned()]));
    assert_eq!(ids(&["web.1", "idle"]), Ok(vec!["web.1".to_owned(), "idle".to_owned()]));
    assert_eq!(ids(&["web", "wbe"]), Err("wbe".to_owned()));
}

#[test]
fn names_to_complete_are_services_instances_of_several_and_all() {
    assert_eq!(names(&sample()), "migrate\nweb\nweb.0\nweb.1\nidle\nall\n");
}

#[test]
fn nonsense_makes_a_table_of_nothing() {
    for nonsense in [json!(null), json!([]), json!({"services": 7}), json!({"services": [7, {"instances": [null]}]})] {
        assert!(table(&nonsense, PLAIN).starts_with("NAME"), "{nonsense}");
        assert!(summary(&nonsense).starts_with("keepalive"), "{nonsense}");
    }
}
