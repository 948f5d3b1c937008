//! What clients of the log receive.

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use super::super::names::Name;
use super::super::ring::LineMeta;
use super::*;
use crate::logs::line::{Label, Stream};

struct World {
    ring: Ring,
    names: Names,
    poller: Poller,
}

impl World {
    fn new() -> Self {
        let mut names = Names::new();
        for (key, service) in [(0, "web"), (2, "db")] {
            let instance = format!("{service}.0");
            let label = Label::new(service, &instance, Stream::Stdout, 0, None);
            names.insert(key, Name { service: service.to_owned(), instance, label });
        }
        Self { ring: Ring::default(), names, poller: Poller::new().unwrap() }
    }

    fn push(&mut self, key: u64, text: &str) {
        self.ring.push(LineMeta { key, milliseconds: 0, mark: 0 }, text.as_bytes());
    }

    fn client(&self, query: LogsQuery) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours.into(), 16, query, &self.ring, &self.names);
        self.poller.add(client.descriptor(), 16_u64).unwrap();
        (client, theirs)
    }

    fn send_lines(&self, client: &mut Client) -> bool {
        self.pump_at(client, 0)
    }

    fn pump_at(&self, client: &mut Client, seconds: u64) -> bool {
        client.send_lines(&self.ring, &self.names, &self.poller, Mono::from_nanos(seconds * 1_000_000_000))
    }
}

/// `message` or `lost` of each object after the head.
fn messages(text: &str) -> Vec<String> {
    let body = text.strip_prefix(str::from_utf8(RESPONSE_HEAD).unwrap()).unwrap_or(text);
    let one = |line: &str| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        object["message"].as_str().map_or_else(|| format!("dropped {}", object["dropped"]), str::to_owned)
    };
    body.lines().map(one).collect()
}

#[track_caller]
fn check(names: &[&str], lines: Option<usize>, expect: &[&str]) {
    let mut world = World::new();
    let later_run = 7 << 32;
    for (key, text) in
        [(0, "w1"), (later_run | 2, "d1"), (KEEPALIVE_KEY, "k1"), (0, "w2"), (KEEPALIVE_KEY, "k2"), (2, "d2")]
    {
        world.push(key, text);
    }
    let wanted = names.iter().map(|name| (*name).to_owned()).collect();
    let (mut client, mut theirs) = world.client(LogsQuery { names: wanted, lines, ..LogsQuery::default() });
    world.push(0, "too late");
    assert!(!world.send_lines(&mut client), "that is all");
    drop(client);
    let mut text = String::new();
    theirs.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(messages(&text), expect, "{names:?} {lines:?}");
}

#[test]
fn a_query_selects_names_and_the_last_lines() {
    check(&[], None, &["w1", "d1", "k1", "w2", "k2", "d2"]);
    check(&[], Some(2), &["k2", "d2"]);
    check(&[], Some(0), &[]);
    check(&["web"], None, &["w1", "w2"]);
    check(&["db.0", "keepalive"], Some(3), &["k1", "k2", "d2"]);
    check(&["web.1"], Some(9), &[]);
}

#[test]
fn new_lines_do_not_evict_past_lines_that_a_client_asked_for() {
    let mut world = World::new();
    for number in 0..20_000 {
        world.push(2, &format!("d{number} {}", "x".repeat(80)));
        world.push(0, &format!("w{number}"));
    }
    let query = |lines| LogsQuery { names: vec!["web".to_owned()], lines: Some(lines), ..LogsQuery::default() };
    let clients = [3, 5_000].map(|lines| (lines, world.client(query(lines))));
    for _ in 0..100_000 {
        world.push(0, &"flood".repeat(20));
    }
    for (lines, (mut client, mut theirs)) in clients {
        theirs.set_nonblocking(true).unwrap();
        let mut text = String::new();
        while world.send_lines(&mut client) {
            theirs.read_to_string(&mut text).ok();
        }
        drop(client);
        // A child that another test has just forked may have a copy of the other end.
        theirs.set_nonblocking(false).unwrap();
        theirs.read_to_string(&mut text).unwrap();
        let expect: Vec<String> = (20_000 - lines..20_000).map(|number| format!("w{number}")).collect();
        assert_eq!(messages(&text), expect);
    }
}

#[test]
fn a_client_is_notified_only_of_evicted_past_lines() {
    let mut world = World::new();
    for _ in 0..200 {
        world.push(0, &"x".repeat(16_000));
    }
    let (mut client, mut theirs) = world.client(LogsQuery::default());
    for _ in 0..1_000 {
        world.push(0, &"y".repeat(16_000));
    }
    theirs.set_nonblocking(true).unwrap();
    let mut text = Vec::new();
    while world.send_lines(&mut client) {
        theirs.read_to_end(&mut text).ok();
    }
    drop(client);
    // A child that another test has just forked may have a copy of the other end.
    theirs.set_nonblocking(false).unwrap();
    theirs.read_to_end(&mut text).unwrap();
    let mut messages = messages(str::from_utf8(&text).unwrap());
    let last = messages.pop().unwrap();
    let got = messages.len();
    assert!(got > 60 && messages.iter().all(|line| line.starts_with('x')), "{got}");
    assert_eq!(last, format!("dropped {}", 200 - got));
}

