//! The control server: HTTP/1.1 on the control socket, and the part of it that changes nothing on a TCP port.
//!
//! It lives in the one loop. A client costs no more than its share of a turn, whatever it does: requests are short,
//! answers are made piece by piece as they are taken, and who keeps us waiting is given up. One request to a connection.
//! Start with the turn of [`Server`]: it reads [`StatusSnapshot`], and gives back what the supervisor has to decide.
//! `route` says what can be asked, `answer` and `body` what comes back, `client` how.

mod answer;
mod body;
mod client;
mod listen;
mod metrics;
mod route;
pub(super) mod snapshot;
mod usage;

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;

use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::logs::protocol::LogsQuery;
use crate::model::plan::Control;
use crate::model::{Mono, errno};
use crate::supervisor::{Event, Refusal, Request, RequestId};
use crate::sys::{Interest, Poller, process, socket};
use answer::plain;
use body::StreamingBody;
use client::{Client, ConnectionFate, Head, Incoming, Listener, Stage};
use listen::Listeners;
use route::{Invalid, Route};
use snapshot::{Cursor, Sources, StatusSnapshot};
use usage::Usage;

/// So many clients may be connected to each listener.
const MAX_CLIENTS: usize = 32;
/// So many of them may follow what happens: there is room for others then.
const MAX_FOLLOWERS: usize = 24;
/// So many more may be there to hear that they are rejected.
const MAX_REJECTED: usize = 8;
/// So many clients are looked at in one turn.
const CLIENTS_PER_TURN: usize = 8;
/// Without descriptors for another connection, none is taken for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The server's side of all connections.
#[derive(Debug)]
pub(super) struct Server {
    listeners: Listeners,
    /// Each with its number. There are few.
    clients: Vec<(u64, Client)>,
    last_number: u64,
    /// Which descriptors are ready, each in its turn.
    ready: VecDeque<Token>,
    /// No connections are taken until then: there are no descriptors.
    paused_until: Option<Mono>,
    /// The last connection could not be taken, and that has been logged.
    is_short: bool,
    /// Up to this event everybody who follows has been woken.
    announced: u64,
    usage: Usage,
}

impl Subsystem for Server {
    type Needs<'a> = Sources<'a>;

    fn due(&self) -> Option<Mono> {
        let deadlines = self.clients.iter().filter_map(|(_, client)| client.deadline);
        deadlines.chain(self.paused_until).min()
    }

    fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.usage.is_searching()
    }

    fn on_ready(&mut self, token: Token) {
        if !self.ready.contains(&token) {
            self.ready.push_back(token);
        }
    }

    /// Takes in what clients want, gives out what there is for them, a bounded part of it in each turn.
    /// They have to wait while the supervisor has much to do.
    fn turn(&mut self, context: &mut Context<'_>, sources: Sources<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..CLIENTS_PER_TURN {
            // A request may become many actions: the next client waits until they are known.
            if !events.is_empty() || !context.has_capacity() {
                break;
            }
            match self.ready.pop_front() {
                None => break,
                Some(Token::ControlListener) => events.extend(self.accept(Listener::Control, context, sources)),
                Some(Token::HttpListener) => events.extend(self.accept(Listener::Http, context, sources)),
                Some(Token::Client(number)) => events.extend(self.attend(number, context, sources)),
                Some(_) => {}
            }
        }
        self.measure(context, sources);
        self.meet_deadlines(context, sources, &mut events);
        events
    }
}

/// What the loop asks of it besides.
impl Server {
    pub(super) fn new(control: &Control, http: Option<SocketAddr>, poller: &Poller) -> Self {
        Self {
            listeners: Listeners::new(control, http, poller),
            clients: Vec::new(),
            last_number: 0,
            ready: VecDeque::new(),
            paused_until: None,
            is_short: false,
            announced: 0,
            usage: Usage::default(),
        }
    }

