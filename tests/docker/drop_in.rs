//! keepalive as the entry point of an image by the name of another init.

use super::client::{docker, lossy};
use super::engine::{Container, Engine, Image};
use super::wait::wait_for;

/// The program names of the inits that keepalive replaces.
pub(crate) const NAMES: [&str; 4] = ["tini", "docker-init", "dumb-init", "catatonit"];

/// Runs `command` with `name` as the entry point and returns exit code and stderr.
fn run(image: &Image, name: &str, options: &[&str], command: &[&str]) -> (Option<i32>, String) {
    let entry_point = format!("--entrypoint={name}");
    let fixed = ["run", "--rm", "--network=none", &entry_point];
    let output = docker(&[&fixed, options, &[image.name(), "--"], command].concat());
    (output.status.code(), lossy(&output.stderr))
}

/// The exit code of `name` for a missing command and for one that is not executable.
fn codes_for_what_cannot_be_started(name: &str) -> (i32, i32) {
    match name {
        "dumb-init" => (2, 2),
        "catatonit" => (1, 1),
        _ => (127, 126),
    }
}

#[test]
fn a_drop_in_exits_with_the_code_of_the_other_init() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    for name in NAMES {
        let (missing, forbidden) = codes_for_what_cannot_be_started(name);
        for (command, code) in [
            (&["sh", "-c", "exit 0"] as &[&str], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["sh", "-c", "kill -KILL $$"], 137),
            (&["nosuchprogram"], missing),
            (&["/etc/passwd"], forbidden),
        ] {
            let (found, stderr) = run(&image, name, &[], command);
            assert_eq!(found, Some(code), "{name} {command:?}: {stderr}");
        }
    }
}

/// Including SIGABRT, which tini and catatonit drop.
#[test]
fn a_drop_in_reaps_and_forwards() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    for name in NAMES {
        let container = image.run(&[&format!("--entrypoint={name}")], &["--", "/srv/polite"]);
        check_polite(&container, 3, "ABRT");
    }
}

/// Below the init of the engine keepalive is not PID 1. It must not warn about that, because the engine's init reaps
/// orphans.
#[test]
fn a_drop_in_below_another_init_reaps_and_forwards() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    for name in NAMES {
        // tini warns there unless it is the reaper. Its users match this warning.
        let options = ["--init", "--env=TINI_SUBREAPER=1", &format!("--entrypoint={name}")];
        let container = image.run(&options, &["--", "/srv/polite"]);
        // The init above drops SIGABRT.
        check_polite(&container, 4, "USR1");
    }
}

/// Checks a container of /srv/polite, which has this many `processes` when its orphans are gone, and gets `signal`.
#[track_caller]
fn check_polite(container: &Container, processes: usize, signal: &str) {
    container.wait_for_line("up");
    wait_for(|| container.describe(), || (container.processes().len() == processes).then_some(()));
    container.kill(signal);
    container.wait_for_line(&format!("received {signal}"));

    assert_eq!(container.stop(), 3, "{}", container.describe());
    assert!(container.logs().stdout.ends_with("bye\n"), "{}", container.describe());
    assert_eq!(container.logs().stderr, "");
}

#[test]
fn a_drop_in_needs_neither_privileges_nor_a_writable_file_system() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    let locked = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000"];
    for name in NAMES {
        let (code, stderr) = run(&image, name, &locked, &["sh", "-c", "exit 9"]);
        assert_eq!((code, stderr.as_str()), (Some(9), ""), "{name}");
    }
}
