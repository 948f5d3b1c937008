//! The control server: HTTP/1.1 on the control socket, and the read-only part of it on a TCP port.
//!
//! It must not delay the event loop: requests are short, bodies are written piece by piece, slow clients are disconnected, and
//! a connection has one request. Start reading at the turn of [`Server`], which shows a [`StatusSnapshot`] and returns requests
//! for the supervisor. `request` receives requests, `route` parses them, `answer`, `status`, `describe` and `body` write answers,
//! `reason` says why an instance is in its state, `client` is a connection.

mod answer;
mod body;
mod client;
mod clients;
mod describe;
mod last_lines;
mod listen;
mod logs;
mod metrics;
mod port_owners;
mod reason;
mod replies;
mod request;
mod route;
pub(super) mod snapshot;
mod status;
pub(super) mod usage;

use std::collections::VecDeque;
use std::mem;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::close_queue::CloseQueue;
use super::rate_limited_log::{self, MessageKind};
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::logs::protocol::LogsQuery;
use crate::model::{Mono, Plan, errno};
use crate::supervisor::{Event, Refusal, Request, RequestId, Supervisor, Target};
use crate::sys::{self, Interest, PeerStream, Poller, socket};
use answer::plain;
use body::StreamingBody;
use client::{Client, ConnectionFate, Incoming, Listener, Stage};
use clients::{Clients, MAX_CLIENTS, MAX_FOLLOWERS};
use listen::Listeners;
use port_owners::PortOwners;
use request::Head;
use route::{Invalid, Route};
use snapshot::{Cursor, Sources, StatusSnapshot};
use usage::Usage;

/// The number of clients that are served in one turn.
const MAX_CLIENTS_PER_TURN: usize = 8;
/// How long no connections are accepted after an accept has failed, usually because keepalive has run out of descriptors,
/// or while too many wait to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The listeners and all clients.
#[derive(Debug)]
pub(super) struct Server {
    listeners: Listeners,
    config: Option<PathBuf>,
    clients: Clients,
    /// The tokens that are ready, in the order in which they are served.
    ready: VecDeque<Token>,
    /// Until then no connections are accepted.
    paused_until: Option<Mono>,
    /// The last accept has failed, which has been logged.
    is_accept_failing: bool,
    /// The latest event that followers have been woken for.
    last_announced: u64,
    usage: Usage,
    pub(super) port_owners: PortOwners,
}

impl Subsystem for Server {
    type Needs<'a> = Sources<'a>;

    fn due(&self) -> Option<Mono> {
        self.clients.due().into_iter().chain(self.paused_until).min()
    }

    fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    fn on_ready(&mut self, token: Token) {
        if !self.ready.contains(&token) {
            self.ready.push_back(token);
        }
    }

    /// Serves clients, at most [`MAX_CLIENTS_PER_TURN`], and none while the supervisor has many pending actions.
    fn turn(&mut self, context: &mut Context<'_>, sources: Sources<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..MAX_CLIENTS_PER_TURN {
            // A request may cause many actions: the next client waits until they are known.
            if !events.is_empty() || !context.has_capacity() {
                break;
            }
            match self.ready.pop_front() {
                None => break,
                Some(Token::ControlListener) => events.extend(self.accept(Listener::Control, context, sources)),
                Some(Token::HttpListener) => events.extend(self.accept(Listener::Http, context, sources)),
                Some(Token::Client(number)) => events.extend(self.serve(number, context, sources)),
                Some(_) => {}
            }
        }
        self.handle_deadlines(context, sources, &mut events);
        events
    }
}

/// Calls of the event loop.
impl Server {
    pub(super) fn new(plan: &Plan, config: Option<PathBuf>, poller: &Poller) -> Self {
        Self {
            listeners: Listeners::new(plan, config.as_deref(), poller),
            config,
            clients: Clients::default(),
            ready: VecDeque::new(),
            paused_until: None,
            is_accept_failing: false,
            last_announced: 0,
            usage: Usage::default(),
            port_owners: PortOwners::default(),
        }
    }

