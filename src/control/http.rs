//! The wire: one HTTP/1.1 request, one answer, on a connection of its own.
//!
//! Nothing here waits longer than it was told to, and no answer is taken in beyond a limit: who listens at the path may
//! be anybody.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::places::Place;
use crate::model::units::format_duration;
use crate::model::{Mono, errno};
use crate::sys;

/// No head of ours is larger than a few hundred bytes.
const HEAD_LIMIT: usize = 64 << 10;
const HEADERS: usize = 32;
/// The state of thousands of instances is some hundred KiB.
const BODY_LIMIT: usize = 16 << 20;
/// A log line is 16 KiB at most, six times that if each of its bytes is escaped.
const LINE_LIMIT: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listens at any of these.
    Nobody(Vec<PathBuf>),
    /// We may not connect.
    Denied(PathBuf),
    /// Somebody else's socket at a place where anybody may put one.
    Strange(PathBuf),
    /// The system refuses.
    Broken(PathBuf, Errno),
    /// Not in time.
    Late(PathBuf, Duration),
    /// What came is no answer of keepalive.
    Nonsense(PathBuf, &'static str),
    /// The connection ended within the answer.
    Cut(PathBuf),
    /// A stream that goes on until keepalive ends has ended, and keepalive has not, or not in order.
    BrokenOff(PathBuf),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(places) => {
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                write!(
                    formatter,
                    "cannot connect to {}: is keepalive running? (select another with --socket PATH or KEEPALIVE_SOCKET)",
                    places.join(" or ")
                )
            }
            Self::Denied(place) => write!(
                formatter,
                "permission denied at {}: only root and the user that keepalive runs as may connect",
                place.display()
            ),
            Self::Strange(place) => {
                write!(
                    formatter,
                    "{} belongs to another user and is not trusted (use --socket to connect anyway)",
                    place.display()
                )
            }
            Self::Broken(place, errno) => {
                write!(formatter, "cannot talk to {}: {}", place.display(), errno::words(*errno))
            }
            Self::Late(place, patience) => {
                write!(formatter, "no response from {} within {}", place.display(), format_duration(*patience))
            }
            Self::Nonsense(place, what) => {
                write!(formatter, "the server at {} is not keepalive: {what}", place.display())
            }
            Self::Cut(place) => {
                write!(formatter, "the connection to {} was closed before the response was complete", place.display())
            }
            Self::BrokenOff(place) => write!(
                formatter,
                "the stream ended unexpectedly, and {} still exists: keepalive or its logger was killed",
                place.display()
            ),
        }
    }
}

/// Connects to the first of `places` where somebody listens.
pub(super) fn connect(places: &[Place], user: u32, patience: Duration) -> Result<Connection, Failure> {
    for Place { path, public } in places {
        if *public && fs::symlink_metadata(path).is_ok_and(|file| file.uid() != user) {
            return Err(Failure::Strange(path.clone()));
        }
        match sys::socket::connect_with_timeout(path, patience) {
            Ok(stream) => return Ok(Connection { stream, path: path.clone(), patience }),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED) => {}
            Err(Errno::EACCES | Errno::EPERM) => return Err(Failure::Denied(path.clone())),
            Err(Errno::EAGAIN) => return Err(Failure::Late(path.clone(), patience)),
            Err(errno) => return Err(Failure::Broken(path.clone(), errno)),
        }
    }
    Err(Failure::Nobody(places.iter().map(|place| place.path.clone()).collect()))
}

/// Somebody listens.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    path: PathBuf,
    patience: Duration,
}

impl Connection {
    /// Sends a request without a body and waits for the head of the answer. `target` is the path with its query.
    pub(super) fn ask(self, method: &str, target: &str) -> Result<Answer, Failure> {
        self.send(method, target)?.answer()
    }

    /// Sends a request as [`Connection::ask`] does, and waits for nothing.
    pub(super) fn send(mut self, method: &str, target: &str) -> Result<Pending, Failure> {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: keepalive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        if let Err(error) = self.stream.write_all(request.as_bytes())
            // It may have answered before it has read all, or refuse and close at once.
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(failure(&self.path, &error, self.patience));
        }
        Ok(Pending(self))
    }
}

/// A request has been sent. Readable: the answer has begun to come.
#[derive(Debug)]
pub(super) struct Pending(Connection);

impl Pending {
    /// Waits for the head of the answer, from now on.
    pub(super) fn answer(self) -> Result<Answer, Failure> {
        let Connection { stream, path, patience } = self.0;
        let until = Some(sys::now() + patience);
        read_head(Wire { stream, path, patience, until })
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.stream.as_fd()
    }
}

fn failure(path: &Path, error: &std::io::Error, patience: Duration) -> Failure {
    let path = path.to_path_buf();
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => Failure::Late(path, patience),
        (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => Failure::Cut(path),
        (_, number) => Failure::Broken(path, number.map_or(Errno::EIO, Errno::from_raw)),
    }
}

/// What bytes come from.
#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    path: PathBuf,
    patience: Duration,
    /// `None`: whenever something comes.
    until: Option<Mono>,
}

