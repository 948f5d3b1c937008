//! `max_memory` with real processes.

use keepalive::model::Signal;

use crate::harness::{Place, wait_until};
use crate::http::Control;
use crate::services::Set;

/// Two processes, each of which takes 48 MiB.
const LARGE: &str = "[services.a]\nmin_uptime = \"100ms\"\nreload = { soak = \"0s\" }\ncommand = [\"python3\", \"-c\", \
    '''import os, time; os.fork(); x = b\"x\" * (48 << 20); time.sleep(1000)''']\n";

#[test]
fn a_service_whose_process_tree_uses_too_much_is_replaced() {
    let set = Set::new(&format!("{LARGE}max_memory = \"64MiB\"\n"));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    let series = "keepalive_instance_restarts_total{service=\"a\",instance=\"a.0\",reason=\"max_memory\"} ";
    wait_until("a restart", || {
        let samples = control.get("/metrics").body;
        let restarts = samples.lines().find_map(|line| line.strip_prefix(series)?.parse::<u32>().ok());
        restarts.filter(|restarts| *restarts >= 1)
    });
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let (_, used) =
        stderr.split_once("a restart started by `max_memory`: it uses ").unwrap_or_else(|| panic!("{stderr}"));
    let (size, rest) = used.split_once(" MiB (").unwrap();
    assert!((96..200).contains(&size.parse::<u32>().unwrap()) && rest.starts_with("PSS)"), "{stderr}");
}

#[test]
fn a_service_below_its_limit_runs_on() {
    let set = Set::new(&format!(
        "{LARGE}max_memory = \"1GiB\"\n[services.b]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n"
    ));
    let mut running = set.start(Place::Child);
    running.ready();
    std::thread::sleep(std::time::Duration::from_secs(2));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(!stderr.contains("max_memory"), "{stderr}");
}
