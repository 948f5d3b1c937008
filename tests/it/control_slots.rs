//! Clients that take up connections: too many, too slow, or silent.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use serde_json::Value;

use crate::control::begin;
use crate::harness::{KEEPALIVE, Place, Run, wait_until};
use crate::http::{Control, http};
use crate::port::ReservedPort;
use crate::services::Set;

const HALF_A_REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nX: ";

fn metric(control: &Control, name: &str) -> u64 {
    let metrics = control.get("/metrics").body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[test]
fn incomplete_requests_make_room_for_a_probe() {
    let port = ReservedPort::any();
    let set =
        Set::new(&format!("[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n"));
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let mut over_http: Vec<TcpStream> = (0..48).map(|_| TcpStream::connect(port.loopback()).unwrap()).collect();
    over_http.iter_mut().for_each(|stream| stream.write_all(HALF_A_REQUEST).unwrap());
    let silent: Vec<UnixStream> = (0..48).map(|_| control.connect()).collect();
    for _ in 0..10 {
        assert_eq!(http(&port, "GET", "/livez").status, 200);
        assert_eq!(control.get("/livez").status, 200);
    }
    let mut health = Run::words(Place::Child, &[KEEPALIVE, "health"]);
    health.command.env("KEEPALIVE_SOCKET", set.socket());
    let (code, _, stderr) = health.finish();
    assert_eq!(code, 0, "{stderr}");
    // The first connections made room, and learn why.
    for stream in [&mut over_http[0] as &mut dyn std::io::Read, &mut &silent[0]] {
        let mut answer = Vec::new();
        // The rest of a request that was sent meanwhile can end the connection with an error.
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many clients: the limit is 32"),
            "{answer}"
        );
    }
    assert!(metric(&control, "keepalive_clients_dropped_total") >= 2 * 16);
}

