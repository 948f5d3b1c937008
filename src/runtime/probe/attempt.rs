//! One attempt of a readiness probe: connects, sends a request or starts a helper process, and gives a verdict.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::output::{LastLine, Output};
use crate::model::plan::{Health, HttpCheck, Probe};
use crate::model::{ExitStatus, Numbers, Pid, ProbeFailure as Failure, Signal, Template, instance_limit};
use crate::runtime::runs::RunSpec;
use crate::runtime::token::Token;
use crate::sys::deferred_close::DeferredFd;
use crate::sys::{Poller, fork, kill, pipe, socket, stream, strings};

/// The maximum length of an HTTP status line, in bytes.
const MAX_STATUS_LINE: usize = 1 << 10;
/// The number of bytes read of an unsuccessful response, so that the server can finish it.
const MAX_RESPONSE: usize = 64 << 10;
/// The number of bytes read at once.
const READ_SIZE: usize = 4 << 10;
/// The exit code of a helper that has found a file that is older than the process; no errno.
const OLD_FILE: u8 = 250;
/// The exit code of a helper that has read much from `ready.fd`, but no newline.
const NO_NEWLINE: u8 = 2;
/// The number of bytes discarded before the newline on `ready.fd`.
const MAX_DISCARDED: usize = 64 << 10;
/// The number of headers of a response that may be expected to have a body. With more, its body is read as it comes.
const MAX_HEADERS: usize = 64;

/// An attempt in progress.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The connection is being established. The request is sent then, if there is one.
    Connecting(OwnedFd, Option<Request>),
    /// The HTTP response is being read.
    Reading(OwnedFd, Response),
    /// The helper process is running.
    Running(Helper),
}

/// A helper process.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) pid: Pid,
    /// It has been killed because it took too long.
    pub(super) is_timed_out: bool,
    pub(super) task: Task,
}

/// What a helper does.
#[derive(Debug)]
pub(super) enum Task {
    /// It is the command: 0 is success.
    Command(Output),
    /// It reads the last line of a command that has failed.
    LastLine(LastLine),
    /// It looks at a file, and exits with an errno, or [`OLD_FILE`].
    FileCheck,
    /// It reads `ready.fd`: 0 is a newline, [`NO_NEWLINE`] too much without one, else the other end is closed. This end stays
    /// open until the helper has been reaped, so that the process does not end by SIGPIPE before it is known why.
    ReadyPipe { _pipe: DeferredFd },
}

/// An HTTP request, and what is expected of the response; `None`: the default.
#[derive(Debug, Default)]
pub(super) struct Request {
    text: Vec<u8>,
    health: Option<Rc<Health>>,
}

/// An HTTP response.
#[derive(Debug, Default)]
pub(super) struct Response {
    line: Vec<u8>,
    /// All of it, if something is expected of the body.
    content: Vec<u8>,
    /// How much of it has been searched.
    searched: usize,
    read: usize,
    status: Option<u16>,
    health: Option<Rc<Health>>,
}

/// The result of a step of an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The attempt continues.
    Pending(Attempt),
    /// Success. The connection, if the response has not been read completely.
    Passed(Option<OwnedFd>),
    /// Failure.
    Failed(Failure),
}

/// Starts an attempt for the process of `spec`, which is a check of `health` if that is given. `run` starts the command of [`Probe::Exec`]. The poller reports progress with
/// `token`.
pub(super) fn start(
    probe: &Probe,
    health: Option<&Rc<Health>>,
    spec: &RunSpec,
    (poller, token): (&Poller, Token),
    run: impl FnOnce(&[Template]) -> Result<Helper, Errno>,
) -> Verdict {
    let numbers = spec.numbers();
    let started_at = match probe {
        Probe::Tcp(authority) => connect(authority, numbers, None),
        Probe::Http { authority, target } => {
            connect(authority, numbers, Some(request(authority, target, numbers, health.cloned())))
        }
        Probe::File(path) => start_file_check(path, spec).map(Attempt::Running).map_err(Failure::Errno),
        Probe::Exec(command) => run(command).map(Attempt::Running).map_err(Failure::Errno),
    };
    let watched = started_at.and_then(|attempt| {
        if let Attempt::Connecting(connection, _) = &attempt {
            poller.add_writable(connection, token).map_err(Failure::Errno)?;
        }
        Ok(attempt)
    });
    watched.map_or_else(Verdict::Failed, Verdict::Pending)
}

