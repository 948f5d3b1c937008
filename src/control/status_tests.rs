//! Tables as people see them.

use serde_json::json;

use super::super::output::Colour;
use super::*;

const PLAIN: Style = Style { colour: Colour::No, columns: 80 };

fn status(value: Value) -> Status {
    serde_json::from_value(value).unwrap()
}

fn entry(value: Value) -> StatusEntry {
    serde_json::from_value(value).unwrap()
}

fn answer() -> Value {
    json!({"pid": 1, "version": "0.1.0", "uptime_ms": 130_000, "state": "running", "services": [
        {"name": "migrate", "state": "completed", "instances": [
            {"id": "migrate.0", "state": "completed", "pid": null, "ready": true, "restarts": 0, "uptime_ms": null,
             "exit": {"code": 0}, "reason": "exited with code 0", "rss_bytes": 0, "cpu_ms": 0}]},
        {"name": "web", "state": "backoff", "instances": [
            {"id": "web.0", "state": "running", "pid": 12, "ready": true, "restarts": 3, "uptime_ms": 99_000,
             "reason": "ready", "rss_bytes": 13_631_488, "cpu_ms": 1_250, "processes": 2},
            {"id": "web.1", "state": "backoff", "pid": null, "ready": false, "restarts": 2, "uptime_ms": null,
             "exit": {"code": 1}, "oom_killed": false, "reason": "exited with code 1, ran 20ms; restart 2 of 16 in 400ms",
             "rss_bytes": 0, "cpu_ms": 0}]},
        {"name": "idle", "state": "stopped", "instances": []}]})
}

fn sample() -> Status {
    status(answer())
}

#[test]
fn an_instance_that_does_not_run_has_its_reason() {
    let expected = "\
NAME       STATE      PID  UPTIME  RESTARTS    CPU  MEMORY
migrate.0  completed    -       -         0      -       -
web.0      running     12   1m39s         3  1.25s   13.0M
web.1      backoff      -       -         2      -       -
  exited with code 1, ran 20ms; restart 2 of 16 in 400ms
idle       stopped      -       -         -      -       -
";
    assert_eq!(sample().table(PLAIN), expected);
}

#[test]
fn the_summary_counts_states() {
    assert_eq!(sample().summary(), "keepalive 0.1.0, pid 1, up 2m10s: 1 backoff, 1 completed, 1 running");
}

#[test]
fn a_surge_instance_is_listed_below_its_instance() {
    let instance = |id: &str, pid: u64, state: &str, surge: bool| {
        json!({"id": id, "state": state, "pid": pid, "ready": state == "running", "surge": surge,
            "restarts": 0, "uptime_ms": 1_000, "reason": "replaced"})
    };
    let [old, new] = [instance("web.0", 7, "running", false), instance("web.0", 15, "running", true)];
    let others = [instance("web.1", 16, "running", false), instance("web.2", 17, "starting", true)];
    let [leaving, lost] = [instance("web.1", 9, "stopping", true), instance("web.3", 18, "starting", true)];
    let instances = [old, others[0].clone(), new, others[1].clone(), leaving, lost];
    let status = status(json!({"services": [{"name": "web", "instances": instances}]}));
    let expected = "\
NAME   STATE     PID  UPTIME  RESTARTS  CPU  MEMORY
web.0  running     7      1s         0    -       -
web.0  running    15      1s         0    -       -
  takes over when it has stayed up
web.1  running    16      1s         0    -       -
web.1  stopping    9      1s         0    -       -
  replaced
web.2  starting   17      1s         0    -       -
  takes over when it is ready
web.3  starting   18      1s         0    -       -
  takes over when it is ready
";
    assert_eq!(status.table(PLAIN), expected);
    assert_eq!(status.summary(), "keepalive , pid 0, up 0s: 2 running; 4 being replaced");
}

#[test]
fn a_note_says_not_ready_or_killed_for_memory() {
    let unready = json!({"id": "a", "state": "running", "ready": false, "reason": "reloading", "pid": 7});
    assert_eq!(entry(unready).note(), "not ready; reloading");
    let back = json!({"id": "web.0", "state": "running", "ready": true, "rolled_back": true});
    assert_eq!(entry(back).note(), "previous definition: the reload has failed");
    let killed = json!({"id": "a", "state": "backoff", "oom_killed": true, "reason": "killed by SIGKILL, ran 2s"});
    assert_eq!(entry(killed).note(), "killed by SIGKILL, ran 2s; killed by the kernel (out of memory)");
}

#[test]
fn the_status_text_of_a_run_that_has_ended_is_marked_as_such() {
    let instance = |pid: Option<u64>| {
        let reason = "exited with code 1; restart now";
        entry(json!({"id": "a", "state": "backoff", "pid": pid, "reason": reason, "status_text": "Connecting"}))
    };
    assert_eq!(instance(None).note(), "exited with code 1; restart now; its last status: Connecting");
    assert_eq!(instance(Some(7)).note(), "exited with code 1; restart now; Connecting");
}

