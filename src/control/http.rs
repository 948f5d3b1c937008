//! The client side of HTTP/1.1: one request and one response on a connection of its own.
//!
//! Anybody may listen at the path: every wait has a time limit, and every response a size limit.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::socket_paths::SocketPath;
use crate::model::units::format_duration;
use crate::model::{Mono, errno};
use crate::sys::{self, process, socket};

/// Much more than the few hundred bytes of a head that keepalive sends.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 32;
/// Much more than the status of thousands of instances, some hundred KiB.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Much more than a log line: 16 KiB, six times that if each byte is escaped.
const MAX_LINE_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;

const UNWRITABLE: &str = "; no socket can be created in these directories: mount a tmpfs at /run (`docker run --tmpfs /run`), \
     or set KEEPALIVE_SOCKET to a path that can be written, for keepalive and its commands";

/// Why there is no response.
#[derive(Debug)]
pub(super) enum RequestError {
    /// Nothing listens at any of these paths.
    NotListening(Vec<PathBuf>),
    /// Connecting is not permitted.
    PermissionDenied(PathBuf),
    /// Connecting is not permitted even to root, but to this user.
    RootDenied(PathBuf, u32),
    /// The socket is in a directory where anybody may create one, and belongs to another user.
    UntrustedOwner(PathBuf),
    /// A system call failed.
    System(PathBuf, Errno),
    /// The time limit has passed.
    Timeout(PathBuf, Duration),
    /// The response is not one of keepalive.
    InvalidResponse(PathBuf, &'static str),
    /// The connection ended before the response did.
    Truncated(PathBuf),
    /// A stream that lasts until keepalive exits has ended, and keepalive still runs or was killed.
    StreamAborted(PathBuf),
}

impl fmt::Display for RequestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListening(places) => {
                let is_unwritable = places
                    .iter()
                    .all(|place| place.parent().is_none_or(|directory| access(directory, AccessFlags::W_OK).is_err()));
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                write!(
                    formatter,
                    "cannot connect to {}: is keepalive running? (start it with `keepalive` or `keepalive run -- CMD`, or select \
                     another with -c FILE or --socket PATH){}",
                    places.join(" or "),
                    if is_unwritable { UNWRITABLE } else { "" }
                )
            }
            Self::PermissionDenied(place) => write!(
                formatter,
                "permission denied at {}: only root and the user that keepalive runs as may connect",
                place.display()
            ),
            Self::RootDenied(place, user) => write!(
                formatter,
                "permission denied at {}: root lacks the capability CAP_DAC_OVERRIDE here; run this as user {user}, such as with \
                 `docker exec --user {user}`",
                place.display()
            ),
            Self::UntrustedOwner(place) => {
                write!(
                    formatter,
                    "{} belongs to another user and is not trusted (use --socket to connect anyway)",
                    place.display()
                )
            }
            Self::System(place, errno) => {
                write!(formatter, "cannot talk to {}: {}", place.display(), errno::words(*errno))
            }
            Self::Timeout(place, timeout) => {
                write!(formatter, "no response from {} within {}", place.display(), format_duration(*timeout))
            }
            Self::InvalidResponse(place, what) => {
                write!(formatter, "the server at {} is not keepalive: {what}", place.display())
            }
            Self::Truncated(place) => {
                write!(formatter, "the connection to {} was closed before the response was complete", place.display())
            }
            Self::StreamAborted(place) => write!(
                formatter,
                "the stream ended unexpectedly, and {} still exists: keepalive or its logger was killed",
                place.display()
            ),
        }
    }
}

/// Connects to the first of `places` at which something listens.
pub(super) fn connect(places: &[SocketPath], timeout: Duration) -> Result<Connection, RequestError> {
    for SocketPath { path, owner } in places {
        if let Some(owner) = owner
            && fs::symlink_metadata(path).is_ok_and(|file| file.uid() != *owner)
        {
            return Err(RequestError::UntrustedOwner(path.clone()));
        }
        match socket::connect_with_timeout(path, timeout) {
            Ok(stream) => return Ok(Connection { stream, path: path.clone(), timeout }),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED) => {}
            Err(Errno::EACCES | Errno::EPERM) => return Err(denied(path)),
            Err(Errno::EAGAIN) => return Err(RequestError::Timeout(path.clone(), timeout)),
            Err(errno) => return Err(RequestError::System(path.clone(), errno)),
        }
    }
    Err(RequestError::NotListening(places.iter().map(|place| place.path.clone()).collect()))
}

