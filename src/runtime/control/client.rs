//! One connection: reads the request, sends the answer, within time limits.

use std::fmt::Display;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;

use super::answer::{self, Answer};
use super::body::StreamingBody;
use super::request::{Head, PartialRequest, Progress, Surplus};
use super::snapshot::StatusSnapshot;
use crate::model::json::push;
use crate::model::{InstanceId, Mono};
use crate::supervisor::{Refusal, Request};
use crate::sys::peer_stream::Input;
use crate::sys::{Interest, PeerStream, process, socket};

/// The time limit for the request, and for each piece of the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of bytes that are read and discarded after a request.
const MAX_DISCARDED: usize = 256 << 10;
/// How long a client has to close the connection after the answer. With unread data, closing it at once would discard the
/// answer.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The listening socket that a client has connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// The control socket: all requests are permitted.
    Control,
    /// The HTTP port: read-only.
    Http,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) fd: PeerStream,
    pub(super) listener: Listener,
    /// The address that it has connected from, over TCP.
    pub(super) peer: Option<IpAddr>,
    pub(super) stage: Stage,
    /// The deadline of the current stage.
    pub(super) deadline: Option<Mono>,
    pub(super) interest: Interest,
    /// When the client has last sent or taken something, or has connected.
    pub(super) last_progress: Mono,
    /// The client was rejected, and does not count towards the limit of clients.
    pub(super) is_rejected: bool,
    /// The status and reason of the rejection, until they have been sent.
    pub(super) refusal: Option<(u16, String)>,
    /// Warnings of the configuration that it loads, one on each line, or what it leaves alone: for the answer.
    pub(super) warnings: String,
    /// The request method is HEAD.
    pub(super) is_head_request: bool,
    out: Vec<u8>,
    sent: usize,
    /// The client may have sent more than the request.
    has_unread_input: bool,
    /// The number of bytes of it that have been discarded.
    discarded: usize,
}

/// The stage of a connection.
#[derive(Debug)]
pub(super) enum Stage {
    /// The request is not complete.
    Reading(PartialRequest),
    /// The usage of the instances is being measured for this body.
    Measuring(StreamingBody),
    /// The supervisor performs the request, which has this timeout.
    Awaiting(Request, Duration),
    /// The request has failed because processes of these instances have. Waits for their last lines, or who uses their addresses.
    Failed(Request, Refusal, Vec<InstanceId>),
    /// The answer is being sent; then the rest of the body, if any.
    Sending(Option<StreamingBody>),
    /// All events up to this one have been sent; the next ones follow as they come.
    Following(u64),
    /// The answer has been sent. Waits for the client to close.
    Closing,
    /// The logger has the connection.
    HandedOver,
}

/// The result of reading from a client.
pub(super) enum Incoming {
    Incomplete,
    Request(Head),
    /// The status and reason of the refusal.
    Malformed(u16, &'static str),
    /// The client has sent descriptors.
    Descriptors,
    /// The client has closed.
    Closed,
}

/// How much has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    Part,
}

/// Whether a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionFate {
    Keep,
    Close,
}

impl Client {
    pub(super) fn new(fd: PeerStream, listener: Listener, now: Mono) -> Self {
        Self {
            peer: socket::peer_address(fd.as_fd()),
            fd,
            listener,
            stage: Stage::Reading(PartialRequest::new()),
            deadline: Some(now + CLIENT_TIMEOUT),
            interest: Interest::Input,
            last_progress: now,
            is_rejected: false,
            refusal: None,
            warnings: String::new(),
            is_head_request: false,
            out: Vec::new(),
            sent: 0,
            has_unread_input: false,
            discarded: 0,
        }
    }

    /// The user of a client that is not permitted to use the control socket.
    pub(super) fn unauthorized_uid(&self) -> Option<String> {
        if self.listener == Listener::Http {
            return None;
        }
        match socket::peer_uid(self.fd.as_fd()) {
            Some(uid) if uid == 0 || uid == process::effective_user() => None,
            Some(uid) => Some(uid.to_string()),
            None => Some("unknown".to_owned()),
        }
    }

    /// Whether it makes room for another client if there are too many. One for which the supervisor does something does not,
    /// nor one that follows events: these have a limit of their own.
    pub(super) const fn can_make_room(&self) -> bool {
        let is_replaceable =
            matches!(self.stage, Stage::Reading(_) | Stage::Measuring(_) | Stage::Sending(_) | Stage::Closing);
        is_replaceable && !self.is_rejected
    }

