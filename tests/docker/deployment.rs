//! The manifest of examples/distributed: two Deployments. podman runs one pod of each, on one network.

use super::board::{Images, work_together};
use super::client::docker_ok;
use super::engine::Container;
use super::examples::examples;
use super::kubernetes::{load_image, load_pause};
use super::podman::Podman;
use super::scratch::Scratch;
use super::wait::wait_for;

/// The pods of a manifest on the network of a container; removed when dropped.
struct Pods {
    podman: Podman,
}

impl Pods {
    fn play(mut podman: Podman, manifest: &str, network: &Container) -> Self {
        let process = docker_ok(&["inspect", "--format={{.State.Pid}}", network.name()]);
        podman.client = podman.client.clone().by(&["nsenter", "--target", process.trim(), "--net"]);
        let mut pods = Self { podman };
        let scratch = Scratch::with(&[("manifest.yaml", manifest.as_bytes())]);
        let output = pods.podman.client.ok(&["kube", "play", "--network=host", &scratch.join("manifest.yaml")]);
        for id in output.split("Pod:\n").skip(1).filter_map(|text| text.lines().next()) {
            pods.podman.has_pod(id);
        }
        pods
    }

    /// Whether the readiness probe of the manifest succeeds in the only container of this Deployment.
    fn is_ready(&self, deployment: &str) -> bool {
        let container = format!("{deployment}-pod-0-{deployment}");
        self.podman.client.run(&["exec", &container, "/sbin/keepalive", "health", "--ready"]).status.success()
    }

    fn describe(&self) -> String {
        let client = &self.podman.client;
        let logs = ["redis-pod-0-redis", "worker-pod-0-worker"].map(|name| client.run(&["logs", name]));
        format!("{:?}\n{logs:?}", client.run(&["ps", "--all"]))
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        drop(self.podman.client.run(&["pod", "rm", "--all", "--force", "--time=0"]));
    }
}

/// The manifest for pods on one network, without host names and with one replica of each.
fn on_one_network(manifest: &str) -> String {
    let manifest = manifest.replace("value: redis", "value: 127.0.0.1").replace("replicas: 2", "replicas: 1");
    manifest.lines().filter(|line| !line.contains("containerPort:")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_deployments_of_the_example_run_together() {
    let Some(images) = Images::build() else { return };
    let Some(podman) = Podman::new() else { return };
    load_image(&podman, &images.worker, "localhost/keepalive-worker:latest");
    load_image(&podman, &images.redis, "localhost/keepalive-redis:latest");
    load_pause(&podman);
    let manifest = std::fs::read_to_string(examples().join("distributed").join("kubernetes.yaml")).unwrap();
    let manifest = on_one_network(&manifest);
    let network = images.worker.run(&["--entrypoint=/bin/sleep"], &["1000"]);
    let pods = Pods::play(podman, &manifest, &network);
    for deployment in ["redis", "worker"] {
        wait_for(|| pods.describe(), || pods.is_ready(deployment).then_some(()));
    }
    work_together(&[network.name().to_owned()], "deployed");
}
