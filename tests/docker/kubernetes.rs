//! The manifests of examples/kubernetes, run by podman. The tests do the other work of the kubelet: probes, preStop and
//! the grace period. The pause container is keepalive too, by the name of catatonit.

use super::archive::Archive;
use super::client::{docker, lossy};
use super::engine::{Container, Engine, Image, Process};
use super::examples::{argument, examples};
use super::host;
use super::image::{build, keepalive_image};
use super::podman::{PAUSE, Podman};
use super::scratch::Scratch;
use super::wait::wait_for;

/// The name of the image of the example in the manifests.
const IMAGE: &str = "localhost/keepalive-kubernetes:latest";

/// A running pod; removed when dropped, after its containers.
pub(crate) struct Pod {
    pub(crate) podman: Podman,
    name: String,
    manifest: String,
}

impl Pod {
    /// Plays a manifest of the example after `change`. `None` if a program is missing; the test is skipped.
    pub(crate) fn play(file: &str, change: impl FnOnce(String) -> String) -> Option<Self> {
        let engine = Engine::find()?;
        let podman = Podman::new()?;
        load_images(&engine, &podman);
        let manifest = change(manifest(file));
        let scratch = Scratch::with(&[("pod.yaml", manifest.as_bytes())]);
        let name = field(&manifest, "kind: Pod", "name: ").to_owned();
        let mut pod = Self { podman, name, manifest };
        let output = pod.podman.client.ok(&["kube", "play", "--network=none", &scratch.join("pod.yaml")]);
        let id = output.lines().skip_while(|line| *line != "Pod:").nth(1).unwrap_or_else(|| panic!("{output}"));
        pod.podman.has_pod(id);
        Some(pod)
    }

    /// The container with this name in the manifest.
    pub(crate) fn container(&self, name: &str) -> Container {
        Container::adopt(&self.podman.client, format!("{}-{name}", self.name))
    }

    /// Stops a container as the kubelet does, by SIGTERM, and SIGKILL after the grace period. Returns its exit code.
    #[track_caller]
    pub(crate) fn stop(&self, container: &Container) -> i32 {
        let grace = field(&self.manifest, "spec:", "terminationGracePeriodSeconds: ");
        self.podman.client.ok(&["stop", "--time", grace, container.name()]);
        container.wait_for_end()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.podman.client.run(&["pod", "rm", "--force", "--time=0", &self.name]));
    }
}

pub(crate) fn manifest(file: &str) -> String {
    std::fs::read_to_string(examples().join("kubernetes").join(file)).unwrap()
}

/// The rest of the first line below the line `section` that starts with `key`.
#[track_caller]
pub(crate) fn field<'m>(manifest: &'m str, section: &str, key: &str) -> &'m str {
    let mut below = manifest.lines().skip_while(|line| *line != section);
    below.find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("no `{key}` below `{section}`"))
}

/// The image of the example, built from its Dockerfile, and that of the pause container.
fn load_images(engine: &Engine, podman: &Podman) {
    let (base, keepalive) = (engine.base_image(Archive::default()), keepalive_image());
    let image = build(&examples().join("kubernetes"), &[&argument("BASE", &base), &argument("KEEPALIVE", &keepalive)]);
    load_image(podman, &image, IMAGE);
    load_pause(podman);
}

/// Copies an image from Docker to podman with this name.
pub(crate) fn load_image(podman: &Podman, image: &Image, name: &str) {
    let saved = docker(&["save", image.name()]).stdout;
    let loaded = podman.client.run_with_input(&["load"], &saved);
    assert!(loaded.status.success(), "{}", lossy(&loaded.stderr));
    podman.client.ok(&["tag", image.name(), name]);
}

/// Loads the image of the pause container into podman.
pub(crate) fn load_pause(podman: &Podman) {
    let mut pause = Archive::default();
    pause.file("/catatonit", 0o755, &std::fs::read(host::keepalive()).unwrap());
    let change = "--change=ENTRYPOINT [\"/catatonit\", \"-P\"]";
    let imported = podman.client.run_with_input(&["import", change, "-", PAUSE], &pause.finish());
    assert!(imported.status.success(), "{}", lossy(&imported.stderr));
}

/// Seconds in a duration such as `20s`, or a number.
fn seconds(text: &str) -> u32 {
    text.trim_matches('"').trim_end_matches('s').parse().unwrap()
}

#[track_caller]
fn position(stdout: &str, line: &str) -> usize {
    stdout.lines().position(|found| found == line).unwrap_or_else(|| panic!("`{line}` in\n{stdout}"))
}

