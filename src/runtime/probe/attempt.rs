//! One try of a probe, from its beginning to its verdict; when there is a next one is not its affair.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::model::plan::Probe;
use crate::model::{ExitStatus, Pid, Signal, Template, errno, instance_limit};
use crate::runtime::token::Token;
use crate::sys::{Poller, fork, kill, socket, stream, strings};

/// A status line is no longer.
const MAX_STATUS_LINE_LENGTH: usize = 1 << 10;
/// So much of an answer that says no is read, so that the server can end it in peace.
const MAX_READ_BYTES: usize = 64 << 10;
/// Read at once.
const PIECE: usize = 4 << 10;
/// Statuses that mean yes.
const GOOD: std::ops::RangeInclusive<u16> = 200..=399;

/// A try that is under way.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Until the connection is made; then this is sent, if anything.
    Connecting(OwnedFd, Option<Vec<u8>>),
    /// Until the status is known.
    Reading(OwnedFd, Answer),
    /// Until this process has ended.
    Running(Helper),
}

/// A process that finds out.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) pid: Pid,
    /// Where it would tell why it could not be executed. Kept, so that telling does not kill it.
    #[expect(dead_code, reason = "it is there to be open")]
    pub(super) start: Option<OwnedFd>,
    /// It took too long, and has been killed.
    pub(super) is_late: bool,
    pub(super) task: Task,
}

/// What a process says by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Whatever the command means by it.
    Command,
    /// The errno of looking at a file.
    Look,
}

/// What has come of an HTTP answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    line: Vec<u8>,
    read: usize,
    status: Option<u16>,
}

/// What a try has come to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing yet: wait for this.
    Open(Attempt),
    /// Yes. The connection, if there is one on which something may still come in.
    Passed(Option<OwnedFd>),
    /// No.
    Failed(Failure),
}

/// Why it is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Errno(Errno),
    /// What is to be asked is nowhere: no address.
    Nowhere,
    /// The answer is not HTTP.
    NotHttp,
    Status(u16),
    Ended(ExitStatus),
    /// No answer in time.
    Late,
    /// Much on its descriptor, and no newline.
    NoNewline,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(number) => formatter.write_str(errno::words(*number)),
            Self::Nowhere => formatter.write_str("invalid address"),
            Self::NotHttp => formatter.write_str("not an HTTP response"),
            Self::Status(status) => write!(formatter, "HTTP status {status}"),
            Self::Ended(status) => status.fmt(formatter),
            Self::Late => formatter.write_str("timed out"),
            Self::NoNewline => formatter.write_str("no newline in the data written to its descriptor"),
        }
    }
}

/// Begins a try for instance `number`. `run` starts the command of [`Probe::Exec`]; on `token` the poller tells that it
/// goes on.
pub(super) fn begin(
    probe: &Probe,
    number: u32,
    (poller, token): (&Poller, Token),
    run: impl FnOnce(&[Template]) -> Result<Helper, Errno>,
) -> Verdict {
    let begun = match probe {
        Probe::Tcp(authority) => connect(authority, number, None),
        Probe::Http { authority, target } => connect(authority, number, Some(request(authority, target, number))),
        Probe::File(path) => look_for(path, number).map(Attempt::Running).map_err(Failure::Errno),
        Probe::Exec(command) => run(command).map(Attempt::Running).map_err(Failure::Errno),
    };
    let watched = begun.and_then(|attempt| {
        if let Attempt::Connecting(connection, _) = &attempt {
            poller.add_writable(connection, token).map_err(Failure::Errno)?;
        }
        Ok(attempt)
    });
    watched.map_or_else(Verdict::Failed, Verdict::Open)
}

/// Not ourselves: where a file system hangs, so does whoever looks.
fn look_for(path: &Template, number: u32) -> Result<Helper, Errno> {
    let path = path.expand(number);
    let look = || is_there(&path).err().map_or(0, |errno| u8::try_from(errno as i32).unwrap_or(u8::MAX));
    let pid = fork::fork_helper(None, look)?;
    Ok(Helper { pid, start: None, is_late: false, task: Task::Look })
}

