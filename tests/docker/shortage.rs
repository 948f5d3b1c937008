//! Shortages and large numbers of processes, descriptors, orphans, variables and services.

use std::fmt::Write as _;

use super::client::docker_ok;
use super::engine::{Container, Engine};
use super::wait::wait_for;

/// Clock ticks in a second, sysconf(3) `_SC_CLK_TCK`: 100 on every Linux platform that keepalive is built for.
const TICKS_PER_SECOND: u64 = 100;

/// The number of processes with this name in `docker top`, which needs no process in the container.
#[track_caller]
fn count_from_outside(container: &Container, name: &str) -> usize {
    let table = docker_ok(&["top", container.name(), "-eo", "pid,comm"]);
    table.lines().filter(|line| line.split_whitespace().nth(1) == Some(name)).count()
}

/// The number of log lines about a refused fork.
fn refusals(container: &Container) -> usize {
    container.logs().stderr.matches("cannot create a process").count()
}

#[test]
fn failed_forks_are_retried_without_an_exit_or_a_busy_loop() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.many]\ncommand = [\"sleep\", \"1000\"]\ninstances = 30\n");
    let container = image.run(&["--pids-limit=20", "--env=KEEPALIVE_LOG=debug"], &[]);

    // The limit allows keepalive, the logger and eighteen others. The other twelve are retried.
    wait_for(|| container.describe(), || (refusals(&container) > 12 * 4).then_some(()));
    assert_eq!(count_from_outside(&container, "sleep"), 18, "{}", container.describe());
    docker_ok(&["update", "--pids-limit=100", container.name()]);
    wait_for(|| container.describe(), || (count_from_outside(&container, "sleep") == 30).then_some(()));

    // A busy loop would cause thousands of refused forks or use much CPU time.
    assert!(refusals(&container) < 12 * 20, "{}", container.describe());
    let processes = container.processes();
    let init = processes.iter().find(|process| process.pid == 1).unwrap();
    assert!(init.ticks < TICKS_PER_SECOND, "PID 1 has used {} ticks\n{}", init.ticks, container.describe());
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

#[test]
fn thirty_two_descriptors_are_enough() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\ninstances = 40");
    let container = image.run(&["--ulimit=nofile=32:32"], &[]);
    for instance in 0..40 {
        container.wait_for_line(&format!("web.{instance} up"));
    }

    assert_eq!(container.stop(), 0, "{}", container.describe());
    assert_eq!(container.logs().stdout.matches(" stops\n").count(), 40);
}

#[test]
fn all_of_twenty_thousand_orphans_are_reaped() {
    let Some(engine) = Engine::find() else { return };
    let script = b"#!/bin/sh\ni=0\nwhile [ $i -lt 20000 ]; do (true &); i=$((i + 1)); done\necho all are orphans\n";
    let image = engine.image_with(
        r#"
        [services.parent]
        type = "oneshot"
        command = "/srv/parent"
        [services.steady]
        command = "/srv/steady"
        "#,
        |archive| archive.file("/srv/parent", 0o755, script),
    );
    let container = image.run(&[], &[]);
    container.wait_for_line("all are orphans");

    // keepalive, the logger, steady and its sleep.
    wait_for(|| container.describe(), || (container.processes().len() == 4).then_some(()));
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

#[test]
fn a_long_environment_and_a_thousand_services_work() {
    let Some(engine) = Engine::find() else { return };
    let mut configuration = String::new();
    for number in 0..1000 {
        write!(configuration, "[services.service-{number}]\ncommand = [\"sleep\", \"1000\"]\n").unwrap();
    }
    configuration += "[services.last]\ncommand = \"/srv/last\"\ndepends_on = [\"service-0\", \"service-999\"]\n";
    let last = b"#!/bin/sh\necho ${#LONG}\nexec /srv/steady\n";
    let image = engine.image_with(&configuration, |archive| archive.file("/srv/last", 0o755, last));
    let container = image.run(&["--env", &format!("LONG={}", "x".repeat(4096))], &[]);

    container.wait_for_line("4096");
    let sleeping = |process: &super::engine::Process| process.name == "sleep" && process.parent == 1;
    wait_for(
        || container.describe(),
        || (container.processes().iter().filter(|process| sleeping(process)).count() == 1000).then_some(()),
    );
    assert_eq!(container.stop(), 0, "{}", container.describe());
}
