//! `listen`: the sockets of services. No connection is lost.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::harness::{KEEPALIVE, Place, Run, Running, have_root, in_every_place, wait_until};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

/// An address for datagrams. A UDP port cannot be reserved, because `SO_REUSEADDR` would let every process bind it. So
/// the address is unique to this process by its pid, which has at most 22 bits, and the kernel does not assign the port
/// by itself: `ip_local_port_range`, proc(5), begins at 32768.
fn datagram_address() -> SocketAddr {
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | std::process::id());
    SocketAddr::from((ip, 17_000))
}

/// Sends a request and returns the pid of the process that answers. `None`: the connection was reset.
fn ask(port: &ReservedPort) -> Option<Pid> {
    answer(TcpStream::connect(port.loopback()).unwrap())
}

fn answer(connection: impl std::io::Read) -> Option<Pid> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line).ok()?;
    line.trim().parse().ok().and_then(Pid::new)
}

/// The socket and the pid of a puppet that serves.
fn served(running: &Running) -> (String, Pid) {
    let line = running.line();
    let ready = line.strip_prefix("ready ").and_then(|rest| rest.split_once(" at "));
    let (pid, socket) = ready.unwrap_or_else(|| panic!("`ready PID at SOCKET` expected, found `{line}`"));
    (socket.to_owned(), pid.parse().ok().and_then(Pid::new).unwrap())
}

// sd_listen_fds(3): LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES; from 3 on, "in the same order as configured".
#[test]
fn a_service_gets_its_sockets_by_the_systemd_protocol() {
    in_every_place(|place| {
        let (tcp, udp, name) = (ReservedPort::any(), datagram_address(), format!("it-{}-given", std::process::id()));
        let set = Set::new(&format!(
            r#"
            [services.web]
            command = ["/bin/sh", "-c", "echo {{fd.six}}; exec $0 given", "PUPPET"]
            listen = {{ z = "tcp://{tcp}", six = "tcp://[::1]:{port}", dns = "udp://{udp}",
                        file = "unix://DIR/web.sock", hidden = "unix://@{name}" }}
            restart = "never"
            "#,
            port = tcp.number(),
        ));
        let mut run = set.run(place);
        // Variables of the parent of keepalive.
        run.command.envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "ours"), ("NODE_CHANNEL_FD", "5")]);
        let (code, stdout, stderr) = run.finish();
        assert_eq!(code, 0, "{stderr}");
        let expect = [
            "4".to_owned(),
            "KEEPALIVE_INSTANCE=0".to_owned(),
            "KEEPALIVE_INSTANCES=1".to_owned(),
            "KEEPALIVE_RESTARTS=0".to_owned(),
            "KEEPALIVE_SERVICE=web".to_owned(),
            format!("KEEPALIVE_SOCKET={}", set.socket().display()),
            "LISTEN_FDNAMES=z:six:dns:file:hidden".to_owned(),
            "LISTEN_FDS=5".to_owned(),
            "LISTEN_PID=own".to_owned(),
            format!("3 stream {tcp} listening"),
            format!("4 stream [::1]:{} listening", tcp.number()),
            format!("5 datagram {udp}"),
            format!("6 stream {}/web.sock listening", set.directory.path().display()),
            format!("7 stream @\"{name}\" listening"),
        ];
        assert_eq!(stdout.lines().collect::<Vec<&str>>(), expect, "{stderr}");
        assert!(!set.directory.path().join("web.sock").exists(), "taken away at the end");
    });
}

#[test]
fn a_service_without_sockets_inherits_none() {
    let set = Set::new(&format!(
        r#"
        [services.other]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        instances = 2
        listen = {{ http = "tcp://{}" }}
        listen_mode = "reuseport"
        state = {{ size = "1KiB" }}

        [services.plain]
        command = ["PUPPET", "given"]
        depends_on = ["other"]
        restart = "never"
        on_success = "shutdown"
        env = {{ LISTEN_FDS = "0" }}
        "#,
        ReservedPort::any(),
    ));
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        let mut lines = stdout.lines().collect::<Vec<&str>>();
        lines.retain(|line| !line.starts_with("ready "));
        let expect = [
            "KEEPALIVE_INSTANCE=0".to_owned(),
            "KEEPALIVE_INSTANCES=1".to_owned(),
            "KEEPALIVE_RESTARTS=0".to_owned(),
            "KEEPALIVE_SERVICE=plain".to_owned(),
            format!("KEEPALIVE_SOCKET={}", set.socket().display()),
            "LISTEN_FDS=0".to_owned(),
        ];
        assert_eq!(lines, expect);
    });
}

