//! A client of `GET /v1/logs`, which the logger answers. A slow client loses lines, learns how many, and holds up nobody.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::names::Names;
use super::ring::{Cursor, KEEPALIVE_KEY, LineMeta, Next, Ring};
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
            matching += usize::from(self.wants(meta, names));
        }
        let mut skip = matching.saturating_sub(lines);
        cursor = start_cursor;
        while skip > 0
            && let Next::Line(meta, _) = ring.next(&mut cursor)
        {
            skip -= usize::from(self.wants(meta, names));
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
                    if !self.wants(meta, names) {
                        continue;
                    }
                    let stamp = Timestamp::at(meta.milliseconds);
                    if meta.key == KEEPALIVE_KEY {
                        let level = log::Level::iter().nth(usize::from(meta.mark)).unwrap_or(log::Level::Info);
                        write_message_json(&stamp, level, &String::from_utf8_lossy(text), &mut self.buffer);
                    } else if let Some(name) = names.get(&meta.source()) {
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

    fn wants(&self, meta: LineMeta, names: &Names) -> bool {
        if meta.milliseconds < self.query.since {
            return false;
        }
        let wanted = &self.query.names;
        if wanted.is_empty() {
            return true;
        }
        if meta.key == KEEPALIVE_KEY {
            return wanted.iter().any(|name| name == KEEPALIVE_NAME);
        }
        // `web.2` has the lines of its hooks too.
        let is_of = |instance: &str, name: &str| {
            instance.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        names.get(&meta.source()).is_some_and(|matching| {
            wanted.iter().any(|name| *name == matching.service || is_of(&matching.instance, name))
        })
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
