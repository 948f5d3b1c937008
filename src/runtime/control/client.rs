//! One connection: what has come in, what is still to go out, and how long that may take.

use std::fmt::Display;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::answer::{self, Answer};
use super::body::StreamingBody;
use super::snapshot::StatusSnapshot;
use crate::model::Mono;
use crate::runtime::json::push;
use crate::supervisor::Request;
use crate::sys::{Interest, socket};

/// A request line with its headers is no longer.
const MAX_HEAD_LENGTH: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// A request has to be complete, and every piece of an answer taken, within this time.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of what nobody wants to know is read.
const MAX_DISCARDED_BYTES: usize = 256 << 10;
/// After the answer, so long is waited for the client to close: data that it has sent and nobody has read would make
/// the kernel throw the answer away.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a client has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// The control socket: whoever is allowed to connect may do everything.
    Control,
    /// Read-only HTTP.
    Http,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) fd: OwnedFd,
    pub(super) listener: Listener,
    pub(super) stage: Stage,
    /// When it is given up, or a request that it waits for is.
    pub(super) deadline: Option<Mono>,
    pub(super) interest: Interest,
    /// It is not to be here, and this is to be said to it.
    pub(super) refusal: Option<(u16, String)>,
    /// It has asked for the head of the answer alone.
    pub(super) wants_head: bool,
    out: Vec<u8>,
    sent: usize,
    /// There is more to be read than the request.
    lingers: bool,
    /// So much of it has been.
    discarded: usize,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The request is not complete.
    Reading(Vec<u8>),
    /// It is being found out what the instances use.
    Measuring(StreamingBody),
    /// Until something is done, for so long at most.
    Awaiting(Request, Duration),
    /// What is to go out, and whether there will be more of it.
    Sending(Option<StreamingBody>),
    /// All events up to this one have been sent; the next ones follow as they come.
    Following(u64),
    /// Everything has been sent.
    Closing,
    /// It is the logger's.
    HandedOver,
}

/// A complete request.
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
}

/// What has come in.
pub(super) enum Incoming {
    /// Not all of it.
    Part,
    Request(Head),
    /// Not to be understood.
    Malformed(u16, &'static str),
    /// The client has closed.
    Closed,
}

/// Whether all could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    None,
}

/// What is to become of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionFate {
    Stays,
    /// It has got its answer, or has gone.
    Over,
}

impl Client {
    pub(super) fn new(fd: OwnedFd, listener: Listener, now: Mono) -> Self {
        Self {
            fd,
            listener,
            stage: Stage::Reading(Vec::new()),
            deadline: Some(now + CLIENT_TIMEOUT),
            interest: Interest::Input,
            refusal: None,
            wants_head: false,
            out: Vec::new(),
            sent: 0,
            lingers: false,
            discarded: 0,
        }
    }