    /// The absolute path of the control socket, if there is one.
    pub(super) fn control_socket(&self) -> Option<PathBuf> {
        self.listeners.control_socket()
    }

    /// Answers a request that is done or was refused.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        result: Result<(), Refusal>,
        context: &Context<'_>,
        sources: Sources<'_>,
    ) {
        let Some(mut client) = self.clients.take(id.0) else { return };
        let before = client.interest;
        let fate = replies::on_result(&mut client, result, &self.snapshot(context, sources));
        self.put_back(id.0, client, before, fate, context.poller);
    }

    /// Adds warnings to the answer to a request.
    pub(super) fn warn(&mut self, id: RequestId, warnings: String) {
        if let Some((_, client)) = self.clients.iter_mut().find(|(number, _)| *number == id.0) {
            client.warnings = warnings;
        }
    }

    /// Wakes the followers if there are new events.
    pub(super) fn wake_followers(&mut self, latest: u64, now: Mono, poller: &Poller) {
        if mem::replace(&mut self.last_announced, latest) == latest {
            return;
        }
        for (number, client) in self.clients.iter_mut() {
            if matches!(client.stage, Stage::Following(after) if after < latest) && client.interest != Interest::Output
            {
                client.expect_output(now);
                poller.modify(client.fd.as_fd(), Token::Client(number), Interest::Output).ok();
            }
        }
    }

    /// Sends the last events to followers and closes all connections. The control socket is removed first: so clients can
    /// tell a shutdown from a crash.
    pub(super) fn close(&mut self, context: &Context<'_>, sources: Sources<'_>) {
        self.listeners.close();
        for mut client in self.clients.take_all() {
            let snapshot = self.snapshot(context, sources);
            if matches!(client.stage, Stage::Failed(..)) {
                replies::answer_failed(&mut client, &snapshot);
            } else if matches!(client.stage, Stage::Following(_)) {
                client.flush(&snapshot);
            }
        }
    }
}

/// Connections.
impl Server {
    fn put_back(&mut self, number: u64, client: Client, before: Interest, fate: ConnectionFate, poller: &Poller) {
        if fate == ConnectionFate::Close {
            poller.remove(client.fd.as_fd()).ok();
            return;
        }
        if client.interest != before {
            poller.modify(client.fd.as_fd(), Token::Client(number), client.interest).ok();
        }
        self.clients.insert(number, client);
    }

    fn snapshot<'s>(&'s self, context: &'s Context<'_>, sources: Sources<'s>) -> StatusSnapshot<'s> {
        StatusSnapshot::new((&self.usage, &self.port_owners), self.config.as_deref(), context, sources)
    }

    /// Accepts a connection, and serves it.
    fn accept(&mut self, listener: Listener, context: &mut Context<'_>, sources: Sources<'_>) -> Option<Event> {
        let socket = self.listeners.get(listener)?;
        let full = CloseQueue::why_full().filter(|_| listener == Listener::Control);
        let full = full.filter(|_| socket::refuse_descriptors(socket).is_err());
        let fd = match full.map_or_else(|| socket::accept(socket), |_| Err(Errno::EMFILE)) {
            Ok(fd) => fd,
            // The client has gone.
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => return None,
            Err(errno) => {
                if !mem::replace(&mut self.is_accept_failing, true) {
                    log::warn!("cannot accept connections for now: {}", full.unwrap_or(errno::words(errno)));
                }
                self.paused_until = Some(context.now + ACCEPT_PAUSE);
                self.listeners.pause(listener, context.poller);
                return None;
            }
        };
        self.is_accept_failing = false;
        let stream = match listener {
            Listener::Control => PeerStream::unix(fd),
            Listener::Http => PeerStream::tcp(fd),
        };
        let mut client = Client::new(stream, listener, context.now);
        if let Some(uid) = client.unauthorized_uid() {
            reject(&mut client, 403, format!("user {uid} is neither root nor keepalive's own user"), context);
        } else if !self.clients.has_room(listener) && !self.make_room(listener, context, sources) {
            reject(&mut client, 503, too_many_clients(), context);
        }
        if client.is_rejected && !self.clients.has_room_for_rejected(listener) {
            client.refuse_at_once(&self.snapshot(context, sources));
            return None;
        }
        let number = self.clients.next_number();
        context.poller.add(client.fd.as_fd(), Token::Client(number)).ok()?;
        self.clients.insert(number, client);
        self.serve(number, context, sources)
    }

