//! The examples of workers that share a socket, are reloaded and keep their data, as images of their Dockerfiles.

use std::collections::BTreeSet;

use super::archive::Archive;
use super::client::{docker, docker_ok, lossy};
use super::engine::{Container, Engine, Image, skip};
use super::examples::{argument, examples};
use super::host;
use super::image::{build, keepalive_image};
use super::python::add_python;
use super::wait::wait_for;
use super::web::ask;

/// What http servers and clients in Python load.
pub(crate) const HTTP: &str = "http.client, http.server, json, mmap, random, signal, socket, threading";

/// The image of an example, upon one with what `add` adds; none if that finds nothing.
fn image_of(directory: &str, add: impl FnOnce(&mut Archive) -> Option<()>) -> Option<Image> {
    image_by(directory, "Dockerfile", add)
}

/// The same by another Dockerfile of it.
pub(crate) fn image_by(
    directory: &str,
    dockerfile: &str,
    add: impl FnOnce(&mut Archive) -> Option<()>,
) -> Option<Image> {
    let engine = Engine::find()?;
    let mut archive = Archive::default();
    add(&mut archive)?;
    let (base, keepalive) = (engine.base_image(archive), keepalive_image());
    let directory = examples().join(directory);
    let file = directory.join(dockerfile);
    let words = ["--file", file.to_str().unwrap(), &argument("BASE", &base), &argument("KEEPALIVE", &keepalive)];
    Some(build(&directory, &words))
}

fn with_python(directory: &str, modules: &str) -> Option<Image> {
    image_of(directory, |archive| add_python(archive, modules).map(drop))
}

/// Runs `keepalive` with these words in the container. Returns whether it succeeded, and its output.
fn client(container: &Container, words: &[&str]) -> (bool, String) {
    let output = docker(&[&["exec", container.name(), "/sbin/keepalive"], words].concat());
    (output.status.success(), lossy(&[output.stdout, output.stderr].concat()))
}

fn is_ready(container: &Container) -> Option<()> {
    client(container, &["health", "--ready"]).0.then_some(())
}

#[test]
fn three_reloads_under_load_lose_no_request() {
    let Some(image) = with_python("zero-downtime", HTTP) else { return };
    let container = image.run(&[], &[]);
    assert_eq!(container.wait_for_end(), 0, "{}", container.describe());
    let stdout = container.logs().stdout;
    let last = stdout.lines().last().unwrap();
    // Four workers, each replaced three times.
    assert!(last.contains(" requests to 16 processes, ") && last.ends_with(", 0 failed"), "{stdout}");
}

#[test]
fn two_counters_continue_where_the_killed_worker_stopped() {
    let Some(image) = with_python("worker-state", HTTP) else { return };
    let container = image.run(&[], &[]);
    for instance in ["count.0", "count.1"] {
        container.wait_for_lines(&format!("{instance} is killed"), 4);
    }
    assert_eq!(container.stop(), 0, "{}", container.describe());
    let stdout = container.logs().stdout;
    for instance in ["count.0", "count.1"] {
        let prefix = format!("{instance} pid ");
        let steps: Vec<&str> = stdout.lines().filter(|line| line.starts_with(&prefix)).collect();
        for (position, step) in steps.iter().enumerate() {
            let expect = format!(": {0} in memory, {0} in the store", position + 1);
            assert!(step.ends_with(&expect), "{step} is not{expect}\n{stdout}");
        }
        let processes: BTreeSet<&str> = steps.iter().filter_map(|step| step.split(':').next()).collect();
        assert!(processes.len() >= 4, "{stdout}");
    }
}

/// `"worker":"web.2"` and what else is in an answer of the Node example.
fn word(body: &str, key: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("\"{key}\":"))?;
    Some(rest.split([',', '}']).next()?.trim_matches('"').to_owned())
}

/// The motto of each worker that answers, until all four have.
fn mottos(container: &Container) -> Option<BTreeSet<String>> {
    let (mut workers, mut mottos) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..400 {
        let answer = ask(container.name(), "GET", "/", "")?;
        workers.insert(word(&answer.body, "worker")?);
        mottos.insert(word(&answer.body, "motto")?);
        if workers.len() == 4 {
            return Some(mottos);
        }
    }
    None
}

#[test]
fn node_workers_share_a_port_messages_and_stored_values() {
    let Some(node) = host::find("node") else { return skip("node is not installed") };
    let image = image_of("node-cluster", |archive| {
        host::add_program(archive, &node);
        Some(())
    });
    let Some(image) = image else { return };
    let container = image.run(&[], &[]);
    wait_for(|| container.describe(), || is_ready(&container));
    let all_say = |motto: &str| {
        let is = || mottos(&container).filter(|mottos| mottos.iter().eq([motto])).map(drop);
        wait_for(|| format!("{motto}\n{}", container.describe()), is);
    };
    all_say("null");
    ask(container.name(), "POST", "/motto?is=hello", "").unwrap();
    all_say("hello");

    assert!(ask(container.name(), "POST", "/crash", "").is_none());
    wait_for(|| container.describe(), || is_ready(&container));
    all_say("hello");

    let before = docker_ok(&["exec", container.name(), "/sbin/keepalive", "status", "--json"]);
    let (done, answer) = client(&container, &["reload", "web"]);
    assert!(done, "{answer}{}", container.describe());
    let answer = ask(container.name(), "GET", "/", "").unwrap();
    assert!(!before.contains(&format!("\"pid\":{},", word(&answer.body, "pid").unwrap())), "{before}");
    all_say("hello");
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

const GUNICORN: &str = "gunicorn.app.wsgiapp, gunicorn.glogging, gunicorn.workers.sync";

#[test]
fn a_reload_replaces_gunicorn_but_not_with_a_broken_version() {
    let Some(image) = with_python("python-gunicorn", GUNICORN) else { return };
    let container = image.run(&[], &[]);
    wait_for(|| container.describe(), || is_ready(&container));
    let answers =
        || ask(container.name(), "GET", "/", "").filter(|answer| answer.status == 200).map(|answer| answer.body);
    assert!(answers().unwrap().starts_with("web."), "{}", container.describe());

    let (done, answer) = client(&container, &["reload", "web"]);
    assert!(done, "{answer}{}", container.describe());
    let processes = || {
        let mains = container
            .processes()
            .into_iter()
            .filter(|process| process.parent == 1 && !process.name.starts_with("keepalive-"));
        mains.map(|process| process.pid).collect::<BTreeSet<_>>()
    };
    let before = processes();
    assert_eq!(before.len(), 2, "{}", container.describe());

    container.shell("echo broken >>/srv/application.py");
    let (done, answer) = client(&container, &["reload", "web"]);
    assert!(!done && answer.contains("web.0"), "{answer}{}", container.describe());
    assert_eq!(processes(), before, "{}", container.describe());
    assert!(answers().unwrap().starts_with("web."), "{}", container.describe());
    assert_eq!(container.stop(), 0, "{}", container.describe());
}
