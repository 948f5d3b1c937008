//! The control server: HTTP/1.1 on the control socket, and the part of it that changes nothing on a TCP port.
//!
//! It lives in the one loop. A client costs no more than its share of a turn, whatever it does: requests are short,
//! answers are made piece by piece as they are taken, and who keeps us waiting is given up. One request to a connection.
//! Start with `Runtime::serve`; `route` says what can be asked, `answer` and `snapshot` what comes back, `client` how.

mod answer;
mod client;
pub(super) mod json;
mod listen;
mod metrics;
mod route;
mod snapshot;

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::Runtime;
use super::events::{Coalescer, What};
use crate::logs::message::LogsQuery;
use crate::model::{Mono, errno};
use crate::supervisor::{Event, Refusal, RequestId};
use crate::sys::{self, Interest, Poller, socket};
use answer::plain;
use client::{Client, ConnectionFate, Head, Incoming, Listener, Stage};
use listen::SocketFile;
use route::{Invalid, Route};
use snapshot::{Cursor, StatusSnapshot, StreamingBody};

/// All tokens from here on are ours; below are the ids of processes.
pub(super) const FIRST_TOKEN: u64 = 1 << 32;
const CONTROL: u64 = FIRST_TOKEN;
const HTTP: u64 = FIRST_TOKEN + 1;

/// So many clients may be connected at each entrance.
const MOST_CLIENTS: usize = 32;
/// So many of them may follow what happens: there is room for others then.
const MOST_FOLLOWERS: usize = 24;
/// So many more may be there to hear that they are refused.
const MOST_REFUSED: usize = 8;
/// So many clients are looked at in one turn.
const CLIENTS_PER_TURN: usize = 8;
/// Without descriptors for another connection, none is taken for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The server's side of all connections.
#[derive(Debug, Default)]
pub(super) struct Server {
    control: Option<(OwnedFd, SocketFile)>,
    http: Option<OwnedFd>,
    /// Each with its token. There are few.
    clients: Vec<(u64, Client)>,
    last_token: u64,
    /// Who is to be looked at, each in its turn.
    ready: VecDeque<u64>,
    refusals: u64,
    last_refusal: String,
    told_refusals: Coalescer,
    /// No connections are taken until then: there are no descriptors.
    paused_until: Option<Mono>,
    /// The last connection could not be taken, and that has been said.
    is_short: bool,
    /// Up to this event everybody who follows has been woken.
    announced: u64,
}

impl Server {
    /// Something is to be read or written.
    pub(super) fn is_ready(&mut self, token: u64) {
        if !self.ready.contains(&token) {
            self.ready.push_back(token);
        }
    }

    /// When it has to go on without anything happening.
    pub(super) fn due(&self) -> Option<Mono> {
        let deadlines = self.clients.iter().filter_map(|(_, client)| client.deadline);
        deadlines.chain(self.paused_until).chain(self.told_refusals.due(self.refusals)).min()
    }

    /// Some have not had their turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    fn take(&mut self, token: u64) -> Option<Client> {
        let position = self.clients.iter().position(|(other, _)| *other == token)?;
        Some(self.clients.swap_remove(position).1)
    }

    /// The tokens of those of whom this is true.
    fn tokens(&self, mut is_meant: impl FnMut(&Client) -> bool) -> Vec<u64> {
        self.clients.iter().filter(|(_, client)| is_meant(client)).map(|(token, _)| *token).collect()
    }

    fn followers(&self, entrance: Listener) -> usize {
        let follows = |client: &Client| client.entrance == entrance && matches!(client.stage, Stage::Following(_));
        self.clients.iter().filter(|(_, client)| follows(client)).count()
    }

    fn listener(&self, entrance: Listener) -> Option<&OwnedFd> {
        match entrance {
            Listener::Control => self.control.as_ref().map(|(listener, _)| listener),
            Listener::Http => self.http.as_ref(),
        }
    }

    /// Takes no connections for a while, or takes them again.
    fn listen_for(&self, poller: &Poller, interest: Interest) {
        for (entrance, token) in [(Listener::Control, CONTROL), (Listener::Http, HTTP)] {
            if let Some(listener) = self.listener(entrance) {
                poller.modify(listener.as_fd(), token, interest).ok();
            }
        }
    }
}

