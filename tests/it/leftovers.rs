//! Processes that outlive the main process of their run.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs;

use crate::control::begin;
use crate::harness::{Place, Running, have_root, in_every_place, wait_until};
use crate::port::ReservedPort;
use crate::programs::program;
use crate::services::Set;

/// Answers a request one second after it has come, and exits when it has been sent SIGTERM and no request is under way.
const SERVER: &str = r#"import signal, socket, sys, time
stopping = False
def stop(*_):
    global stopping
    stopping = True
signal.signal(signal.SIGTERM, stop)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.settimeout(0.05)
print("listening", flush=True)
while not stopping:
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        continue
    connection.recv(1)
    print("asked", flush=True)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        time.sleep(0.05)
    connection.sendall(b"done")
    connection.close()
"#;

/// A shell or `npm start` dies of SIGTERM at once. The server below it gets the signal, too, and may finish.
#[test]
fn a_server_below_a_shell_answers_the_request_that_is_under_way() {
    let port = ReservedPort::any();
    let command = format!("python3 DIR/server.py {}; true", port.number());
    let set = Set::new(&format!("[services.web]\ncommand = [\"sh\", \"-c\", \"{command}\"]\n"));
    set.directory.file("server.py", SERVER.as_bytes(), 0o644);
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect("listening");
        let mut client = TcpStream::connect(port.loopback()).unwrap();
        client.write_all(b"?").unwrap();
        running.expect("asked");
        running.send(Signal::TERM);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "done");
        assert_eq!(running.end(), 0, "{}", running.stderr());
    });
}

/// Forks twice, as daemon(7) says, and goes on.
const DAEMON: &str = r#"import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("daemon", os.getpid(), flush=True)
        time.sleep(1000)
    os._exit(0)
os.wait()
signal.pause()
"#;

fn daemons(running: &Running) -> Vec<Pid> {
    let is_python =
        |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("python3"));
    procfs::descendants(running.keepalive()).into_iter().filter(is_python).collect()
}

#[test]
fn a_daemon_is_gone_before_the_next_run_and_when_its_service_is_stopped() {
    for user in ["", "user = \"65534\"\ngroup = \"65534\"\n"] {
        if !user.is_empty() && !have_root() {
            continue;
        }
        let set = Set::new(&format!("[services.web]\ncommand = [\"python3\", \"DIR/daemon.py\"]\n{user}"));
        set.directory.file("daemon.py", DAEMON.as_bytes(), 0o644);
        in_every_place(|place| {
            let (running, control) = begin(&set, place);
            for _ in 0..3 {
                running.number("daemon");
                assert_eq!(daemons(&running).len(), 2, "the main process and its daemon");
                assert_eq!(control.post("/v1/services/web/restart").status, 200);
            }
            running.number("daemon");
            control.wait_for("web.0", "running");
            let main = control.instance("web.0")["pid"].as_i64().unwrap();
            assert_eq!(control.post("/v1/services/web/signal?signal=KILL").status, 200);
            running.number("daemon");
            wait_until("the next run", || (control.instance("web.0")["pid"].as_i64()? != main).then_some(()));
            assert_eq!(daemons(&running).len(), 2, "after a crash");
            assert_eq!(control.post("/v1/services/web/stop").status, 200);
            assert_eq!(daemons(&running).len(), 0);
        });
    }
}

/// With children of its own, in sessions of their own, which ignore SIGTERM.
#[test]
fn a_tree_of_daemons_is_gone_when_its_service_is_stopped() {
    let script = r#"import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for _ in range(3):
            if os.fork():
                break
            os.setsid()
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(0.2)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
print("ready", flush=True)
signal.pause()
"#;
    let set = Set::new("[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nstop_timeout = \"500ms\"\n");
    set.directory.file("web.py", script.as_bytes(), 0o644);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        running.expect("ready");
        assert_eq!(daemons(&running).len(), 5);
        assert_eq!(control.post("/v1/services/web/stop").status, 200);
        assert_eq!(daemons(&running).len(), 0);
    });
}