#[test]
fn no_line_is_wider_than_the_screen() {
    let mut instances = vec![];
    for number in 0..1_000_u64 {
        instances.push(json!({"id": format!("a-rather-long-name-of-a-service-{}.{number}", "x".repeat(30)),
            "state": "backoff", "pid": 4_194_304, "ready": false, "restarts": 4_000_000_000_u64,
            "uptime_ms": 86_400_000_u64 * 50, "reason": "ä".repeat(200), "rss_bytes": 123_u64 << 30, "cpu_ms": 86_000_000_u64}));
    }
    let status = status(json!({"services": [{"name": "a", "instances": instances}]}));
    let text = status.table(PLAIN);
    assert_eq!(text.lines().count(), 2_001);
    assert_eq!(text.lines().map(|line| line.chars().count()).max(), Some(80), "{}", &text[..400]);
    for columns in 20..64 {
        let text = status.table(Style { columns, ..PLAIN });
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}: {}", &text[..400]);
        assert_eq!((text.lines().count(), text.matches("  backoff").count()), (2_001, 1_000), "{columns}");
    }
    let wide = status.table(Style { columns: 200, ..PLAIN });
    assert!(wide.contains(".999 "), "a wide screen has room for whole names");
}

#[test]
fn a_name_selects_a_service_or_an_instance() {
    let ids = |names: &[&str]| -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut chosen = sample();
        chosen.select(&names)?;
        let ids: Vec<String> = chosen.instances().iter().map(|instance| instance.name().to_owned()).collect();
        // The rest of the JSON is unchanged.
        let mut value = answer();
        chosen.retain_selected(&mut value);
        assert!(status(value).instances().iter().map(|instance| instance.name()).eq(&ids));
        Ok(ids)
    };
    let all = ["migrate.0", "web.0", "web.1", "idle"].map(str::to_owned).to_vec();
    assert_eq!(ids(&[]), Ok(all.clone()));
    assert_eq!(ids(&["web", "all"]), Ok(all));
    assert_eq!(ids(&["web"]), Ok(vec!["web.0".to_owned(), "web.1".to_owned()]));
    assert_eq!(ids(&["web.1", "idle"]), Ok(vec!["web.1".to_owned(), "idle".to_owned()]));
    assert_eq!(ids(&["i*", "w?b"]), Ok(["web.0", "web.1", "idle"].map(str::to_owned).to_vec()));
    assert_eq!(ids(&["*.0"]), Ok(["migrate.0", "web.0"].map(str::to_owned).to_vec()));
    assert_eq!(ids(&["x*"]), Err("nothing matches `x*`: the services are migrate, web, idle".to_owned()));
    assert_eq!(ids(&["web", "wbe"]), Err("unknown name `wbe`: the services are migrate, web, idle".to_owned()));
}

#[test]
fn patterns_stand_for_the_names_that_match_without_duplicates() {
    let expanded = |names: &[&str]| sample().expanded(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(expanded(&["web", "*", "nosuch"]), Ok(["web", "migrate", "idle", "nosuch"].map(str::to_owned).to_vec()));
    assert_eq!(expanded(&["web", "w*", "web"]), Ok(vec!["web".to_owned()]));
    assert_eq!(expanded(&["web.?"]), Ok(["web.0", "web.1"].map(str::to_owned).to_vec()));
}

#[test]
fn the_summary_names_degraded_services() {
    let degraded =
        |name: &str| json!({"name": name, "state": "degraded", "instances": [{"id": name, "state": "failed"}]});
    let summary = status(json!({"services": [degraded("web"), degraded("api")]})).summary();
    assert_eq!(summary, "keepalive , pid 0, up 0s: 2 failed; degraded: web, api");
}

#[test]
fn a_summary_names_the_file_unless_keepalive_is_pid_1() {
    let summary = |pid: u32| status(json!({"services": [], "pid": pid, "version": "1", "config": "/a.toml"})).summary();
    assert_eq!(summary(7), "keepalive 1 of /a.toml, pid 7, up 0s: no instances");
    assert_eq!(summary(1), "keepalive 1, pid 1, up 0s: no instances");
}

#[test]
fn completions_offer_the_names_that_the_command_takes() {
    assert_eq!(sample().names(Names::All), "migrate\nweb\nweb.0\nweb.1\nidle\nall\n");
    assert_eq!(sample().names(Names::Services), "migrate\nweb\nidle\n");
    assert_eq!(sample().names(Names::Writers), "migrate\nweb\nweb.0\nweb.1\nidle\nkeepalive\n");
}

#[test]
fn an_invalid_status_is_an_error() {
    let nonsense = [json!(null), json!([]), json!({}), json!({"services": 7}), json!({"services": [7]})];
    for nonsense in nonsense.into_iter().chain([json!({"services": [{"instances": [null]}]})]) {
        assert!(serde_json::from_value::<Status>(nonsense.clone()).is_err(), "{nonsense}");
    }
    assert_eq!(status(json!({"services": [], "new": {"a": 1}})).summary(), "keepalive , pid 0, up 0s: no instances");
}
