//! Redis: `supervised systemd`. It cannot inherit a socket, so it is reloaded by a restart.

use keepalive::model::Signal;

use super::load::{Load, Protocol};
use super::program;
use crate::harness::Place;
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

/// Redis with these keys, and a client that starts when it is ready.
fn config(port: &ReservedPort, keys: &str) -> String {
    let (ip, port) = (port.loopback().ip(), port.number());
    format!(
        r#"
        [services.redis]
        command = ["redis-server", "--bind", "{ip}", "--port", "{port}", "--dir", "DIR", "--appendonly", "yes",
                   "--appendfsync", "always", "--supervised", "systemd"]
        ready = "notify"
        {keys}
        [services.client]
        command = ["redis-cli", "-h", "{ip}", "-p", "{port}", "INCR", "runs"]
        depends_on = ["redis"]
        restart = "never"
        "#
    )
}

#[test]
fn redis_reports_ready_and_a_restart_keeps_its_data() {
    if program(&["redis-server"]).is_none() || program(&["redis-cli"]).is_none() {
        return;
    }
    let port = ReservedPort::any();
    let set = Set::new(&config(&port, "reload = \"restart\""));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    for run in 1..=3 {
        // The client asks once. Before Redis is ready, it could not answer.
        wait_for_line(&running, &run.to_string());
        control.wait_for("client.0", "completed");
        let before = control.instance("redis.0")["pid"].clone();
        let answer = control.post("/v1/services/redis/reload");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_ne!(control.instance("redis.0")["pid"], before);
        assert_eq!(control.state("redis.0"), "running");
        assert_eq!(control.post("/v1/services/client/start").status, 200);
    }
    wait_for_line(&running, "4");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

/// Skips the output of redis.
fn wait_for_line(running: &crate::harness::Running, line: &str) {
    while running.line() != line {}
}

// A second redis cannot bind the port of the first, and exits.
#[test]
fn a_failed_rolling_reload_keeps_the_old_redis_running() {
    if program(&["redis-server"]).is_none() || program(&["redis-cli"]).is_none() {
        return;
    }
    let port = ReservedPort::any();
    let set = Set::new(&config(&port, ""));
    let mut running = set.start(Place::Child);
    wait_for_line(&running, "1");
    let control = Control::at(&set.socket());
    let before = control.instance("redis.0")["pid"].clone();
    let load = Load::start(port.loopback(), Protocol::Redis, "");
    for _ in 0..3 {
        let answer = control.post("/v1/services/redis/reload");
        assert_eq!(answer.status, 409, "{}", answer.body);
        assert!(
            answer.reason().starts_with("the new process of redis.0 failed: exited with code 1,"),
            "{}",
            answer.body
        );
        load.wait_for(10);
    }
    assert_eq!(control.instance("redis.0")["pid"], before);
    load.finish().shown("3 reloads that cannot be").lost_nothing();
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}