/// Its daemon has a session of its own, but the same parent until that exits.
#[test]
fn the_port_of_a_daemon_is_free_when_its_service_has_been_stopped() {
    let port = ReservedPort::any();
    let command = format!("setsid -w python3 DIR/server.py {} & wait", port.number());
    let set = Set::new(&format!("[services.web]\ncommand = [\"sh\", \"-c\", \"{command}\"]\n"));
    set.directory.file("server.py", SERVER.as_bytes(), 0o644);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        for _ in 0..3 {
            running.expect("listening");
            assert_eq!(control.post("/v1/services/web/stop").status, 200);
            assert!(TcpStream::connect(port.loopback()).is_err());
            assert_eq!(control.post("/v1/services/web/start").status, 200);
        }
        running.expect("listening");
    });
}

/// They fork twice, close or redirect their descriptors, and overwrite their environment with their titles.
#[test]
fn programs_that_put_themselves_into_the_background_are_gone_when_their_main_process_has_exited() {
    const NGINX: &str = "daemon on;\npid DIR/nginx.pid;\nerror_log DIR/nginx.log;\nevents {}\nhttp {
access_log off;\nclient_body_temp_path DIR/body;\nserver { listen 127.0.0.1:PORT; }\n}\n";
    const FPM: &str = "[global]\ndaemonize = yes\nerror_log = DIR/fpm.log\n[web]\nlisten = 127.0.0.1:PORT
user = root\ngroup = root\npm = static\npm.max_children = 2\n";
    let fpm = program(&["php-fpm", "php-fpm8.2", "php-fpm8.4", "php-fpm8.3"]);
    let fpm = fpm.map(|path| format!("{} -R -y DIR/config", path.display()));
    let nginx = program(&["nginx"]).map(|_| "nginx -c DIR/config".to_owned());
    let redis = program(&["redis-server"]);
    let redis = redis.map(|_| "redis-server --bind 127.0.0.1 --port PORT --daemonize yes --dir DIR".to_owned());
    for (command, config) in [(nginx, NGINX), (fpm, FPM), (redis, "")] {
        let (port, Some(command)) = (ReservedPort::any(), command) else { continue };
        let port_in = |text: &str| text.replace("PORT", &port.number().to_string());
        let command = port_in(&command);
        let set = Set::new(&format!(
            "[services.web]\ncommand = \"{command}\"\nrestart = \"never\"\n[services.other]\ncommand = \"sleep 1000\"\n"
        ));
        let directory = set.directory.path().display().to_string();
        set.directory.file("config", port_in(config).replace("DIR", &directory).as_bytes(), 0o644);
        in_every_place(|place| {
            let (running, control) = begin(&set, place);
            for _ in 0..3 {
                control.wait_for("web.0", "completed");
                let name = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm"));
                let mut left = procfs::descendants(running.keepalive());
                left.retain(|pid| name(pid).is_ok_and(|name| !name.starts_with("keepalive")));
                assert_eq!(left.len(), 1, "`sleep` alone is left of `{command}`: {left:?}");
                assert!(TcpStream::connect(port.loopback()).is_err(), "{command}");
                assert_eq!(control.post("/v1/services/web/start").status, 200);
            }
        });
    }
}

/// A daemon of a service that runs is not touched when another one ends, and that of `kill_mode = "process"` never.
#[test]
fn daemons_of_other_runs_and_of_kill_mode_process_stay() {
    let set = Set::new(
        "[services.web]\ncommand = [\"python3\", \"DIR/daemon.py\"]\n[services.free]\ncommand = [\"python3\", \"DIR/daemon.py\"]\nkill_mode = \"process\"\n[services.other]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    set.directory.file("daemon.py", DAEMON.as_bytes(), 0o644);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        wait_until("the daemons", || (daemons(&running).len() == 4).then_some(()));
        assert_eq!(control.post("/v1/services/other/restart?timeout=30s").status, 200);
        assert_eq!(daemons(&running).len(), 4);
        assert_eq!(control.post("/v1/services/free/stop").status, 200);
        assert_eq!(daemons(&running).len(), 3);
    });
}

