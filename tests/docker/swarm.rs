//! examples/distributed as a stack of Docker Swarm, on the engine of this machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::board::{Images, acknowledged_during, kill_container, wait_until_known_anew, work_together};
use super::client::{Client, docker, docker_ok, lossy};
use super::engine::{skip, unique_name};
use super::examples::examples;
use super::wait::wait_for;

/// The network by which containers of a swarm reach the world; the engine leaves it behind.
const GATEWAY: &str = "docker_gwbridge";

/// A swarm of one node, left when dropped.
struct Swarm {
    had_gateway: bool,
}

impl Swarm {
    /// `None` if there can be no swarm, or there is another one already; the test is skipped.
    fn init() -> Option<Self> {
        let had_gateway = docker(&["network", "inspect", GATEWAY]).status.success();
        let output = docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
        if !output.status.success() {
            skip(&format!("no swarm can be made here: {}", lossy(&output.stderr)));
            return None;
        }
        Some(Self { had_gateway })
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        drop(docker(&["swarm", "leave", "--force"]));
        if !self.had_gateway {
            // A container that is stopping may still be on it.
            drop(docker(&["network", "rm", GATEWAY]));
        }
    }
}

/// The stack of the example; removed when dropped, with its containers and its volume.
struct Stack {
    name: String,
    _swarm: Swarm,
}

impl Stack {
    fn deploy(images: &Images) -> Option<Self> {
        let stack = Self { _swarm: Swarm::init()?, name: unique_name() };
        let file = examples().join("distributed").join("stack.yml");
        let client = Client::new(&["docker", "stack", "deploy"], &images.variables());
        client.ok(&["--resolve-image=never", "--compose-file", file.to_str().unwrap(), &stack.name]);
        Some(stack)
    }

    fn service(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// The containers of a service that match this filter.
    fn containers(&self, service: &str, filter: &str) -> Vec<String> {
        let label = format!("label=com.docker.swarm.service.name={}", self.service(service));
        let ids = docker_ok(&["ps", "--quiet", "--no-trunc", "--filter", &label, "--filter", filter]);
        ids.lines().map(str::to_owned).collect()
    }

    fn workers(&self) -> Vec<String> {
        self.containers("worker", "health=healthy")
    }

    /// Waits for exactly two containers of workers that are healthy and not among `old`.
    fn wait_for_workers(&self, old: &[String]) -> Vec<String> {
        let are_all = || {
            let workers = self.workers();
            let all = self.containers("worker", "status=running").len();
            ((workers.len(), all) == (2, 2) && !old.iter().any(|id| workers.contains(id))).then_some(workers)
        };
        wait_for(|| self.describe(), are_all)
    }

    fn describe(&self) -> String {
        let tasks = docker(&["stack", "ps", "--no-trunc", &self.name]);
        let logs = ["worker", "redis"].map(|service| docker(&["service", "logs", &self.service(service)]));
        let text = |output: &std::process::Output| lossy(&[&output.stdout[..], &output.stderr].concat());
        format!("{}{}", text(&tasks), logs.iter().map(text).collect::<String>())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(docker(&["stack", "rm", &self.name]));
        let label = format!("label=com.docker.stack.namespace={}", self.name);
        let ids = lossy(&docker(&["ps", "--all", "--quiet", "--filter", &label]).stdout);
        for id in ids.lines() {
            drop(docker(&["rm", "--force", "--volumes", id]));
        }
        drop(docker(&["volume", "rm", &self.service("data")]));
    }
}

#[test]
fn a_swarm_updates_and_replaces_hosts_without_losing_an_acknowledged_write() {
    let Some(images) = Images::build() else { return };
    let Some(stack) = Stack::deploy(&images) else { return };
    let first = stack.wait_for_workers(&[]);
    work_together(&first, "all-up");

    let fewest = AtomicUsize::new(first.len());
    let hosts = || {
        let workers = stack.workers();
        fewest.fetch_min(workers.len(), Ordering::Relaxed);
        workers
    };
    let acknowledged = acknowledged_during(hosts, || {
        docker_ok(&["service", "update", "--detach=false", "--env-add=VERSION=2", &stack.service("worker")]);
        let second = stack.wait_for_workers(&first);
        assert_eq!(fewest.load(Ordering::Relaxed), 2, "{}", stack.describe());
        work_together(&second, "updated");

        kill_container(&second[0]);
        let third = stack.wait_for_workers(&second[..1]);
        assert!(third.contains(&second[1]), "{}", stack.describe());
        work_together(&third, "host-killed");

        let redis = stack.containers("redis", "status=running");
        kill_container(&redis[0]);
        wait_for(
            || stack.describe(),
            || stack.containers("redis", "health=healthy").iter().any(|id| *id != redis[0]).then_some(()),
        );
        work_together(&third, "host-of-redis-killed");
    });

    assert!(acknowledged.len() > 20, "{acknowledged:?}");
    wait_until_known_anew(&stack.wait_for_workers(&[]), &acknowledged);
}