/// Checks in a helper process, since file systems can hang, whether a file has been created or changed since the process was
/// started: an earlier process, or the one that a reload replaces, may have left it behind.
fn start_file_check(path: &Template, spec: &RunSpec) -> Result<Helper, Errno> {
    let (path, started_at) = (path.expand(spec.numbers()), spec.started_at);
    let look = || match change_time(&path) {
        Ok(changed_at) if changed_at < started_at => OLD_FILE,
        Ok(_) => 0,
        Err(errno) => u8::try_from(errno as i32).unwrap_or(u8::MAX),
    };
    let pid = fork::fork_helper(&[], look)?;
    Ok(Helper { pid, is_timed_out: false, task: Task::FileCheck })
}

/// Starts a helper that waits for a newline on `ready.fd`: see [`super::output`] for why keepalive does not read.
///
/// # Errors
/// EAGAIN, ENOMEM: the process cannot be created.
pub(super) fn start_reading(pipe: &OwnedFd) -> Result<Pid, Errno> {
    fork::fork_helper(&[pipe.as_fd()], || {
        let (mut buffer, mut discarded) = ([0; READ_SIZE], 0);
        while discarded < MAX_DISCARDED {
            match nix::unistd::read(pipe, &mut buffer) {
                Err(Errno::EAGAIN | Errno::EINTR) => drop(pipe::wait_for_input(pipe, Duration::MAX)),
                Ok(length @ 1..) => {
                    if strings::memchr(b'\n', buffer.get(..length).unwrap_or_default()).is_some() {
                        return 0;
                    }
                    discarded += length;
                }
                Ok(0) | Err(_) => return 1,
            }
        }
        NO_NEWLINE
    })
}

/// The time of the last change of a file, stat(2). Some file systems know only the second, or every other one.
fn change_time(path: &CStr) -> Result<Duration, Errno> {
    let status = nix::sys::stat::stat(path)?;
    let nanoseconds = if status.st_ctime_nsec == 0 { 2_000_000_000 } else { status.st_ctime_nsec };
    let [seconds, nanoseconds] = [status.st_ctime, nanoseconds].map(|part| u64::try_from(part).unwrap_or_default());
    Ok(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
}

fn connect(authority: &Template, numbers: Numbers, request: Option<Request>) -> Result<Attempt, Failure> {
    // Host names are not resolved, because that can block.
    let address = instance_limit::address(authority, numbers).ok_or(Failure::InvalidAddress)?;
    let connection = stream::start_connect(address).map_err(Failure::Errno)?;
    Ok(Attempt::Connecting(connection, request))
}

fn request(authority: &Template, target: &Template, numbers: Numbers, health: Option<Rc<Health>>) -> Request {
    let (authority, target) = (authority.expand(numbers), target.expand(numbers));
    let mut text = [b"GET ", target.as_bytes(), b" HTTP/1.1\r\n"].concat();
    let mut push = |name: &str, value: &[u8]| {
        [name.as_bytes(), b": ", value, b"\r\n"].into_iter().for_each(|part| text.extend_from_slice(part));
    };
    let own = health.as_ref().map_or(&[][..], |health| &health.http.headers);
    let usual: [(&str, &[u8]); 4] =
        [("Host", authority.as_bytes()), ("User-Agent", b"keepalive"), ("Accept", b"*/*"), ("Connection", b"close")];
    for (name, value) in usual {
        if !own.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            push(name, value);
        }
    }
    own.iter().for_each(|(name, value)| push(name, value.expand(numbers).as_bytes()));
    text.extend_from_slice(b"\r\n");
    Request { text, health }
}

impl Attempt {
    /// Its connection is ready: continues the attempt.
    pub(super) fn advance(self, poller: &Poller, token: Token) -> Verdict {
        match self {
            Self::Connecting(connection, request) => on_connected(connection, request, poller, token),
            Self::Reading(connection, response) => on_input(connection, response, poller),
            Self::Running(_) => Verdict::Pending(self),
        }
    }

    /// Aborts the attempt, whose time limit has been reached. A helper process is killed, and still waited for: there is
    /// never more than one.
    pub(super) fn abort(self, poller: &Poller) -> Verdict {
        match self {
            Self::Connecting(connection, _) => {
                unwatch(poller, &connection);
                Verdict::Failed(Failure::TimedOut)
            }
            Self::Reading(connection, response) => {
                unwatch(poller, &connection);
                response.end(Failure::TimedOut)
            }
            Self::Running(helper) => {
                helper.kill();
                Verdict::Pending(Self::Running(Helper { is_timed_out: true, ..helper }))
            }
        }
    }

