//! Hardened containers: no privileges, no writable file system, closed streams.

use super::engine::{Container, Engine};
use super::wait::wait_for;

const TWO_SERVICES: &str = r#"
[services.base]
command = "/srv/steady"
[services.web]
command = "/srv/steady"
depends_on = ["base"]
"#;

/// Kills the main process of `service` and waits until another one has replaced it.
#[track_caller]
fn kill_and_wait_for_the_next(container: &Container, service: &str) {
    let before = container.main_process(service).unwrap();
    container.shell(&format!("kill -KILL {}", before.pid));
    wait_for(
        || container.describe(),
        || container.main_process(service).filter(|process| process.pid != before.pid).map(drop),
    );
}

#[test]
fn keepalive_needs_neither_privileges_nor_a_writable_file_system() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image(TWO_SERVICES);
    let locked = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000"];
    let container = image.run(&locked, &[]);
    container.wait_for_line("base.0 up");
    container.wait_for_line("web.0 up");

    kill_and_wait_for_the_next(&container, "web");
    container.wait_for_lines("web.0 up", 2);
    assert_eq!(container.stop(), 0, "{}", container.describe());

    let logs = container.logs();
    assert!(logs.stdout.lines().any(|line| line == "base.0 stops"), "{}", container.describe());
    let is_trouble = |line: &&str| line.contains("warning:") || line.contains("error:");
    let trouble: Vec<&str> = logs.stderr.lines().filter(is_trouble).collect();
    let expect = "keepalive: warning: cannot create the control socket at /run/keepalive.sock (No such file or directory) \
                  or at /tmp/keepalive-1000.sock (Read-only file system): client commands do not work; \
                  mount a tmpfs or an emptyDir at /run (`docker run --tmpfs /run`), or set KEEPALIVE_SOCKET or `control = \"/PATH\"`";
    let [first, crash] = trouble[..] else { panic!("{}", container.describe()) };
    assert_eq!(first, expect, "{}", container.describe());
    assert!(crash.contains("web.0 running → "), "{}", container.describe());
}

/// `echo … > /proc/1/fd/1` is how cron jobs write to the log of a container. Without CAP_SYS_PTRACE it needs a PID 1 that is
/// dumpable, proc(5), which changes when a process that shares its memory becomes another user.
#[test]
fn the_streams_of_pid_1_can_be_opened_after_a_service_has_become_another_user() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image(
        "[services.web]\ncommand = \"/srv/steady\"\nuser = 1000\ngroup = 1000\nready = { exec = [\"/bin/sh\", \"-c\", \"sleep 0.3\"] }\n",
    );
    let container = image.run(&[], &[]);
    container.wait_for_line("web.0 up");
    let write = |text: &str| container.shell(&format!("echo {text} > /proc/1/fd/1"));
    write("while the probe runs");
    container.wait_for_line("while the probe runs");
    wait_for(|| container.describe(), || container.logs().stderr.contains("web.0 starting → running").then_some(()));
    write("after the start");
    container.wait_for_line("after the start");
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

/// A process of root needs no capability to run as root.
#[test]
fn a_service_can_run_as_root_without_capabilities() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\nuser = 0\n");
    let container = image.run(&["--cap-drop=ALL"], &[]);
    container.wait_for_line("web.0 up");
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

#[test]
fn a_service_cannot_change_its_user_without_capabilities() {
    let Some(engine) = Engine::find() else { return };
    for user in ["user = 1000\ngroup = 1000", "user = 0\ngroups = [7]"] {
        let image = engine.image(&format!("[services.web]\ncommand = \"/srv/steady\"\n{user}\nrestart = \"never\"\n"));
        let container = image.run(&["--cap-drop=ALL"], &[]);
        assert_eq!(container.wait_for_end(), 126, "{}", container.describe());
    }
}

/// Starts keepalive from a shell that closes descriptors first.
fn run_with_closed(redirections: &str) {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image(TWO_SERVICES);
    let script = format!("exec /sbin/keepalive {redirections}");
    let container = image.run(&["--entrypoint=/bin/sh"], &["-c", &script]);
    wait_for(|| container.describe(), || container.main_process("web").map(drop));

    kill_and_wait_for_the_next(&container, "web");

    assert_eq!(container.stop(), 0, "{}", container.describe());
}

#[test]
fn keepalive_runs_with_stdin_closed() {
    run_with_closed("<&-");
}

#[test]
fn keepalive_runs_with_stdout_closed() {
    run_with_closed(">&-");
}

#[test]
fn keepalive_runs_with_stderr_closed() {
    run_with_closed("2>&-");
}

#[test]
fn keepalive_runs_with_all_streams_closed() {
    run_with_closed("<&- >&- 2>&-");
}