    /// Takes in more of the request.
    pub(super) fn read(&mut self) -> Incoming {
        let mut buffer = [0; 4 << 10];
        let Stage::Reading(head) = &mut self.stage else { return Incoming::Part };
        let length = match socket::receive(self.fd.as_fd(), &mut buffer) {
            Ok(0) => return Incoming::Closed,
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Incoming::Part,
            Err(_) => return Incoming::Closed,
        };
        head.extend(buffer.iter().take(length));
        let incoming = parse(head);
        match &incoming {
            Incoming::Request(_) if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") => {
                self.lingers = has_body(head);
            }
            Incoming::Request(_) | Incoming::Malformed(..) => self.lingers = true,
            Incoming::Part | Incoming::Closed => {}
        }
        incoming
    }

    /// From now on this is to be sent.
    pub(super) fn answer(&mut self, answer: Answer, now: Mono) {
        self.answer_with(answer, "", now);
    }

    /// The same, with more lines in the head.
    pub(super) fn answer_with(&mut self, answer: Answer, extra: &str, now: Mono) {
        let length = answer.body.len();
        self.out = head(answer.status, "application/json", Some(length), extra);
        self.out.extend(answer.body);
        self.begin(None, now);
    }

    /// From now on this document is to be sent.
    pub(super) fn document(&mut self, content_type: &str, extra: &str, body: &[u8], now: Mono) {
        self.out = head(200, content_type, Some(body.len()), extra);
        self.out.extend(body);
        self.begin(None, now);
    }

    /// From now on `body` is to be sent.
    pub(super) fn stream(&mut self, mut body: StreamingBody, snapshot: &StatusSnapshot<'_>) {
        let mut piece = Vec::new();
        let is_all = body.go_on(snapshot, &mut piece);
        let length = is_all.then_some(piece.len());
        self.out = head(200, body.content_type(), length, "");
        self.out.extend(piece);
        self.begin((!is_all).then_some(body), snapshot.now);
    }

    /// From now on the events are to be sent, and those to come.
    pub(super) fn follow(&mut self, now: Mono) {
        self.out = head(200, "application/x-ndjson", None, "");
        self.begin(None, now);
        if !self.wants_head {
            self.stage = Stage::Following(0);
        }
    }

    /// Says why it is not to be here, if so.
    pub(super) fn say_refusal(&mut self, now: Mono) -> bool {
        let Some((status, reason)) = self.refusal.take() else { return false };
        let result = if status == 403 { "forbidden" } else { "refused" };
        self.answer(answer::plain(status, result, &reason), now);
        true
    }

    /// The same, without having heard what it wants, as far as it can be said at once.
    pub(super) fn refuse_at_once(mut self, snapshot: &StatusSnapshot<'_>) {
        if self.say_refusal(snapshot.now) {
            self.drain_input();
            self.send(snapshot);
        }
    }

    fn begin(&mut self, rest: Option<StreamingBody>, now: Mono) {
        if self.wants_head {
            let end = self.out.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |position| position + 4);
            self.out.truncate(end);
        }
        self.stage = Stage::Sending(rest.filter(|_| !self.wants_head));
        self.sent = 0;
        self.deadline = Some(now + CLIENT_TIMEOUT);
        self.interest = Interest::Output;
    }

    /// Sends what there is room for, and makes the next piece when all has gone.
    pub(super) fn send(&mut self, snapshot: &StatusSnapshot<'_>) -> ConnectionFate {
        match self.transmit() {
            Ok(Room::Enough) => {
                self.deadline = Some(snapshot.now + CLIENT_TIMEOUT);
                self.after_sending(snapshot)
            }
            Ok(Room::None) => {
                self.interest = Interest::Output;
                ConnectionFate::Stays
            }
            Err(_) => ConnectionFate::Over,
        }
    }

    /// Sends all that there is, as far as there is room for it now.
    pub(super) fn flush(&mut self, snapshot: &StatusSnapshot<'_>) {
        while self.transmit() == Ok(Room::Enough)
            && self.after_sending(snapshot) == ConnectionFate::Stays
            && !self.out.is_empty()
        {}
    }

    fn transmit(&mut self) -> Result<Room, Errno> {
        while self.sent < self.out.len() {
            match socket::send(self.fd.as_fd(), self.out.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Room::None),
                Err(errno) => return Err(errno),
            }
        }
        (self.out, self.sent) = (Vec::new(), 0);
        Ok(Room::Enough)
    }

    /// A piece has gone out: makes the next one, which goes with the next turn.
    fn after_sending(&mut self, snapshot: &StatusSnapshot<'_>) -> ConnectionFate {
        match &mut self.stage {
            Stage::Sending(Some(body)) => {
                if body.go_on(snapshot, &mut self.out) {
                    self.stage = Stage::Sending(None);
                }
                self.interest = Interest::Output;
                ConnectionFate::Stays
            }
            Stage::Following(after) => {
                let mut body = StreamingBody::Events { after: *after };
                body.go_on(snapshot, &mut self.out);
                if let StreamingBody::Events { after: reached } = body {
                    *after = reached;
                }
                let is_idle = self.out.is_empty();
                self.interest = if is_idle { Interest::Input } else { Interest::Output };
                if is_idle {
                    self.deadline = None;
                }
                ConnectionFate::Stays
            }
            Stage::Sending(None) if self.lingers => {
                socket::shutdown_write(self.fd.as_fd());
                self.stage = Stage::Closing;
                self.deadline = Some(snapshot.now + CLOSE_TIMEOUT);
                self.interest = Interest::Input;
                ConnectionFate::Stays
            }
            Stage::Sending(None)
            | Stage::Reading(_)
            | Stage::Measuring(_)
            | Stage::Awaiting(..)
            | Stage::Closing
            | Stage::HandedOver => ConnectionFate::Over,
        }
    }

    /// Reads what nobody wants to know, up to a limit, until the client has closed.
    pub(super) fn drain_input(&mut self) -> ConnectionFate {
        let mut buffer = [0; 4 << 10];
        match socket::receive(self.fd.as_fd(), &mut buffer) {
            Ok(length @ 1..) if self.discarded < MAX_DISCARDED_BYTES => {
                self.discarded += length;
                ConnectionFate::Stays
            }
            Err(Errno::EAGAIN | Errno::EINTR) => ConnectionFate::Stays,
            Ok(_) | Err(_) => ConnectionFate::Over,
        }
    }

    /// Something has come from somebody who only follows: more than the request is nonsense, and the end of what it says
    /// is the end of it, on a socket that tells when the other side is closed as well.
    pub(super) fn listen(&mut self) -> ConnectionFate {
        let mut buffer = [0; 16];
        match socket::receive(self.fd.as_fd(), &mut buffer) {
            Ok(0) if self.listener == Listener::Control && self.interest == Interest::Input => {
                self.interest = Interest::Nothing;
                ConnectionFate::Stays
            }
            Err(Errno::EAGAIN | Errno::EINTR) => ConnectionFate::Stays,
            Ok(_) | Err(_) => ConnectionFate::Over,
        }
    }
}

fn parse(head: &[u8]) -> Incoming {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some(method), Some(target)) => {
                Incoming::Request(Head { method: method.to_owned(), target: target.to_owned() })
            }
            _ => Incoming::Malformed(400, "not an HTTP request"),
        },
        Ok(httparse::Status::Partial) if head.len() > MAX_HEAD_LENGTH => {
            Incoming::Malformed(431, "the request is longer than 8 KiB")
        }
        Ok(httparse::Status::Partial) => Incoming::Part,
        Err(httparse::Error::TooManyHeaders) => Incoming::Malformed(431, "the request has more than 64 headers"),
        Err(_) => Incoming::Malformed(400, "not an HTTP request"),
    }
}

/// Whether something comes after the head; if in doubt, it does.
fn has_body(head: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok();
    request.headers.iter().any(|header| {
        let names_length = header.name.eq_ignore_ascii_case("content-length");
        header.name.eq_ignore_ascii_case("transfer-encoding") || (names_length && header.value != b"0")
    })
}

fn head(status: u16, content_type: &str, length: Option<usize>, extra: &str) -> Vec<u8> {
    let mut head = Vec::new();
    push(&mut head, format_args!("HTTP/1.1 {status} {}\r\n", phrase(status)));
    let mut line = |name: &str, value: &dyn Display| push(&mut head, format_args!("{name}: {value}\r\n"));
    line("Content-Type", &content_type);
    if let Some(length) = length {
        line("Content-Length", &length);
    }
    line("Cache-Control", &"no-store");
    line("Connection", &"close");
    push(&mut head, format_args!("{extra}\r\n"));
    head
}

const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}
