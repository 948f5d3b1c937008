//! Somebody who reads the log over the control socket: `GET /v1/logs`, answered here. A slow one loses lines, is told
//! how many, and holds up nobody.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::Names;
use super::ring::{Cursor, Next, OWN, Ring};
use crate::logs::line::{OWN_NAME, Piece, Stamp, write_own_json};
use crate::logs::message::LogsQuery;
use crate::sys::Poller;
use crate::sys::pipe::{receive_now, send_now};
use crate::sys::poll::Interest;

/// So many at a time.
pub(super) const CLIENTS_AT_MOST: usize = 16;
/// What is got ready for one at once.
const ENOUGH: usize = 64 << 10;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nCache-Control: no-store\r\n\
    Connection: close\r\n\r\n";
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Connection: close\r\n\r\n{\"result\":\"refused\",\"reason\":\"too many read the log already\"}\n";

#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    token: u64,
    query: LogsQuery,
    cursor: Cursor,
    /// So many lines that are asked for come before the last ones that are wanted.
    skip: usize,
    /// There were so many lines when it came: without `follow` that is all.
    until: u64,
    buffer: Vec<u8>,
    sent: usize,
    waits_for_room: bool,
}

/// Tells one too many that it is.
pub(super) fn refuse(socket: &OwnedFd) {
    // Whoever does not take so little has gone.
    send_now(socket, TOO_MANY).ok();
}

impl Client {
    pub(super) fn new(socket: OwnedFd, token: u64, query: LogsQuery, ring: &Ring, names: &Names) -> Self {
        let mut client = Self {
            socket,
            token,
            query,
            cursor: ring.begin(),
            skip: 0,
            until: ring.lines(),
            buffer: HEAD.to_vec(),
            sent: 0,
            waits_for_room: false,
        };
        if let Some(lines) = client.query.lines {
            let (mut cursor, mut known) = (client.cursor, 0_usize);
            while let Next::Line(meta, _) = ring.next(&mut cursor) {
                known += usize::from(client.wants(meta.key, names));
            }
            client.skip = known.saturating_sub(lines);
        }
        client
    }

    pub(super) const fn token(&self) -> u64 {
        self.token
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it is still there: what it says is of no interest.
    pub(super) fn listens(&self) -> bool {
        !matches!(receive_now(&self.socket, &mut [0; 512]), Ok(0) | Err(Errno::ECONNRESET | Errno::EPIPE))
    }

    /// Sends what there is, as far as it is taken. Whether it goes on.
    pub(super) fn pump(&mut self, ring: &Ring, names: &Names, poller: &Poller) -> bool {
        loop {
            let is_done = self.fill(ring, names);
            if self.buffer.is_empty() {
                return !is_done;
            }
            match self.send() {
                Ok(true) => {}
                Ok(false) => {
                    if !self.waits_for_room {
                        self.waits_for_room = true;
                        poller.rewatch(&self.socket, Interest::Both, self.token).ok();
                    }
                    return true;
                }
                Err(_) => return false,
            }
            if self.waits_for_room {
                self.waits_for_room = false;
                poller.rewatch(&self.socket, Interest::Read, self.token).ok();
            }
        }
    }

    /// Whether everything has been sent.
    fn send(&mut self) -> Result<bool, Errno> {
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send_now(&self.socket, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Gets the next lines ready; whether there will be no more.
    fn fill(&mut self, ring: &Ring, names: &Names) -> bool {
        while self.buffer.len() < ENOUGH {
            if !self.query.follow && self.cursor.line() >= self.until {
                return true;
            }
            match ring.next(&mut self.cursor) {
                Next::End => return !self.query.follow,
                Next::Lost(lost) => {
                    self.skip = self.skip.saturating_sub(usize::try_from(lost).unwrap_or(usize::MAX));
                    self.buffer.extend_from_slice(format!("{{\"lost\":{lost}}}\n").as_bytes());
                }
                Next::Line(meta, text) => {
                    if !self.wants(meta.key, names) {
                        continue;
                    }
                    if self.skip > 0 {
                        self.skip -= 1;
                        continue;
                    }
                    let stamp = Stamp::at(meta.milliseconds);
                    if meta.key == OWN {
                        let level = log::Level::iter().nth(usize::from(meta.mark)).unwrap_or(log::Level::Info);
                        write_own_json(&stamp, level, &String::from_utf8_lossy(text), &mut self.buffer);
                    } else if let Some(name) = names.get(&meta.key) {
                        let piece = if meta.mark == 0 { Piece::Whole } else { Piece::Cut };
                        name.label.write_json(&stamp, text, piece, &mut self.buffer);
                    }
                }
            }
        }
        false
    }

    fn wants(&self, key: u64, names: &Names) -> bool {
        let wanted = &self.query.names;
        if wanted.is_empty() {
            return true;
        }
        if key == OWN {
            return wanted.iter().any(|name| name == OWN_NAME);
        }
        names.get(&key).is_some_and(|known| wanted.iter().any(|name| *name == known.service || *name == known.instance))
    }
}
