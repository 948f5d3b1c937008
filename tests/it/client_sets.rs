//! Several keepalives on one machine, and which of them a client talks to.

use crate::harness::{self, Directory, KEEPALIVE, PUPPET, Place, Run, Running, wait_until};
use crate::http::Control;
use crate::services::Set;

/// A folder with a configuration that has the service `name`.
fn folder(name: &str, global: &str) -> Directory {
    let directory = Directory::new();
    let text = format!("[keepalive]\n{global}\n[services.{name}]\ncommand = [\"sleep\", \"1000\"]\n");
    directory.file("keepalive.toml", text.as_bytes(), 0o644);
    directory
}

/// `keepalive WORDS…` in a folder, without a variable that names a socket.
fn here(folder: &Directory, words: &[&str]) -> Run {
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words].concat());
    run.command.current_dir(folder.path()).env_remove("KEEPALIVE_SOCKET").env_remove("KEEPALIVE_CONFIG");
    run
}

fn start(folder: &Directory, words: &[&str]) -> Running {
    let running = here(folder, words).start();
    wait_until("the control socket", || (here(folder, &["health"]).finish().0 == 0).then_some(()));
    running
}

fn client(folder: &Directory, words: &[&str]) -> (i32, String, String) {
    here(folder, words).finish()
}

/// The names in the status, and its configuration file.
fn shown(folder: &Directory, words: &[&str]) -> (Vec<String>, String) {
    let (code, stdout, stderr) = client(folder, words);
    assert_eq!((code, stderr.as_str()), (0, ""), "{words:?}");
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let services = status["services"].as_array().unwrap().iter();
    (services.map(|service| service["name"].as_str().unwrap().to_owned()).collect(), status["config"].to_string())
}

// README: "each client in its folder talks to its own".
#[test]
fn a_client_talks_to_the_keepalive_that_runs_the_configuration_of_its_folder() {
    let (first, second, third) = (folder("one", ""), folder("two", "control = \"own.sock\""), folder("three", ""));
    let (mut one, mut two) = (start(&first, &[]), start(&second, &["-c", "./keepalive.toml"]));
    let path = |folder: &Directory| folder.path().join("keepalive.toml").canonicalize().unwrap().display().to_string();
    let expect = |name: &str, folder: &Directory| (vec![name.to_owned()], format!("\"{}\"", path(folder)));
    assert_eq!(shown(&first, &["status", "--json"]), expect("one", &first));
    assert_eq!(shown(&second, &["status", "--json"]), expect("two", &second));
    assert_eq!(shown(&first, &["-c", &path(&second), "status", "--json"]), expect("two", &second));
    assert_eq!(shown(&third, &["status", "--json", "-c", &path(&first)]), expect("one", &first));
    let (code, stdout, _) = client(&first, &["status", "one"]);
    let line = format!("keepalive {} of {}, pid {}, up ", env!("CARGO_PKG_VERSION"), path(&first), one.keepalive());
    assert!(code == 0 && stdout.starts_with(&line), "{stdout}");
    let (code, _, stderr) = client(&third, &["stop", "all"]);
    assert!(code == 3 && stderr.starts_with("keepalive: cannot connect to "), "{code} {stderr}");
    let expect = (3, String::new(), "keepalive: cannot read none.toml: no such file or directory\n".to_owned());
    assert_eq!(client(&first, &["-c", "none.toml", "status"]), expect);
    assert_eq!(client(&second, &["shutdown"]).0, 0);
    assert_eq!((two.end(), client(&second, &["health"]).0, client(&first, &["health"]).0), (0, 1, 0));
    assert_eq!((client(&first, &["shutdown"]).0, one.end()), (0, 0));
}