    /// Answers a request that has been done or refused.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        result: Result<(), Refusal>,
        context: &Context<'_>,
        sources: Sources<'_>,
    ) {
        let Some(mut client) = self.take(id.0) else { return };
        let before = client.interest;
        if let Stage::Awaiting(request, _) = client.stage {
            let snapshot = self.snapshot(context, sources);
            client.answer(answer::result(&snapshot, request, result), context.now);
        }
        let fate = client.send(&self.snapshot(context, sources));
        self.put_back(id.0, client, before, fate, context.poller);
    }

    /// Wakes those who follow, if there are events after the last one that they know of.
    pub(super) fn announce(&mut self, latest: u64, poller: &Poller) {
        if mem::replace(&mut self.announced, latest) == latest {
            return;
        }
        for (number, client) in &mut self.clients {
            if matches!(client.stage, Stage::Following(after) if after < latest) && client.interest != Interest::Output
            {
                client.interest = Interest::Output;
                poller.modify(client.fd.as_fd(), Token::Client(*number), Interest::Output).ok();
            }
        }
    }

    /// Before the end: those who follow get what there is room for. The socket goes before their streams end, and the
    /// logger's: by that they know an orderly end from a kill.
    pub(super) fn close(&mut self, context: &Context<'_>, sources: Sources<'_>) {
        self.listeners.close();
        for (_, mut client) in mem::take(&mut self.clients) {
            if matches!(client.stage, Stage::Following(_)) {
                client.flush(&self.snapshot(context, sources));
            }
        }
    }
}

/// Connections.
impl Server {
    fn take(&mut self, number: u64) -> Option<Client> {
        let position = self.clients.iter().position(|(other, _)| *other == number)?;
        Some(self.clients.swap_remove(position).1)
    }

    fn put_back(&mut self, number: u64, client: Client, before: Interest, fate: ConnectionFate, poller: &Poller) {
        if fate == ConnectionFate::Over {
            poller.remove(client.fd.as_fd()).ok();
            return;
        }
        if client.interest != before {
            poller.modify(client.fd.as_fd(), Token::Client(number), client.interest).ok();
        }
        self.clients.push((number, client));
    }

    /// The numbers of those of whom this is true.
    fn numbers(&self, mut is_meant: impl FnMut(&Client) -> bool) -> Vec<u64> {
        self.clients.iter().filter(|(_, client)| is_meant(client)).map(|(number, _)| *number).collect()
    }

    fn followers(&self, listener: Listener) -> usize {
        let follows = |client: &Client| client.listener == listener && matches!(client.stage, Stage::Following(_));
        self.clients.iter().filter(|(_, client)| follows(client)).count()
    }

    fn snapshot<'s>(&'s self, context: &'s Context<'_>, sources: Sources<'s>) -> StatusSnapshot<'s> {
        StatusSnapshot::new(&self.usage, context, sources)
    }