    /// Disconnects the client that has made no progress for the longest time, of those that can make room. Returns whether
    /// there was one.
    fn make_room(&mut self, listener: Listener, context: &mut Context<'_>, sources: Sources<'_>) -> bool {
        let Some(mut client) = self.clients.take_slowest(listener) else { return false };
        context.poller.remove(client.fd.as_fd()).ok();
        match client.stage {
            Stage::Reading(_) | Stage::Measuring(_) => {
                reject(&mut client, 503, too_many_clients(), context);
                client.refuse_at_once(&self.snapshot(context, sources));
            }
            Stage::Sending(_) => context.journal.on_client_dropped(),
            Stage::Awaiting(..) | Stage::Failed(..) | Stage::Following(_) | Stage::Closing | Stage::HandedOver => {}
        }
        true
    }

    /// Serves one client. Returns an event for the supervisor.
    fn serve(&mut self, number: u64, context: &mut Context<'_>, sources: Sources<'_>) -> Option<Event> {
        let mut client = self.clients.take(number)?;
        let before = client.interest;
        let id = RequestId(number);
        let mut event = None;
        let fate = match &client.stage {
            Stage::Reading(_) => {
                let (fate, request) = self.read(&mut client, context, sources);
                event = request.map(|request| Event::Request { id, request });
                fate
            }
            Stage::Sending(_) => client.send(&self.snapshot(context, sources)),
            Stage::Following(_) if client.interest != Interest::Output => client.listen(),
            Stage::Following(_) => client.send(&self.snapshot(context, sources)),
            Stage::Closing => client.drain_input(),
            // The only input that is expected is the end.
            Stage::Measuring(_) | Stage::Failed(..) | Stage::HandedOver => ConnectionFate::Close,
            Stage::Awaiting(..) => {
                event = Some(Event::Withdrawn(id));
                ConnectionFate::Close
            }
        };
        self.put_back(number, client, before, fate, context.poller);
        event
    }

    /// Reads the request, and starts to answer it if it is complete.
    fn read(
        &mut self,
        client: &mut Client,
        context: &mut Context<'_>,
        sources: Sources<'_>,
    ) -> (ConnectionFate, Option<Request>) {
        match client.read(context.now) {
            Incoming::Incomplete => (ConnectionFate::Keep, None),
            Incoming::Closed => (ConnectionFate::Close, None),
            Incoming::Descriptors => {
                let warning = format_args!("a client of the control socket was rejected: {NO_DESCRIPTORS}");
                rate_limited_log::warn(MessageKind::DescriptorsRejected, None, warning);
                reject(client, 400, NO_DESCRIPTORS.to_owned(), context);
                client.answer_with_refusal(context.now);
                client.send(&self.snapshot(context, sources));
                (ConnectionFate::Close, None)
            }
            Incoming::Malformed(status, reason) => {
                client.answer(plain(status, "invalid", reason), context.now);
                (client.send(&self.snapshot(context, sources)), None)
            }
            Incoming::Request(head) => {
                let request = self.begin(client, &head, context, sources);
                let fate = match client.stage {
                    Stage::Sending(_) | Stage::Following(_) => client.send(&self.snapshot(context, sources)),
                    Stage::HandedOver => ConnectionFate::Close,
                    Stage::Reading(_)
                    | Stage::Measuring(_)
                    | Stage::Awaiting(..)
                    | Stage::Failed(..)
                    | Stage::Closing => ConnectionFate::Keep,
                };
                (fate, request)
            }
        }
    }

