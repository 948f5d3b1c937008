//! Examples that send requests to keepalive, by its control socket or its port.

use std::fmt::Write as _;
use std::process::Command;

use super::archive::Archive;
use super::client::{Client, compose, docker, docker_ok, lossy};
use super::engine::{Container, Engine, Image, Process, unique_name};
use super::examples::{argument, examples};
use super::image::{build, keepalive_image};
use super::kubernetes::{Pod, field, manifest};
use super::scratch::Scratch;
use super::wait::wait_for;

/// The image of the example in `directory`.
fn image_of(engine: &Engine, directory: &str) -> Image {
    let (base, keepalive) = (engine.base_image(Archive::default()), keepalive_image());
    build(&examples().join(directory), &[&argument("BASE", &base), &argument("KEEPALIVE", &keepalive)])
}

#[test]
fn the_health_check_of_the_example_succeeds_when_all_services_are_ready() {
    let Some(engine) = Engine::find() else { return };
    let image = image_of(&engine, "healthcheck");
    let container = image.run(&[], &[]);
    let health = || docker_ok(&["inspect", "--format={{.State.Health.Status}}", container.name()]).trim().to_owned();
    let ask = || docker(&["exec", container.name(), "/sbin/keepalive", "health", "--ready"]);

    container.wait_for_line("web.0 up");
    wait_for(|| container.describe(), || (health() == "healthy").then_some(()));
    assert_eq!(ask().status.code(), Some(0), "{}", container.describe());
    // It depends on `web` and starts last.
    container.wait_for_line("worker.0 up");

    docker_ok(&["exec", "--detach", container.name(), "/sbin/keepalive", "restart", "web"]);
    let answer = wait_for(|| container.describe(), || Some(ask()).filter(|answer| !answer.status.success()));
    assert_eq!(answer.status.code(), Some(1), "{}", container.describe());
    assert!(lossy(&[answer.stdout, answer.stderr].concat()).contains("web"), "{}", container.describe());
    wait_for(|| container.describe(), || ask().status.success().then_some(()));
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

/// The project of the example; taken down when dropped.
struct Compose {
    client: Client,
    _files: Scratch,
}

impl Compose {
    /// `None` without Compose; the test is skipped.
    fn of(image: &Image) -> Option<Self> {
        let words = compose()?;
        // The engine of a test may be unable to create networks.
        let mut without_network = "services:\n".to_owned();
        for service in ["shop", "front"] {
            writeln!(without_network, "  {service}:\n    network_mode: none").unwrap();
        }
        let files = Scratch::with(&[("network.yaml", without_network.as_bytes())]);
        let example = examples().join("compose").join("compose.yaml");
        let project = unique_name();
        let (example, network) = (example.to_str().unwrap(), files.join("network.yaml"));
        let fixed = ["--project-name", &project, "--file", example, "--file", &network];
        let client = Client::new(&[words, &fixed].concat(), &[("IMAGE", image.name())]);
        Some(Self { client, _files: files })
    }

    fn container(&self, service: &str) -> Container {
        let id = self.client.ok(&["ps", "--quiet", service]);
        Container::adopt(&Client::default(), id.trim().to_owned())
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        drop(self.client.run(&["down", "--timeout=0"]));
    }
}

#[test]
fn compose_starts_the_next_container_when_all_services_of_the_first_are_ready() {
    let Some(engine) = Engine::find() else { return };
    let image = image_of(&engine, "compose");
    let Some(compose) = Compose::of(&image) else { return };
    compose.client.ok(&["up", "--detach"]);
    let (shop, front) = (compose.container("shop"), compose.container("front"));
    front.wait_for_line("front up");
    let inspect = |container: &Container, what: &str| {
        docker_ok(&["inspect", &format!("--format={{{{{what}}}}}"), container.name()]).trim().to_owned()
    };
    assert_eq!(inspect(&shop, ".State.Health.Status"), "healthy");
    // All services were ready before `front` started.
    for line in ["prepared", "web.0 up", "web.1 up", "worker.0 up"] {
        assert!(shop.logs().stdout.lines().any(|found| found == line), "{line}: {}", shop.describe());
    }
    let status = docker_ok(&["exec", shop.name(), "/sbin/keepalive", "status"]);
    assert!(status.contains("worker"), "{status}");

    compose.client.ok(&["stop"]);
    for container in [&shop, &front] {
        assert_eq!(inspect(container, ".State.ExitCode"), "0", "{}", container.describe());
    }
    let stdout = shop.logs().stdout;
    assert!(stdout.find("worker.0 stops") < stdout.find("web.0 stops"), "{stdout}");
}

/// Sends its arguments to a port, on a connection that stays open in both directions until the server closes it.
const REQUEST: &str =
    r#"exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.1\r\nHost: pod\r\n\r\n' "$2" >&3 && cat <&3"#;

/// Whether an `httpGet` probe of the manifest succeeds, and the whole answer. As by the kubelet, which asks from the
/// node, nothing of the container is needed.
fn ask(pod: &Pod, container: &Container, probe: &str) -> (bool, String) {
    let manifest = manifest("pod.yaml");
    let section = format!("      {probe}:");
    let (path, port) = (field(&manifest, &section, "path: "), field(&manifest, &section, "port: "));
    let process = pod.podman.client.ok(&["inspect", "--format={{.State.Pid}}", container.name()]);
    let network = ["--target", process.trim(), "--net", "bash", "-c", REQUEST, "probe", port, path];
    let answer = Command::new("timeout").args(["5", "nsenter"]).args(network).output().unwrap();
    let text = lossy(&answer.stdout);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.is_some_and(|status: u16| (200..400).contains(&status)), text)
}