    /// Takes a connection, and goes on with it.
    fn accept(&mut self, listener: Listener, context: &mut Context<'_>, sources: Sources<'_>) -> Option<Event> {
        let socket = self.listeners.get(listener)?;
        let fd = match socket::accept(socket) {
            Ok(fd) => fd,
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
                if !mem::replace(&mut self.is_short, true) {
                    log::warn!("cannot accept connections for now: {}", errno::words(errno));
                }
                self.paused_until = Some(context.now + PAUSE);
                self.listeners.listen_for(context.poller, Interest::Nothing);
                return None;
            }
            // It has gone, or was none.
            Err(_) => return None,
        };
        self.is_short = false;
        let mut client = Client::new(fd, listener, context.now);
        let present = self.clients.iter().filter(|(_, other)| other.listener == listener).count();
        if let Some(uid) = unauthorized_uid(&client) {
            let reason = format!("user {uid} is neither root nor keepalive's own user");
            reject(&mut client, 403, reason, context);
        } else if present >= MAX_CLIENTS {
            reject(&mut client, 503, format!("too many clients: the limit is {MAX_CLIENTS}"), context);
        }
        if present >= MAX_CLIENTS + MAX_REJECTED {
            client.refuse_at_once(&self.snapshot(context, sources));
            return None;
        }
        self.last_number += 1;
        let number = self.last_number;
        context.poller.add(client.fd.as_fd(), Token::Client(number)).ok()?;
        self.clients.push((number, client));
        self.attend(number, context, sources)
    }

    /// Goes on with one client; gives back what the supervisor has to know.
    fn attend(&mut self, number: u64, context: &mut Context<'_>, sources: Sources<'_>) -> Option<Event> {
        let mut client = self.take(number)?;
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
            // Nothing is waited for but that it closes.
            Stage::Measuring(_) | Stage::HandedOver => ConnectionFate::Over,
            Stage::Awaiting(..) => {
                event = Some(Event::Withdrawn(id));
                ConnectionFate::Over
            }
        };
        self.put_back(number, client, before, fate, context.poller);
        event
    }

    /// Reads the request, and begins to answer it if it is complete.
    fn read(
        &self,
        client: &mut Client,
        context: &Context<'_>,
        sources: Sources<'_>,
    ) -> (ConnectionFate, Option<Request>) {
        let snapshot = self.snapshot(context, sources);
        match client.read() {
            Incoming::Part => (ConnectionFate::Stays, None),
            Incoming::Closed => (ConnectionFate::Over, None),
            Incoming::Malformed(status, reason) => {
                client.answer(plain(status, "invalid", reason), context.now);
                (client.send(&snapshot), None)
            }
            Incoming::Request(head) => {
                let request = self.begin(client, &head, context, sources);
                let fate = match client.stage {
                    Stage::Sending(_) | Stage::Following(_) => client.send(&snapshot),
                    Stage::HandedOver => ConnectionFate::Over,
                    Stage::Reading(_) | Stage::Measuring(_) | Stage::Awaiting(..) | Stage::Closing => {
                        ConnectionFate::Stays
                    }
                };
                (fate, request)
            }
        }
    }

    /// Gives up those whose time is over.
    fn meet_deadlines(&mut self, context: &mut Context<'_>, sources: Sources<'_>, events: &mut Vec<Event>) {
        let now = context.now;
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            self.listeners.listen_for(context.poller, Interest::Input);
        }
        for number in self.numbers(|client| client.deadline.is_some_and(|deadline| deadline <= now)) {
            let Some(mut client) = self.take(number) else { continue };
            let before = client.interest;
            let fate = match &client.stage {
                Stage::Reading(_) if client.refusal.is_some() => {
                    client.say_refusal(now);
                    client.send(&self.snapshot(context, sources));
                    ConnectionFate::Over
                }
                Stage::Awaiting(request, timeout) => {
                    let snapshot = self.snapshot(context, sources);
                    let answer = answer::timeout(&snapshot, *request, *timeout);
                    client.answer(answer, now);
                    events.push(Event::Withdrawn(RequestId(number)));
                    client.send(&snapshot)
                }
                Stage::Reading(_) => {
                    context.journal.on_client_dropped();
                    client.answer(plain(408, "timeout", "the request was not received in time"), now);
                    client.send(&self.snapshot(context, sources));
                    ConnectionFate::Over
                }
                Stage::Closing | Stage::HandedOver => ConnectionFate::Over,
                Stage::Measuring(_) | Stage::Sending(_) | Stage::Following(_) => {
                    context.journal.on_client_dropped();
                    ConnectionFate::Over
                }
            };
            self.put_back(number, client, before, fate, context.poller);
        }
    }
}

