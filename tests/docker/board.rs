//! The purpose of examples/distributed: every instance knows each acknowledged write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::{docker, docker_ok, lossy};
use super::engine::{Image, skip};
use super::host;
use super::python::add_python;
use super::wait::wait_for;
use super::web::{Answer, ask};
use super::worker_examples::{HTTP, image_by};

/// As in keepalive.toml.
const WORKERS: usize = 2;

/// The images of the example.
pub(crate) struct Images {
    pub(crate) worker: Image,
    pub(crate) redis: Image,
}

impl Images {
    /// `None` if a program is missing; the test is skipped.
    pub(crate) fn build() -> Option<Self> {
        let Some(server) = host::find("redis-server") else {
            skip("redis-server is not installed");
            return None;
        };
        let worker = image_by("distributed", "Dockerfile", |archive| add_python(archive, HTTP).map(drop))?;
        let redis = image_by("distributed", "redis.Dockerfile", |archive| {
            host::add_program(archive, &server);
            Some(())
        })?;
        Some(Self { worker, redis })
    }

    /// Their names in compose.yaml and stack.yml.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [("WORKER_IMAGE", self.worker.name()), ("REDIS_IMAGE", self.redis.name())]
    }
}

/// The worker that has answered: its host, its name, its pid.
pub(crate) fn worker_of(answer: &Answer) -> Option<&str> {
    answer.headers.lines().find_map(|line| line.strip_prefix("X-Worker: "))
}

/// Whether a write to this host is acknowledged.
fn write(host: &str, key: &str, value: &str) -> bool {
    ask(host, "PUT", &format!("/{key}"), value).is_some_and(|answer| answer.status == 200)
}

/// Whether each worker of the host knows all these lines of the board.
fn knows(host: &str, lines: &[String]) -> Option<()> {
    let mut workers = BTreeSet::new();
    while workers.len() < WORKERS {
        let answer = ask(host, "GET", "/", "")?;
        let known: BTreeSet<&str> = answer.body.lines().collect();
        if !lines.iter().all(|line| known.contains(line.as_str())) {
            return None;
        }
        workers.insert(worker_of(&answer)?.to_owned());
    }
    Some(())
}

/// Waits until each worker of each host knows these lines.
#[track_caller]
fn wait_until_known(hosts: &[String], lines: &[String]) {
    let describe = || {
        let logs = hosts.iter().map(|host| docker(&["logs", "--timestamps", host]));
        let logs = logs.map(|output| lossy(&[output.stdout, output.stderr].concat()));
        format!("all of {} lines on {hosts:?}\n{}", lines.len(), logs.collect::<Vec<_>>().join("---\n"))
    };
    wait_for(describe, || hosts.iter().all(|host| knows(host, lines).is_some()).then_some(()));
}

/// Checks that a write on each host becomes known on all hosts.
#[track_caller]
pub(crate) fn work_together(hosts: &[String], occasion: &str) {
    let mut lines = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let (key, value) = (format!("{occasion}-{number}"), format!("of-{host}"));
        wait_for(|| format!("a write on {host}: {occasion}"), || write(host, &key, &value).then_some(()));
        lines.push(format!("{key} {value}"));
    }
    wait_until_known(hosts, &lines);
}

/// Waits until each worker of each host knows these lines again, from Redis and not from its memory.
#[track_caller]
pub(crate) fn wait_until_known_anew(hosts: &[String], lines: &[String]) {
    for host in hosts {
        docker_ok(&["exec", host, "/sbin/keepalive", "restart", "worker"]);
    }
    wait_until_known(hosts, lines);
}

/// Kills PID 1 of a container, from outside.
pub(crate) fn kill_container(container: &str) {
    let process = docker_ok(&["inspect", "--format={{.State.Pid}}", container]).trim().parse().unwrap();
    assert!(process > 1, "{container} does not run");
    kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
}

struct Over<'f>(&'f AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes to all `hosts` in turn while `disturb` runs, and returns the acknowledged lines of the board.
pub(crate) fn acknowledged_during(hosts: impl Fn() -> Vec<String> + Sync, disturb: impl FnOnce()) -> Vec<String> {
    let is_over = AtomicBool::new(false);
    let write_on = || {
        let mut lines = Vec::new();
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            for host in hosts() {
                number += 1;
                let (key, value) = (format!("key-{number}"), format!("value-{number}"));
                if write(&host, &key, &value) {
                    lines.push(format!("{key} {value}"));
                }
            }
        }
        lines
    };
    thread::scope(|scope| {
        let writer = scope.spawn(write_on);
        let over = Over(&is_over);
        disturb();
        drop(over);
        writer.join().unwrap()
    })
}
