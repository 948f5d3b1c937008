//! A missing or broken server: the client prints one line, exits with 3 and never waits forever.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use keepalive::model::Signal;
use nix::sys::stat::Mode;
use serde_json::json;

use crate::fake_server::{FakeServer, STREAM, response, status};
use crate::harness::{Directory, KEEPALIVE, Place, Run, have_namespaces, have_root, wait_until};

/// `keepalive status` as a user of its own, with an empty /run: another keepalive on this machine does not answer.
fn status_as(user: u32) -> Run {
    status_with("mount -t tmpfs none /run", user)
}

fn status_with(mount: &str, user: u32) -> Run {
    let script = format!("{mount} && exec setpriv --reuid={user} --clear-groups /proc/self/fd/0 status");
    let mut run = Run::words(Place::Child, &["unshare", "--mount", "sh", "-c", &script]);
    run.command.stdin(Stdio::from(std::fs::File::open(KEEPALIVE).unwrap()));
    run.command.env_remove("KEEPALIVE_SOCKET").env_remove("XDG_RUNTIME_DIR");
    run
}

const REMEDY: &str = "is keepalive running? (start it with `keepalive` or `keepalive run -- CMD`, or select another with -c FILE or --socket PATH)";

#[test]
fn a_client_without_a_server_names_the_tried_paths_and_a_remedy() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let mut run = status_as(54_323);
    run.command.env("XDG_RUNTIME_DIR", "/nonexistent").current_dir("/");
    // The first name has the FNV-1a hash of `/`.
    let places = ["keepalive-af63a24c860189fe", "keepalive"]
        .map(|name| format!("/run/{name}.sock or /nonexistent/{name}.sock or /tmp/{name}-54323.sock"));
    let expected = format!("keepalive: cannot connect to {}: {REMEDY}\n", places.join(" or "));
    assert_eq!(run.finish(), (3, String::new(), expected));
}

#[test]
fn a_client_says_that_no_socket_can_be_created() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let (_, _, stderr) = status_with("mount -t tmpfs -o ro none /run && mount -t tmpfs -o ro none /tmp", 0).finish();
    let expected = "no socket can be created in these directories: mount a tmpfs at /run (`docker run --tmpfs /run`), or set \
         KEEPALIVE_SOCKET to a path that can be written, for keepalive and its commands\n";
    assert!(stderr.ends_with(expected), "{stderr}");
}

#[test]
fn a_client_whose_server_has_gone_names_the_path_and_a_remedy() {
    let scratch = Directory::new();
    let stale = scratch.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let stale = stale.to_str().unwrap();
    let expected = format!("keepalive: cannot connect to {stale}: {REMEDY}\n");
    let stop = Run::words(Place::Child, &[KEEPALIVE, "stop", "web", "--socket", stale]);
    assert_eq!(stop.finish(), (3, String::new(), expected.clone()));
    let health = Run::words(Place::Child, &[KEEPALIVE, "health", "--socket", stale]);
    assert_eq!(health.finish(), (1, String::new(), expected));
}

