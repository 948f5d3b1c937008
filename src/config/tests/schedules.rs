//! `schedule`, `timezone`.

use super::*;
use crate::model::plan::Kind;

#[test]
fn a_schedule_makes_a_oneshot_that_is_not_restarted_and_ends_nothing() {
    let plan = plan(
        "[services.backup]\ncommand = \"x\"\nschedule = \"30 2 * * *\"\ntimezone = \"CET-1CEST,M3.5.0,M10.5.0/3\"\n",
    );
    let service = &plan.services[0];
    assert!(service.runs_on_schedule());
    assert_eq!((service.kind, service.on_failure), (Kind::Oneshot, ExitAction::Ignore));
    assert_eq!(service.restart.policy, RestartPolicy::Never);
    let schedule = service.schedule.as_ref().unwrap();
    assert_eq!((&*schedule.text, &*schedule.zone_name), ("30 2 * * *", "CET-1CEST,M3.5.0,M10.5.0/3"));
    // 2026-12-01 10:00 UTC.
    assert_eq!(schedule.next(1_796_119_200), Some(1_796_119_200 + 15 * 3_600 + 30 * 60));
}

#[test]
fn a_schedule_can_retry_and_contain_variables() {
    let plan = plan(
        "[services.a]\ncommand = \"x\"\nschedule = \"${NONE:-@daily}\"\ntype = \"oneshot\"\nrestart = \"on-failure\"\n",
    );
    assert_eq!(plan.services[0].restart.policy, RestartPolicy::OnFailure);
    let schedule = plan.services[0].schedule.as_ref().unwrap();
    assert_eq!((&*schedule.zone_name, schedule.next(1)), ("UTC", Some(86_400)));
}

#[test]
fn mistakes_in_schedules_are_reported() {
    check_keys(
        "type = \"service\"\nschedule = \"0 4 * * *\"\ntimezone = \"UTC\"\n[services.a]\ncommand = \"x\"\nschedule = \"61 4 * * *\"\ninstances = 2\non_failure = \"shutdown\"\n[services.b]\ncommand = \"x\"\nschedule = 5\ndepends_on = [\"a\"]\n[services.c]\ncommand = \"x\"\nschedule = \"@daily\"\ntimezone = \"../etc/passwd\"\n[services.d]\ncommand = \"x\"\ntimezone = \"UTC\"\n[services.e]\ncommand = \"x\"\ndepends_on = [\"c\"]\n",
        r#"
keepalive.toml:4:1: `schedule` is for a oneshot
  4 | schedule = "0 4 * * *"
    | ^^^^^^^^
  = remove `type`, or write `restart_schedule`, which restarts a service

keepalive.toml:8:12: wrong minute: `61`
  8 | schedule = "61 4 * * *"
    |            ^^^^^^^^^^^^
  = write `*`, or numbers from 0 to 59

keepalive.toml:9:13: a service with `schedule` has one instance: never two of its runs are in progress
  9 | instances = 2
    |             ^
  = remove it, or write one service for each

keepalive.toml:10:1: `on_failure` has no effect with `schedule`: the next run follows anyway
  10 | on_failure = "shutdown"
     | ^^^^^^^^^^
  = remove it

keepalive.toml:13:12: expected a schedule, found `5`
  13 | schedule = 5
     |            ^
  = such as `"0 4 * * *"`

keepalive.toml:18:12: `../etc/passwd` is not the name of a time zone
  18 | timezone = "../etc/passwd"
     |            ^^^^^^^^^^^^^^^
  = such as `"Europe/Berlin"`

keepalive.toml:21:1: `timezone` has no effect without `schedule` or `restart_schedule`
  21 | timezone = "UTC"
     | ^^^^^^^^
  = remove it; for the program itself, set `env = { TZ = "…" }`

keepalive.toml:24:15: `c` runs on a schedule, and nothing can wait for it
  24 | depends_on = ["c"]
     |               ^^^
  = remove it; what must come first is a oneshot without `schedule`

8 errors in the configuration
"#,
    );
}

