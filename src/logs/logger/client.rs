//! A client of `GET /v1/logs`, which the logger answers. A slow client loses lines, learns how many, and holds up nobody.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::names::Names;
use super::ring::{Cursor, KEEPALIVE_KEY, Next, Ring};
use crate::logs::line::{KEEPALIVE_NAME, Piece, write_message_json};
use crate::logs::protocol::LogsQuery;
use crate::logs::timestamp::Timestamp;
use crate::model::Mono;
use crate::sys::Poller;
use crate::sys::poll::Interest;
use crate::sys::socket::{receive, send};

/// The limit for all clients: each may have [`FIRST_SEND_BUFFER_BYTES`] in memory.
pub(super) const MAX_CLIENTS: usize = 16;
/// The limit for guests, below [`MAX_CLIENTS`]: the control socket has room left for operators.
pub(super) const MAX_GUESTS: usize = 10;
/// A client that takes nothing for so long is disconnected.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How much is prepared for a client at once.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// How much of the past lines is prepared when a client connects, since new lines cannot evict what is prepared.
const FIRST_SEND_BUFFER_BYTES: usize = 1 << 20;

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nCache-Control: no-store\r\n\
    Connection: close\r\n\r\n";
const RESPONSE_TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Connection: close\r\n\r\n{\"result\":\"refused\",\"reason\":\"too many clients read the log\"}\n";

#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    token: u64,
    query: LogsQuery,
    cursor: Cursor,
    /// How many lines had been pushed when the client connected: without `follow` it gets no later ones.
    until: u64,
    /// How many of these have not been prepared for it yet.
    missing: u64,
    buffer: Vec<u8>,
    sent: usize,
    waits_for_room: bool,
    /// The client has closed its half of the connection, and may still read.
    has_shut_down: bool,
    /// When the client is disconnected, unless it takes something before.
    deadline: Option<Mono>,
}

/// Answers a client that is one too many.
pub(super) fn reject(socket: &OwnedFd) {
    // A client that does not take so little has gone.
    send(socket, RESPONSE_TOO_MANY).ok();
}

impl Client {
    pub(super) fn new(socket: OwnedFd, token: u64, query: LogsQuery, ring: &Ring, names: &Names) -> Self {
        let mut client = Self {
            socket,
            token,
            query,
            cursor: ring.start_cursor(),
            until: ring.lines(),
            missing: 0,
            buffer: RESPONSE_HEAD.to_vec(),
            sent: 0,
            waits_for_room: false,
            has_shut_down: false,
            deadline: None,
        };
        if let Some(lines) = client.query.lines {
            client.cursor = client.find_last(lines, ring, names);
        }
        client.missing = ring.lines_after(&client.cursor);
        client.fill(FIRST_SEND_BUFFER_BYTES, ring, names);
        client
    }

    /// The position before the last `lines` lines that the query selects.
    fn find_last(&self, lines: usize, ring: &Ring, names: &Names) -> Cursor {
        let start_cursor = ring.start_cursor();
        let (mut cursor, mut matching) = (start_cursor, 0_usize);
        while let Next::Line(meta, _) = ring.next(&mut cursor) {
            matching += usize::from(self.wants(meta.key, names));
        }
        let mut skip = matching.saturating_sub(lines);
        cursor = start_cursor;
        while skip > 0
            && let Next::Line(meta, _) = ring.next(&mut cursor)
        {
            skip -= usize::from(self.wants(meta.key, names));
        }
        cursor
    }