#[test]
fn remaining_past_lines_are_sent_though_lines_around_them_are_evicted() {
    let mut world = World::new();
    let flood = "x".repeat(16_000);
    for _ in 0..150 {
        world.push(0, &flood);
    }
    world.push(2, "the last that was there");
    let (mut client, mut theirs) = world.client(LogsQuery::default());
    for _ in 0..1_000 {
        world.push(0, &flood);
        world.push(2, "too late");
    }
    theirs.set_nonblocking(true).unwrap();
    let mut text = Vec::new();
    while world.send_lines(&mut client) {
        theirs.read_to_end(&mut text).ok();
    }
    drop(client);
    // A child that another test has just forked may have a copy of the other end.
    theirs.set_nonblocking(false).unwrap();
    theirs.read_to_end(&mut text).unwrap();
    let messages = messages(str::from_utf8(&text).unwrap());
    let got = messages.len() - 1;
    assert_eq!(messages[got - 1..], ["the last that was there".to_owned(), format!("dropped {}", 151 - got)]);
}

#[test]
fn a_following_client_gets_new_lines_until_it_disconnects() {
    let mut world = World::new();
    world.push(0, "before");
    let (mut client, mut theirs) =
        world.client(LogsQuery { names: vec!["web".to_owned()], lines: Some(0), follow: true, ..LogsQuery::default() });
    assert!(world.send_lines(&mut client));
    world.push(2, "another's");
    world.push(0, "now");
    assert!(world.send_lines(&mut client));
    let mut buffer = [0; 1_024];
    let count = theirs.read(&mut buffer).unwrap();
    assert_eq!(messages(str::from_utf8(&buffer[..count]).unwrap()), ["now"]);
    assert!(client.check_connected(&world.poller));
    drop(theirs);
    assert!(!client.check_connected(&world.poller));
    world.push(0, "to nobody");
    assert!(!world.send_lines(&mut client));
}

#[test]
fn a_client_is_disconnected_after_the_timeout_if_it_reads_nothing_and_at_once_if_it_sends() {
    let mut world = World::new();
    let (mut client, mut theirs) = world.client(LogsQuery { follow: true, ..LogsQuery::default() });
    for _ in 0..200 {
        world.push(0, &"x".repeat(16_000));
    }
    assert!(world.pump_at(&mut client, 5) && world.pump_at(&mut client, 14));
    assert_eq!(client.deadline(), Some(Mono::from_nanos(15_000_000_000)));
    assert!(theirs.read(&mut vec![0; 100_000]).unwrap() > 0);
    assert!(world.pump_at(&mut client, 15), "it has taken something");
    assert!(world.pump_at(&mut client, 24) && !world.pump_at(&mut client, 25));
    let (mut client, mut theirs) = world.client(LogsQuery { follow: true, ..LogsQuery::default() });
    assert!(client.check_connected(&world.poller));
    std::io::Write::write_all(&mut theirs, b"hello?").unwrap();
    assert!(!client.check_connected(&world.poller));
}

#[test]
fn a_client_that_has_shut_down_its_half_gets_the_remaining_lines() {
    let mut world = World::new();
    for _ in 0..100 {
        world.push(0, &"x".repeat(16_000));
    }
    for follow in [false, true] {
        let (mut client, mut theirs) = world.client(LogsQuery { follow, ..LogsQuery::default() });
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut text = Vec::new();
        for _ in 0..100 {
            let goes_on = client.check_connected(&world.poller) && world.send_lines(&mut client);
            theirs.read_to_end(&mut text).ok();
            if !goes_on {
                break;
            }
        }
        assert_eq!(messages(str::from_utf8(&text).unwrap()).len(), 100);
        let is_quiet = world.poller.wait(Some(Duration::ZERO)).unwrap().is_empty();
        assert!(is_quiet, "the same end is reported only once");
        drop(theirs);
        assert_eq!(world.poller.wait(Some(Duration::ZERO)).unwrap().len(), 1);
        assert!(!client.check_connected(&world.poller));
    }
    let (mut guest, theirs) = world.client(LogsQuery { follow: true, is_guest: true, ..LogsQuery::default() });
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(!guest.check_connected(&world.poller));
}

#[test]
fn a_slow_client_gets_the_number_of_missed_lines() {
    let mut world = World::new();
    let (mut client, mut theirs) = world.client(LogsQuery { follow: true, ..LogsQuery::default() });
    let long = "x".repeat(16_000);
    for _ in 0..2_000 {
        world.push(0, &long);
        assert!(world.send_lines(&mut client), "it is not waited for, and not thrown out");
    }
    world.push(KEEPALIVE_KEY, "the end");
    theirs.set_nonblocking(true).unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\"the end\",\"partial\":false,\"level\":\"error\"}\n") {
        theirs.read_to_end(&mut text).ok();
        assert!(world.send_lines(&mut client));
    }
    let messages = messages(str::from_utf8(&text).unwrap());
    let lost: Vec<u64> = messages.iter().filter_map(|line| line.strip_prefix("dropped ")?.parse().ok()).collect();
    let got = messages.iter().filter(|line| **line == long).count() as u64;
    assert_eq!((lost.len(), lost.iter().sum::<u64>() + got), (1, 2_000));
    assert!(got > 100 && lost[0] > 1_000, "{got} lines, {lost:?} lost");
}
