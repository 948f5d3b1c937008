//! Init mode as the entry point of an image: `ENTRYPOINT ["/sbin/keepalive", "--"]` or `docker run IMAGE -- CMD`.

use super::client::{docker, lossy};
use super::engine::{Engine, Image};
use super::wait::wait_for;

/// Exit code and stderr of `docker run IMAGE ARGUMENTS`.
fn run(image: &Image, options: &[&str], arguments: &[&str]) -> (Option<i32>, String) {
    let output = docker(&[&["run", "--rm", "--network=none"], options, &[image.name()], arguments].concat());
    (output.status.code(), lossy(&output.stderr))
}

/// README: the code of the process that caused the shutdown; 128+N after signal N; 127 not found; 126 found but not
/// executable.
#[test]
fn the_container_exits_with_the_code_of_the_command() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    for (arguments, code) in [
        (&["--", "sh", "-c", "exit 0"] as &[&str], 0),
        (&["--", "sh", "-c", "exit 7"], 7),
        (&["--", "sh", "-c", "kill -KILL $$"], 137),
        (&["--", "nosuchprogram"], 127),
        (&["--", "/etc/passwd"], 126),
        (&["-e", "143", "--", "sh", "-c", "kill -TERM $$"], 0),
    ] {
        let (found, stderr) = run(&image, &[], arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_command_receives_the_signal_of_docker_stop() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image_with("", |archive| {
        archive.file("/srv/polite", 0o755, b"#!/bin/sh\ntrap 'echo bye; exit 3' TERM\necho up\nsleep 1000 & wait\n");
    });
    let container = image.run(&[], &["--", "/srv/polite"]);
    container.wait_for_line("up");

    assert_eq!(container.stop(), 3, "{}", container.describe());
    assert_eq!(container.logs().stdout, "up\nbye\n");
}

#[test]
fn every_kind_of_signal_is_forwarded() {
    let Some(engine) = Engine::find() else { return };
    let script = br#"#!/bin/sh
for signal in 1 2 3 6 10 12 28 34 37 64; do trap "echo received $signal" $signal; done
echo up
while :; do sleep 1000 & wait $!; done
"#;
    let image = engine.image_with("", |archive| archive.file("/srv/listener", 0o755, script));
    let container = image.run(&[], &["--", "/srv/listener"]);
    container.wait_for_line("up");
    for signal in ["1", "2", "3", "6", "10", "12", "28", "37", "64"] {
        container.kill(signal);
        container.wait_for_line(&format!("received {signal}"));
    }
}

#[test]
fn orphans_are_reaped() {
    let Some(engine) = Engine::find() else { return };
    let script = b"#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9; do (true &); done\necho up\nexec sleep 1000\n";
    let image = engine.image_with("", |archive| archive.file("/srv/parent", 0o755, script));
    let container = image.run(&[], &["--", "/srv/parent"]);
    container.wait_for_line("up");

    wait_for(|| container.describe(), || (container.processes().len() == 2).then_some(()));
}

/// With `docker run --init`, keepalive runs below another init, is not PID 1 and does not warn about that.
#[test]
fn keepalive_below_another_init_does_the_same_without_a_warning() {
    let Some(engine) = Engine::find() else { return };
    let script = b"#!/bin/sh\n(sleep 0.1 &)\ntrap 'exit 5' TERM\necho up\nsleep 1000 & wait\n";
    let image = engine.image_with("", |archive| archive.file("/srv/parent", 0o755, script));
    let container = image.run(&["--init"], &["--", "/srv/parent"]);
    container.wait_for_line("up");
    // The other init, keepalive, the script and its sleep. One of the two inits has reaped the orphan.
    wait_for(|| container.describe(), || (container.processes().len() == 4).then_some(()));

    assert_eq!(container.stop(), 5, "{}", container.describe());
    assert_eq!(container.logs().stderr, "");
}

#[test]
fn init_mode_needs_neither_privileges_nor_a_writable_file_system() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    let locked = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000"];
    let (code, stderr) = run(&image, &locked, &["--", "sh", "-c", "exit 9"]);
    assert_eq!((code, stderr.as_str()), (Some(9), ""));
}
