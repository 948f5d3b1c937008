//! The Dockerfiles of examples/, built and run by their README, on an image with programs of this machine; the other
//! examples with the programs that use them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::Archive;
use super::client::{Client, docker, docker_ok, lossy};
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
fn the_example_of_init_mode_matches_its_readme() {
    let Some(engine) = Engine::find() else { return };
    let (base, keepalive) = (engine.base_image(Archive::default()), keepalive_image());
    let image = build(&examples().join("init"), &[&argument("BASE", &base), &argument("KEEPALIVE", &keepalive)]);

    let with = image.run(&[], &[]);
    with.wait_for_line("ready");
    // keepalive and the program, without an orphan.
    wait_for(|| with.describe(), || (with.processes().len() == 2).then_some(()));
    assert_eq!(with.stop(), 143, "{}", with.describe());

    let without = image.run(&["--entrypoint=app"], &[]);
    without.wait_for_line("ready");
    wait_for(|| without.describe(), || (zombies(&without).len() == 3).then_some(()));
    docker_ok(&["stop", "--time=1", without.name()]);
    assert_eq!(without.wait_for_end(), 137, "{}", without.describe());
}

#[test]
fn keepalive_in_place_of_another_init_differs_only_in_fixed_bugs() {
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

/// Every Dockerfile of the examples needs a test.
#[test]
fn each_drop_in_dockerfile_uses_the_name_of_the_other_init() {
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

/// The exit code, stdout and stderr of `image` with its own and with other commands.
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
    // The init, the program and its sleep, without an orphan.
    wait_for(|| container.describe(), || (container.processes().len() == 3).then_some(()));
    container.kill("USR1");
    container.wait_for_line("received SIGUSR1");
    let code = container.stop();
    let logs = container.logs();
    seen.push(format!("{code}\n{}{}", logs.stdout, without_numbers(&logs.stderr)));
    seen
}

/// Messages contain process ids, which differ between runs.
fn without_numbers(text: &str) -> String {
    let letters: String = text.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
    letters.split("##").collect::<Vec<_>>().join("#")
}

/// promtool accepts the scrape configuration, and the alerts pass their own tests.
#[test]
fn prometheus_accepts_the_example_and_fires_its_alerts() {
    let Some(promtool) = host::find("promtool") else { return skip("promtool is not installed") };
    for words in [["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]] {
        let directory = examples().join("prometheus");
        let output = Command::new(&promtool).args(words).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}{}", lossy(&output.stdout), lossy(&output.stderr));
    }
}

/// Answers requests with these statuses in order, and returns the bodies of the requests.
fn answer(listener: &TcpListener, statuses: &[&str]) -> Vec<String> {
    let mut bodies = Vec::new();
    for status in statuses {
        let (mut client, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut length = 0;
        for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = text.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        bodies.push(lossy(&body));
        write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    }
    bodies
}

#[test]
fn the_webhook_posts_each_event_unchanged_and_reports_failed_deliveries() {
    if host::find("curl").is_none() {
        return skip("curl is not installed");
    }
    let events = [r#"{"seq":1,"message":"100 %s \\ \"x\""}"#, r#"{"seq":2}"#, r#"{"seq":3}"#];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || answer(&listener, &["200 OK", "404 Not Found", "204 No Content"]));

    let script = examples().join("events").join("webhook.sh");
    let webhook = Client::new(&["sh", script.to_str().unwrap(), &url], &[]);
    let output = webhook.run_with_input(&[], format!("{}\n", events.join("\n")).as_bytes());

    let stderr = lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(server.join().unwrap(), events);
    let complaints: Vec<&str> = stderr.lines().filter(|line| line.starts_with("webhook: ")).collect();
    assert_eq!(complaints, [format!("webhook: not delivered: {}", events[1])]);
}