#[test]
fn planned_restarts_are_for_services() {
    let plan = plan("[services.a]\ncommand = \"x\"\nrestart_schedule = \"@daily\"\nmax_lifetime = \"24h\"\n");
    let service = &plan.services[0];
    assert!(!service.runs_on_schedule() && service.schedule.is_some());
    assert_eq!((service.on_failure, service.kind), (ExitAction::Shutdown, Kind::Service));
    assert_eq!(service.max_lifetime, Some(std::time::Duration::from_secs(86_400)));
    check_keys(
        "type = \"oneshot\"\nrestart_schedule = \"@daily\"\nmax_lifetime = \"1h\"\n",
        r#"
keepalive.toml:4:1: `restart_schedule` has no effect on a oneshot
  4 | restart_schedule = "@daily"
    | ^^^^^^^^^^^^^^^^
  = remove it, or `type = "oneshot"`

keepalive.toml:5:1: `max_lifetime` has no effect on a oneshot
  5 | max_lifetime = "1h"
    | ^^^^^^^^^^^^
  = remove it, or `type = "oneshot"`

2 errors in the configuration
"#,
    );
}

const SCHEDULED: &str = "[services.a]\ncommand = \"x\"\nschedule = \"@daily\"\n";

/// The warnings or errors with this content of `usr/share/zoneinfo/Europe/Berlin`, and the name of the zone.
fn with_zones(file: Option<&[u8]>, keys: &str, tz: Option<&str>) -> (String, Option<String>) {
    let scratch = Scratch::new();
    let path = scratch.write("keepalive.toml", format!("{SCHEDULED}{keys}").as_bytes());
    file.map(|file| scratch.write("usr/share/zoneinfo/Europe/Berlin", file));
    let variables: Vec<(OsString, OsString)> = tz.map(|tz| ("TZ".into(), tz.into())).into_iter().collect();
    let loaded = scratch.with_environment(Purpose::Run, 0, &variables, |environment| load(&path, environment));
    let zone =
        loaded.as_ref().ok().map(|loaded| loaded.plan.services[0].schedule.as_ref().unwrap().zone_name.to_string());
    (scratch.output(loaded).trim_end().to_owned(), zone)
}

#[test]
fn time_zones_are_those_of_the_system() {
    let mut file = b"TZif2".to_vec();
    // Version 1 with one type, version 2 with one type, and the rule.
    for _ in 0..2 {
        if file.len() > 5 {
            file.extend(b"TZif2");
        }
        file.extend([0; 15]);
        file.extend([0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat());
        file.extend(3_600_i32.to_be_bytes());
        file.extend(b"\0\0CET\0");
    }
    file.extend(b"\nCET-1CEST,M3.5.0,M10.5.0/3\n");
    let found = (String::new(), Some("Europe/Berlin".to_owned()));
    let key = "timezone = \"Europe/Berlin\"\n";
    assert_eq!(with_zones(Some(&file), key, None), found);
    assert_eq!(with_zones(Some(&file), "", Some(":Europe/Berlin")), found);
    assert_eq!(with_zones(Some(&file), "", Some("")).1, Some("UTC".to_owned()));
    let unknown = "keepalive.toml:4:12: unknown time zone `Europe/Berlin`\n  4 | timezone = \"Europe/Berlin\"\n    |            ^^^^^^^^^^^^^^^\n  = such as `\"Europe/Berlin\"`, or any other file below /usr/share/zoneinfo\n\n1 error in the configuration";
    assert_eq!(with_zones(Some(b"TZif"), key, None), (unknown.to_owned(), None));
}

// In an image without the package, nothing else can be done.
#[test]
fn without_files_the_time_zone_is_utc_and_that_is_said() {
    let (text, zone) = with_zones(None, "timezone = \"Europe/Berlin\"\n", None);
    assert_eq!(zone, Some("UTC".to_owned()));
    assert!(text.contains("the time zone is UTC: `Europe/Berlin` is not installed, nor is any other"), "{text}");
    assert!(text.contains("install the package `tzdata`, or write the rule"), "{text}");
    let (text, zone) = with_zones(None, "", Some("Europe/Berlin"));
    assert_eq!(zone, Some("UTC".to_owned()));
    assert!(text.contains("the time zone is UTC: of `TZ`, `Europe/Berlin` is not installed"), "{text}");
}