    /// Handles the clients whose deadline has passed.
    fn handle_deadlines(&mut self, context: &mut Context<'_>, sources: Sources<'_>, events: &mut Vec<Event>) {
        let now = context.now;
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            self.listeners.resume(context.poller);
        }
        for number in self.clients.numbers(|client| replies::is_due(client, now, sources, &self.port_owners)) {
            let Some(mut client) = self.clients.take(number) else { continue };
            let before = client.interest;
            let fate = match &client.stage {
                Stage::Reading(_) if client.refusal.is_some() => {
                    client.answer_with_refusal(now);
                    client.send(&self.snapshot(context, sources));
                    ConnectionFate::Close
                }
                Stage::Awaiting(request, timeout) => {
                    let snapshot = self.snapshot(context, sources);
                    let answer = answer::timeout(&snapshot, request, *timeout, &client.warnings);
                    client.answer(answer, now);
                    events.push(Event::Withdrawn(RequestId(number)));
                    client.send(&snapshot)
                }
                Stage::Failed(..) => replies::answer_failed(&mut client, &self.snapshot(context, sources)),
                Stage::Reading(_) => {
                    context.journal.on_client_dropped();
                    client.answer(plain(408, "timeout", "the request was not received in time"), now);
                    client.send(&self.snapshot(context, sources));
                    ConnectionFate::Close
                }
                Stage::Closing | Stage::HandedOver => ConnectionFate::Close,
                Stage::Measuring(_) | Stage::Sending(_) | Stage::Following(_) => {
                    context.journal.on_client_dropped();
                    ConnectionFate::Close
                }
            };
            self.put_back(number, client, before, fate, context.poller);
        }
    }
}

/// Requests.
impl Server {
    /// Starts to answer a request, or returns it if it is for the supervisor.
    fn begin(
        &self,
        client: &mut Client,
        head: &Head,
        context: &mut Context<'_>,
        sources: Sources<'_>,
    ) -> Option<Request> {
        client.is_head_request = head.method == "HEAD";
        if client.answer_with_refusal(context.now) {
            return None;
        }
        match route::route(&head.method, &head.target, context.plan, context.supervisor.view()) {
            Ok(route) => return self.follow_route(client, route, context, sources),
            Err(Invalid::Malformed(reason)) => client.answer(plain(400, "invalid", &reason), context.now),
            Err(Invalid::Unknown(reason)) => client.answer(plain(404, "not_found", &reason), context.now),
            Err(Invalid::Method { allowed, reason }) => {
                let allow = format!("Allow: {allowed}\r\n");
                client.answer_with(plain(405, "invalid", &reason), &allow, context.now);
            }
        }
        None
    }