    pub(super) const fn helper(&self) -> Option<&Helper> {
        match self {
            Self::Running(helper) => Some(helper),
            Self::Connecting(..) | Self::Reading(..) => None,
        }
    }

    /// Stops to watch what belongs to the attempt.
    pub(super) fn close(self, poller: &Poller) {
        match self {
            Self::Connecting(connection, _) | Self::Reading(connection, _) => unwatch(poller, &connection),
            Self::Running(_) => {}
        }
    }

    /// The helper process has exited, or could not be executed for a reason. `None`: the process has closed `ready.fd`.
    pub(super) fn on_ended(self, (status, reason): (ExitStatus, Option<String>)) -> Option<Verdict> {
        let Self::Running(Helper { is_timed_out, task, .. }) = self else { return None };
        Some(match (task, status) {
            (Task::LastLine(line), _) => Verdict::Failed(Failure::Ended(line.status, line.text())),
            _ if is_timed_out => Verdict::Failed(Failure::TimedOut),
            (Task::ReadyPipe { .. }, ExitStatus::Code(NO_NEWLINE)) => Verdict::Failed(Failure::NoNewline),
            (_, ExitStatus::Code(0)) => Verdict::Passed(None),
            (Task::ReadyPipe { .. }, _) => return None,
            (Task::Command(_), _) if reason.is_some() => Verdict::Failed(Failure::Ended(status, reason.map(Rc::from))),
            (Task::Command(output), _) => match output.read(status) {
                Some((pid, line)) => {
                    Verdict::Pending(Self::Running(Helper { pid, is_timed_out: false, task: Task::LastLine(line) }))
                }
                None => Verdict::Failed(Failure::Ended(status, None)),
            },
            (Task::FileCheck, ExitStatus::Code(OLD_FILE)) => Verdict::Failed(Failure::OldFile),
            (Task::FileCheck, ExitStatus::Code(errno)) => {
                Verdict::Failed(Failure::Errno(Errno::from_raw(errno.into())))
            }
            (Task::FileCheck, ExitStatus::Signal(_)) => Verdict::Failed(Failure::Ended(status, None)),
        })
    }
}

impl Helper {
    /// Kills the helper and its process group. It has not been reaped, so its pid is valid.
    pub(super) fn kill(&self) {
        kill::signal_group_or_process(self.pid, Signal::KILL).ok();
    }
}

/// Removes a connection from the poller. Closing it is not enough while a child has it open.
pub(super) fn unwatch(poller: &Poller, connection: &OwnedFd) {
    poller.remove(connection).ok();
}

fn on_connected(connection: OwnedFd, request: Option<Request>, poller: &Poller, token: Token) -> Verdict {
    if let Err(errno) = stream::finish_connect(&connection) {
        unwatch(poller, &connection);
        return Verdict::Failed(Failure::Errno(errno));
    }
    let Some(request) = request else {
        unwatch(poller, &connection);
        return Verdict::Passed(None);
    };
    let Request { text, health } = request;
    // The send buffer is empty and has room for a request.
    let sent = socket::send(&connection, &text);
    let watched = poller.modify(&connection, token, crate::sys::Interest::Input);
    if sent == Ok(text.len()) && watched.is_ok() {
        return Verdict::Pending(Attempt::Reading(connection, Response { health, ..Response::default() }));
    }
    unwatch(poller, &connection);
    Verdict::Failed(sent.map_or_else(Failure::Errno, |_| Failure::NotHttp))
}

fn on_input(connection: OwnedFd, mut response: Response, poller: &Poller) -> Verdict {
    let mut buffer = [0; READ_SIZE];
    let verdict = match socket::receive(&connection, &mut buffer) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Verdict::Pending(Attempt::Reading(connection, response)),
        Err(errno) => response.end(Failure::Errno(errno)),
        Ok(0) => response.end(Failure::NotHttp),
        Ok(length) => match response.take(buffer.get(..length).unwrap_or_default()) {
            Ok(_) if response.is_found() => return Verdict::Passed(Some(connection)),
            Ok(_) if response.read < MAX_RESPONSE => return Verdict::Pending(Attempt::Reading(connection, response)),
            Ok(_) => response.end(Failure::NotHttp),
            Err(failure) => Verdict::Failed(failure),
        },
    };
    unwatch(poller, &connection);
    verdict
}

