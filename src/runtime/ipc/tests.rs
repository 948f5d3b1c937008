use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::*;
use crate::sys::stream;

/// The channels of all workers.
struct Workers {
    channels: Channels,
    poller: Poller,
}

fn run(number: u64) -> RunId {
    RunId::new(number)
}

impl Workers {
    fn new() -> Self {
        Self { channels: Channels::default(), poller: Poller::new().unwrap() }
    }

    /// Adds a worker, and returns its end of the channel.
    fn add(&mut self, number: u64, service: &str, instance: u32) -> UnixStream {
        let (ours, theirs) = stream::pair().unwrap();
        let position = if service == "web" { 0 } else { 1 };
        let id = InstanceId { service: ServiceIndex(position), number: instance };
        self.channels.open(run(number), id, service, ours, &self.poller);
        let theirs = UnixStream::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        theirs
    }

    /// Takes turns until no channel has input. Returns the runs that have reported readiness.
    fn turn(&mut self) -> Vec<RunId> {
        let mut reported = Vec::new();
        for _ in 0..1_000 {
            let ready = self.poller.wait(Some(std::time::Duration::ZERO)).unwrap();
            for ready in ready {
                if let Some(Token::Channel(run)) = Token::decode(ready.data()) {
                    self.channels.on_ready(Token::Channel(run));
                }
            }
            if !self.channels.is_busy() {
                return reported;
            }
            for event in self.channels.advance(crate::sys::now(), &self.poller) {
                let Event::Ready { run, source: ReadySource::Ipc } = event else { panic!("{event:?}") };
                reported.push(run);
            }
        }
        panic!("it never ends");
    }

    fn is_open(&self, number: u64) -> bool {
        self.channels.channels.contains_key(&run(number))
    }
}

/// Everything that a worker has received, including the end of file.
fn received(worker: &mut UnixStream) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match worker.read(&mut buffer) {
            Ok(0) => {
                all.extend_from_slice(b"END");
                break;
            }
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(_) => break,
        }
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_stored_value_is_available_to_the_next_worker_of_the_same_service_only() {
    let mut workers = Workers::new();
    let mut first = workers.add(1, "web", 0);
    let mut other = workers.add(2, "db", 0);
    first
        .write_all(b"{\"type\":\"set\",\"key\":\"a\",\"value\":{\"b\": [1]}}\n{\"type\":\"get\",\"key\":\"a\"}\n")
        .unwrap();
    other.write_all(b"{\"type\":\"get\",\"key\":\"a\"}\n").unwrap();
    assert_eq!(workers.turn(), []);
    assert_eq!(received(&mut first), "{\"type\":\"value\",\"key\":\"a\",\"value\":{\"b\": [1]}}\n");
    assert_eq!(received(&mut other), "{\"type\":\"value\",\"key\":\"a\",\"value\":null}\n");
    // Its last message is handled although the worker has exited.
    first.write_all(b"{\"type\":\"set\",\"key\":\"c\",\"value\":\"last\"}\n").unwrap();
    workers.channels.on_ended(run(1), &workers.poller);
    assert_eq!(received(&mut first), "END");
    let mut next = workers.add(3, "web", 0);
    next.write_all(b"{\"type\":\"get\",\"key\":\"c\"}\n{\"type\":\"set\",\"key\":\"c\",\"value\":null}\n").unwrap();
    next.write_all(b"{\"type\":\"get\",\"key\":\"c\"}\n").unwrap();
    workers.turn();
    let expect =
        "{\"type\":\"value\",\"key\":\"c\",\"value\":\"last\"}\n{\"type\":\"value\",\"key\":\"c\",\"value\":null}\n";
    assert_eq!(received(&mut next), expect);
}

