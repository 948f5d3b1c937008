//! keepalive as the init that an engine adds to a container: `docker run --init` and `podman run --init`.
//!
//! The tests are the same for both. Neither passes options: the command line is `docker-init -- COMMAND`.

use super::archive::Archive;
use super::client::{Client, lossy};
use super::engine::{Container, Engine};
use super::own_engine::OwnEngine;
use super::podman::Podman;
use super::terminal::{interrupt, run_on_terminal, use_the_shell};
use super::wait::wait_for;

/// The engine that starts keepalive as the init of a command.
struct Above {
    client: Client,
    /// The words between `run` and the command.
    words: Vec<String>,
}

impl Above {
    fn words<'w>(&'w self, command: &[&'w str]) -> Vec<&'w str> {
        self.words.iter().map(String::as_str).chain(command.iter().copied()).collect()
    }

    /// Exit code, stdout and stderr of a command.
    fn run(&self, command: &[&str]) -> (Option<i32>, String, String) {
        let output = self.client.run(&[&["run", "--rm", "--network=none"], &*self.words(command)].concat());
        (output.status.code(), lossy(&output.stdout), lossy(&output.stderr))
    }

    fn start(&self, command: &[&str]) -> Container {
        Container::start(&self.client, &self.words(command))
    }
}

/// Runs the test `what` with a separate Docker Engine.
fn with_docker(what: fn(&Above)) {
    let Some(own) = OwnEngine::start() else { return };
    let Some(engine) = Engine::of(own.client.clone()) else { return };
    let image = engine.image("");
    let words = ["--init", "--entrypoint=", image.name()].map(str::to_owned).to_vec();
    what(&Above { client: own.client.clone(), words });
}

/// Runs the test `what` with a separate podman.
fn with_podman(what: fn(&Above)) {
    let Some(busybox) = Engine::busybox() else { return };
    let mut root = Archive::default();
    Engine::furnish(&mut root, &busybox, "");
    let Some(podman) = Podman::with(root) else { return };
    what(&Above { client: podman.client.clone(), words: podman.words() });
}

fn is_the_first_process(above: &Above, name: &str) {
    let script = "/bin/busybox cmp /proc/1/exe /sbin/keepalive && tr '\\0' ' ' </proc/1/cmdline && echo && echo $PPID";
    let (code, stdout, stderr) = above.run(&["/bin/sh", "-c", script]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with(&format!("{name} -- /bin/sh -c ")) && stdout.ends_with("\n1\n"), "{stdout}");
}

fn ends_with_the_code_of_the_command(above: &Above) {
    for (command, code, complaint) in [
        (&["/bin/sh", "-c", "exit 0"] as &[&str], 0, ""),
        (&["/bin/sh", "-c", "exit 7"], 7, ""),
        (&["/bin/sh", "-c", "kill -KILL $$"], 137, ""),
        (&["nosuchprogram"], 127, "exec nosuchprogram failed: No such file or directory"),
        (&["/etc/passwd"], 126, "exec /etc/passwd failed: Permission denied"),
        (&["-v"], 127, "exec -v failed"),
    ] {
        let (found, _, stderr) = above.run(command);
        assert_eq!((found, stderr.is_empty()), (Some(code), complaint.is_empty()), "{command:?}: {stderr}");
        assert!(stderr.contains(complaint), "{command:?}: {stderr}");
    }
}

fn reaps_and_forwards(above: &Above) {
    let container = above.start(&["/srv/polite"]);
    container.wait_for_line("up");
    // keepalive, the script and its sleep.
    wait_for(|| container.describe(), || (container.processes().len() == 3).then_some(()));
    container.kill("ABRT");
    container.wait_for_line("received ABRT");

    assert_eq!(container.stop(), 3, "{}", container.describe());
    assert!(container.logs().stdout.ends_with("bye\n"), "{}", container.describe());
    assert_eq!(container.logs().stderr, "");
}

fn hands_the_terminal_over(above: &Above) {
    let (mut terminal, _container) = run_on_terminal(&above.client, &above.words(&["/bin/sh"]));
    terminal.wait_for_text("# ");
    assert!(!terminal.seen.contains("job control"), "{}", terminal.seen);
    use_the_shell(terminal);

    let (terminal, _container) = run_on_terminal(&above.client, &above.words(&["/srv/polite"]));
    interrupt(terminal);
}

#[test]
fn docker_run_init_starts_keepalive_as_pid_1() {
    with_docker(|above| is_the_first_process(above, "/sbin/docker-init"));
}

#[test]
fn docker_run_init_exits_with_the_code_of_the_command() {
    with_docker(ends_with_the_code_of_the_command);
}

#[test]
fn docker_run_init_reaps_and_forwards() {
    with_docker(reaps_and_forwards);
}

#[test]
fn docker_run_init_passes_the_terminal_to_the_command() {
    with_docker(hands_the_terminal_over);
}

#[test]
fn podman_run_init_starts_keepalive_as_pid_1() {
    with_podman(|above| is_the_first_process(above, "/run/podman-init"));
}

#[test]
fn podman_run_init_exits_with_the_code_of_the_command() {
    with_podman(ends_with_the_code_of_the_command);
}

#[test]
fn podman_run_init_reaps_and_forwards() {
    with_podman(reaps_and_forwards);
}

#[test]
fn podman_run_init_passes_the_terminal_to_the_command() {
    with_podman(hands_the_terminal_over);
}

/// The engine runs `docker-init --version` and parses the answer.
#[test]
fn the_engine_recognizes_keepalive_as_its_init() {
    let Some(engine) = OwnEngine::start() else { return };
    assert_eq!(engine.client.ok(&["info", "--format={{.InitBinary}}"]).trim(), engine.init_path());
    let versions = "--format={{range .Server.Components}}{{.Name}} {{.Version}}\n{{end}}";
    let components = engine.client.ok(&["version", versions]);
    assert!(components.lines().any(|line| line == "docker-init 0.19.0"), "{components}");

    let info = engine.client.run(&["info"]);
    // It shows a version that it cannot parse as `N/A`.
    let text = lossy(&info.stdout);
    let version = text.lines().find_map(|line| line.trim_start().strip_prefix("init version:"));
    assert_eq!(version.map(str::trim), Some(""), "{text}");
    let messages = [lossy(&info.stderr), engine.log()].concat();
    let message = messages.lines().find(|line| line.contains("docker-init"));
    assert_eq!(message, None);
}