fn denied(path: &Path) -> RequestError {
    // The directory may be closed, too.
    let file = path.ancestors().find_map(|path| fs::symlink_metadata(path).ok());
    match file.map(|file| file.uid()) {
        Some(owner) if owner > 0 && process::effective_user() == 0 => RequestError::RootDenied(path.to_owned(), owner),
        _ => RequestError::PermissionDenied(path.to_owned()),
    }
}

/// A connection on which nothing has been sent.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    path: PathBuf,
    timeout: Duration,
}

impl Connection {
    /// Sends a request without a body. `target` is the path with its query.
    pub(super) fn send(mut self, method: &str, target: &str) -> Result<PendingResponse, RequestError> {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: keepalive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        if let Err(error) = self.stream.write_all(request.as_bytes())
            // The server may respond and close before it has read everything.
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(error_of(&self.path, &error, self.timeout));
        }
        Ok(PendingResponse(self))
    }
}

/// A request that has been sent. Readable: the response has begun to arrive.
#[derive(Debug)]
pub(super) struct PendingResponse(Connection);

impl PendingResponse {
    /// Waits for the head of the response; the time limit starts now.
    pub(super) fn response(self) -> Result<Response, RequestError> {
        let Connection { stream, path, timeout } = self.0;
        let deadline = Some(sys::now() + timeout);
        read_head(Incoming { stream, path, timeout, deadline })
    }
}

impl AsFd for PendingResponse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.stream.as_fd()
    }
}

fn error_of(path: &Path, error: &std::io::Error, timeout: Duration) -> RequestError {
    let path = path.to_path_buf();
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => RequestError::Timeout(path, timeout),
        (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => RequestError::Truncated(path),
        (_, number) => RequestError::System(path, number.map_or(Errno::EIO, Errno::from_raw)),
    }
}

/// The connection from which a response is read.
#[derive(Debug)]
struct Incoming {
    stream: UnixStream,
    path: PathBuf,
    timeout: Duration,
    /// When reading fails with a timeout; `None`: never.
    deadline: Option<Mono>,
}

impl Incoming {
    /// Appends what arrives next to `buffer`, and returns its length; 0: the end.
    fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, RequestError> {
        let before = buffer.len();
        loop {
            let left = self.deadline.map(|deadline| deadline.since(sys::now()));
            if left == Some(Duration::ZERO) {
                return Err(RequestError::Timeout(self.path.clone(), self.timeout));
            }
            let timeout_set = self.stream.set_read_timeout(left);
            buffer.resize(before + READ_BYTES, 0);
            let result = timeout_set.and_then(|()| self.stream.read(buffer.get_mut(before..).unwrap_or_default()));
            buffer.truncate(before + result.as_ref().copied().unwrap_or(0));
            match result {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error_of(&self.path, &error, self.timeout)),
            }
        }
    }

    fn invalid(&self, what: &'static str) -> RequestError {
        RequestError::InvalidResponse(self.path.clone(), what)
    }
}