/// Requests.
impl Server {
    /// Begins with the answer; what has to be done first is given back.
    fn begin(&self, client: &mut Client, head: &Head, context: &Context<'_>, sources: Sources<'_>) -> Option<Request> {
        client.wants_head = head.method == "HEAD";
        if client.say_refusal(context.now) {
            return None;
        }
        match route::route(&head.method, &head.target, context.plan) {
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
        context: &Context<'_>,
        sources: Sources<'_>,
    ) -> Option<Request> {
        let now = context.now;
        let snapshot = self.snapshot(context, sources);
        match route {
            Route::Livez => client.document("application/json", "", b"{\"status\":\"ok\"}\n", now),
            Route::Readyz(target) => client.answer(answer::readiness(&snapshot, target), now),
            Route::Page => client.document("text/html; charset=utf-8", POLICY, PAGE, now),
            Route::Status => self.begin_body(client, StreamingBody::Status(Cursor::default()), &snapshot),
            Route::Metrics => {
                let body = StreamingBody::Metrics { family: 0, cursor: Cursor::default() };
                self.begin_body(client, body, &snapshot);
            }
            Route::Events { follow: true } if self.followers(client.listener) >= MAX_FOLLOWERS => {
                let reason = format!("too many clients follow: the limit is {MAX_FOLLOWERS}");
                client.answer(plain(503, "refused", &reason), now);
            }
            Route::Events { follow: true } => client.follow(now),
            Route::Events { follow: false } => client.stream(StreamingBody::Events { after: 0 }, &snapshot),
            Route::Logs { .. } if client.wants_head => client.document("application/x-ndjson", "", b"", now),
            Route::Logs { names, lines, follow } => {
                let is_guest = client.listener == Listener::Http;
                hand_over(client, LogsQuery { names, lines, follow, is_guest }, &snapshot);
            }
            Route::Change(..) if client.listener == Listener::Http => {
                let reason = "this port is read-only: use the control socket";
                client.answer(plain(403, "forbidden", reason), now);
            }
            Route::Change(request, timeout) => {
                client.stage = Stage::Awaiting(request, timeout);
                client.deadline = Some(now + timeout);
                client.interest = Interest::Nothing;
                return Some(request);
            }
        }
        None
    }

    /// What the instances use has to be known first.
    fn begin_body(&self, client: &mut Client, body: StreamingBody, snapshot: &StatusSnapshot<'_>) {
        if self.usage.is_fresh(snapshot.now) {
            client.stream(body, snapshot);
        } else {
            // The request is complete; how long measuring takes is not the client's fault.
            client.deadline = None;
            client.stage = Stage::Measuring(body);
            client.interest = Interest::Nothing;
        }
    }

    /// Finds out what the instances use, piece by piece, and then goes on with those who wait for it.
    fn measure(&mut self, context: &Context<'_>, sources: Sources<'_>) {
        let is_awaited = |(_, client): &(u64, Client)| matches!(client.stage, Stage::Measuring(_));
        if !self.usage.is_searching() {
            if !self.clients.iter().any(is_awaited) {
                return;
            }
            self.usage.begin_search();
        }
        let view = context.supervisor.view();
        let processes = view.services().flat_map(|service| service.instances().chain(service.surges()));
        let mains = || processes.filter_map(|instance| Some((instance.pid?.get(), instance.id))).collect();
        if !self.usage.go_on(context.now, mains) {
            return;
        }
        for number in self.numbers(|client| matches!(client.stage, Stage::Measuring(_))) {
            let Some(mut client) = self.take(number) else { continue };
            let before = client.interest;
            if let Stage::Measuring(body) = mem::replace(&mut client.stage, Stage::Closing) {
                client.stream(body, &self.snapshot(context, sources));
            }
            self.put_back(number, client, before, ConnectionFate::Stays, context.poller);
        }
    }
}

/// Whatever it asks for, it gets this answer.
fn reject(client: &mut Client, status: u16, reason: String, context: &mut Context<'_>) {
    context.journal.on_client_rejected(&reason);
    client.refusal = Some((status, reason));
    client.deadline = Some(context.now + client::CLOSE_TIMEOUT);
}

/// Has the logger answer, which has the lines.
fn hand_over(client: &mut Client, query: LogsQuery, snapshot: &StatusSnapshot<'_>) {
    if !snapshot.logging.is_on() {
        return client.answer(plain(409, "refused", NOT_LOGGED), snapshot.now);
    }
    // Of the two descriptors of the connection ours is closed as soon as this is over.
    let handed = client.fd.try_clone().ok().and_then(|copy| snapshot.logging.hand_over(copy, query).ok());
    match handed {
        Some(()) => client.stage = Stage::HandedOver,
        None => client.answer(plain(503, "refused", "the logger is not running, try again later"), snapshot.now),
    }
}

/// Who may not be here.
fn unauthorized_uid(client: &Client) -> Option<String> {
    if client.listener == Listener::Http {
        return None;
    }
    match socket::peer_uid(client.fd.as_fd()) {
        Some(uid) if uid == 0 || uid == process::effective_user() => None,
        Some(uid) => Some(uid.to_string()),
        None => Some("unknown".to_owned()),
    }
}

const NOT_LOGGED: &str = "no logs: services write directly to keepalive's stdout and stderr; set log = { stdout = \"prefix\", stderr = \"prefix\" } to collect them";
/// The page loads nothing from elsewhere.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n";
const PAGE: &[u8] = include_bytes!("../../control/page.html");
