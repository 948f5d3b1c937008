//! Failures: the exit code and the reason are available outside of the container.

use super::client::{docker, lossy};
use super::engine::{Engine, unique_name};

/// A file on this machine that a container mounts; removed when dropped.
struct MountedFile(std::path::PathBuf);

impl MountedFile {
    fn empty() -> Self {
        let path = std::env::temp_dir().join(unique_name());
        std::fs::write(&path, "").unwrap();
        Self(path)
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for MountedFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// README: the exit code is that of the process that caused the shutdown. The reason is the last line on stderr and in
/// /dev/termination-log, which Kubernetes mounts as a file.
#[test]
fn a_crash_loop_ends_the_container_with_the_code_of_the_service_and_the_reason() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image(
        r#"
        [services.other]
        command = "/srv/steady"
        [services.broken]
        command = ["sh", "-c", "exit 7"]
        depends_on = ["other"]
        max_restarts = 2
        backoff = { initial = "10ms" }
        "#,
    );
    let reason = MountedFile::empty();
    let mount = format!("--volume={}:/dev/termination-log", reason.0.display());
    let container = image.run(&[&mount], &[]);

    assert_eq!(container.wait_for_end(), 7, "{}", container.describe());

    let logs = container.logs();
    let last = logs.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("broken") && last.contains("exited with code 7"), "{}", container.describe());
    let reason = reason.read();
    assert!(!reason.trim().is_empty() && last.ends_with(reason.trim()), "`{reason}` is not in `{last}`");
    assert!(logs.stdout.lines().any(|line| line == "other.0 stops"), "{}", container.describe());
}

#[test]
fn init_mode_writes_the_reason_too() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.other]\ncommand = \"/srv/steady\"\n");
    let reason = MountedFile::empty();
    let mount = format!("--volume={}:/dev/termination-log", reason.0.display());
    let container = image.run(&[&mount], &["--", "no-such-program"]);

    assert_eq!(container.wait_for_end(), 127, "{}", container.describe());
    assert_eq!(reason.read(), "cannot run `no-such-program`: not found\n");
}

#[test]
fn a_service_killed_by_a_signal_gives_128_plus_its_number() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.broken]\ncommand = [\"sh\", \"-c\", \"kill -SEGV $$$$\"]\nrestart = \"never\"");
    let container = image.run(&[], &[]);

    assert_eq!(container.wait_for_end(), 139, "{}", container.describe());
}

#[test]
fn an_invalid_configuration_exits_with_78_before_any_start() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\ninstance = 2\n");
    let container = image.run(&[], &[]);

    assert_eq!(container.wait_for_end(), 78, "{}", container.describe());
    let logs = container.logs();
    assert_eq!(logs.stdout, "");
    assert!(logs.stderr.contains("/etc/keepalive.toml:3:1"), "{}", logs.stderr);
    assert!(logs.stderr.contains("instances"), "{}", logs.stderr);
}

#[test]
fn check_validates_a_configuration_inside_the_image() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\nuser = \"nobody\"\n");
    let name = image.name();

    let good = docker(&["run", "--rm", "--network=none", name, "check"]);
    assert_eq!(good.status.code(), Some(0), "{}", lossy(&good.stderr));
    assert!(lossy(&good.stdout).contains("web"), "{}", lossy(&good.stdout));

    let without = docker(&["run", "--rm", "--network=none", name, "check", "-c", "/nonexistent.toml"]);
    assert_eq!(without.status.code(), Some(78), "{}", lossy(&without.stderr));
    assert!(lossy(&without.stderr).contains("/nonexistent.toml"), "{}", lossy(&without.stderr));
}

/// The kernel kills by SIGKILL, as other processes may. Only a counter shows that memory was the reason.
#[test]
fn a_kill_by_the_kernel_is_reported_as_out_of_memory() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.hog]\ncommand = [\"busybox\", \"tail\", \"/dev/zero\"]\nrestart = \"never\"");
    let container = image.run(&["--memory=40m"], &[]);
    assert_eq!(container.wait_for_end(), 137, "{}", container.describe());
    let logs = container.logs();
    let last = logs.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("hog.0 failed: killed by SIGKILL") && last.contains("out of memory"),
        "{}",
        container.describe()
    );
}

#[test]
fn a_kill_by_a_process_is_not_reported_as_out_of_memory() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.hog]\ncommand = [\"sh\", \"-c\", \"kill -9 $$$$\"]\nrestart = \"never\"");
    let container = image.run(&["--memory=40m"], &[]);
    assert_eq!(container.wait_for_end(), 137, "{}", container.describe());
    assert!(!container.logs().stderr.contains("out of memory"), "{}", container.describe());
}