impl Wire {
    /// Appends what comes next to `buffer` and says how much that was; 0: the end.
    fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, Failure> {
        let before = buffer.len();
        loop {
            let left = self.until.map(|until| until.since(sys::now()));
            if left == Some(Duration::ZERO) {
                return Err(Failure::Late(self.path.clone(), self.patience));
            }
            let limited = self.stream.set_read_timeout(left);
            buffer.resize(before + CHUNK, 0);
            let result = limited.and_then(|()| self.stream.read(buffer.get_mut(before..).unwrap_or_default()));
            buffer.truncate(before + result.as_ref().copied().unwrap_or(0));
            match result {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&self.path, &error, self.patience)),
            }
        }
    }

    fn nonsense(&self, what: &'static str) -> Failure {
        Failure::Nonsense(self.path.clone(), what)
    }
}

fn read_head(mut wire: Wire) -> Result<Answer, Failure> {
    let mut buffer = Vec::new();
    loop {
        if wire.read(&mut buffer)? == 0 {
            return Err(Failure::Cut(wire.path));
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        match head.parse(&buffer) {
            Ok(httparse::Status::Complete(end)) => {
                let status = head.code.unwrap_or(0);
                let length = body_length(&wire, head.headers)?;
                buffer.drain(..end);
                return Ok(Answer { status, wire, buffer, length });
            }
            Ok(httparse::Status::Partial) if buffer.len() > HEAD_LIMIT => {
                return Err(wire.nonsense("response head too long"));
            }
            Ok(httparse::Status::Partial) => {}
            Err(_) => return Err(wire.nonsense("invalid HTTP response")),
        }
    }
}

/// As `Content-Length` says; `None`: until the connection ends.
fn body_length(wire: &Wire, headers: &[httparse::Header<'_>]) -> Result<Option<usize>, Failure> {
    let named = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if named("Transfer-Encoding").is_some() {
        return Err(wire.nonsense("chunked response"));
    }
    let Some(header) = named("Content-Length") else { return Ok(None) };
    let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
    match length {
        Some(length) if length <= BODY_LIMIT => Ok(Some(length)),
        Some(_) => Err(wire.nonsense("response too large")),
        None => Err(wire.nonsense("response without a valid length")),
    }
}

/// The whole body of an answer.
#[derive(Debug)]
pub(super) struct Document {
    /// As it came.
    pub(super) text: Vec<u8>,
    path: PathBuf,
}

impl Document {
    /// What it says.
    ///
    /// # Errors
    /// It is no JSON, or says nothing of the kind.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.text).map_err(|error| {
            let what = if error.is_data() { "unexpected JSON" } else { "invalid JSON" };
            Failure::Nonsense(self.path.clone(), what)
        })
    }
}

/// The head of an answer has come.
#[derive(Debug)]
pub(super) struct Answer {
    /// Such as 200.
    pub(super) status: u16,
    wire: Wire,
    /// What has come and has not been given out.
    buffer: Vec<u8>,
    length: Option<usize>,
}

impl Answer {
    /// Waits for the rest.
    pub(super) fn whole(mut self) -> Result<Vec<u8>, Failure> {
        loop {
            if let Some(length) = self.length.filter(|length| *length <= self.buffer.len()) {
                self.buffer.truncate(length);
                return Ok(self.buffer);
            }
            if self.buffer.len() > BODY_LIMIT {
                return Err(self.wire.nonsense("response too large"));
            }
            if self.wire.read(&mut self.buffer)? == 0 {
                return if self.length.is_none() { Ok(self.buffer) } else { Err(Failure::Cut(self.wire.path)) };
            }
        }
    }

    /// Waits for the rest, which is JSON: as it came, and what it says.
    pub(super) fn json(self) -> Result<(Vec<u8>, Value), Failure> {
        let document = self.document()?;
        let value = document.read()?;
        Ok((document.text, value))
    }

    /// Waits for the rest, to be read as JSON.
    pub(super) fn document(self) -> Result<Document, Failure> {
        let path = self.wire.path.clone();
        Ok(Document { text: self.whole()?, path })
    }

    /// From now on the lines of a stream come when they come.
    pub(super) fn wait_for_ever(&mut self) {
        self.wire.until = None;
    }

    /// Whole lines, with their ends, as soon as there are any; `None`: that was all.
    pub(super) fn lines(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        // Whoever reads what we print may take his time.
        self.wire.until = self.wire.until.map(|_| sys::now() + self.wire.patience);
        let mut searched = 0;
        loop {
            let new = self.buffer.get(searched..).unwrap_or_default();
            if let Some(position) = new.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(searched + position + 1);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            searched = self.buffer.len();
            if searched > LINE_LIMIT {
                return Err(self.wire.nonsense("response line too long"));
            }
            if self.wire.read(&mut self.buffer)? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Failure::Cut(self.wire.path.clone())) };
            }
        }
    }

    /// Whether a stream that goes on until keepalive ends has ended with an orderly end: then keepalive has taken its
    /// socket away first. Whoever is killed leaves it there.
    pub(super) fn check_end(self) -> Result<(), Failure> {
        if self.wire.path.exists() { Err(Failure::BrokenOff(self.wire.path)) } else { Ok(()) }
    }
}