impl Response {
    /// The result if no more of it comes.
    fn end(&self, failure: Failure) -> Verdict {
        if self.is_expected() { Verdict::Passed(None) } else { Verdict::Failed(self.failure_or(failure)) }
    }

    /// As [`Self::is_expected`], but a body that comes in small pieces is searched only when it has grown by an eighth: else
    /// the work would grow with the square of its length.
    fn is_found(&mut self) -> bool {
        let is_due = self.content.len() >= self.searched + self.searched / 8;
        if is_due {
            self.searched = self.content.len();
        }
        is_due && self.is_expected()
    }

    /// Why it is no success; `failure` if there is no status yet.
    fn failure_or(&self, failure: Failure) -> Failure {
        match self.status {
            Some(status) if self.accepts(status) => Failure::Body,
            Some(status) => Failure::Status(status),
            None => failure,
        }
    }

    fn accepts(&self, status: u16) -> bool {
        match &self.health {
            Some(health) => health.http.statuses.iter().any(|statuses| statuses.contains(&status)),
            None => HttpCheck::SUCCESS.contains(&status),
        }
    }

    /// Whether it is a success, as far as it has been read.
    fn is_expected(&self) -> bool {
        self.status.is_some_and(|status| self.accepts(status))
            && self.wanted().is_none_or(|wanted| contains(&body(&self.content), wanted))
    }

    /// What the body must contain.
    fn wanted(&self) -> Option<&[u8]> {
        self.health.as_ref()?.http.body.as_ref().map(|body| body.as_bytes())
    }

    /// Parses more of the response. Returns the status as soon as it is known.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<u16>, Failure> {
        self.read += bytes.len();
        if self.wanted().is_some() {
            self.content.extend_from_slice(bytes);
        }
        if self.status.is_some() {
            return Ok(self.status);
        }
        self.line.extend_from_slice(bytes);
        match strings::memchr(b'\n', &self.line) {
            Some(end) if end < MAX_STATUS_LINE => self.line.truncate(end),
            None if self.line.len() < MAX_STATUS_LINE => return Ok(None),
            Some(_) | None => return Err(Failure::NotHttp),
        }
        // Complete the head: headers do not matter.
        self.line.extend_from_slice(b"\n\n");
        let mut response = httparse::Response::new(&mut []);
        response.parse(&self.line).ok();
        self.status = Some(response.code.ok_or(Failure::NotHttp)?);
        Ok(self.status)
    }
}