#[test]
fn requests_wait_while_no_worker_runs() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        r#"
        [services.gate]
        type = "oneshot"
        command = ["/bin/sh", "-c", "echo waiting; read line < DIR/gate"]

        [services.web]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        depends_on = ["gate"]
        listen = {{ http = "tcp://{port}" }}
        restart_delay = "200ms"
        "#
    ));
    let gate = set.directory.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = set.start(Place::Child);
    running.expect("waiting");
    // Before the first worker.
    let early: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(port.loopback()).unwrap()).collect();
    std::fs::write(&gate, "go\n").unwrap();
    let (socket, mut worker) = served(&running);
    assert!(early.into_iter().all(|connection| answer(connection) == Some(worker)));
    // Between two workers.
    for _ in 0..3 {
        signal_process(worker, Signal::KILL).unwrap();
        crate::harness::wait_for_death(worker);
        let between: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(port.loopback()).unwrap()).collect();
        let next = served(&running);
        assert_eq!(next.0, socket, "the same socket");
        assert_ne!(next.1, worker);
        worker = next.1;
        assert!(between.into_iter().all(|connection| answer(connection) == Some(worker)));
    }
}

#[test]
fn with_reuseport_each_instance_has_a_socket_of_its_own_and_keeps_it() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        instances = 2
        listen = {{ http = "tcp://{port}" }}
        listen_mode = "reuseport"
        "#
    ));
    let running = set.start(Place::Child);
    let (first, second) = (served(&running), served(&running));
    assert_ne!(first.0, second.0);
    let mut seen = Vec::new();
    wait_until("an answer of each worker", || {
        seen.push(ask(&port).unwrap());
        [first.1, second.1].iter().all(|worker| seen.contains(worker)).then_some(())
    });
    for (socket, worker) in [first, second] {
        signal_process(worker, Signal::KILL).unwrap();
        assert_eq!(served(&running).0, socket);
    }
}

#[test]
fn no_connection_waits_for_a_stopped_instance() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        instances = 2
        listen = {{ http = "tcp://{port}" }}
        listen_mode = "reuseport"
        "#
    ));
    let running = set.start(Place::Child);
    let workers = [served(&running).1, served(&running).1];
    let socket = set.socket();
    let client = |action: &str| {
        let words = [KEEPALIVE, action, "web.1", "--socket", socket.to_str().unwrap()];
        let (code, _, stderr) = Run::words(Place::Child, &words).finish();
        assert_eq!(code, 0, "{stderr}");
    };
    client("stop");
    let left = wait_until("one worker to exit", || {
        let alive = |pid: &Pid| keepalive::sys::procfs::stat(*pid).is_some_and(|stat| !stat.is_dead());
        let mut left = workers.into_iter().filter(alive);
        left.next().filter(|_| left.next().is_none())
    });
    assert!((0..64).all(|_| ask(&port) == Some(left)));
    client("start");
    let (_, new) = served(&running);
    wait_until("an answer of the new worker", || (ask(&port)? == new).then_some(()));
}

#[test]
fn an_address_in_use_fails_only_its_service() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, free) = (taken.local_addr().unwrap(), ReservedPort::any());
    let set = Set::new(&format!(
        r#"
        [services.other]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        listen = {{ http = "tcp://{free}" }}

        [services.web]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        listen = {{ admin = "unix://DIR/admin", http = "tcp://{address}" }}
        on_failure = "ignore"

        [services.api]
        command = ["PUPPET", "serve", "{{fd.http}}"]
        listen = {{ http = "unix://DIR/missing/http" }}
        on_failure = "ignore"
        "#
    ));
    let mut running = set.start(Place::Child);
    let (_, worker) = served(&running);
    assert_eq!(ask(&free), Some(worker));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    drop(taken);
    let stderr = running.stderr();
    let (own, name) = (std::process::id(), std::fs::read_to_string("/proc/self/comm").unwrap());
    let missing = set.directory.path().join("missing/http");
    for line in [
        format!("error: tcp://{address} is in use by pid {own} ({})", name.trim()),
        format!("error: web.0 starting → failed (cannot listen on `tcp://{address}`: Address already in use)"),
        format!(
            "error: api.0 starting → failed (cannot listen on `unix://{}`: No such file or directory)",
            missing.display()
        ),
    ] {
        assert!(stderr.lines().any(|found| found == format!("keepalive: {line}")), "`{line}` expected in:\n{stderr}");
    }
    assert!(!set.directory.path().join("admin").exists(), "what could be bound is taken away too");
}