    fn follow_route(
        &self,
        client: &mut Client,
        route: Route,
        context: &mut Context<'_>,
        sources: Sources<'_>,
    ) -> Option<Request> {
        let now = context.now;
        let snapshot = self.snapshot(context, sources);
        match route {
            Route::Livez => client.document("application/json", "", b"{\"status\":\"ok\"}\n", now),
            Route::Readyz(target) => client.answer(answer::readiness(&snapshot, target), now),
            Route::Page => client.document("text/html; charset=utf-8", PAGE_HEADERS, PAGE, now),
            Route::Status => self.begin_body(client, StreamingBody::Status(Cursor::default()), &snapshot),
            Route::Metrics => {
                let body = StreamingBody::Metrics { family: 0, cursor: Cursor::default() };
                self.begin_body(client, body, &snapshot);
            }
            Route::Events { follow: true, .. } if !self.clients.has_room_for_follower(client.listener) => {
                let reason = format!("too many clients follow: the limit is {MAX_FOLLOWERS}");
                context.journal.on_client_rejected(&reason);
                client.answer(plain(503, "refused", &reason), now);
            }
            // A number from before a restart of keepalive is larger than any.
            Route::Events { after, follow: true } => client.follow(after.min(snapshot.events.latest()), now),
            Route::Events { after, follow: false } => {
                let after = after.min(snapshot.events.latest());
                client.stream(StreamingBody::Events { after }, &snapshot);
            }
            Route::Logs { .. } if client.is_head_request => client.document("application/x-ndjson", "", b"", now),
            Route::Logs { names, instances, lines, since, follow } => {
                let is_guest = client.listener == Listener::Http;
                let since = since.map_or(0, |since| since.milliseconds(sys::wall()));
                logs::hand_over(client, LogsQuery { names, lines, since, follow, is_guest }, &instances, &snapshot);
            }
            Route::Change(..) | Route::Description(_) | Route::Environment(_) if client.listener == Listener::Http => {
                client.answer(plain(403, "forbidden", "this port is read-only: use the control socket"), now);
            }
            Route::Description(target @ Target::Instance(_)) | Route::Environment(target)
                if !describe::exists(target, &snapshot) =>
            {
                client.answer(answer::no_instance(&snapshot, target), now);
            }
            Route::Description(target) => self.begin_body(client, StreamingBody::Description(target), &snapshot),
            Route::Environment(target) => {
                let (factory, peer) = (&sources.processes.factory, socket::peer_uid(client.fd.as_fd()));
                let environment = describe::environment(target, &snapshot, factory, peer);
                client.document("application/octet-stream", "", &environment, now);
            }
            Route::Change(request, timeout) => {
                client.warnings = answer::left_alone(&snapshot, &request);
                client.stage = Stage::Awaiting(request.clone(), timeout);
                client.deadline = Some(now + timeout);
                client.interest = Interest::Nothing;
                return Some(request);
            }
        }
        None
    }

    /// Starts to send a body that shows the usage of instances, after measuring it if necessary.
    fn begin_body(&self, client: &mut Client, body: StreamingBody, snapshot: &StatusSnapshot<'_>) {
        if self.usage.is_fresh(snapshot.now) {
            client.stream(body, snapshot);
        } else {
            // The time for measuring does not count for the client.
            client.deadline = None;
            client.stage = Stage::Measuring(body);
            client.interest = Interest::Nothing;
        }
    }

    /// Starts to measure the usage of the instances if a client waits for it: returns the work of an inspector.
    pub(super) fn start_measuring(&mut self, supervisor: &Supervisor) -> Option<impl Fn() -> Vec<u8> + use<>> {
        if self.usage.is_measuring() || self.clients.numbers(Client::is_waiting).is_empty() {
            return None;
        }
        let view = supervisor.view();
        let processes = view.services().flat_map(|service| service.instances_and_surges());
        Some(self.usage.start(processes.filter_map(|instance| Some((instance.pid?.get(), instance.id))).collect()))
    }

    /// The usage has been measured, or cannot be. Serves the clients that wait for it.
    pub(super) fn on_measured(&mut self, answer: Option<&[u8]>, context: &Context<'_>, sources: Sources<'_>) {
        self.usage.on_measured(answer, context.now);
        for number in self.clients.numbers(Client::is_waiting) {
            let Some(mut client) = self.clients.take(number) else { continue };
            let before = client.interest;
            if let Stage::Measuring(body) = mem::replace(&mut client.stage, Stage::Closing) {
                client.stream(body, &self.snapshot(context, sources));
            }
            self.put_back(number, client, before, ConnectionFate::Keep, context.poller);
        }
    }
}

/// Rejects a client: it gets this answer to any request.
fn reject(client: &mut Client, status: u16, reason: String, context: &mut Context<'_>) {
    context.journal.on_client_rejected(&reason);
    client.is_rejected = true;
    client.refusal = Some((status, reason));
    client.deadline = Some(context.now + client::CLOSE_TIMEOUT);
}

fn too_many_clients() -> String {
    format!("too many clients: the limit is {MAX_CLIENTS}")
}

const NO_DESCRIPTORS: &str = "requests must not carry descriptors";
/// The page loads nothing from other hosts.
const PAGE_HEADERS: &str = "Content-Encoding: gzip\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n";
const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.html.gz"));