#[test]
fn the_probes_of_the_pod_report_liveness_and_readiness() {
    let slow = |manifest: String| manifest.replace("ready = { delay = \"1s\" }", "ready = { delay = \"5s\" }");
    let Some(pod) = Pod::play("pod.yaml", slow) else { return };
    let shop = pod.container("shop");
    shop.wait_for_line("web.0 up");
    wait_for(|| shop.describe(), || ask(&pod, &shop, "livenessProbe").0.then_some(()));
    let (ready, answer) = ask(&pod, &shop, "startupProbe");
    assert!(!ready && answer.contains(" 503 ") && answer.contains("web"), "{answer}");
    wait_for(|| shop.describe(), || ask(&pod, &shop, "startupProbe").0.then_some(()));
    shop.wait_for_line("worker.0 up");

    // A crash does not affect liveness, and affects readiness only until the restart.
    let is_main = |process: &Process| process.name == "app" && process.parent == 1;
    // It started before the worker.
    let web = shop.processes().into_iter().filter(is_main).min_by_key(|process| process.pid).unwrap();
    shop.shell(&format!("kill -KILL {}", web.pid));
    wait_for(|| shop.describe(), || (!ask(&pod, &shop, "readinessProbe").0).then_some(()));
    assert!(ask(&pod, &shop, "livenessProbe").0, "{}", shop.describe());
    wait_for(|| shop.describe(), || ask(&pod, &shop, "readinessProbe").0.then_some(()));

    // During preStop the service continues to serve.
    let manifest = manifest("pod.yaml");
    let command = field(&manifest, "        preStop:", "command: ").replace(['[', ']', '"', ','], "");
    shop.shell(&command);
    assert!(ask(&pod, &shop, "readinessProbe").0, "{}", shop.describe());
    assert_eq!(pod.stop(&shop), 0, "{}", shop.describe());
}

/// The exec probes, as podman runs the one that it knows.
#[test]
fn the_sidecar_is_probed_by_the_control_socket() {
    let Some(pod) = Pod::play("sidecar.yaml", |manifest| manifest) else { return };
    let helpers = pod.container("helpers");
    helpers.wait_for_line("shipper.0 up");
    let client = &pod.podman.client;
    wait_for(
        || helpers.describe(),
        || client.run(&["healthcheck", "run", helpers.name()]).status.success().then_some(()),
    );
    helpers.shell("/sbin/keepalive health --ready");
    assert_eq!(pod.stop(&helpers), 0, "{}", helpers.describe());
}