// tcp(7), TCP_DEFER_ACCEPT: "Allow a listener to be awakened only when data arrives on the socket."
#[test]
fn a_probe_that_connects_before_a_flood_of_incomplete_requests_is_answered() {
    let port = ReservedPort::any();
    let set =
        Set::new(&format!("[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n"));
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let mut probe = TcpStream::connect(port.loopback()).unwrap();
    let flood: Vec<TcpStream> = (0..48).map(|_| TcpStream::connect(port.loopback()).unwrap()).collect();
    flood.iter().for_each(|mut stream| stream.write_all(HALF_A_REQUEST).unwrap());
    wait_until("the flood to be accepted", || {
        (metric(&control, "keepalive_clients_dropped_total") >= 16).then_some(())
    });
    probe.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    probe.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

// socket(7), SO_RCVBUF: the smallest one, so that the answer does not fit.
#[test]
fn clients_that_do_not_read_their_answers_make_room_for_a_probe() {
    let port = ReservedPort::any();
    let mut text = format!("[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    for number in 0..3_000 {
        text += &format!("[services.idle{number}]\ncommand = \"true\"\nautostart = false\n");
    }
    let set = Set::new(&text);
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let slow = || {
        let stream = TcpStream::connect(port.loopback()).unwrap();
        setsockopt(&stream, RcvBuf, &1).unwrap();
        (&stream).write_all(b"GET /v1/status HTTP/1.1\r\n\r\n").unwrap();
        stream
    };
    let over_http: Vec<TcpStream> = (0..40).map(|_| slow()).collect();
    let at_socket: Vec<UnixStream> = (0..40).map(|_| control.ask("GET", "/v1/status")).collect();
    for _ in 0..40 {
        assert_eq!(http(&port, "GET", "/livez").status, 200);
        assert_eq!(control.get("/livez").status, 200);
    }
    drop((over_http, at_socket));
}

/// A stop takes as long as the test.
const DEAF: &str = "[services.web]\ncommand = [\"PUPPET\", \"ignore\", \"15\"]\nstop_timeout = \"1h\"\n";

/// 24 followers, and eight requests that the supervisor performs as long as the test runs.
fn crowd(control: &Control) -> Vec<UnixStream> {
    let mut crowd = Vec::new();
    for _ in 0..24 {
        let mut follower = control.ask("GET", "/v1/events?follow=1");
        follower.read_exact(&mut [0; 16]).unwrap();
        crowd.push(follower);
    }
    for _ in 0..8 {
        crowd.push(control.ask("POST", "/v1/services/web/stop"));
        // It has been received when a later request has been answered.
        control.get("/livez");
    }
    crowd
}

#[test]
fn followers_and_clients_that_wait_for_an_answer_do_not_make_room() {
    let set = Set::new(DEAF);
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let mut crowd = crowd(&control);
    for _ in 0..3 {
        let refused = control.get("/livez");
        assert_eq!((refused.status, refused.reason()), (503, "too many clients: the limit is 32".to_owned()));
    }
    for client in &mut crowd {
        client.set_nonblocking(true).unwrap();
        let end = loop {
            match client.read(&mut [0; 4096]) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        assert_eq!(end, Some(ErrorKind::WouldBlock), "it is still connected");
    }
}

/// There is at most one event about rejected clients per second.
#[test]
fn rejected_clients_do_not_flood_the_events() {
    let set = Set::new(DEAF);
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let start = Instant::now();
    let crowd = crowd(&control);
    for _ in 0..201 {
        assert_eq!(control.get("/livez").status, 503);
    }
    drop(crowd);
    wait_until("a free connection", || (control.get("/livez").status == 200).then_some(()));
    let events = wait_until("the last event about rejected clients", || {
        let events = control.get("/v1/events").body;
        let rejections = events.lines().filter(|line| line.contains("client_rejected"));
        let counts = rejections.map(|line| serde_json::from_str::<Value>(line).unwrap()["count"].as_u64().unwrap());
        (counts.sum::<u64>() >= 201).then_some(events)
    });
    assert!(events.contains("\"from\":\"starting\",\"to\":\"running\""), "what happened before is still there");
    let rejections = events.lines().filter(|line| line.contains("client_rejected")).count() as u64;
    assert!(rejections <= 2 + start.elapsed().as_secs(), "{events}");
}

#[test]
fn followers_do_not_use_up_all_connections() {
    let port = ReservedPort::any();
    let set =
        Set::new(&format!("[keepalive]\nhttp = \"{port}\"\n[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n"));
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let mut followers: Vec<TcpStream> = (0..24).map(|_| TcpStream::connect(port.loopback()).unwrap()).collect();
    for follower in &mut followers {
        follower.write_all(b"GET /v1/events?follow=1 HTTP/1.1\r\n\r\n").unwrap();
        follower.read_exact(&mut [0; 16]).unwrap();
    }
    let refused = http(&port, "GET", "/v1/events?follow=1");
    assert_eq!((refused.status, refused.reason()), (503, "too many clients follow: the limit is 24".to_owned()));
    assert_eq!((http(&port, "GET", "/livez").status, control.get("/livez").status), (200, 200));
    assert_eq!(metric(&control, "keepalive_clients_dropped_total"), 1, "the refused follower counts");
}

#[test]
fn a_request_that_comes_byte_by_byte_times_out() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (_running, control) = begin(&set, Place::Child);
    let mut slow = control.connect();
    slow.write_all(HALF_A_REQUEST).unwrap();
    slow.set_nonblocking(true).unwrap();
    let mut answer = Vec::new();
    wait_until("the end of the connection", || {
        slow.write_all(b"x").ok();
        match slow.read_to_end(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            _ => Some(()),
        }
    });
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_follower_that_reads_nothing_is_disconnected() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let (running, control) = begin(&set, Place::Child);
    running.ready();
    let _follower = control.ask("GET", "/v1/events?follow=1");
    wait_until("the end of the connection", || {
        // Each causes some events. The follower has stalled when the buffers are full.
        (0..50).for_each(|_| drop(control.post("/v1/services/web/restart")));
        (metric(&control, "keepalive_clients_dropped_total") == 1).then_some(())
    });
}