/// The body of a response of which this much has been read.
fn body(content: &[u8]) -> Vec<u8> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(start)) = response.parse(content) else { return Vec::new() };
    let is_chunked = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("transfer-encoding") && header.value.eq_ignore_ascii_case(b"chunked")
    };
    let is_chunked = response.headers.iter().any(is_chunked);
    let mut rest = content.get(start..).unwrap_or_default();
    if !is_chunked {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((start, length @ 1..))) = httparse::parse_chunk_size(rest) {
        let chunk = rest.get(start..).unwrap_or_default();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        body.extend_from_slice(chunk.get(..length).unwrap_or(chunk));
        // A line break follows.
        rest = chunk.get(length.saturating_add(2)..).unwrap_or_default();
    }
    body
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Number;
    use crate::model::plan::OnUnhealthy;

    fn status(pieces: &[&[u8]]) -> Result<Option<u16>, Failure> {
        let mut response = Response::default();
        pieces.iter().map(|piece| response.take(piece)).find(|result| *result != Ok(None)).unwrap_or(Ok(None))
    }

    #[test]
    fn the_status_line_is_enough() {
        assert_eq!(status(&[b"HTTP/1.1 204 No Content\r\n"]), Ok(Some(204)));
        assert_eq!(status(&[b"HTTP/1.0 503 \r\n\0\0\0 nonsense"]), Ok(Some(503)));
        assert_eq!(status(&[b"HTTP/1.1 30", b"2 Found\n"]), Ok(Some(302)));
        assert_eq!(status(&[b"HTTP/1.1 200"]), Ok(None), "it is not complete");
    }

    #[test]
    fn a_response_without_a_status_line_is_not_http() {
        for nonsense in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\n", b"HTTP/1.1 abc OK\r\n", b"220 mail ready\r\n"] {
            assert_eq!(status(&[nonsense]), Err(Failure::NotHttp), "{}", nonsense.escape_ascii());
        }
        assert_eq!(status(&[&[b'H'; MAX_STATUS_LINE]]), Err(Failure::NotHttp), "it is endless");
    }

    #[test]
    fn a_request_has_a_host_header_and_closes_the_connection() {
        let fixed = |text: &str| Template::Fixed(std::ffi::CString::new(text).unwrap());
        let numbered = Template::Numbered {
            pieces: [(c"127.0.0.1:300".to_owned(), Number::Instance)].into(),
            last: c"".to_owned(),
        };
        let request =
            String::from_utf8(request(&numbered, &fixed("/ok?a=b"), Numbers { instance: 2, instances: 3 }, None).text)
                .unwrap();
        let expect = "GET /ok?a=b HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nUser-Agent: keepalive\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(request, expect);
    }

    fn checked(http: HttpCheck) -> Option<Rc<Health>> {
        let second = Duration::from_secs(1);
        let probe = Probe::Exec(Box::default());
        let (interval, timeout, start_period, on_unhealthy) = (second, second, second, OnUnhealthy::Mark);
        Some(Rc::new(Health { probe, http, interval, timeout, retries: 1, start_period, on_unhealthy }))
    }

    #[test]
    fn a_header_of_a_check_takes_the_place_of_the_usual_one() {
        let fixed = |text: &str| Template::Fixed(std::ffi::CString::new(text).unwrap());
        let headers = [("host", fixed("example.org")), ("X-A", fixed("b"))].map(|(name, value)| (name.into(), value));
        let health = checked(HttpCheck { headers: headers.into(), ..HttpCheck::default() });
        let request = request(&fixed("127.0.0.1:80"), &fixed("/"), Numbers::SINGLE, health);
        let expect = "GET / HTTP/1.1\r\nUser-Agent: keepalive\r\nAccept: */*\r\nConnection: close\r\nhost: example.org\r\nX-A: b\r\n\r\n";
        assert_eq!(String::from_utf8(request.text).unwrap(), expect);
    }

    /// Whether a body with the expected text is found at the latest when the response ends, for pieces of several sizes.
    fn found(response: &[u8]) -> [bool; 3] {
        let body = Some(Box::<str>::from("all is fine").into());
        let health = checked(HttpCheck { body, statuses: [200..=200].into(), ..HttpCheck::default() });
        [1, 7, 1_000_000].map(|size| {
            let mut one = Response { health: health.clone(), ..Response::default() };
            let is_found = response.chunks(size).any(|piece| one.take(piece).is_ok() && one.is_found());
            is_found || matches!(one.end(Failure::NotHttp), Verdict::Passed(None))
        })
    }

    #[test]
    fn a_body_is_searched_whatever_pieces_it_comes_in() {
        assert_eq!(found(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"all is fine\"}"), [true; 3]);
        assert_eq!(found(b"HTTP/1.1 200 OK\r\nA: all is fine\r\n\r\nnothing is"), [false; 3]);
        assert_eq!(found(b"HTTP/1.1 200 OK\r\nA: b\r\n"), [false; 3]);
        assert_eq!(found(b"HTTP/1.1 204 all is fine\r\n\r\nall is fine"), [false; 3]);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(found(&[&head[..], b"5\r\n{all \r\n6;a=b\r\nis fin\r\n2\r\ne}\r\n0\r\n\r\n"].concat()), [true; 3]);
        assert_eq!(found(&[&head[..], b"3\r\nall\r\n0\r\n\r\n is fine"].concat()), [false; 3]);
        assert_eq!(found(&[&head[..], b"ffffffffffffffff\r\nall is fine"].concat()), [true; 3]);
        assert_eq!(found(&[&head[..], b"no number\r\nall is fine"].concat()), [false; 3]);
    }

    #[test]
    fn the_failure_of_a_response_is_its_status_or_its_body() {
        let health = checked(HttpCheck { body: Some(Box::<str>::from("x").into()), ..HttpCheck::default() });
        let failure =
            |status| Response { status, health: health.clone(), ..Response::default() }.failure_or(Failure::TimedOut);
        assert_eq!(failure(Some(503)), Failure::Status(503));
        assert_eq!(failure(Some(200)), Failure::Body);
        assert_eq!(failure(None), Failure::TimedOut);
    }
}
