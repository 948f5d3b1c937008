//! Each Dockerfile of examples/, built and run as its README says; upon an image made of programs of this machine.

use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::client::{docker, docker_ok, lossy};
use super::drop_in;
use super::engine::{Container, Engine, Image, Process, skip};
use super::host;
use super::image::{build, keepalive_image};
use super::wait::wait_for;

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The argument of a build that names `image`.
pub(crate) fn argument(name: &str, image: &Image) -> String {
    format!("--build-arg={name}={}", image.name())
}

fn zombies(container: &Container) -> Vec<Process> {
    container.processes().into_iter().filter(|process| process.state == 'Z').collect()
}

#[test]
fn the_example_of_init_mode_is_what_its_readme_says() {
    let Some(engine) = Engine::find() else { return };
    let (base, keepalive) = (engine.base_image(Archive::default()), keepalive_image());
    let image = build(&examples().join("init"), &[&argument("BASE", &base), &argument("KEEPALIVE", &keepalive)]);

    let with = image.run(&[], &[]);
    with.wait_for_line("ready");
    // keepalive and the program: no orphan.
    wait_for(|| with.describe(), || (with.processes().len() == 2).then_some(()));
    assert_eq!(with.stop(), 143, "{}", with.describe());

    let without = image.run(&["--entrypoint=app"], &[]);
    without.wait_for_line("ready");
    wait_for(|| without.describe(), || (zombies(&without).len() == 3).then_some(()));
    docker_ok(&["stop", "--time=1", without.name()]);
    assert_eq!(without.wait_for_end(), 137, "{}", without.describe());
}

#[test]
fn keepalive_in_place_of_another_init_changes_nothing_but_the_bugs() {
    let Some(engine) = Engine::find() else { return };
    let keepalive = keepalive_image();
    for name in drop_in::NAMES {
        let Some(original) = host::find(name) else {
            skip(&format!("{name} is not installed"));
            continue;
        };
        let mut archive = Archive::default();
        host::add_program(&mut archive, &original);
        let base = engine.base_image(archive);
        let dockerfile = format!("{name}.Dockerfile");
        let file = examples().join("drop-in").join(dockerfile);
        let words = ["--file", file.to_str().unwrap(), &argument("BASE", &base), &argument("KEEPALIVE", &keepalive)];
        let before = build(&examples().join("drop-in"), &[&words[..], &["--target=before"]].concat());
        let after = build(&examples().join("drop-in"), &words);

        assert!(!is_ours(&before) && is_ours(&after), "{name}: the images are the wrong way round");
        assert_eq!(observe(&after), observe(&before), "{name}: after, before");
    }
}

/// A Dockerfile that no test builds is not an example.
#[test]
fn each_dockerfile_in_place_of_another_init_has_its_name() {
    let entries = std::fs::read_dir(examples().join("drop-in")).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".Dockerfile").map(str::to_owned))
        .collect();
    names.sort_unstable();
    let mut expect = drop_in::NAMES;
    expect.sort_unstable();
    assert_eq!(names, expect);
}

/// Whether PID 1 of the image is keepalive.
fn is_ours(image: &Image) -> bool {
    let compare = "test -e /sbin/keepalive && /bin/busybox cmp -s /proc/1/exe /sbin/keepalive";
    docker(&["run", "--rm", "--network=none", image.name(), "sh", "-c", compare]).status.success()
}

/// What somebody sees who runs `image` with commands of theirs and with its own: the exit code and both streams.
fn observe(image: &Image) -> Vec<String> {
    let mut seen = Vec::new();
    for command in [
        &["sh", "-c", "pwd; env | grep -v HOSTNAME; echo to stderr >&2; exit 7"] as &[&str],
        &["sh", "-c", "kill -KILL $$"],
        &["nosuchprogram"],
        &["/etc/passwd"],
    ] {
        let fixed = ["run", "--rm", "--network=none", image.name()];
        let output = docker(&[&fixed, command].concat());
        let (stdout, stderr) = (lossy(&output.stdout), lossy(&output.stderr));
        seen.push(format!("{command:?}: {:?}\n{stdout}{}", output.status.code(), without_numbers(&stderr)));
    }
    let container = image.run(&[], &[]);
    container.wait_for_line("ready");
    // The init, the program and its sleep: no orphan.
    wait_for(|| container.describe(), || (container.processes().len() == 3).then_some(()));
    container.kill("USR1");
    container.wait_for_line("heard SIGUSR1");
    let code = container.stop();
    let logs = container.logs();
    seen.push(format!("{code}\n{}{}", logs.stdout, without_numbers(&logs.stderr)));
    seen
}

/// Process ids stand in messages, and differ from run to run.
fn without_numbers(text: &str) -> String {
    let letters: String = text.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
    letters.split("##").collect::<Vec<_>>().join("#")
}