#[test]
fn a_socket_file_has_its_mode_and_owner_and_replaces_a_stale_one() {
    if !have_root() {
        return;
    }
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "serve", "{fd.http}"]
        umask = "0077"
        listen.http = { address = "unix://DIR/web.sock", mode = "0662", user = "12345", group = "23456" }
        "#,
    );
    let path = set.directory.path().join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    in_every_place(|place| {
        let mut running = set.start(place);
        served(&running);
        let file = std::fs::metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!((file.permissions().mode() & 0o777, file.uid(), file.gid()), (0o662, 12345, 23456));
        assert!(answer(UnixStream::connect(&path).unwrap()).is_some());
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        assert!(!path.exists());
    });
}

// ip(7): "the port numbers below 1024 are called privileged ports"
#[test]
fn a_privileged_port_is_bound_before_the_user_is_dropped() {
    if !have_root() {
        return;
    }
    let port = ReservedPort::privileged();
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "serve", "3"]
        user = "12345"
        listen = {{ http = "tcp://{port}" }}
        "#
    ));
    in_every_place(|place| {
        let running = set.start(place);
        served(&running);
        assert_eq!(crate::harness::status_field(running.command(), "Uid"), "12345\t12345\t12345\t12345");
        assert!(ask(&port).is_some());
    });
}

#[test]
fn a_new_configuration_keeps_unchanged_sockets() {
    let [stays, goes, comes] = [(); 3].map(|()| ReservedPort::any());
    let name = format!("it-{}-adopt", std::process::id());
    let text = |other: &ReservedPort| {
        format!(
            r#"
            [services.web]
            command = ["PUPPET", "serve", "{{fd.http}}"]
            listen = {{ http = "tcp://{stays}", other = "tcp://{other}", same = "unix://@{name}" }}
            "#
        )
    };
    let set = Set::new(&text(&goes));
    let running = set.start(Place::Child);
    let (socket, old) = served(&running);
    TcpStream::connect(goes.loopback()).unwrap();
    let changed = Set::new(&text(&comes));
    std::fs::copy(&changed.config, &set.config).unwrap();
    running.send(Signal::HUP);
    let (same, new) = served(&running);
    assert_eq!(same, socket);
    wait_until("answers of the new worker only", || (ask(&stays)? == new).then_some(()));
    crate::harness::wait_for_death(old);
    TcpStream::connect(comes.loopback()).unwrap();
    wait_until("the old socket to be closed", || TcpStream::connect(goes.loopback()).is_err().then_some(()));
    let hidden = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    UnixStream::connect_addr(&hidden).unwrap();
}

