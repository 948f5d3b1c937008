//! The metrics, parsed by the rules of Prometheus and promtool.

use std::collections::{BTreeMap, BTreeSet};

use keepalive::model::Signal;

use crate::harness::Place;
use crate::http::Control;
use crate::services::Set;

/// Returns all samples by name and labels. Checks every rule of the text format and of `promtool check metrics` that a
/// parser can check.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|letter: char| letter.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut samples = BTreeMap::new();
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line is incomplete");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a help");
            assert!(is_name(name) && name.starts_with("keepalive_") && !help.is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "{name} comes twice");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, current, "TYPE follows its HELP");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            let unit = ["_milliseconds", "_ms", "_kilobytes", "_percent"].iter().find(|unit| name.ends_with(**unit));
            assert_eq!(unit, None, "{name}: base units");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let (name, labels) = series.split_once('{').map_or((series, None), |(name, labels)| (name, Some(labels)));
            assert_eq!(name, current, "the samples of a name must follow its TYPE");
            assert!(kinds.contains_key(name), "{line}");
            if let Some(labels) = labels {
                let labels = labels.strip_suffix('}').expect("a closing brace");
                for pair in labels.split(',') {
                    let (label, value) = pair.split_once('=').expect("a label");
                    assert!(is_name(label) && !label.starts_with("__"), "{line}");
                    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
                    assert!(!value.contains(['"', '\\', '\n']), "{line}");
                }
            }
            let number: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert_eq!(samples.insert(series.to_owned(), number), None, "{series} comes twice");
        }
    }
    samples
}

/// The table of docs/metrics.md lists the metrics of `text` in their order, with type, labels and help.
fn check_documented(text: &str) {
    const HEAD: &str = "| metric | type | labels | meaning |";
    let document = include_str!("../../docs/metrics.md");
    let (_, table) = document.split_once(HEAD).expect("the table");
    let documented: Vec<String> =
        table.lines().skip(2).take_while(|line| line.starts_with('|')).map(str::to_owned).collect();
    let served: Vec<String> = text.split("# HELP ").skip(1).map(row).collect();
    assert_eq!(served, documented, "left: the code; right: docs/metrics.md");
}

/// ``| `keepalive_up` | gauge | – | 1, or 0 during shutdown |``
fn row(family: &str) -> String {
    let mut lines = family.lines();
    let (name, help) = lines.next().and_then(|line| line.split_once(' ')).expect("a help");
    let (_, kind) = lines.next().and_then(|line| line.rsplit_once(' ')).expect("a type");
    let sample = lines.next().unwrap_or_else(|| panic!("{name} has no sample here"));
    let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
    let labels: Vec<String> =
        labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(label, _)| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
    format!("| `{name}` | {kind} | {labels} | {} |", help.trim_end_matches('.'))
}