#[test]
fn a_program_that_puts_itself_into_the_background_is_told_to_stay() {
    let set = Set::new(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"setsid sleep 1000 & exit 0\"]\nrestart = \"never\"\n[services.other]\ncommand = [\"sh\", \"-c\", \"sleep 1000 & exit 1\"]\nrestart = \"never\"\non_failure = \"ignore\"\n",
    );
    in_every_place(|place| {
        let (code, _, stderr) = set.run(place).finish();
        assert_eq!(code, 1, "{stderr}");
        let hint = "web.0 left processes behind, stopping them (pid ";
        let told: Vec<&str> = stderr.lines().filter(|line| line.contains("left processes behind")).collect();
        assert!(told.len() == 1 && told[0].contains(hint) && told[0].contains("`--foreground`"), "{stderr}");
        assert!(stderr.contains("other.0 stopping → failed (exited with code 1, ran "), "{stderr}");
    });
}

#[test]
fn the_last_failure_of_a_program_that_puts_itself_into_the_background_says_so() {
    let set =
        Set::new("[services.web]\ncommand = [\"sh\", \"-c\", \"setsid sleep 1000 & exit 0\"]\nmax_restarts = 0\n");
    let (_, _, stderr) = set.run(Place::Child).finish();
    let end = set.end();
    assert!(end.starts_with("web.0 failed: exited with code 0, ran "), "{end} {stderr}");
    assert!(end.contains(": it puts itself into the background; `max_restarts` is 0"), "{end}");
}

/// Everybody can read the mark of another run, but not take it without CAP_SYS_RESOURCE: nobody can make keepalive wait for,
/// or kill, what belongs to others.
#[test]
fn a_process_cannot_pretend_to_be_a_leftover_of_another_service() {
    const FORGE: &str = r#"import os, resource, time
def limits(pid):
    lines = open(f"/proc/{pid}/limits").read().splitlines()
    return [int(line[26:].split()[1]) for line in lines if line.startswith(("Max file locks", "Max realtime timeout"))]
mine = limits("self")
parent = os.getppid()
others = [int(pid) for pid in open(f"/proc/{parent}/task/{parent}/children").read().split()]
marked = [pid for pid in others if open(f"/proc/{pid}/comm").read() == "sleep\n"]
assert len(marked) == 2, others
for pid in marked:
    theirs = limits(pid)
    assert mine != theirs and any(own < other for own, other in zip(mine, theirs)), (mine, theirs)
    if os.fork() == 0:
        os.setsid()
        for number, limit in ((10, theirs[0]), (resource.RLIMIT_RTTIME, theirs[1])):
            try:
                resource.setrlimit(number, (limit, limit))
            except ValueError:
                pass
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "1000"])
        os._exit(0)
    os.wait()
print("forged", flush=True)
time.sleep(2000)
"#;
    let set = Set::new(
        "[services.other]\ncommand = \"sleep 3000\"\n[services.evil]\ncommand = [\"setpriv\", \"--bounding-set=-sys_resource\", \"python3\", \"DIR/forge.py\"]\ndepends_on = [\"other\", \"last\"]\n[services.last]\ncommand = \"sleep 3000\"\n",
    );
    set.directory.file("forge.py", FORGE.as_bytes(), 0o644);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        running.expect("forged");
        let forged = || {
            let is_forged = |pid: &Pid| {
                std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command == b"sleep\x001000\0")
            };
            procfs::descendants(running.keepalive()).into_iter().filter(is_forged).count()
        };
        wait_until("the daemons", || (forged() == 2).then_some(()));
        assert_eq!(control.post("/v1/services/other/restart").status, 200);
        assert_eq!(forged(), 2);
    });
}
