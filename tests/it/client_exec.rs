//! `describe` and `exec` with a running keepalive.

use std::process::Command;

use keepalive::model::Signal;

use crate::harness::{self, KEEPALIVE, Place, Run, in_every_place, wait_until};
use crate::http::{Control, http};
use crate::port::ReservedPort;
use crate::services::Set;
use crate::terminal::{CTRL_C, Terminal};

const TEXT: &str = "\
[services.web]
command = [\"PUPPET\", \"ignore\"]
instances = 2
cwd = \"DIR/web\"
umask = \"0027\"
env = { PORT = \"300{instance}\", TOKEN = \"secret-token\" }
env_file = [{ path = \"DIR/start.env\", required = false, when = \"start\" }]
depends_on = [\"db\"]
[services.db]
command = [\"PUPPET\", \"ignore\"]
[services.off]
command = [\"no-such-program\"]
autostart = false
env_clear = true
env = { PATH = \"/usr/bin:/bin\", ONLY = \"this\" }
";

fn set() -> Set {
    let set = Set::new(TEXT);
    std::fs::create_dir(set.directory.path().join("web")).unwrap();
    set.directory.file("start.env", b"FROM_FILE=secret-file\nPORT=1\n", 0o644);
    set
}

fn client(set: &Set, words: &[&str]) -> Run {
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words].concat());
    run.command.env("KEEPALIVE_SOCKET", set.socket()).env("TERM", "xterm");
    run
}

fn wait_for_ready(set: &Set) {
    wait_until("all to be ready", || (client(set, &["health", "--ready"]).finish().0 == 0).then_some(()));
}

#[track_caller]
fn check(set: &Set, name: &str, script: &str, expected: &str) {
    let (code, stdout, stderr) = client(set, &["exec", name, "--", "sh", "-c", script]).finish();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (7, expected, ""), "{script}");
}

// The contract: "CMD as that service's user, in its directory, with its environment".
#[test]
fn exec_runs_a_command_with_user_directory_and_environment_of_a_service() {
    let set = set();
    let directory = set.directory.path().canonicalize().unwrap().display().to_string();
    in_every_place(|place| {
        let mut running = set.start(place);
        wait_for_ready(&set);
        let show =
            "echo $PORT $TOKEN $FROM_FILE $KEEPALIVE_SERVICE $KEEPALIVE_INSTANCE/$KEEPALIVE_INSTANCES $TERM; exit 7";
        check(&set, "web.1", show, "3001 secret-token secret-file web 1/2 xterm");
        check(&set, "web", show, "3000 secret-token secret-file web 0/2 xterm");
        check(&set, "web", "pwd -P; umask; exit 7", &format!("{directory}/web\n0027"));
        // It does not run, and inherits nothing.
        check(&set, "off", "echo $ONLY [$HOME] $KEEPALIVE_SERVICE; exit 7", "this [] off");
        let (code, _, stderr) = client(&set, &["exec", "web.7", "--", "true"]).finish();
        let message = "keepalive: exec: there is no instance web.7: web has web.0 to web.1\n";
        assert_eq!((code, stderr.as_str()), (1, message));
        let (code, _, stderr) = client(&set, &["exec", "web", "--", "no-such-program"]).finish();
        let message = "keepalive: exec: cannot execute `no-such-program`: No such file or directory\n";
        assert_eq!((code, stderr.as_str()), (127, message));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn exec_uses_the_definition_of_the_last_reload() {
    let set = set();
    let mut running = set.start(Place::Child);
    wait_for_ready(&set);
    let text = std::fs::read_to_string(&set.config).unwrap();
    std::fs::write(&set.config, text.replace("secret-token", "changed")).unwrap();
    check(&set, "web", "echo $TOKEN; exit 7", "secret-token");
    assert_eq!(client(&set, &["reload", "--timeout=1h"]).finish().0, 0);
    check(&set, "web", "echo $TOKEN; exit 7", "changed");
    std::fs::remove_dir(set.directory.path().join("web")).unwrap();
    let (code, _, stderr) = client(&set, &["exec", "web", "--", "true"]).finish();
    assert!(code == 126 && stderr.contains("cannot change to directory"), "{stderr}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn exec_has_the_limits_and_priorities_of_the_service() {
    let set = Set::new(
        "[services.web]\ncommand = [\"sleep\", \"1000\"]\nlimits = { nofile = 77, core = 0 }\n\
         nice = 3\noom_score_adj = 500\n[services.plain]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let mut running = set.start(Place::Child);
    wait_for_ready(&set);
    let show = "ulimit -n; ulimit -c; nice; cat /proc/self/oom_score_adj; exit 7";
    let (_, own, _) = Run::words(Place::Child, &["sh", "-c", show]).finish();
    check(&set, "web", show, "77\n0\n3\n500");
    check(&set, "plain", show, &own);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn exec_becomes_the_user_of_the_service_and_says_if_it_may_not() {
    if !harness::have_root() {
        return;
    }
    let set = Set::new(
        "[services.web]\ncommand = [\"sleep\", \"1000\"]\ncwd = \"/\"\nuser = \"54321\"\ngroup = \"54322\"\ngroups = [54323]\n",
    );
    let mut running = set.start(Place::Child);
    wait_for_ready(&set);
    check(&set, "web", "id -u; id -g; id -G; exit 7", "54321\n54322\n54322 54323");
    let words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", KEEPALIVE, "exec", "web", "--", "true"];
    let mut run = Run::words(Place::Child, &words);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let message = "keepalive: exec: cannot set its supplementary groups: Operation not permitted (only root can run a command as another user)\n";
    assert_eq!(run.finish(), (126, String::new(), message.to_owned()));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

// A service without `user` runs as the user of keepalive, who need not be that of the client.
#[test]
fn root_runs_a_command_as_the_user_of_keepalive() {
    if !harness::have_root() {
        return;
    }
    let set = Set::new("[services.web]\ncommand = [\"sleep\", \"1000\"]\n");
    let socket = format!("/tmp/keepalive-exec-{}.sock", std::process::id());
    let text = std::fs::read_to_string(&set.config).unwrap();
    std::fs::write(&set.config, text.replacen("[keepalive]", &format!("[keepalive]\ncontrol = \"{socket}\""), 1))
        .unwrap();
    let words = ["setpriv", "--reuid=54321", "--regid=54322", "--groups=54323", KEEPALIVE, "-c", "/proc/self/fd/0"];
    let mut run = Run::words(Place::Child, &words);
    run.command.current_dir("/").stdin(std::fs::File::open(&set.config).unwrap());
    let mut running = run.start();
    let exec = ["exec", "web", "--socket", &socket, "--", "sh", "-c", "id -u; id -g; id -G; pwd; exit 7"];
    wait_until("keepalive", || (client(&set, &["health", "--socket", &socket]).finish().0 == 0).then_some(()));
    let (code, stdout, stderr) = client(&set, &exec).finish();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (7, "54321\n54322\n54322\n/", ""));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

/// Says that the command is to keep the user of the client.
const LIAR: &str = r#"
import socket, sys
body = b"4294967295 4294967295 4294967295 0 0 1 \0/tmp\0PATH=/usr/bin:/bin\0"
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
client, _ = listener.accept()
client.recv(4096)
client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
"#;

// Otherwise a service of an unprivileged keepalive could take its place, and have root execute what it likes.
#[test]
fn a_command_of_exec_has_no_more_rights_than_the_server_that_answers() {
    if !harness::have_root() {
        return;
    }
    let set = set();
    set.directory.file("liar.py", LIAR.as_bytes(), 0o644);
    let folder = set.directory.path().join("web");
    std::os::unix::fs::chown(&folder, Some(54321), Some(54322)).unwrap();
    let (script, socket) = (set.directory.path().join("liar.py"), folder.join("socket"));
    let (script, socket) = (script.to_str().unwrap(), socket.to_str().unwrap());
    let words = ["setpriv", "--reuid=54321", "--regid=54322", "--clear-groups", "python3", script, socket];
    let mut liar = Run::words(Place::Child, &words).start();
    liar.expect("listens");
    let exec = ["exec", "web", "--socket", socket, "--", "sh", "-c", "id -u; id -G"];
    let (code, stdout, stderr) = client(&set, &exec).finish();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "54321\n54322", ""));
    assert_eq!(liar.end(), 0);
}

#[test]
fn a_command_of_exec_has_the_terminal_of_the_client() {
    let set = set();
    let mut running = set.start(Place::Child);
    wait_for_ready(&set);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "env", "--default-signal=HUP,INT,QUIT,TERM"]);
    let script = "test -t 0 && test -t 1 && read line && echo got-$line; trap 'exit 9' INT; echo wait''ing; sleep 1000";
    command.args([KEEPALIVE, "exec", "web", "--", "sh", "-c", script]);
    command.env("KEEPALIVE_SOCKET", set.socket()).env("TERM", "xterm");
    let mut terminal = Terminal::start(&mut command);
    terminal.type_in("words\n");
    terminal.wait_for_text("got-words");
    terminal.wait_for_text("waiting");
    terminal.type_in(CTRL_C);
    assert_eq!(terminal.wait_for_end().0, Some(9));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn describe_shows_state_definition_and_events_without_secrets() {
    let set = set();
    in_every_place(|place| {
        let mut running = set.start(place);
        wait_for_ready(&set);
        assert_eq!(client(&set, &["signal", "web.1", "KILL"]).finish().0, 0);
        wait_until("the restart", || {
            let (_, stdout, _) = client(&set, &["describe", "web.1"]).finish();
            (stdout.contains("\nweb.1  running ") && stdout.contains("last exit")).then_some(())
        });
        let (code, stdout, stderr) = client(&set, &["describe", "web.1"]).finish();
        assert_eq!((code, stderr.as_str()), (0, ""));
        let directory = set.directory.path().display();
        for part in [
            "\nweb.1  running ",
            "\n  last exit  web.1 killed by SIGKILL\n",
            &format!("\n  directory  {directory}/web\n"),
            "\n  env        PORT TOKEN and the environment of keepalive\n",
            &format!("\n  env file   {directory}/start.env\n"),
            "\n  depends on db (running)\n",
            "\n  ready      when the program runs\n",
            "\n  output     stdout raw, stderr raw\n",
            "\nlatest events\n",
            " web.1 running → backoff (killed by SIGKILL, ran ",
        ] {
            assert!(stdout.contains(part), "{part}: {stdout}");
        }
        assert!(!stdout.contains("secret") && !stdout.contains("web.0"), "{stdout}");
        let (code, stdout, _) = client(&set, &["describe", "web", "--json"]).finish();
        let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let service = &shown["services"][0];
        let ids: Vec<_> =
            service["instances"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!((code, ids), (0, vec!["web.0", "web.1"]));
        assert_eq!(service["definition"]["env"], serde_json::json!(["PORT", "TOKEN"]));
        assert_eq!(service["definition"]["depends_on"], serde_json::json!(["db"]));
        assert!(!stdout.contains("secret") && !shown["events"].as_array().unwrap().is_empty(), "{stdout}");
        let (code, stdout, stderr) = client(&set, &["describe", "web.0", "nosuch", "d*"]).finish();
        assert_eq!(code, 1);
        assert!(stderr.contains("describe: unknown service `nosuch`: the services are "), "{stderr}");
        assert!(stdout.contains("\nweb.0 ") && stdout.contains("\ndb.0 ") && !stdout.contains("web.1"), "{stdout}");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

// The contract: `http` has nothing that changes anything; what it shows anybody may see.
#[test]
fn definitions_and_environments_are_not_shown_over_tcp() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[keepalive]\nhttp = \"{}\"\n{}",
        port.loopback(),
        "[services.web]\ncommand = [\"sleep\", \"1000\"]\n"
    ));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    for target in ["/v1/services/web", "/v1/services/web.0/environment"] {
        let answer = http(&port, "GET", target);
        assert_eq!(
            (answer.status, answer.reason()),
            (403, "this port is read-only: use the control socket".to_owned())
        );
        assert_eq!(control.get(target).status, 200);
    }
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

/// Messages of a running keepalive show addresses and paths as they were written.
#[test]
fn no_message_shows_the_value_of_a_variable() {
    let taken = ["127.0.0.1:0"; 2].map(|address| std::net::TcpListener::bind(address).unwrap());
    let [port, http] = taken.each_ref().map(|taken| taken.local_addr().unwrap().port().to_string());
    let set = Set::new(
        r#"
        [keepalive]
        http = "127.0.0.1:${H}"
        control = "/proc/${S}/c.sock"
        [services.other]
        command = ["sleep", "1000"]
        [services.a]
        command = "true"
        listen = { http = "unix:///proc/${S}/x.sock" }
        on_failure = "ignore"
        [services.b]
        command = "true"
        listen = { http = "tcp://127.0.0.1:${P}" }
        on_failure = "ignore"
        [services.c]
        command = ["sh", "-c", "echo hello; exec sleep 1000"]
        log = { file = "/proc/${S}/log" }
        "#,
    );
    let mut run = set.run(Place::Child);
    run.command.env("S", "s3cr3tX").env("P", &port).env("H", &http);
    let mut running = run.start();
    running.expect("hello");
    let expected = [
        "cannot listen on the `http` address 127.0.0.1:${H}: ",
        "cannot create the control socket /proc/${S}/c.sock: ",
        "cannot listen on `unix:///proc/${S}/x.sock`: ",
        "tcp://127.0.0.1:${P} is in use by pid ",
        "cannot write to /proc/${S}/log: ",
    ];
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    for line in expected {
        assert!(stderr.contains(line), "{line}\n{stderr}");
    }
    assert!(
        !stderr.contains("s3cr3tX") && ![port, http].iter().any(|port| stderr.contains(&format!("127.0.0.1:{port}"))),
        "{stderr}"
    );
}