#[test]
fn a_message_reaches_the_instances_that_it_addresses() {
    let mut workers = Workers::new();
    let mut all = [workers.add(1, "web", 0), workers.add(2, "web", 1), workers.add(3, "db", 0), workers.add(4, "w", 1)];
    let mut check = |from: usize, to: &str, expect: [usize; 4]| {
        let line = format!("{{\"type\":\"send\",\"to\":\"{to}\",\"data\":7}}\n");
        all[from].write_all(line.as_bytes()).unwrap();
        workers.turn();
        let sender = ["web.0", "web.1", "db.0", "w.1"][from];
        let delivered = format!("{{\"type\":\"message\",\"from\":\"{sender}\",\"data\":7}}\n");
        let found = all.each_mut().map(|worker| {
            let received = received(worker);
            assert!(received.is_empty() || received == delivered, "{received}");
            usize::from(!received.is_empty())
        });
        assert_eq!(found, expect, "from {sender} to {to}");
    };
    check(0, "web.1", [0, 1, 0, 0]);
    check(2, "web", [1, 1, 0, 0]);
    check(0, "web", [0, 1, 0, 0]);
    check(0, "web.0", [1, 0, 0, 0]);
    check(1, "*", [1, 0, 1, 1]);
    check(2, "db", [0, 0, 0, 0]);
    check(0, "w", [0, 0, 0, 1]);
    all[0].write_all(b"{\"type\":\"send\",\"to\":\"web.01\",\"data\":7}\n").unwrap();
    workers.turn();
    let error = "{\"type\":\"error\",\"to\":\"web.01\",\"message\":\"no instance of this name has an ipc channel\"}\n";
    assert_eq!(received(&mut all[0]), error);
}

#[test]
fn an_instance_and_its_surge_instance_both_receive_its_messages() {
    let mut workers = Workers::new();
    let mut sender = workers.add(1, "db", 0);
    let surge = InstanceId { service: ServiceIndex(0), number: 0 }.surge().number;
    let mut both = [workers.add(2, "web", 0), workers.add(3, "web", surge)];
    sender.write_all(b"{\"type\":\"send\",\"to\":\"web.0\",\"data\":[]}\n").unwrap();
    workers.turn();
    for worker in &mut both {
        assert_eq!(received(worker), "{\"type\":\"message\",\"from\":\"db.0\",\"data\":[]}\n");
    }
}

#[test]
fn an_invalid_message_closes_only_the_channel_of_its_sender() {
    let endless = vec![b'x'; 70_000];
    let long = format!("\"{}\"\n", "x".repeat(65_536));
    for nonsense in [&b"{\n"[..], &endless, long.as_bytes(), b"\0\n"] {
        let mut workers = Workers::new();
        let (mut bad, mut good) = (workers.add(1, "web", 0), workers.add(2, "web", 1));
        bad.write_all(nonsense).unwrap();
        good.write_all(b"\n\n\"ready\"\n\"re").unwrap();
        assert_eq!(workers.turn(), [run(2)]);
        assert_eq!((workers.is_open(1), workers.is_open(2)), (false, true), "{}", nonsense[..2].escape_ascii());
        good.write_all(b"ady\"\n").unwrap();
        assert_eq!(workers.turn(), [run(2)]);
    }
    let mut workers = Workers::new();
    let mut worker = workers.add(1, "web", 0);
    let longest = format!("\"{}\"\n\"ready\"\n", "x".repeat(65_534));
    worker.write_all(longest.as_bytes()).unwrap();
    assert_eq!(workers.turn(), [run(1)], "a line of the maximum length");
}

#[test]
fn a_worker_that_does_not_read_loses_messages_and_keeps_its_channel() {
    let mut workers = Workers::new();
    let (mut sender, mut deaf) = (workers.add(1, "web", 0), workers.add(2, "web", 1));
    let line = format!("{{\"type\":\"send\",\"to\":\"web.1\",\"data\":\"{}\"}}\n", "x".repeat(1_000));
    for _ in 0..1_000 {
        sender.write_all(line.as_bytes()).unwrap();
        workers.turn();
    }
    let lost = workers.channels.channels.get(&run(2)).unwrap().lost;
    assert!((1..1_000).contains(&lost), "{lost}");
    let id = |number| InstanceId { service: ServiceIndex(0), number };
    assert_eq!((workers.channels.lost(id(1)), workers.channels.lost(id(0))), (lost, 0));
    let mut all = String::new();
    loop {
        let more = received(&mut deaf);
        workers.turn();
        if more.is_empty() {
            break;
        }
        all.push_str(&more);
    }
    assert_eq!(all.lines().count() as u64, 1_000 - lost);
    assert!(all.len() <= (256 << 10) + (512 << 10), "no more than a queue and what the kernel holds: {}", all.len());
    sender.write_all(b"{\"type\":\"send\",\"to\":\"web.1\",\"data\":\"at last\"}\n").unwrap();
    workers.turn();
    assert!(received(&mut deaf).contains("at last"));
}