#[test]
fn metrics_are_valid_for_prometheus_and_correct() {
    let set = Set::new(concat!(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = 2\nipc = true\n",
        "health = { exec = \"true\", interval = \"1h\" }\n",
        "log = { stdout = \"prefix\", stderr = \"prefix\" }\n",
        "[services.flaky]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\non_failure = \"ignore\"\nmax_restarts = 2\n",
        "backoff = { initial = \"1ms\" }\n",
        "[services.job]\ncommand = \"true\"\nschedule = \"0 0 1 1 *\"\n",
    ));
    let running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("flaky.0", "failed");
    control.post("/v1/services/web.0/signal?signal=SIGKILL");
    let restarted = || control.instance("web.0")["restarts"].as_u64() == Some(1) && control.state("web.0") == "running";
    crate::harness::wait_until("the restart", || restarted().then_some(()));
    control.post("/v1/services/job/start");
    let body = control.get("/metrics").body;
    check_documented(&body);
    let samples = parse(&body);
    let sample = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("no {series} in {samples:#?}"));
    assert!((sample("keepalive_up") - 1.0).abs() < f64::EPSILON);
    let whole = [
        ("keepalive_service_desired_instances{service=\"web\"}", 2),
        ("keepalive_service_ready{service=\"web\"}", 1),
        ("keepalive_service_scheduled_runs_total{service=\"job\",result=\"succeeded\"}", 1),
        ("keepalive_service_ready{service=\"flaky\"}", 0),
        ("keepalive_instance_up{service=\"web\",instance=\"web.1\"}", 1),
        ("keepalive_instance_up{service=\"flaky\",instance=\"flaky.0\"}", 0),
        ("keepalive_instance_state{service=\"flaky\",instance=\"flaky.0\",state=\"failed\"}", 1),
        ("keepalive_instance_state{service=\"flaky\",instance=\"flaky.0\",state=\"running\"}", 0),
        ("keepalive_instance_restarts_total{service=\"flaky\",instance=\"flaky.0\",reason=\"crash\"}", 2),
        ("keepalive_instance_restarts_total{service=\"flaky\",instance=\"flaky.0\",reason=\"operator\"}", 0),
        ("keepalive_instance_exits_total{service=\"flaky\",instance=\"flaky.0\",exit_code=\"3\",signal=\"\"}", 3),
        ("keepalive_instance_exits_total{service=\"web\",instance=\"web.0\",exit_code=\"\",signal=\"SIGKILL\"}", 1),
        ("keepalive_instance_health{service=\"web\",instance=\"web.1\",status=\"starting\"}", 1),
        ("keepalive_instance_health{service=\"web\",instance=\"web.1\",status=\"unhealthy\"}", 0),
        ("keepalive_instance_failed_checks_total{service=\"web\",instance=\"web.1\"}", 0),
        ("keepalive_clients_dropped_total", 0),
        ("keepalive_config_reload_failures_total", 0),
        ("keepalive_config_last_reload_successful", 1),
    ];
    for (series, expect) in whole {
        assert!((sample(series) - f64::from(expect)).abs() < f64::EPSILON, "{series} is {}", sample(series));
    }
    let some = [
        "keepalive_start_time_seconds",
        "keepalive_event_loop_iterations_total",
        "keepalive_events_total",
        "keepalive_instance_resident_memory_bytes{service=\"web\",instance=\"web.1\"}",
        "keepalive_instance_start_duration_seconds{service=\"web\",instance=\"web.1\"}",
        "keepalive_instance_ready_duration_seconds{service=\"web\",instance=\"web.1\"}",
    ];
    for series in some {
        assert!(sample(series) > 0.0, "{series} is {}", sample(series));
    }
    assert!(sample("keepalive_instance_cpu_seconds_total{service=\"web\",instance=\"web.1\"}") >= 0.0);
    running.send(Signal::TERM);
}

// docs/metrics.md: the label `reason`.
#[test]
fn restarts_are_counted_by_their_reason() {
    let set = Set::new(concat!(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\nready = \"exec\"\n",
        "[services.job]\ncommand = [\"sh\", \"-c\", \"test $KEEPALIVE_RESTARTS = 2 && exec sleep 1000; exit 0\"]\n",
        "backoff = { initial = \"1ms\", max = \"1ms\" }\n",
    ));
    let _running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    let restarts = |instance: &str| control.instance(instance)["restarts"].as_u64().unwrap();
    let wait = |instance: &str, count: u64| {
        let is_done = || restarts(instance) == count && control.state(instance) == "running";
        crate::harness::wait_until("the restart", || is_done().then_some(()));
    };
    wait("job.0", 2);
    wait("web.0", 0);
    for request in ["web/reload", "web/restart", "web.0/reload", "web/signal?signal=SIGKILL"] {
        let answer = control.post(&format!("/v1/services/{request}"));
        assert_eq!(answer.status, 200, "{request}");
        wait("web.0", request.contains("signal").into());
    }
    control.post("/v1/services/web/stop");
    control.post("/v1/services/web/start");
    wait("web.0", 1);
    let samples = parse(&control.get("/metrics").body);
    let of = |service: &str| {
        ["crash", "exit", "ready_timeout", "watchdog", "operator", "reload"].map(|reason| {
            let labels = format!("service=\"{service}\",instance=\"{service}.0\",reason=\"{reason}\"");
            samples[&format!("keepalive_instance_restarts_total{{{labels}}}")].to_string()
        })
    };
    assert_eq!(of("web").join(" "), "1 0 0 0 2 2");
    assert_eq!(of("job").join(" "), "0 2 0 0 0 0");
}