fn is_there(path: &CStr) -> Result<(), Errno> {
    nix::unistd::access(path, nix::unistd::AccessFlags::F_OK)
}

fn connect(authority: &Template, number: u32, request: Option<Vec<u8>>) -> Result<Attempt, Failure> {
    // No name is looked up, which could take any time.
    let address = instance_limit::address(authority, number).ok_or(Failure::Nowhere)?;
    let connection = stream::start_connect(address).map_err(Failure::Errno)?;
    Ok(Attempt::Connecting(connection, request))
}

fn request(authority: &Template, target: &Template, number: u32) -> Vec<u8> {
    let (authority, target) = (authority.expand(number), target.expand(number));
    let pieces: [&[u8]; 5] = [
        b"GET ",
        target.as_bytes(),
        b" HTTP/1.1\r\nHost: ",
        authority.as_bytes(),
        b"\r\nUser-Agent: keepalive\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    ];
    pieces.concat()
}

impl Attempt {
    /// Something has happened to its connection.
    pub(super) fn go_on(self, poller: &Poller, token: Token) -> Verdict {
        match self {
            Self::Connecting(connection, request) => on_connected(connection, request, poller, token),
            Self::Reading(connection, answer) => on_input(connection, answer, poller),
            Self::Running(_) => Verdict::Open(self),
        }
    }

    /// The process has ended that was to find out.
    pub(super) fn on_ended(helper: &Helper, status: ExitStatus) -> Verdict {
        match status {
            _ if helper.is_late => Verdict::Failed(Failure::Late),
            ExitStatus::Code(0) => Verdict::Passed(None),
            ExitStatus::Code(errno) if helper.task == Task::Look => {
                Verdict::Failed(Failure::Errno(Errno::from_raw(errno.into())))
            }
            ExitStatus::Code(_) | ExitStatus::Signal(_) => Verdict::Failed(Failure::Ended(status)),
        }
    }

    /// Its time is over. A process is waited for all the same: there is never more than one.
    pub(super) fn give_up(self, poller: &Poller) -> Verdict {
        match self {
            Self::Connecting(connection, _) => {
                forget(poller, &connection);
                Verdict::Failed(Failure::Late)
            }
            Self::Reading(connection, answer) => {
                forget(poller, &connection);
                Verdict::Failed(answer.status.map_or(Failure::Late, Failure::Status))
            }
            Self::Running(helper) => {
                helper.kill();
                Verdict::Open(Self::Running(Helper { is_late: true, ..helper }))
            }
        }
    }

    pub(super) const fn helper(&self) -> Option<&Helper> {
        match self {
            Self::Running(helper) => Some(helper),
            Self::Connecting(..) | Self::Reading(..) => None,
        }
    }
}

impl Helper {
    /// With all that it has started. It has not been reaped: the number is its own.
    pub(super) fn kill(&self) {
        // In the moment between fork and setsid the group is not there yet.
        if kill::signal_group(self.pid.led_group(), Signal::KILL).is_err() {
            kill::signal_process(self.pid, Signal::KILL).ok();
        }
    }
}

/// Closing it would do as well, were there no child that is just about to be executed.
pub(super) fn forget(poller: &Poller, connection: &OwnedFd) {
    poller.remove(connection).ok();
}

fn on_connected(connection: OwnedFd, request: Option<Vec<u8>>, poller: &Poller, token: Token) -> Verdict {
    if let Err(errno) = stream::finish_connect(&connection) {
        forget(poller, &connection);
        return Verdict::Failed(Failure::Errno(errno));
    }
    let Some(request) = request else {
        forget(poller, &connection);
        return Verdict::Passed(None);
    };
    // Nothing has been sent before it: there is room for more than a request.
    let sent = socket::send(&connection, &request);
    let watched = poller.modify(&connection, token, crate::sys::Interest::Input);
    if sent == Ok(request.len()) && watched.is_ok() {
        return Verdict::Open(Attempt::Reading(connection, Answer::default()));
    }
    forget(poller, &connection);
    Verdict::Failed(sent.map_or_else(Failure::Errno, |_| Failure::NotHttp))
}

fn on_input(connection: OwnedFd, mut answer: Answer, poller: &Poller) -> Verdict {
    let mut buffer = [0; PIECE];
    let failure = match socket::receive(&connection, &mut buffer) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Verdict::Open(Attempt::Reading(connection, answer)),
        Err(errno) => answer.status.map_or(Failure::Errno(errno), Failure::Status),
        Ok(0) => answer.status.map_or(Failure::NotHttp, Failure::Status),
        Ok(length) => match answer.take(buffer.get(..length).unwrap_or_default()) {
            Ok(Some(status)) if GOOD.contains(&status) => return Verdict::Passed(Some(connection)),
            Ok(_) if answer.read < MAX_READ_BYTES => return Verdict::Open(Attempt::Reading(connection, answer)),
            Ok(status) => status.map_or(Failure::NotHttp, Failure::Status),
            Err(failure) => failure,
        },
    };
    forget(poller, &connection);
    Verdict::Failed(failure)
}