#[test]
fn messages_of_others_do_not_displace_answers() {
    let mut workers = Workers::new();
    let (mut sender, mut slow) = (workers.add(1, "web", 0), workers.add(2, "web", 1));
    let line = format!("{{\"type\":\"send\",\"to\":\"web.1\",\"data\":\"{}\"}}\n", "x".repeat(1_000));
    let mut flood = |workers: &mut Workers| {
        for _ in 0..500 {
            sender.write_all(line.as_bytes()).unwrap();
            workers.turn();
        }
    };
    flood(&mut workers);
    slow.write_all(b"{\"type\":\"get\",\"key\":\"a\"}\n").unwrap();
    flood(&mut workers);
    workers.channels.announce_stop(run(2), &workers.poller);
    let mut all = String::new();
    loop {
        let more = received(&mut slow);
        workers.turn();
        if more.is_empty() {
            break;
        }
        all.push_str(&more);
    }
    assert!(workers.channels.lost(InstanceId { service: ServiceIndex(0), number: 1 }) > 0);
    assert!(all.contains("{\"type\":\"value\",\"key\":\"a\",\"value\":null}\n"));
    assert!(all.ends_with("\"shutdown\"\n"));
}

#[test]
fn a_flood_from_one_worker_does_not_delay_a_turn() {
    let mut workers = Workers::new();
    let mut flood = workers.add(1, "web", 0);
    flood.write_all(&b"{\"type\":\"send\",\"to\":\"*\",\"data\":0}\n".repeat(400)).unwrap();
    let others: Vec<UnixStream> = (2..102_u32).map(|number| workers.add(number.into(), "db", number)).collect();
    workers.channels.on_ready(Token::Channel(run(1)));
    workers.channels.advance(crate::sys::now(), &workers.poller);
    assert!(workers.channels.is_busy(), "more input is left for the next turn");
    workers.turn();
    let mut counts: Vec<usize> = others.into_iter().map(|mut worker| received(&mut worker).lines().count()).collect();
    counts.dedup();
    assert_eq!(counts, [400]);
}

#[test]
fn a_closed_channel_is_read_to_its_end_and_then_removed() {
    let mut workers = Workers::new();
    let mut worker = workers.add(1, "web", 0);
    worker.write_all(&b"{\"type\":\"set\",\"key\":\"n\",\"value\":1}\n".repeat(200)).unwrap();
    worker.write_all(b"{\"type\":\"set\",\"key\":\"n\",\"value\":2}\n").unwrap();
    drop(worker);
    workers.turn();
    assert!(!workers.is_open(1));
    assert_eq!(workers.channels.stores.get(&ServiceIndex(0)).unwrap().get("n"), Some("2"));
}

#[test]
fn the_announcement_of_a_stop_is_sent_at_once() {
    let mut workers = Workers::new();
    let mut worker = workers.add(1, "web", 0);
    worker.write_all(b"\"ready\"\n{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Server\"}\n").unwrap();
    assert_eq!(workers.turn(), [run(1)]);
    assert_eq!(received(&mut worker), "{\"cmd\":\"NODE_HANDLE_NACK\"}\n");
    workers.channels.announce_stop(run(1), &workers.poller);
    assert_eq!(received(&mut worker), "\"shutdown\"\n");
    drop(worker);
    workers.channels.announce_stop(run(1), &workers.poller);
    workers.turn();
    assert!(!workers.is_open(1), "the peer has exited");
}

#[test]
fn messages_of_a_worker_are_handled_after_it_has_closed_its_reading_side() {
    for has_ended in [false, true] {
        let mut workers = Workers::new();
        let (mut leaver, mut sender) = (workers.add(1, "web", 0), workers.add(2, "web", 1));
        leaver.write_all(b"{\"type\":\"set\",\"key\":\"n\",\"value\":1}\n").unwrap();
        drop(leaver);
        sender.write_all(b"{\"type\":\"send\",\"to\":\"*\",\"data\":0}\n").unwrap();
        // Messages to it come first, before its own messages.
        workers.channels.on_ready(Token::Channel(run(2)));
        workers.channels.advance(crate::sys::now(), &workers.poller);
        if has_ended {
            workers.channels.on_ended(run(1), &workers.poller);
        }
        workers.turn();
        assert_eq!((workers.is_open(1), workers.is_open(2)), (false, true));
        assert_eq!(workers.channels.stores.get(&ServiceIndex(0)).unwrap().get("n"), Some("1"), "{has_ended}");
        workers.channels.forget(ServiceIndex(0));
        assert!(workers.channels.stores.is_empty());
    }
}