impl Runtime {
    /// Takes in what clients want, gives out what there is for them, a bounded part of it in each turn.
    /// They have to wait while the supervisor has much to do.
    pub(super) fn serve(&mut self) {
        for _ in 0..CLIENTS_PER_TURN {
            if !self.has_capacity() {
                break;
            }
            match self.server.ready.pop_front() {
                None => break,
                Some(CONTROL) => self.accept(Listener::Control),
                Some(HTTP) => self.accept(Listener::Http),
                Some(token) => self.attend(token),
            }
        }
        self.measure();
        self.look_at_deadlines();
        if let Some(count) = self.server.told_refusals.take(self.server.refusals, self.now) {
            let reason = mem::take(&mut self.server.last_refusal);
            self.happens(What::RefusedClients { count, reason });
        }
    }

    /// Before the end: those who follow get what there is room for. The socket goes before their streams end, and the
    /// logger's: by that they know an orderly end from a kill.
    pub(super) fn close(&mut self) {
        self.server.close();
        for (_, mut client) in mem::take(&mut self.server.clients) {
            if matches!(client.stage, Stage::Following(_)) {
                client.flush(&self.snapshot());
            }
        }
    }

    fn accept(&mut self, entrance: Listener) {
        let Some(listener) = self.server.listener(entrance) else { return };
        let fd = match socket::accept(listener) {
            Ok(fd) => fd,
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
                if !mem::replace(&mut self.server.is_short, true) {
                    log::warn!("cannot accept connections for now: {}", errno::words(errno));
                }
                self.server.paused_until = Some(self.now + PAUSE);
                return self.server.listen_for(&self.poller, Interest::Nothing);
            }
            // It has gone, or was none.
            Err(_) => return,
        };
        self.server.is_short = false;
        let mut client = Client::new(fd, entrance, self.now);
        let present = self.server.clients.iter().filter(|(_, other)| other.entrance == entrance).count();
        if let Some(uid) = unauthorized_uid(&client) {
            self.reject(&mut client, 403, format!("user {uid} is neither root nor keepalive's own user"));
        } else if present >= MOST_CLIENTS {
            self.reject(&mut client, 503, format!("too many clients: the limit is {MOST_CLIENTS}"));
        }
        if present >= MOST_CLIENTS + MOST_REFUSED {
            return client.refuse_at_once(&self.snapshot());
        }
        self.server.last_token = self.server.last_token.max(HTTP) + 1;
        let token = self.server.last_token;
        if self.poller.add(client.fd.as_fd(), token).is_ok() {
            self.server.clients.push((token, client));
            self.attend(token);
        }
    }

    /// Whatever it asks for, it is told why not.
    fn reject(&mut self, client: &mut Client, status: u16, reason: String) {
        self.counts.dropped_clients += 1;
        self.server.refusals += 1;
        self.server.last_refusal.clone_from(&reason);
        client.refusal = Some((status, reason));
        client.deadline = Some(self.now + client::FAREWELL);
    }

    /// Goes on with one client.
    fn attend(&mut self, token: u64) {
        let Some(mut client) = self.server.take(token) else { return };
        let before = client.interest;
        let mut request = None;
        let fate = match &client.stage {
            Stage::Reading(_) => match client.read() {
                Incoming::Part => ConnectionFate::Stays,
                Incoming::Closed => ConnectionFate::Over,
                Incoming::Malformed(status, reason) => {
                    client.answer(plain(status, "invalid", reason), self.now);
                    client.send(&self.snapshot())
                }
                Incoming::Request(head) => {
                    request = self.begin(&mut client, &head);
                    match client.stage {
                        Stage::Sending(_) | Stage::Following(_) => client.send(&self.snapshot()),
                        Stage::HandedOver => ConnectionFate::Over,
                        Stage::Reading(_) | Stage::Measuring(_) | Stage::Awaiting(..) | Stage::Leaving => {
                            ConnectionFate::Stays
                        }
                    }
                }
            },
            Stage::Sending(_) => client.send(&self.snapshot()),
            Stage::Following(_) if client.interest != Interest::Output => client.listen(),
            Stage::Following(_) => client.send(&self.snapshot()),
            Stage::Leaving => client.deferred_close(),
            // Nothing is waited for but that it closes.
            Stage::Measuring(_) | Stage::HandedOver => ConnectionFate::Over,
            Stage::Awaiting(..) => {
                self.happened(Event::Withdrawn(RequestId(token)));
                ConnectionFate::Over
            }
        };
        self.put_back(token, client, before, fate);
        if let Some(request) = request {
            self.happened(Event::Request { id: RequestId(token), request });
        }
    }

    /// Has the logger answer, which has the lines.
    fn hand_over(&self, client: &mut Client, query: LogsQuery) {
        if !self.logging.is_on() {
            return client.answer(plain(409, "refused", NOT_LOGGED), self.now);
        }
        // Of the two descriptors of the connection ours is closed as soon as this is over.
        let handed = client.fd.try_clone().ok().and_then(|copy| self.logging.hand_over(copy, query).ok());
        match handed {
            Some(()) => client.stage = Stage::HandedOver,
            None => client.answer(plain(503, "refused", "the logger is not running, try again later"), self.now),
        }
    }

    fn put_back(&mut self, token: u64, client: Client, before: Interest, fate: ConnectionFate) {
        if fate == ConnectionFate::Over {
            self.poller.remove(client.fd.as_fd()).ok();
            return;
        }
        if client.interest != before {
            self.poller.modify(client.fd.as_fd(), token, client.interest).ok();
        }
        self.server.clients.push((token, client));
    }

    /// Begins with the answer; what has to be done first is given back.
    fn begin(&mut self, client: &mut Client, head: &Head) -> Option<crate::supervisor::Request> {
        client.wants_head = head.method == "HEAD";
        if client.say_refusal(self.now) {
            return None;
        }
        let route = match route::route(&head.method, &head.target, &self.plan) {
            Ok(route) => route,
            Err(invalid) => {
                match invalid {
                    Invalid::Malformed(reason) => client.answer(plain(400, "invalid", &reason), self.now),
                    Invalid::Unknown(reason) => client.answer(plain(404, "not_found", &reason), self.now),
                    Invalid::Method { allowed, reason } => {
                        let allow = format!("Allow: {allowed}\r\n");
                        client.answer_with(plain(405, "invalid", &reason), &allow, self.now);
                    }
                }
                return None;
            }
        };
        match route {
            Route::Livez => client.document("application/json", "", b"{\"status\":\"ok\"}\n", self.now),
            Route::Readyz(target) => client.answer(answer::readiness(&self.snapshot(), target), self.now),
            Route::Page => client.document("text/html; charset=utf-8", POLICY, PAGE, self.now),
            Route::Status => self.begin_page(client, StreamingBody::Status(Cursor::default())),
            Route::Metrics => self.begin_page(client, StreamingBody::Metrics { family: 0, cursor: Cursor::default() }),
            Route::Events { follow: true } if self.server.followers(client.entrance) >= MOST_FOLLOWERS => {
                let reason = format!("too many clients follow: the limit is {MOST_FOLLOWERS}");
                client.answer(plain(503, "refused", &reason), self.now);
            }
            Route::Events { follow: true } => client.follow(self.now),
            Route::Events { follow: false } => self.begin_page(client, StreamingBody::Events { after: 0 }),
            Route::Logs { .. } if client.wants_head => client.document("application/x-ndjson", "", b"", self.now),
            Route::Logs { names, lines, follow } => {
                let is_guest = client.entrance == Listener::Http;
                self.hand_over(client, LogsQuery { names, lines, follow, is_guest })
            }
            Route::Change(..) if client.entrance == Listener::Http => {
                let reason = "this port is read-only: use the control socket";
                client.answer(plain(403, "forbidden", reason), self.now);
            }
            Route::Change(request, patience) => {
                client.stage = Stage::Awaiting(request, patience);
                client.deadline = Some(self.now + patience);
                client.interest = Interest::Nothing;
                return Some(request);
            }
        }
        None
    }

    fn begin_page(&mut self, client: &mut Client, page: StreamingBody) {
        if page.needs_usage() && !self.usage.is_fresh(self.now) {
            // It has asked, and the rest takes as long as there is time for it: the client is not late.
            client.deadline = None;
            client.stage = Stage::Measuring(page);
            client.interest = Interest::Nothing;
        } else {
            client.page(page, &self.snapshot());
        }
    }

    /// Goes on with finding out what the instances use, and then with those who wait for it.
    fn measure(&mut self) {
        let view = self.supervisor.view();
        let processes = view.services().flat_map(|service| service.instances().chain(service.surges()));
        let mains = || processes.filter_map(|instance| Some((instance.pid?.get(), instance.id))).collect();
        if !self.usage.go_on(self.now, mains) {
            return;
        }
        for token in self.server.tokens(|client| matches!(client.stage, Stage::Measuring(_))) {
            let Some(mut client) = self.server.take(token) else { continue };
            let before = client.interest;
            if let Stage::Measuring(page) = mem::replace(&mut client.stage, Stage::Leaving) {
                client.page(page, &self.snapshot());
            }
            self.put_back(token, client, before, ConnectionFate::Stays);
        }
    }

    /// A request has been done or refused.
    pub(super) fn reply(&mut self, id: RequestId, result: Result<(), Refusal>) {
        let Some(mut client) = self.server.take(id.0) else { return };
        let before = client.interest;
        if let Stage::Awaiting(request, _) = client.stage {
            client.answer(answer::result(&self.snapshot(), request, result), self.now);
        }
        let fate = client.send(&self.snapshot());
        self.put_back(id.0, client, before, fate);
    }

    /// A request cannot be done, for a reason of the runtime's.
    pub(super) fn refuse(&mut self, id: RequestId, reason: &str) {
        let Some(mut client) = self.server.take(id.0) else { return };
        let before = client.interest;
        client.answer(plain(409, "refused", reason), self.now);
        let fate = client.send(&self.snapshot());
        self.put_back(id.0, client, before, fate);
    }

    /// There are events that those who follow do not have.
    pub(super) fn wake_followers(&mut self) {
        let latest = self.events.latest();
        if mem::replace(&mut self.server.announced, latest) == latest {
            return;
        }
        for (token, client) in &mut self.server.clients {
            if matches!(client.stage, Stage::Following(after) if after < latest) && client.interest != Interest::Output
            {
                client.interest = Interest::Output;
                self.poller.modify(client.fd.as_fd(), *token, Interest::Output).ok();
            }
        }
    }

    fn look_at_deadlines(&mut self) {
        if self.server.paused_until.take_if(|until| *until <= self.now).is_some() {
            self.server.listen_for(&self.poller, Interest::Input);
        }
        for token in self.server.tokens(|client| client.deadline.is_some_and(|deadline| deadline <= self.now)) {
            let Some(mut client) = self.server.take(token) else { continue };
            let before = client.interest;
            if matches!(client.stage, Stage::Reading(_)) && client.say_refusal(self.now) {
                client.send(&self.snapshot());
                self.put_back(token, client, before, ConnectionFate::Over);
                continue;
            }
            let fate = match &client.stage {
                Stage::Awaiting(request, patience) => {
                    let answer = answer::timeout(&self.snapshot(), *request, *patience);
                    client.answer(answer, self.now);
                    let fate = client.send(&self.snapshot());
                    self.happened(Event::Withdrawn(RequestId(token)));
                    fate
                }
                Stage::Reading(_) => {
                    self.counts.dropped_clients += 1;
                    client.answer(plain(408, "timeout", "the request was not received in time"), self.now);
                    client.send(&self.snapshot());
                    ConnectionFate::Over
                }
                Stage::Leaving | Stage::HandedOver => ConnectionFate::Over,
                Stage::Measuring(_) | Stage::Sending(_) | Stage::Following(_) => {
                    self.counts.dropped_clients += 1;
                    ConnectionFate::Over
                }
            };
            self.put_back(token, client, before, fate);
        }
    }

    /// Everything that pages are made of.
    fn snapshot(&self) -> StatusSnapshot<'_> {
        StatusSnapshot {
            plan: &self.plan,
            view: self.supervisor.view(),
            usage: &self.usage,
            counts: &self.counts,
            logging: &self.logging,
            events: &self.events,
            notify: &self.notify,
            channels: &self.channels,
            pid: sys::process::id(),
            now: self.now,
            begun: self.begun,
            begun_at: self.begun_at,
        }
    }
}

/// Who may not be here.
fn unauthorized_uid(client: &Client) -> Option<String> {
    if client.entrance == Listener::Http {
        return None;
    }
    match socket::peer_uid(client.fd.as_fd()) {
        Some(uid) if uid == 0 || uid == sys::process::effective_user() => None,
        Some(uid) => Some(uid.to_string()),
        None => Some("unknown".to_owned()),
    }
}

const NOT_LOGGED: &str = "no logs: services write directly to keepalive's stdout and stderr; set log = { stdout = \"prefix\", stderr = \"prefix\" } to collect them";
/// The page loads nothing from elsewhere.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n";
const PAGE: &[u8] = include_bytes!("../../control/page.html");
