//! `docker stop` and `docker kill`: services stop in order, in every state, before the timeout of Docker.

use super::engine::{Container, Engine, Image};
use super::wait::wait_for;

/// Killed by the engine after its grace period.
const KILLED: i32 = 137;

/// The position of the one line `text` on stdout.
#[track_caller]
fn position(stdout: &str, text: &str) -> usize {
    let positions: Vec<usize> =
        stdout.lines().enumerate().filter(|(_, line)| *line == text).map(|(position, _)| position).collect();
    assert_eq!(positions.len(), 1, "`{text}` in\n{stdout}");
    positions[0]
}

/// README: 0 after an orderly stop that was asked for; what depends on a service stops before it.
#[test]
fn docker_stop_stops_services_in_reverse_order_and_exits_with_0() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image(
        r#"
        [services.database]
        command = "/srv/steady"
        [services.application]
        command = "/srv/steady"
        depends_on = ["database"]
        [services.web]
        command = "/srv/steady"
        instances = 2
        depends_on = ["application"]
        "#,
    );
    let container = image.run(&[], &[]);
    for line in ["database.0 up", "application.0 up", "web.0 up", "web.1 up"] {
        container.wait_for_line(line);
    }

    let code = container.stop();

    let stdout = container.logs().stdout;
    assert_eq!(code, 0, "{}", container.describe());
    let application = position(&stdout, "application.0 stops");
    assert!(position(&stdout, "web.0 stops") < application, "{stdout}");
    assert!(position(&stdout, "web.1 stops") < application, "{stdout}");
    assert!(application < position(&stdout, "database.0 stops"), "{stdout}");
}

#[test]
fn other_signals_are_forwarded_to_the_services() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\ninstances = 2");
    let container = image.run(&[], &[]);
    container.wait_for_line("web.0 up");
    container.wait_for_line("web.1 up");

    container.kill("USR1");
    container.wait_for_line("web.0 receives USR1");
    container.wait_for_line("web.1 receives USR1");
    container.kill("RTMIN+4");
    container.wait_for_line("web.0 receives RTMIN+4");
    container.wait_for_line("web.1 receives RTMIN+4");

    assert!(container.is_running());
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

/// systemd images and LXC send these.
#[test]
fn sigpwr_and_rtmin_plus_3_are_the_ordered_stop() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\n");
    for signal in ["PWR", "RTMIN+3"] {
        let container = image.run(&[], &[]);
        container.wait_for_line("web.0 up");
        container.kill(signal);
        container.wait_for_line("web.0 stops");
        assert_eq!(container.wait_for_end(), 0, "{}", container.describe());
    }
}

#[test]
fn a_service_that_ignores_sigterm_is_killed_after_its_stop_timeout() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image_with("[services.deaf]\ncommand = \"/srv/deaf\"\nstop_timeout = \"500ms\"", |archive| {
        archive.file("/srv/deaf", 0o755, b"#!/bin/sh\ntrap '' TERM\necho deaf\nexec sleep 1000\n")
    });
    let container = image.run(&[], &[]);
    container.wait_for_line("deaf");

    assert_eq!(container.stop(), 0, "{KILLED} would be Docker's own SIGKILL\n{}", container.describe());
}

/// A stopped process does not handle SIGTERM until SIGCONT.
#[test]
fn a_stopped_service_receives_its_stop_signal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\nstop_timeout = \"60s\"");
    let container = image.run(&[], &[]);
    container.wait_for_line("web.0 up");
    let main = container.main_process("web").unwrap();
    container.shell(&format!("kill -STOP {}", main.pid));
    wait_for(
        || container.describe(),
        || container.main_process("web").filter(|process| process.state == 'T').map(drop),
    );

    assert_eq!(container.stop(), 0, "{}", container.describe());
    position(&container.logs().stdout, "web.0 stops");
}

/// Starts keepalive below another PID 1, so that what outlives it can be seen.
const OUTER: &[u8] = br#"#!/bin/sh
/sbin/keepalive & keepalive=$!
trap 'kill -TERM $keepalive' TERM
wait $keepalive
while kill -0 $keepalive 2>/dev/null; do wait $keepalive; done
echo "keepalive has ended"
for process in /proc/[0-9]*; do
    read -r stat <$process/stat && echo "left: $stat"
done 2>/dev/null
echo "that is all"
"#;

const DAEMONISING: &[u8] = b"#!/bin/sh\n(setsid /srv/daemon &)\nexec /srv/steady\n";
const DEAF_DAEMON: &[u8] = b"#!/bin/sh\ntrap '' TERM HUP\necho daemon up\nexec sleep 1000\n";
const POLITE_DAEMON: &[u8] =
    b"#!/bin/sh\ntrap 'echo daemon stops; exit' TERM\necho daemon up\nwhile :; do sleep 1000 & wait $!; done\n";

fn image_with_daemon(engine: &Engine, daemon: &[u8]) -> Image {
    engine.image_with("[services.web]\ncommand = \"/srv/daemonising\"", |archive| {
        archive.file("/srv/daemonising", 0o755, DAEMONISING);
        archive.file("/srv/daemon", 0o755, daemon);
        archive.file("/srv/outer", 0o755, OUTER);
    })
}

fn wait_until_daemonised(container: &Container) {
    container.wait_for_line("web.0 up");
    container.wait_for_line("daemon up");
}

#[test]
fn a_daemonised_process_does_not_outlive_keepalive() {
    let Some(engine) = Engine::find() else { return };
    let image = image_with_daemon(&engine, DEAF_DAEMON);
    let container = image.run(&["--entrypoint=/srv/outer"], &[]);
    wait_until_daemonised(&container);

    container.kill("TERM");
    container.wait_for_line("that is all");

    let stdout = container.logs().stdout;
    let left: Vec<&str> = stdout.lines().filter(|line| line.starts_with("left: ")).collect();
    assert!(left.len() == 1 && left[0].starts_with("left: 1 (outer)"), "{}", container.describe());
    position(&stdout, "web.0 stops");
}

#[test]
fn a_daemonised_process_gets_sigterm_after_the_services() {
    let Some(engine) = Engine::find() else { return };
    let image = image_with_daemon(&engine, POLITE_DAEMON);
    let container = image.run(&[], &[]);
    wait_until_daemonised(&container);

    assert_eq!(container.stop(), 0, "{}", container.describe());
    let stdout = container.logs().stdout;
    assert!(position(&stdout, "web.0 stops") < position(&stdout, "daemon stops"), "{stdout}");
}

/// Root in a container may not read the environment of processes of other users, without CAP_SYS_PTRACE.
#[test]
fn a_daemonised_process_of_another_user_is_gone_before_the_next_run() {
    let Some(engine) = Engine::find() else { return };
    let text = "[services.web]\ncommand = \"/srv/daemonising\"\nuser = 1000\ngroup = 1000\nmin_uptime = \"0s\"\n";
    let image = engine.image_with(text, |archive| {
        archive.file("/srv/daemonising", 0o755, DAEMONISING);
        archive.file("/srv/daemon", 0o755, POLITE_DAEMON);
    });
    let container = image.run(&[], &[]);
    for runs in 1..4 {
        container.wait_for_lines("web.0 up", runs);
        container.wait_for_lines("daemon up", runs);
        let stderr = container.logs().stderr;
        let main = stderr.rsplit("(pid ").find_map(|rest| rest.split_once(')')?.0.parse::<u32>().ok()).unwrap();
        container.shell(&format!("kill -KILL {main}"));
        container.wait_for_lines("daemon stops", runs);
    }
    assert_eq!(container.stop(), 0, "{}", container.describe());
}