    /// Whether it waits for keepalive, and not keepalive for it.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Measuring(_))
    }

    /// Reads more of the request.
    pub(super) fn read(&mut self, now: Mono) -> Incoming {
        let mut buffer = [0; 4 << 10];
        let Stage::Reading(request) = &mut self.stage else { return Incoming::Incomplete };
        let length = match self.fd.receive(&mut buffer) {
            Ok(Input::Bytes(length)) => length,
            Ok(Input::End) => return Incoming::Closed,
            Ok(Input::Descriptors(_)) => return Incoming::Descriptors,
            Err(Errno::EAGAIN | Errno::EINTR) => return Incoming::Incomplete,
            Err(_) => return Incoming::Closed,
        };
        self.last_progress = now;
        match request.add(buffer.get(..length).unwrap_or_default()) {
            Progress::Incomplete => Incoming::Incomplete,
            Progress::AwaitsContinue => {
                // It fits: nothing has been sent before. A client that does not get it sends the body after a while.
                socket::send(self.fd.as_fd(), b"HTTP/1.1 100 Continue\r\n\r\n").ok();
                Incoming::Incomplete
            }
            Progress::Complete(head, surplus) => {
                self.has_unread_input = surplus == Surplus::Yes;
                Incoming::Request(head)
            }
            Progress::Malformed(status, reason) => {
                self.has_unread_input = true;
                Incoming::Malformed(status, reason)
            }
        }
    }

    /// Starts to send an answer.
    pub(super) fn answer(&mut self, answer: Answer, now: Mono) {
        self.answer_with(answer, "", now);
    }

    /// Starts to send an answer with additional headers.
    pub(super) fn answer_with(&mut self, answer: Answer, extra: &str, now: Mono) {
        let length = answer.body.len();
        self.out = head(answer.status, "application/json", Some(length), extra);
        self.out.extend(answer.body);
        self.begin(None, now);
    }

    /// Starts to send a document.
    pub(super) fn document(&mut self, content_type: &str, extra: &str, body: &[u8], now: Mono) {
        self.out = head(200, content_type, Some(body.len()), extra);
        self.out.extend(body);
        self.begin(None, now);
    }

    /// Starts to send `body`.
    pub(super) fn stream(&mut self, mut body: StreamingBody, snapshot: &StatusSnapshot<'_>) {
        let mut piece = Vec::new();
        let is_all = body.advance(snapshot, &mut piece);
        let length = is_all.then_some(piece.len());
        self.out = head(200, body.content_type(), length, "");
        self.out.extend(piece);
        self.begin((!is_all).then_some(body), snapshot.now);
    }

    /// Starts to send the events after this number, and continues with new ones.
    pub(super) fn follow(&mut self, after: u64, now: Mono) {
        self.out = head(200, "application/x-ndjson", None, "");
        self.begin(None, now);
        if !self.is_head_request {
            self.stage = Stage::Following(after);
        }
    }

    /// Starts to send the refusal, if the client is rejected. Returns whether it is.
    pub(super) fn answer_with_refusal(&mut self, now: Mono) -> bool {
        let Some((status, reason)) = self.refusal.take() else { return false };
        let result = if status == 403 { "forbidden" } else { "refused" };
        self.answer(answer::plain(status, result, &reason), now);
        true
    }

    /// Sends the refusal before the request is complete, as far as possible without waiting.
    pub(super) fn refuse_at_once(mut self, snapshot: &StatusSnapshot<'_>) {
        if self.answer_with_refusal(snapshot.now) {
            self.drain_input();
            self.send(snapshot);
        }
    }

    fn begin(&mut self, rest: Option<StreamingBody>, now: Mono) {
        if self.is_head_request {
            let end = self.out.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |position| position + 4);
            self.out.truncate(end);
        }
        self.stage = Stage::Sending(rest.filter(|_| !self.is_head_request));
        self.sent = 0;
        self.deadline = Some(now + CLIENT_TIMEOUT);
        self.interest = Interest::Output;
    }

    /// Sends as much as possible, then prepares the next piece.
    pub(super) fn send(&mut self, snapshot: &StatusSnapshot<'_>) -> ConnectionFate {
        match self.transmit(snapshot.now) {
            Ok(Sent::All) => {
                self.deadline = Some(snapshot.now + CLIENT_TIMEOUT);
                self.after_sending(snapshot)
            }
            Ok(Sent::Part) => {
                self.interest = Interest::Output;
                ConnectionFate::Keep
            }
            Err(_) => ConnectionFate::Close,
        }
    }

    /// There is something to send when the connection takes it: the time for that begins now.
    pub(super) fn expect_output(&mut self, now: Mono) {
        self.interest = Interest::Output;
        self.deadline.get_or_insert(now + CLIENT_TIMEOUT);
    }

    /// Sends everything that can be sent without waiting.
    pub(super) fn flush(&mut self, snapshot: &StatusSnapshot<'_>) {
        while self.transmit(snapshot.now) == Ok(Sent::All)
            && self.after_sending(snapshot) == ConnectionFate::Keep
            && !self.out.is_empty()
        {}
    }

    fn transmit(&mut self, now: Mono) -> Result<Sent, Errno> {
        while self.sent < self.out.len() {
            match socket::send(self.fd.as_fd(), self.out.get(self.sent..).unwrap_or_default()) {
                Ok(count) => {
                    self.sent += count;
                    self.last_progress = now;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Sent::Part),
                Err(errno) => return Err(errno),
            }
        }
        (self.out, self.sent) = (Vec::new(), 0);
        Ok(Sent::All)
    }

    /// A piece has been sent: prepares the next one, which is sent in the next turn.
    fn after_sending(&mut self, snapshot: &StatusSnapshot<'_>) -> ConnectionFate {
        match &mut self.stage {
            Stage::Sending(Some(body)) => {
                if body.advance(snapshot, &mut self.out) {
                    self.stage = Stage::Sending(None);
                }
                self.interest = Interest::Output;
                ConnectionFate::Keep
            }
            Stage::Following(after) => {
                let mut body = StreamingBody::Events { after: *after };
                body.advance(snapshot, &mut self.out);
                if let StreamingBody::Events { after: reached } = body {
                    *after = reached;
                }
                let is_idle = self.out.is_empty();
                self.interest = if is_idle { Interest::Input } else { Interest::Output };
                if is_idle {
                    self.deadline = None;
                }
                ConnectionFate::Keep
            }
            Stage::Sending(None) if self.has_unread_input => {
                socket::shutdown_write(self.fd.as_fd());
                self.stage = Stage::Closing;
                self.deadline = Some(snapshot.now + CLOSE_TIMEOUT);
                self.interest = Interest::Input;
                ConnectionFate::Keep
            }
            Stage::Sending(None) => {
                // A child that has not executed its program may have the connection open.
                socket::shutdown_write(self.fd.as_fd());
                ConnectionFate::Close
            }
            Stage::Reading(_)
            | Stage::Measuring(_)
            | Stage::Awaiting(..)
            | Stage::Failed(..)
            | Stage::Closing
            | Stage::HandedOver => ConnectionFate::Close,
        }
    }

    /// Discards input, up to a limit, until the client has closed the connection.
    pub(super) fn drain_input(&mut self) -> ConnectionFate {
        let mut buffer = [0; 4 << 10];
        match self.fd.receive(&mut buffer) {
            Ok(Input::Bytes(length)) if self.discarded < MAX_DISCARDED => {
                self.discarded += length;
                ConnectionFate::Keep
            }
            Err(Errno::EAGAIN | Errno::EINTR) => ConnectionFate::Keep,
            Ok(_) | Err(_) => ConnectionFate::Close,
        }
    }

    /// A follower has sent data or has closed its side. Data after the request is an error. On the control socket a client may
    /// close only its writing side: epoll then reports a hangup when it has closed both.
    pub(super) fn listen(&mut self) -> ConnectionFate {
        let mut buffer = [0; 16];
        match self.fd.receive(&mut buffer) {
            Ok(Input::End) if self.listener == Listener::Control && self.interest == Interest::Input => {
                self.interest = Interest::Nothing;
                ConnectionFate::Keep
            }
            Err(Errno::EAGAIN | Errno::EINTR) => ConnectionFate::Keep,
            Ok(_) | Err(_) => ConnectionFate::Close,
        }
    }
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
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}