#[test]
fn several_services_in_a_pod_start_and_stop_in_order() {
    let Some(pod) = Pod::play("pod.yaml", std::convert::identity) else { return };
    let shop = pod.container("shop");
    for line in ["prepared", "web.0 up", "web.1 up", "worker.0 up"] {
        shop.wait_for_line(line);
    }
    let processes = shop.processes();
    let first = processes.iter().find(|process| process.pid == 1).unwrap();
    assert_eq!(first.name, "keepalive", "{processes:?}");

    assert_eq!(pod.stop(&shop), 0, "{}", shop.describe());
    let stdout = shop.logs().stdout;
    assert!(position(&stdout, "prepared") < position(&stdout, "web.0 up"), "{stdout}");
    let worker = position(&stdout, "worker.0 stops");
    assert!(worker < position(&stdout, "web.0 stops").min(position(&stdout, "web.1 stops")), "{stdout}");
}

/// README of the example: preStop and the whole ordered stop fit into the grace period.
#[test]
fn the_timeouts_of_the_example_fit_into_each_other() {
    let manifest = manifest("pod.yaml");
    let grace = seconds(field(&manifest, "spec:", "terminationGracePeriodSeconds: "));
    let shutdown = seconds(field(&manifest, "kind: ConfigMap", "shutdown_timeout = "));
    let pre_stop = field(&manifest, "        preStop:", "command: [\"sleep\", ").trim_end_matches(']');
    assert!(seconds(pre_stop) + shutdown < grace, "{pre_stop} + {shutdown} ≥ {grace}");
}

/// With a PID namespace for the whole pod, PID 1 is the pause container.
#[test]
fn a_sidecar_keepalive_manages_only_its_own_processes() {
    let Some(pod) = Pod::play("sidecar.yaml", |manifest| manifest) else { return };
    let (program, helpers) = (pod.container("program"), pod.container("helpers"));
    program.wait_for_line("program up");
    for line in ["shipper.0 up", "exporter.0 up"] {
        helpers.wait_for_line(line);
    }
    let named = |processes: &[Process], name: &str, parent: i32| {
        processes.iter().filter(|process| process.name == name && process.parent == parent).count()
    };
    // keepalive adopts orphans of services, the pause container those of the program.
    let keepalive = wait_for(
        || format!("{:?}\n{}", helpers.processes(), helpers.describe()),
        || {
            let processes = helpers.processes();
            let pid = processes.iter().find(|process| process.name == "keepalive")?.pid;
            (named(&processes, "sleep", pid) == 2 && named(&processes, "sleep", 1) == 1).then_some(pid)
        },
    );
    assert_ne!(keepalive, 1);

    assert_eq!(pod.stop(&helpers), 0, "{}", helpers.describe());
    for line in ["shipper.0 stops", "exporter.0 stops"] {
        position(&helpers.logs().stdout, line);
    }
    let mut left: Vec<String> = program.processes().into_iter().map(|process| process.name).collect();
    left.sort_unstable();
    assert_eq!(left, ["app", "catatonit", "sleep", "sleep"]);
    assert_eq!(pod.stop(&program), 0, "{}", program.describe());
    position(&program.logs().stdout, "program stops");
}

/// Processes that it has started do not remain beside those of the program.
#[test]
fn a_killed_sidecar_leaves_no_process_and_its_container_restarts() {
    let Some(pod) = Pod::play("sidecar.yaml", |manifest| manifest) else { return };
    let (program, helpers) = (pod.container("program"), pod.container("helpers"));
    program.wait_for_line("program up");
    let lines = ["shipper.0 up", "exporter.0 up"];
    lines.iter().for_each(|line| helpers.wait_for_line(line));
    let keepalive =
        |processes: &[Process]| processes.iter().find(|process| process.name == "keepalive").map(|it| it.pid);
    let first = keepalive(&program.processes()).unwrap();

    program.shell(&format!("kill -KILL {first}"));
    lines.iter().for_each(|line| helpers.wait_for_lines(line, 2));
    wait_for(
        || format!("{:?}\n{}", program.processes(), helpers.describe()),
        || {
            let processes = program.processes();
            let count = |name: &str| processes.iter().filter(|process| process.name == name).count();
            // The program and two services, each with an orphan and a sleep.
            let complete = ["app", "sleep", "keepalive", "catatonit"].map(count) == [3, 6, 1, 1];
            (complete && keepalive(&processes) != Some(first)).then_some(())
        },
    );
    assert!(program.is_running(), "{}", program.describe());
}