impl Answer {
    /// The status, as soon as it is there.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<u16>, Failure> {
        self.read += bytes.len();
        if self.status.is_some() {
            return Ok(self.status);
        }
        self.line.extend_from_slice(bytes);
        match strings::memchr(b'\n', &self.line) {
            Some(end) if end < MAX_STATUS_LINE_LENGTH => self.line.truncate(end),
            None if self.line.len() < MAX_STATUS_LINE_LENGTH => return Ok(None),
            Some(_) | None => return Err(Failure::NotHttp),
        }
        // As if it were all: what follows is of no interest.
        self.line.extend_from_slice(b"\n\n");
        let mut response = httparse::Response::new(&mut []);
        response.parse(&self.line).ok();
        self.status = Some(response.code.ok_or(Failure::NotHttp)?);
        Ok(self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pieces: &[&[u8]]) -> Result<Option<u16>, Failure> {
        let mut answer = Answer::default();
        pieces.iter().map(|piece| answer.take(piece)).find(|result| *result != Ok(None)).unwrap_or(Ok(None))
    }

    #[test]
    fn the_status_line_is_enough_whatever_follows() {
        assert_eq!(status(&[b"HTTP/1.1 204 No Content\r\n"]), Ok(Some(204)));
        assert_eq!(status(&[b"HTTP/1.0 503 \r\n\0\0\0 nonsense"]), Ok(Some(503)));
        assert_eq!(status(&[b"HTTP/1.1 30", b"2 Found\n"]), Ok(Some(302)));
        assert_eq!(status(&[b"HTTP/1.1 200"]), Ok(None), "it is not complete");
    }

    #[test]
    fn what_is_no_status_line_is_no_answer() {
        for nonsense in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\n", b"HTTP/1.1 abc OK\r\n", b"220 mail ready\r\n"] {
            assert_eq!(status(&[nonsense]), Err(Failure::NotHttp), "{}", nonsense.escape_ascii());
        }
        assert_eq!(status(&[&[b'H'; MAX_STATUS_LINE_LENGTH]]), Err(Failure::NotHttp), "it is endless");
    }

    #[test]
    fn a_request_names_its_host_and_wants_no_second_one() {
        let fixed = |text: &str| Template::Fixed(std::ffi::CString::new(text).unwrap());
        let numbered = Template::Numbered([c"127.0.0.1:300".to_owned(), c"".to_owned()].into());
        let request = String::from_utf8(request(&numbered, &fixed("/ok?a=b"), 2)).unwrap();
        let expect = "GET /ok?a=b HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nUser-Agent: keepalive\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(request, expect);
    }
}