fn read_head(mut incoming: Incoming) -> Result<Response, RequestError> {
    let mut buffer = Vec::new();
    loop {
        if incoming.read(&mut buffer)? == 0 {
            return Err(RequestError::Truncated(incoming.path));
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        match head.parse(&buffer) {
            Ok(httparse::Status::Complete(end)) => {
                let status = head.code.unwrap_or(0);
                let length = body_length(&incoming, head.headers)?;
                buffer.drain(..end);
                return Ok(Response { status, incoming, buffer, length });
            }
            Ok(httparse::Status::Partial) if buffer.len() > MAX_HEAD_BYTES => {
                return Err(incoming.invalid("response head too long"));
            }
            Ok(httparse::Status::Partial) => {}
            Err(_) => return Err(incoming.invalid("invalid HTTP response")),
        }
    }
}

/// The value of `Content-Length`; `None`: the body ends with the connection.
fn body_length(incoming: &Incoming, headers: &[httparse::Header<'_>]) -> Result<Option<usize>, RequestError> {
    let named = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if named("Transfer-Encoding").is_some() {
        return Err(incoming.invalid("chunked response"));
    }
    let Some(header) = named("Content-Length") else { return Ok(None) };
    let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
    match length {
        Some(length) if length <= MAX_BODY_BYTES => Ok(Some(length)),
        Some(_) => Err(incoming.invalid("response too large")),
        None => Err(incoming.invalid("response without a valid length")),
    }
}

/// The whole body of a response.
#[derive(Debug)]
pub(super) struct Document {
    /// The bytes as they arrived.
    pub(super) text: Vec<u8>,
    path: PathBuf,
}

impl Document {
    /// Parses the body.
    ///
    /// # Errors
    /// [`RequestError::InvalidResponse`]: it is no JSON, or JSON of another kind.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, RequestError> {
        serde_json::from_slice(&self.text).map_err(|error| {
            let what = if error.is_data() { "unexpected JSON" } else { "invalid JSON" };
            RequestError::InvalidResponse(self.path.clone(), what)
        })
    }
}

/// A response of which the head has arrived.
#[derive(Debug)]
pub(super) struct Response {
    /// The status code.
    pub(super) status: u16,
    incoming: Incoming,
    /// What has arrived of the body and has not been returned.
    buffer: Vec<u8>,
    length: Option<usize>,
}

impl AsFd for Response {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.stream.as_fd()
    }
}

impl Response {
    /// The user and the group of the server; `None` if unknown.
    pub(super) fn server(&self) -> Option<(u32, u32)> {
        socket::peer_user_and_group(&self.incoming.stream)
    }

    /// Waits for the rest of the body.
    pub(super) fn body(mut self) -> Result<Vec<u8>, RequestError> {
        loop {
            if let Some(length) = self.length.filter(|length| *length <= self.buffer.len()) {
                self.buffer.truncate(length);
                return Ok(self.buffer);
            }
            if self.buffer.len() > MAX_BODY_BYTES {
                return Err(self.incoming.invalid("response too large"));
            }
            if self.incoming.read(&mut self.buffer)? == 0 {
                return if self.length.is_none() {
                    Ok(self.buffer)
                } else {
                    Err(RequestError::Truncated(self.incoming.path))
                };
            }
        }
    }

    /// Waits for the rest of the body: the bytes, and the JSON.
    pub(super) fn json(self) -> Result<(Vec<u8>, Value), RequestError> {
        let document = self.document()?;
        let value = document.read()?;
        Ok((document.text, value))
    }

    /// Waits for the rest of the body, to be parsed as JSON.
    pub(super) fn document(self) -> Result<Document, RequestError> {
        let path = self.incoming.path.clone();
        Ok(Document { text: self.body()?, path })
    }

    /// Removes the time limit, for a stream.
    pub(super) fn clear_deadline(&mut self) {
        self.incoming.deadline = None;
    }

    /// Whether [`Self::lines`] returns at once: lines have arrived together with the head.
    pub(super) fn has_lines(&self) -> bool {
        self.buffer.contains(&b'\n')
    }

    /// Waits for whole lines, with their newlines; `None`: the end.
    pub(super) fn lines(&mut self) -> Result<Option<Vec<u8>>, RequestError> {
        // The reader of our output may be slow: that time does not count.
        self.incoming.deadline = self.incoming.deadline.map(|_| sys::now() + self.incoming.timeout);
        let mut searched = 0;
        loop {
            let new = self.buffer.get(searched..).unwrap_or_default();
            if let Some(position) = new.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(searched + position + 1);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE_BYTES {
                return Err(self.incoming.invalid("response line too long"));
            }
            if self.incoming.read(&mut self.buffer)? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(RequestError::Truncated(self.incoming.path.clone()))
                };
            }
        }
    }

    /// Waits for all lines, up to the end.
    pub(super) fn all_lines(mut self) -> Result<Vec<u8>, RequestError> {
        let mut all = Vec::new();
        while let Some(lines) = self.lines()? {
            if all.len() > MAX_BODY_BYTES {
                return Err(self.incoming.invalid("response too large"));
            }
            all.extend(lines);
        }
        Ok(all)
    }

    /// Checks that a stream that lasts until keepalive exits has ended in order: keepalive removes its socket first when it
    /// exits, and leaves it when it is killed.
    pub(super) fn check_end(self) -> Result<(), RequestError> {
        if self.incoming.path.exists() { Err(RequestError::StreamAborted(self.incoming.path)) } else { Ok(()) }
    }
}