#[test]
fn a_failed_configuration_keeps_the_old_sockets() {
    let (stays, tried) = (ReservedPort::any(), ReservedPort::any());
    let text = |verb: &str, port: &ReservedPort| {
        format!(
            r#"
            [services.web]
            command = ["PUPPET", {verb}]
            listen = {{ http = "tcp://{port}" }}
            reload = {{ soak = "1h" }}
            "#
        )
    };
    let set = Set::new(&text("\"serve\", \"{fd.http}\"", &stays));
    let mut running = set.start(Place::Child);
    let (_, worker) = served(&running);
    let broken = Set::new(&text("\"parent\", \"/bin/sleep\", \"0\"", &tried));
    std::fs::copy(&broken.config, &set.config).unwrap();
    running.send(Signal::HUP);
    let started = running.line();
    assert!(started.starts_with("started "), "{started}");
    wait_until("the new socket to be closed", || TcpStream::connect(tried.loopback()).is_err().then_some(()));
    assert_eq!(ask(&stays), Some(worker));
    signal_process(worker, Signal::KILL).unwrap();
    // Until it is dead it may still accept a connection and lose it.
    crate::harness::wait_for_death(worker);
    let between = TcpStream::connect(stays.loopback()).unwrap();
    assert_eq!(answer(between), Some(served(&running).1), "the old socket, as in the old definition");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn a_reload_to_an_address_in_use_names_the_address() {
    let (stays, taken) = (ReservedPort::any(), TcpListener::bind("127.0.0.1:0").unwrap());
    let tried = taken.local_addr().unwrap();
    let text = |port| {
        format!("[services.web]\ncommand = [\"PUPPET\", \"serve\", \"3\"]\nlisten = {{ http = \"tcp://{port}\" }}\n")
    };
    let set = Set::new(&text(stays.loopback()));
    let mut running = set.start(Place::Child);
    let (_, worker) = served(&running);
    std::fs::copy(Set::new(&text(tried)).config, &set.config).unwrap();
    let socket = set.socket();
    let words = [KEEPALIVE, "reload", "--socket", socket.to_str().unwrap()];
    let (code, _, stderr) = Run::words(Place::Child, &words).finish();
    let reason = format!("the new process of web.0 failed: cannot listen on `tcp://{tried}`: Address already in use");
    let (own, comm) = (std::process::id(), std::fs::read_to_string("/proc/self/comm").unwrap());
    let owner = format!("; in use by pid {own} ({})", comm.trim());
    assert_eq!((code, stderr), (1, format!("keepalive: reload: {reason}{owner}\n")));
    assert_eq!(ask(&stays), Some(worker));
    let events = Run::words(Place::Child, &[KEEPALIVE, "events", "--socket", socket.to_str().unwrap()]).finish().1;
    let failures: Vec<&str> = events.lines().filter(|event| event.contains("cannot listen on")).collect();
    assert!(failures.len() > 2 && failures.iter().all(|event| event.contains(&tried.to_string())), "{failures:#?}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let line = format!("keepalive: warning: web reload failed: {reason}");
    let stderr = running.stderr();
    assert!(stderr.lines().any(|found| found == line), "`{line}` expected in:\n{stderr}");
}

// The new and the old socket are open at the same time.
#[test]
fn a_reload_can_change_an_address_to_a_wildcard_and_back() {
    let port = ReservedPort::any();
    let narrow = port.loopback();
    let wide = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number()));
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.number()));
    let text = |address| {
        format!("[services.web]\ncommand = [\"PUPPET\", \"serve\", \"3\"]\nlisten = {{ http = \"tcp://{address}\" }}\n")
    };
    let set = Set::new(&text(narrow));
    let running = set.start(Place::Child);
    let (mut socket, mut worker) = served(&running);
    for address in [wide, all, narrow] {
        std::fs::copy(Set::new(&text(address)).config, &set.config).unwrap();
        running.send(Signal::HUP);
        let new = served(&running);
        assert_ne!(new.0, socket, "{address}");
        crate::harness::wait_for_death(worker);
        (socket, worker) = new;
        wait_until("answers of the new worker only", || (ask(&port)? == worker).then_some(()));
    }
}

// The service that cannot listen ends keepalive at once.
#[test]
fn the_process_that_uses_an_address_is_named_before_keepalive_exits() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let set = Set::new(&format!("[services.web]\ncommand = \"true\"\nlisten = {{ http = \"tcp://{address}\" }}\n"));
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 71, "{stderr}");
    assert!(stderr.contains(&format!("{address} is in use by pid {}", std::process::id())), "{stderr}");
    // The reason that Kubernetes shows, too.
    let end = set.end();
    let reason = format!("web.0 failed: cannot listen on `tcp://{address}`: ");
    assert!(end.starts_with(&reason) && end.contains(&format!(" (by pid {} (", std::process::id())), "{end}");
}

#[test]
fn the_answer_and_the_status_name_the_process_that_uses_an_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = Set::new(&format!(
        "[services.other]\ncommand = [\"sleep\", \"1000\"]\n[services.web]\ncommand = \"true\"\n\
         listen = {{ http = \"tcp://{}\" }}\non_failure = \"ignore\"\n",
        taken.local_addr().unwrap()
    ));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "failed");
    let answer = control.post("/v1/services/web/restart");
    let owner = format!("in use by pid {} (", std::process::id());
    assert!(answer.status == 409 && answer.reason().contains(&owner), "{}", answer.body);
    let reason = control.instance("web.0")["reason"].to_string();
    assert!(reason.contains(&owner), "{reason}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}