    pub(super) const fn token(&self) -> u64 {
        self.token
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Returns whether the client is still connected. One that sends anything after its request is disconnected too.
    pub(super) fn check_connected(&mut self, poller: &Poller) -> bool {
        match receive(&self.socket, &mut [0; 16]) {
            Ok(0) => {}
            result => return matches!(result, Err(Errno::EAGAIN | Errno::EINTR)),
        }
        // Over TCP, a client that has gone is not noticed otherwise before there is something to send.
        if self.query.follow && self.query.is_guest {
            return false;
        }
        self.has_shut_down = true;
        self.update_interest(poller);
        // Sending nothing fails on a Unix socket whose other end is closed.
        send(&self.socket, &[]).is_ok()
    }

    fn update_interest(&self, poller: &Poller) {
        let interest = match (self.has_shut_down, self.waits_for_room) {
            (false, false) => Interest::Input,
            (false, true) => Interest::Either,
            (true, false) => Interest::Nothing,
            (true, true) => Interest::Output,
        };
        poller.modify(&self.socket, self.token, interest).ok();
    }

    pub(super) const fn is_guest(&self) -> bool {
        self.query.is_guest
    }

    /// When the client is disconnected, unless it takes something before.
    pub(super) const fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// Sends what the client takes. Returns whether it stays.
    pub(super) fn send_lines(&mut self, ring: &Ring, names: &Names, poller: &Poller, now: Mono) -> bool {
        loop {
            let is_done = self.fill(SEND_BUFFER_BYTES, ring, names);
            if self.buffer.is_empty() {
                return !is_done;
            }
            let before = self.sent;
            match self.send() {
                Ok(true) => self.deadline = None,
                Ok(false) => {
                    if self.sent > before || self.deadline.is_none() {
                        self.deadline = Some(now + SEND_TIMEOUT);
                    }
                    if self.deadline.is_some_and(|deadline| deadline <= now) {
                        return false;
                    }
                    if !self.waits_for_room {
                        self.waits_for_room = true;
                        self.update_interest(poller);
                    }
                    return true;
                }
                Err(_) => return false,
            }
            if self.waits_for_room {
                self.waits_for_room = false;
                self.update_interest(poller);
            }
        }
    }

    /// Returns whether everything that is prepared has been sent.
    fn send(&mut self) -> Result<bool, Errno> {
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(2 * SEND_BUFFER_BYTES);
        self.sent = 0;
        Ok(true)
    }

    /// Prepares about `limit` bytes of lines. Returns whether that was the last of them.
    fn fill(&mut self, limit: usize, ring: &Ring, names: &Names) -> bool {
        while self.buffer.len() < limit {
            match ring.next(&mut self.cursor) {
                Next::End => return !self.query.follow && self.report_missing(),
                Next::Lost(lost) if self.query.follow => self.report_lost(lost),
                Next::Lost(_) => {}
                Next::Line(..) if !self.query.follow && self.cursor.line() > self.until => {
                    return self.report_missing();
                }
                Next::Line(meta, text) => {
                    self.missing = self.missing.saturating_sub(1);
                    if !self.wants(meta.key, names) {
                        continue;
                    }
                    let stamp = Timestamp::at(meta.milliseconds);
                    if meta.key == KEEPALIVE_KEY {
                        let level = log::Level::iter().nth(usize::from(meta.mark)).unwrap_or(log::Level::Info);
                        write_message_json(&stamp, level, &String::from_utf8_lossy(text), &mut self.buffer);
                    } else if let Some(name) = names.get(&meta.key) {
                        let piece = if meta.mark == 0 { Piece::Whole } else { Piece::Partial };
                        name.label.write_json(&stamp, text, piece, &mut self.buffer);
                    }
                }
            }
        }
        false
    }

    /// Reports past lines that were evicted before they could be prepared, once. Returns true.
    fn report_missing(&mut self) -> bool {
        let missing = std::mem::take(&mut self.missing);
        if missing > 0 {
            self.report_lost(missing);
        }
        true
    }

    fn report_lost(&mut self, lost: u64) {
        self.buffer.extend_from_slice(format!("{{\"dropped\":{lost}}}\n").as_bytes());
    }

    fn wants(&self, key: u64, names: &Names) -> bool {
        let wanted = &self.query.names;
        if wanted.is_empty() {
            return true;
        }
        if key == KEEPALIVE_KEY {
            return wanted.iter().any(|name| name == KEEPALIVE_NAME);
        }
        names
            .get(&key)
            .is_some_and(|matching| wanted.iter().any(|name| *name == matching.service || *name == matching.instance))
    }
}

#[cfg(test)]
mod tests {
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
                let label = Label::new(service, 0, Stream::Stdout, 0, None);
                names.insert(key, Name { service: service.to_owned(), instance: format!("{service}.0"), label });
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
        for (key, text) in [(0, "w1"), (2, "d1"), (KEEPALIVE_KEY, "k1"), (0, "w2"), (KEEPALIVE_KEY, "k2"), (2, "d2")] {
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
            world.client(LogsQuery { names: vec!["web".to_owned()], lines: Some(0), follow: true, is_guest: false });
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
}
