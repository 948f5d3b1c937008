//! examples/distributed on one machine: two containers of workers and one of Redis, on a network of Compose.

use super::board::{Images, acknowledged_during, kill_container, wait_until_known_anew, work_together, worker_of};
use super::client::{Client, compose, docker, docker_ok};
use super::engine::{Container, Process, skip, unique_name};
use super::examples::examples;
use super::wait::wait_for;
use super::web::ask;

/// The project of the example, with its network and its volume; taken down when dropped.
struct Compose {
    client: Client,
}

impl Compose {
    /// `None` without Compose or networks; the test is skipped.
    fn up(images: &Images) -> Option<Self> {
        let words = compose()?;
        let project = unique_name();
        if !docker(&["network", "create", &project]).status.success() {
            skip("this engine makes no networks");
            return None;
        }
        docker_ok(&["network", "rm", &project]);
        let file = examples().join("distributed").join("compose.yaml");
        let fixed = ["--project-name", &project, "--file", file.to_str().unwrap()];
        let client = Client::new(&[words, &fixed].concat(), &images.variables());
        let compose = Self { client };
        compose.client.ok(&["up", "--detach"]);
        Some(compose)
    }

    fn container(&self, service: &str) -> Container {
        Container::adopt(&Client::default(), self.client.ok(&["ps", "--quiet", service]).trim().to_owned())
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        drop(self.client.run(&["down", "--timeout=0", "--volumes"]));
    }
}

/// Kills the worker that answers.
fn kill_worker(container: &Container) {
    let answer = wait_for(|| container.describe(), || ask(container.name(), "GET", "/", ""));
    let worker = worker_of(&answer).unwrap().to_owned();
    container.shell(&format!("kill -KILL {}", worker.rsplit(' ').next().unwrap()));
}

/// Kills all services of keepalive in the container.
fn kill_redis(container: &Container) {
    let is_main = |process: &Process| process.parent == 1 && process.name.starts_with("redis");
    let pid = container.processes().into_iter().find(is_main).unwrap().pid;
    container.shell(&format!("kill -KILL {pid}"));
}

#[test]
fn no_kill_loses_an_acknowledged_write_and_all_processes_restart() {
    let Some(images) = Images::build() else { return };
    let Some(compose) = Compose::up(&images) else { return };
    let [left, right, redis] = ["left", "right", "redis"].map(|service| compose.container(service));
    let hosts = [&left, &right].map(|container| container.name().to_owned());
    work_together(&hosts, "all-up");

    let acknowledged = acknowledged_during(
        || hosts.to_vec(),
        || {
            kill_worker(&left);
            kill_worker(&right);
            work_together(&hosts, "workers-killed");
            kill_redis(&redis);
            work_together(&hosts, "redis-killed");
            kill_container(left.name());
            work_together(&hosts, "host-killed");
            kill_container(redis.name());
            work_together(&hosts, "host-of-redis-killed");
        },
    );

    assert!(acknowledged.len() > 20, "{acknowledged:?}");
    wait_until_known_anew(&hosts, &acknowledged);
    let restarts = |container: &Container| {
        docker_ok(&["inspect", "--format={{.RestartCount}}", container.name()]).trim().parse::<u32>().unwrap()
    };
    assert_eq!([&left, &right, &redis].map(restarts), [1, 0, 1]);
}
