//! Descriptors that other processes send to keepalive, and that take an hour to close.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use keepalive::model::Signal;
use keepalive::sys::packet;
use nix::sys::socket::{setsockopt, sockopt};

use crate::control::begin;
use crate::harness::{Place, Running, in_every_place, wait_for_state, wait_until};
use crate::http::{Control, http};
use crate::ipc::have;
use crate::port::ReservedPort;
use crate::services::Set;

/// Sends `bytes` with a connection whose last close(2) waits for an hour: socket(7), `SO_LINGER`. Returns its peer, which
/// does not read what the connection wants to send. keepalive is stopped until it has the last reference.
fn send_lingering(running: &Running, stream: &UnixStream, bytes: &[u8]) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    connection.set_nonblocking(true).unwrap();
    while connection.write(&[0; 1 << 16]).is_ok() {}
    connection.set_nonblocking(false).unwrap();
    setsockopt(&connection, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 3_600 }).unwrap();
    stop(running);
    packet::send(stream, bytes, Some(connection.as_fd())).unwrap();
    drop(connection);
    running.send(Signal::CONT);
    peer
}

fn stop(running: &Running) {
    running.send(Signal::STOP);
    wait_for_state(running.keepalive(), b'T');
}

/// Whether the last reference to the connection of this peer has been closed.
fn is_closed(peer: &TcpStream) -> bool {
    let address = format!(":{:04X}", peer.peer_addr().unwrap().port());
    // proc(5): the local address is the second field, the state the fourth; 01: established.
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut connections = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    !connections.any(|fields| fields[1].ends_with(&address) && fields[3] == "01")
}

/// keepalive answers, and restarts a process that has crashed.
fn check_alive(running: &Running, control: &Control, port: &ReservedPort) {
    assert_eq!((control.get("/livez").status, http(port, "GET", "/livez").status), (200, 200));
    assert_eq!(control.post("/v1/services/web/signal?signal=KILL").status, 200);
    running.ready();
}

fn wait_for_close(peers: &[TcpStream]) {
    wait_until("all connections to be closed", || peers.iter().all(is_closed).then_some(()));
}

fn read(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    // Unread data at the end is an error.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8(answer).unwrap()
}

const WEB: &str = "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n";

#[test]
fn a_client_of_the_control_socket_that_sends_descriptors_is_rejected() {
    let port = ReservedPort::any();
    let set = Set::new(&format!("[keepalive]\nhttp = \"{port}\"\n{WEB}"));
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        running.ready();
        let request: &[u8] = b"GET /v1/status HTTP/1.1\r\n\r\n";
        // With the request, and with a part of it.
        let mut first = control.connect();
        let mut peers = vec![send_lingering(&running, &first, request)];
        let answer = read(&mut first);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("must not carry descriptors"), "{answer}");
        let mut second = control.connect();
        second.write_all(&request[..10]).unwrap();
        peers.push(send_lingering(&running, &second, &request[10..]));
        let answer = read(&mut second);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        check_alive(&running, &control, &port);
        // After the request, and by a client that has gone.
        stop(&running);
        let mut after = control.connect();
        after.write_all(request).unwrap();
        peers.push(send_lingering(&running, &after, b"x"));
        read(&mut after);
        let gone = control.connect();
        peers.push(send_lingering(&running, &gone, &request[..10]));
        drop(gone);
        // By a follower.
        let mut follower = control.ask("GET", "/v1/events?follow=1");
        follower.read_exact(&mut [0; 16]).unwrap();
        peers.push(send_lingering(&running, &follower, b"x"));
        read(&mut follower);
        check_alive(&running, &control, &port);
        wait_for_close(&peers);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        let warning = "a client of the control socket was rejected: requests must not carry descriptors";
        assert!(stderr.contains(warning), "{stderr}");
    });
}