#[test]
fn a_service_without_a_file_is_found_in_its_folder() {
    let (first, second) = (Directory::new(), folder("web", ""));
    let mut running = start(&first, &["run", "--name", "solo", "--", PUPPET, "serve"]);
    assert_eq!(shown(&first, &["status", "--json"]), (vec!["solo".to_owned()], "null".to_owned()));
    assert_eq!(client(&second, &["health"]).0, 1);
    assert_eq!((client(&first, &["shutdown"]).0, running.end()), (0, 0));
}

// Services are given KEEPALIVE_SOCKET: a keepalive in a service must not take it for its own.
#[test]
fn a_keepalive_in_a_service_has_a_socket_of_its_own() {
    let inner = folder("inner", "");
    let config = inner.path().join("keepalive.toml").display().to_string();
    let set = Set::new(&format!("[services.outer]\ncommand = [\"{KEEPALIVE}\", \"-c\", \"{config}\"]\n"));
    let mut running = set.start(Place::Child);
    let outer = Control::at(&set.socket());
    wait_until("the inner keepalive", || (client(&inner, &["health"]).0 == 0).then_some(()));
    assert_eq!(shown(&inner, &["status", "--json"]).0, ["inner"]);
    assert_eq!(outer.get("/v1/status").json()["services"][0]["name"], "outer");
    running.send(keepalive::model::Signal::TERM);
    assert_eq!(running.end(), 0);
}

// docker exec runs as root, or as a user without XDG_RUNTIME_DIR.
#[test]
fn root_finds_pid_1_of_another_user() {
    if !harness::have_root() || !harness::have_namespaces() {
        return;
    }
    // An empty /run that the user cannot write to: the socket is in /tmp.
    let script = "mount -t tmpfs -o mode=755 none /run && mount -t tmpfs none /tmp && \
                  cp /proc/self/fd/0 /run/keepalive && chmod 755 /run/keepalive && cd / && \
                  { (until /run/keepalive health 2>/run/error; do sleep 0.1; done; \
                     /run/keepalive status; /run/keepalive shutdown) & \
                    exec setpriv --reuid=54321 --clear-groups /run/keepalive run --name web -- sleep 1000; }";
    let mut run = Run::words(Place::Init, &["unshare", "--mount", "sh", "-c", script]);
    run.command.stdin(std::fs::File::open(KEEPALIVE).unwrap());
    run.command.env_remove("KEEPALIVE_SOCKET").env_remove("XDG_RUNTIME_DIR");
    let (code, stdout, stderr) = run.finish();
    assert!(code == 0 && stdout.contains("\nweb.0  "), "{stdout} {stderr}");
}

// user_namespaces(7): the root of a namespace is the user outside of it who has created it.
#[test]
fn a_user_finds_keepalive_from_and_in_a_user_namespace() {
    if !harness::have_root() {
        return;
    }
    let folder = folder("web", "");
    let binary = folder.file("keepalive", &std::fs::read(KEEPALIVE).unwrap(), 0o755);
    let user: &[&str] = &["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let run = |namespace: &[&str], words: &[&str]| {
        let mut run = Run::words(Place::Child, &[user, namespace, words].concat());
        run.command.current_dir(folder.path()).env_remove("KEEPALIVE_SOCKET").env_remove("XDG_RUNTIME_DIR");
        run
    };
    let namespace: &[&str] = &["unshare", "--user", "--map-root-user"];
    if run(namespace, &["true"]).finish().0 != 0 {
        return harness::skip("this needs user namespaces");
    }
    for (server, client) in [(&[][..], namespace), (namespace, &[]), (namespace, namespace)] {
        let mut running = run(server, &[&binary]).start();
        wait_until("keepalive", || (run(client, &[&binary, "health"]).finish().0 == 0).then_some(()));
        let (code, stdout, stderr) =
            run(client, &[&binary, "exec", "web", "--", "sh", "-c", "echo $KEEPALIVE_SERVICE"]).finish();
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "web", ""));
        assert_eq!((run(client, &[&binary, "shutdown"]).finish().0, running.end()), (0, 0));
    }
}