#[test]
fn a_client_reports_that_it_has_no_permission_to_connect() {
    if !have_root() {
        return;
    }
    let scratch = Directory::new();
    let path = scratch.path().join("closed.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &path, Mode::S_IRUSR, nix::sys::stat::FchmodatFlags::FollowSymlink)
        .unwrap();
    let path = path.to_str().unwrap();
    let mut run = Run::words(Place::Child, &["/proc/self/fd/0", "status", "--socket", path]);
    run.command.uid(54_321).stdin(Stdio::from(std::fs::File::open(KEEPALIVE).unwrap()));
    let message =
        format!("keepalive: permission denied at {path}: only root and the user that keepalive runs as may connect\n");
    assert_eq!(run.finish(), (3, String::new(), message));
}

// capabilities(7): without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, as in a container with `--cap-drop ALL`.
#[test]
fn root_without_capabilities_is_told_which_user_may_connect() {
    if !have_root() {
        return;
    }
    let scratch = Directory::new();
    let directory = scratch.path().join("closed");
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("x.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(54_321), None).unwrap();
    std::os::unix::fs::chown(&directory, Some(54_321), None).unwrap();
    let path = path.to_str().unwrap();
    for mode in [Mode::S_IRWXU, Mode::all()] {
        nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &directory, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
            .unwrap();
        let without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
        let run = Run::words(Place::Child, &[&without[..], &[KEEPALIVE, "status", "--socket", path]].concat());
        let message = format!(
            "keepalive: permission denied at {path}: root lacks the capability CAP_DAC_OVERRIDE here; run this as user 54321, \
             such as with `docker exec --user 54321`\n"
        );
        assert_eq!(run.finish(), (3, String::new(), message));
    }
}

#[test]
fn a_client_does_not_use_a_socket_of_another_user_in_tmp() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let path = "/tmp/keepalive-54322.sock";
    std::fs::remove_file(path).ok();
    let listener = UnixListener::bind(path).unwrap();
    let found = status_as(54_322).finish();
    drop(listener);
    std::fs::remove_file(path).unwrap();
    let message =
        format!("keepalive: {path} belongs to another user and is not trusted (use --socket to connect anyway)\n");
    assert_eq!(found, (3, String::new(), message));
}

#[track_caller]
fn check_nonsense(bytes: &'static [u8], what: &str) {
    let server = FakeServer::sending(bytes);
    server.check(&["status"], 3, "", &format!("keepalive: the server at SOCKET is not keepalive: {what}\n"));
}

#[test]
fn an_invalid_answer_is_reported_as_such() {
    check_nonsense(b"+PONG\r\n", "invalid HTTP response");
    check_nonsense(b"\0\xff\0", "invalid HTTP response");
    check_nonsense(b"HTTP/1.1 200 OK\r\n\r\nhello", "invalid JSON");
    check_nonsense(b"HTTP/1.1 200 OK\r\n\r\n{\"a\":1}", "unexpected JSON");
    check_nonsense(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "invalid JSON");
    check_nonsense(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "chunked response");
    check_nonsense(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "response without a valid length");
    check_nonsense(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "response too large");
}

#[test]
fn an_endless_answer_is_rejected() {
    let endless = |head: &'static str, filling: &'static str| {
        FakeServer::start(move |_, mut stream| {
            stream.write_all(head.as_bytes()).ok();
            while stream.write_all(filling.repeat(4096).as_bytes()).is_ok() {}
        })
    };
    let message = |what| format!("keepalive: the server at SOCKET is not keepalive: {what}\n");
    let head = endless("HTTP/1.1 200 OK\r\nX: ", "x");
    head.check(&["status", "--timeout=1h"], 3, "", &message("response head too long"));
    let body = endless("HTTP/1.1 200 OK\r\n\r\n", " ");
    body.check(&["status", "--timeout=1h"], 3, "", &message("response too large"));
    let line = endless(STREAM, "x");
    line.check(&["events", "-f", "--timeout=1h"], 3, "", &message("response line too long"));
}

#[test]
fn a_connection_that_ends_too_early_is_reported() {
    let message = "keepalive: the connection to SOCKET was closed before the response was complete\n";
    for bytes in [&b""[..], b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\":"] {
        FakeServer::sending(bytes).check(&["status"], 3, "", message);
    }
    let server = FakeServer::start(|_, mut stream| {
        write!(stream, "{STREAM}{{\"seq\":1}}\n{{\"se").ok();
    });
    server.check(&["events"], 3, "{\"seq\":1}", message);
}

#[test]
fn a_client_waits_for_a_silent_server_only_until_its_timeout() {
    let silent = || {
        FakeServer::start(|_, mut stream| {
            // Keeps the connection open until the client closes it.
            stream.read_to_end(&mut Vec::new()).ok();
        })
    };
    let message = "keepalive: no response from SOCKET within 50ms\n";
    silent().check(&["status", "--timeout", "50ms"], 3, "", message);
    silent().check(&["events", "-f", "--timeout", "50ms"], 3, "", message);
    silent().check(&["health", "--timeout", "50ms"], 1, "", message);
    let slow = FakeServer::start(|_, mut stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{{").ok();
        stream.read_to_end(&mut Vec::new()).ok();
    });
    slow.check(&["status", "--timeout", "50ms"], 3, "", message);
}

#[test]
fn a_closed_stdout_ends_a_stream_without_a_message() {
    let server = FakeServer::start(|_, mut stream| {
        stream.write_all(STREAM.as_bytes()).ok();
        while stream.write_all(b"{\"seq\":1}\n").is_ok() {}
    });
    let socket = server.path.to_str().unwrap();
    // With the default action of SIGPIPE and with SIGPIPE ignored.
    for trap in ["", "trap '' PIPE;"] {
        let line = format!("{trap} \"$0\" events -f --socket \"$1\" | head -n 1");
        let run = Run::words(Place::Child, &["bash", "-o", "pipefail", "-c", &line, KEEPALIVE, socket]);
        let (code, stdout, stderr) = run.finish();
        assert_eq!((stdout.as_str(), stderr.as_str()), ("{\"seq\":1}", ""), "{code}");
        assert_eq!(code, if trap.is_empty() { 141 } else { 0 });
    }
}

#[test]
fn ctrl_c_ends_a_stream_by_sigint() {
    let server = FakeServer::start(|_, mut stream| {
        stream.write_all(STREAM.as_bytes()).ok();
        stream.write_all(b"{\"seq\":1}\n").ok();
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let mut run = Run::words(Place::Child, &["env", "--default-signal=INT", KEEPALIVE, "events", "-f"]);
    run.command.env("KEEPALIVE_SOCKET", &server.path);
    let mut running = run.start();
    running.expect("{\"seq\":1}");
    keepalive::sys::signal_process(running.keepalive(), Signal::INT).unwrap();
    let status = wait_until("the end", || running.child.try_wait().unwrap());
    assert_eq!((status.to_string().as_str(), running.stderr().as_str()), ("signal: 2 (SIGINT)", ""));
}

#[test]
fn a_full_disk_is_reported() {
    let server = FakeServer::sending(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n");
    let mut run = server.client(&["status", "--json"]);
    run.command.stdout(Stdio::from(std::fs::File::create("/dev/full").unwrap()));
    let message = "keepalive: cannot write to stdout: No space left on device\n".to_owned();
    assert_eq!(run.finish(), (1, String::new(), message));
}

#[test]
fn a_closed_stdout_is_reported() {
    let events = format!("{STREAM}{{\"seq\":1}}\n");
    let server = FakeServer::start(move |request, mut stream| {
        let ready = json!({"result": "ready", "reason": ""});
        let body = if request.contains("status") { status() } else { ready };
        let text = if request.contains("events") { events.clone() } else { response(200, &body.to_string()) };
        stream.write_all(text.as_bytes()).ok();
    });
    for line in ["status", "status --json", "top", "events", "health", "stop web", "help", "--version"] {
        let script = format!("exec \"$0\" {line} >&-");
        let mut run = Run::words(Place::Child, &["sh", "-c", &script, KEEPALIVE]);
        run.command.env("KEEPALIVE_SOCKET", &server.path);
        let message = "keepalive: cannot write to stdout: Bad file descriptor\n".to_owned();
        assert_eq!(run.finish(), (1, String::new(), message), "{line}");
    }
}