// unix(7): a connection can be used as soon as it waits to be accepted.
#[test]
fn descriptors_in_connections_that_nobody_accepts_do_not_delay_the_end() {
    let set = Set::new(&format!("{WEB}listen = {{ s = \"unix://DIR/socket\", t = \"unix://@DIR/socket\" }}\n"));
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        running.ready();
        let services = UnixStream::connect(set.directory.path().join("socket")).unwrap();
        let mut peers = vec![send_lingering(&running, &services, b"x")];
        // keepalive sees its SIGTERM first.
        stop(&running);
        let unaccepted = control.connect();
        running.send(Signal::TERM);
        peers.push(send_lingering(&running, &unaccepted, b"x"));
        assert_eq!(running.end(), 0);
        wait_for_close(&peers);
    });
}

#[test]
fn a_unix_socket_with_descriptors_in_its_queue_can_be_removed_by_a_reload() {
    let port = ReservedPort::any();
    let web = format!("[keepalive]\nhttp = \"{port}\"\n{WEB}");
    let set = Set::new(&format!(
        "{web}[services.other]\ncommand = [\"PUPPET\", \"ignore\"]\nlisten = {{ s = \"unix://DIR/socket\" }}\n"
    ));
    let (mut running, control) = begin(&set, Place::Child);
    running.ready();
    running.ready();
    let path = set.directory.path().join("socket");
    let client = UnixStream::connect(&path).unwrap();
    let peer = send_lingering(&running, &client, b"x");
    let config = std::fs::read_to_string(&set.config).unwrap();
    std::fs::write(&set.config, &config[..config.find("[services.other]").unwrap()]).unwrap();
    assert_eq!(control.post("/v1/reload").status, 200);
    wait_until("the end of the socket", || (!path.exists()).then_some(()));
    check_alive(&running, &control, &port);
    wait_for_close(&[peer]);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

// Node sends descriptors with `process.send(message, socket)`.
#[test]
fn descriptors_on_an_ipc_channel_are_closed_by_a_helper() {
    if !have("python3") {
        return;
    }
    let script = r#"
import os, signal, socket, struct, sys
channel = socket.socket(fileno=int(os.environ['KEEPALIVE_IPC_FD']))
go = sys.argv[1]
if os.path.exists(go): os.remove(go)
os.mkfifo(go)
null = os.open('/dev/null', os.O_RDONLY)
channel.sendall(b'{"type":"set","key":"a",')
socket.send_fds(channel, [b'"value":1}\n'], [null])
socket.send_fds(channel, [b'"ready"\n{"type":"get","key":"a"}\n'], [null] * 9)
print(channel.makefile('r').readline().strip(), flush=True)
open(go).read()
listener = socket.create_server(('127.0.0.1', 0))
lingering = socket.create_connection(listener.getsockname())
peer = listener.accept()[0]
lingering.setblocking(False)
try:
    while True: lingering.send(bytes(1 << 16))
except BlockingIOError: pass
lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
socket.send_fds(channel, [b'{}\n'], [lingering.fileno()])
lingering.close()
print('sent', flush=True)
print('received', channel.recv(1), flush=True)
signal.pause()
"#;
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[keepalive]\nhttp = \"{port}\"\n{WEB}[services.sender]\ncommand = [\"python3\", \"DIR/script\", \"DIR/go\"]\nipc = true\nready = \"ipc\"\ndepends_on = [\"web\"]\n"
    ));
    set.directory.file("script", script.as_bytes(), 0o644);
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        running.ready();
        running.expect(r#"{"type":"value","key":"a","value":1}"#);
        control.wait_for("sender.0", "running");
        stop(&running);
        std::fs::write(set.directory.path().join("go"), "go").unwrap();
        running.expect("sent");
        running.send(Signal::CONT);
        check_alive(&running, &control, &port);
        // The helper is killed, and the channel closed.
        running.expect("received b''");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        assert!(stderr.contains("sender.0: descriptors sent over the ipc channel are not accepted"), "{stderr}");
        let reason = "sender.0: ipc channel closed: descriptors that were sent over it cannot be closed";
        assert!(stderr.contains(reason), "{stderr}");
    });
}
